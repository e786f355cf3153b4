//! GLUE as T5 takes it: the eight tasks as text, their metrics, fine-tuning a [`t5_model`] session on them, and
//! scores that can stand beside the paper's Table 5. Sees a session, never a tensor framework.
//!
//! From files to a table: [`files`] reads examples, [`prompt`] turns them into T5's text, [`mod@fine_tune`] trains and
//! answers, [`score`] and [`metrics`] judge the answers, [`report`] and [`table`] show
//! them. [`Glue`] does it for every task and seed. What differs between the tasks stands in one table, [`task`].

mod batch;
mod bootstrap;
pub mod check;
mod confusion;
pub mod error;
mod evaluate;
mod examples;
pub mod files;
pub mod fine_tune;
mod glue;
pub mod metrics;
mod predictions;
pub mod prompt;
mod published;
mod questions;
pub mod report;
mod sampling;
pub mod score;
mod settings;
mod submission;
mod summary;
pub mod table;
pub mod task;

pub use confusion::Confusion;
pub use error::{GlueError, Place, RowProblem};
pub use fine_tune::{FineTuning, Keep, Progress};
pub use glue::Glue;
pub use published::{published_rows, read_rows};
pub use questions::{Questions, lesson};
pub use report::{GlueReport, SeedReport, TaskReport};
pub use score::{GlueScore, TaskScore};
pub use settings::{AtStep, FineTuneSettings, Scoring};
pub use summary::Summary;
pub use table::{Cell, Row, ScoreTable};
pub use task::Task;
