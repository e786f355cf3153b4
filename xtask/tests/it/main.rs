//! The program tested from outside.

mod arguments;
#[cfg(feature = "webster")]
mod backends;
#[cfg(unix)]
mod bench_glue;
#[cfg(unix)]
mod bench_train;
#[cfg(target_os = "linux")]
mod bundle;
mod calibrate;
mod check;
mod checkpoints;
mod computation;
mod convert;
mod data;
#[cfg(all(feature = "hub", feature = "parquet"))]
mod data_fetch;
mod dependencies;
mod durable;
mod export;
mod fidelity;
mod forward;
mod help;
#[cfg(feature = "hub")]
mod hub;
#[cfg(feature = "hub")]
mod hub_server;
#[cfg(unix)]
mod installed;
#[cfg(all(feature = "burn", feature = "webster"))]
mod kill;
mod objectives;
mod odd_files;
mod optimizer;
mod page;
#[cfg(unix)]
mod places;
mod program;
#[cfg(all(unix, feature = "burn", feature = "webster"))]
mod readme;
mod recipe_keys;
mod recipe_text;
mod recipes;
mod report;
#[cfg(unix)]
mod scripts;
mod seed_sets;
#[cfg(all(feature = "burn", feature = "webster"))]
mod talk;
