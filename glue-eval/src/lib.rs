//! GLUE as T5 sees it: the eight tasks as text, their metrics, fine-tuning a [`t5_model`] session on them, and scores
//! that can stand next to the paper's Table 5. The crate sees a session, never a tensor framework.
//!
//! From files to a table, each folder using only those before it:
//!
//! | module | holds |
//! |---|---|
//! | [`metrics`] | accuracy, F1 and the correlations, as scikit-learn and SciPy compute them |
//! | [`task`] | everything that differs between the tasks, as one table |
//! | [`data`] | reads GLUE's TSV and Parquet files |
//! | [`prompt`] | examples as text, and text as answers |
//! | `score` | a model's outputs as scores, with confidence intervals: [`TaskScore`], [`GlueScore`] |
//! | `answer` | tokens and batches; a session's answers to prompts |
//! | `fine_tune` | one model's fine-tuning on a task or a mixture, and what it leaves in its directory: [`FineTuning`] |
//! | `report` | results as tables, next to published ones: [`GlueReport`], [`ScoreTable`] |
//! | `benchmark` | a fine-tuning for every seed and task: [`Glue`] |
//!
//! Beside this road, [`check`] says what is in a task's files, and [`Questions`] poses a task to a model outside of any
//! fine-tuning.

#![warn(missing_docs)]

mod answer;
mod benchmark;
pub mod check;
pub mod data;
mod error;
mod fine_tune;
pub mod metrics;
pub mod prompt;
mod questions;
mod report;
pub mod score;
pub mod task;

pub use answer::Scoring;
pub use benchmark::Glue;
pub use error::{GlueError, Place, RowProblem};
pub use fine_tune::{
    AtStep, ExampleCount, FineTuneSettings, FineTuning, Keep, Progress, StepScore, TaskReport,
};
pub use questions::{Questions, lesson};
pub use report::{
    Cell, GlueReport, Row, ScoreTable, SeedReport, Summary, aligned, columns, published_rows, read_rows,
};
pub use score::{Confusion, GlueScore, MetricScore, Prediction, TaskScore};
pub use task::Task;
