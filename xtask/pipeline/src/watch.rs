//! How a caller follows work in progress, and stops it.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use t5_model::Deviation;
use t5_model::train::{Difference, PretrainingEvent};

use crate::Warning;
use crate::numbers::duration;

/// Follows work in progress. Every method is optional: by default nothing is shown, and nothing stops. Stages that
/// run side by side call from different threads.
///
/// The observers that some methods return are told of the work's progress, and are dropped when it ends.
#[expect(unused_variables, reason = "by default, nothing is shown")]
pub trait Watch: Sync {
    /// Something worth telling happened to `subject`: a stage, a model or a file.
    fn note(&self, subject: &str, note: &Note<'_>) {}

    /// Pretraining for `steps` steps begins.
    fn training(&self, name: &str, steps: u64) -> Box<dyn FnMut(&PretrainingEvent<'_>) + '_> {
        Box::new(|_| ())
    }

    /// Fine-tuning begins.
    fn fine_tuning(&self, name: &str) -> Box<dyn FnMut(&glue_eval::Progress<'_>) + '_> {
        Box::new(|_| ())
    }

    /// Work that proceeds in steps begins. The observer is told how many steps are done, out of how many.
    fn steps(&self, name: &str, doing: &'static str) -> Box<dyn Fn(usize, usize) + '_> {
        Box::new(|_, _| ())
    }

    /// Writing or fetching `total` bytes begins. The observer is told how many more have arrived, from any
    /// thread.
    fn bytes(&self, name: &str, total: u64) -> Box<dyn Fn(u64) + Sync + '_> {
        Box::new(|_| ())
    }

    /// Set when work should stop at the next suitable point.
    fn stop(&self) -> &AtomicBool {
        static NEVER: AtomicBool = AtomicBool::new(false);
        &NEVER
    }

    /// Whether work should stop.
    fn wants_stop(&self) -> bool {
        self.stop().load(Ordering::Relaxed)
    }

    /// Called with `true` before, and with `false` after, any work that checks [`stop`](Watch::stop) and then
    /// saves its state or leaves nothing behind. At other times, only ending the process stops anything.
    fn stoppable(&self, whether: bool) {}
}

/// Shows nothing and never stops.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Watch for Silent {}

/// Work is [`stoppable`](Watch::stoppable) until this is dropped.
pub struct Stoppable<'a>(&'a dyn Watch);

impl<'a> Stoppable<'a> {
    /// Work is stoppable from now on.
    pub fn new(watch: &'a dyn Watch) -> Self {
        watch.stoppable(true);
        Stoppable(watch)
    }
}

impl Drop for Stoppable<'_> {
    fn drop(&mut self) {
        self.0.stoppable(false);
    }
}

/// What is worth reporting besides progress.
#[derive(Clone, Copy, Debug)]
pub enum Note<'a> {
    /// A stage of this kind begins.
    Begins(&'static str),
    /// An earlier run finished the stage.
    FinishedBefore {
        /// Settings of what was measured on the way that have changed since.
        measured: &'a [Difference],
    },
    /// The stage is skipped.
    WithoutGlue,
    /// Another process is at work on the stage; it is waited for when there is nothing else to do.
    Elsewhere,
    /// The stage has just finished.
    Finished {
        /// Wall-clock time of all processes that worked on the stage.
        seconds: f64,
    },
    /// The stage failed while others run. They finish, and then the whole run fails with this error.
    Failed {
        /// The stages that finish.
        others: &'a [&'a str],
    },
    /// A fused child was fitted to its ensemble: the distance on held-out text before and after.
    Calibrated {
        /// Of the child as fused.
        before: &'a Deviation,
        /// Of the fitted child; equal to `before` if fitting brought it no closer.
        after: &'a Deviation,
    },
    /// Something the user should know; work goes on.
    Warning(&'a Warning),
    /// The hub could not be queried again, so the cached model is used.
    FromCache {
        /// Why the query failed.
        because: &'a anyhow::Error,
    },
    /// Out-of-date results were removed, but files that this program did not write are kept.
    Kept {
        /// Where they are.
        directory: &'a Path,
    },
    /// A file does not match this list of checksums.
    FetchedAgain {
        /// The name of the file with the checksums.
        checksums: &'static str,
    },
}

impl fmt::Display for Note<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Begins(kind) => f.write_str(kind),
            Note::FinishedBefore { measured: [] } => f.write_str("finished before"),
            Note::FinishedBefore { measured } => {
                let changes: Vec<String> = measured.iter().map(ToString::to_string).collect();
                write!(f, "finished before, with other evaluations: {}", changes.join("; "))
            }
            Note::Elsewhere => f.write_str("another process is at work on it"),
            Note::WithoutGlue => f.write_str("left out, since GLUE's files were not given"),
            Note::Finished { seconds } => write!(f, "finished in {}", duration(*seconds)),
            Note::Failed { others } => {
                write!(f, "failed; no stage begins any more, but {} will finish", others.join(", "))
            }
            Note::Calibrated { before, after } if before == after => {
                f.write_str("a calibration brought the child no nearer to its ensemble; it is as it was")
            }
            Note::Calibrated { before, after } => write!(
                f,
                "calibrated: {:.2} % from the ensemble's logits on held-out text, before {:.2} %; loss {:.4}, before \
                 {:.4}, the ensemble's {:.4}",
                100.0 * after.logits,
                100.0 * before.logits,
                after.loss,
                before.loss,
                after.expected_loss
            ),
            Note::Warning(warning) => write!(f, "warning: {warning}"),
            Note::FromCache { because } => {
                write!(f, "taken from the cache as it is, without a tokenizer: {because}")
            }
            Note::Kept { directory } => {
                write!(f, "kept what this program did not write in {}", directory.display())
            }
            Note::FetchedAgain { checksums } => write!(f, "not what {checksums} says, fetched again"),
        }
    }
}

/// The error of work that was stopped on request.
#[derive(Debug, thiserror::Error)]
#[error("interrupted{}", left.iter().map(|left| format!(": {left}")).collect::<String>())]
pub struct Interrupted {
    /// What was left, if there is more to say than that the work stopped.
    pub left: Option<String>,
    /// Whether running the same work again resumes it.
    pub resumes: bool,
}
