//! GLUE as T5 takes it: the eight tasks as text, their metrics, fine-tuning a [`t5_model`] session on them, and
//! scores that can stand beside the paper's Table 5. Sees a session, never a tensor framework.
//!
//! From files to a table: [`files`] reads examples, [`prompt`] turns them into T5's text, [`mod@fine_tune`] trains and
//! answers, [`score`] and [`metrics`] judge the answers, [`report`] and [`table`] show
//! them. [`Glue`] does it for every task and seed. What differs between the tasks stands in one table, [`task`].

mod answer;
mod benchmark;
pub mod check;
pub mod data;
pub mod error;
pub mod fine_tune;
pub mod metrics;
pub mod prompt;
mod questions;
pub mod report;
pub mod score;
pub mod task;

pub use benchmark::Glue;
pub use error::{GlueError, Place, RowProblem};
pub use fine_tune::settings::{AtStep, FineTuneSettings, Scoring};
pub use fine_tune::{FineTuning, Keep, Progress};
pub use questions::{Questions, lesson};
pub use report::published::{published_rows, read_rows};
pub use report::summary::Summary;
pub use report::table::{Cell, Row, ScoreTable};
pub use report::{GlueReport, SeedReport, TaskReport};
pub use score::confusion::Confusion;
pub use score::{GlueScore, TaskScore};
pub use task::Task;
