//! What `bench glue` and its workers say to each other besides.
//!
//! `xtask/src/dev/bench/scripts/bench_worker.py` speaks it too.

use glue_eval::Questions;
use serde::{Deserialize, Serialize};

/// The request to answer the set of a number: [`Answers`].
pub const ANSWER: &str = "answer";

/// A set's answers, in its order, and how long they took.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answers {
    pub seconds: f64,
    pub answers: Vec<Said>,
}

/// An answer to one prompt.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Said {
    /// Tokens up to and without the end token, and the text they are, for whoever can judge them.
    Tokens { tokens: Vec<i32>, text: String },
    /// A valid answer, or none.
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

/// A worker's last words.
#[derive(Debug, Serialize, Deserialize)]
pub struct Summary {
    /// The process's largest resident set, where the system tells.
    pub peak_rss_bytes: Option<u64>,
}
