//! GLUE as T5 takes it: the eight tasks as text, their metrics, fine-tuning a [`t5_model`] session on them, and
//! scores that can stand beside the paper's Table 5. Sees a session, never a tensor framework.
//!
//! From files to a table: [`files`] reads examples, [`prompt`] turns them into T5's text, [`mod@fine_tune`] trains and
//! answers, [`score`] and [`metrics`] judge the answers, [`report`] and [`table`] show them. What differs between
//! the tasks stands in one table, [`task`].

mod batch;
pub mod error;
mod evaluate;
pub mod files;
pub mod fine_tune;
pub mod metrics;
pub mod prompt;
pub mod report;
mod sampling;
pub mod score;
mod settings;
pub mod table;
pub mod task;

pub use error::{GlueError, Place, RowProblem};
pub use fine_tune::{OpenSession, Progress, fine_tune, fine_tune_tasks};
pub use report::{GlueReport, TaskReport};
pub use score::{GlueScore, TaskScore};
pub use settings::FineTuneSettings;
pub use table::ScoreTable;
pub use task::Task;
