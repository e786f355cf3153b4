//! The program from the outside.

mod arguments;
mod checkpoints;
mod dependencies;
mod forward;
mod help;
mod program;
mod recipes;
mod report;
