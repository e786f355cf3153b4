//! The additional messages between `bench glue` and its workers.
//!
//! Also spoken by `xtask/src/dev/bench/scripts/bench_worker.py`.

use glue_eval::Questions;
use serde::{Deserialize, Serialize};

/// The request to answer the set of a number: [`Answers`].
pub const ANSWER: &str = "answer";

/// A set's answers in its order, and how long they took.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answers {
    pub seconds: f64,
    pub answers: Vec<Said>,
}

/// An answer to one prompt.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Said {
    /// The tokens up to but excluding the end token, and their text, for the bench to judge.
    Tokens { tokens: Vec<i32>, text: String },
    /// A valid answer, or `None`.
    Judged(Option<String>),
}

impl Said {
    pub fn judged(self, questions: &Questions<'_>) -> Option<String> {
        match self {
            Said::Tokens { tokens, text } => questions.judge(&tokens, text),
            Said::Judged(answer) => answer,
        }
    }
}

/// A worker's last message.
#[derive(Debug, Serialize, Deserialize)]
pub struct Summary {
    /// The process's peak resident set, where the system reports it.
    pub peak_rss_bytes: Option<u64>,
}
