//! What `bench glue` and its workers say to each other besides.
//!
//! `xtask/src/dev/bench/scripts/bench_worker.py` speaks it too.

use std::fmt;
use std::str::FromStr;

use glue_eval::Questions;
use serde::{Deserialize, Serialize};

use crate::dev::bench::protocol::QUIT;

/// What a worker is asked for on its standard input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Request {
    /// To answer the set of this number: [`Answers`].
    Answer(usize),
    /// To end: [`Summary`]; the end of the input asks for the same.
    Quit,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Answer(number) => write!(f, "answer {number}"),
            Request::Quit => f.write_str(QUIT),
        }
    }
}

impl FromStr for Request {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let request = match words[..] {
            [QUIT] => Some(Request::Quit),
            ["answer", number] => number.parse().ok().map(Request::Answer),
            _ => None,
        };
        request.ok_or_else(|| format!("expected 'answer N' or 'quit', not {line:?}"))
    }
}

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

#[cfg(test)]
mod tests {
    use super::Request;

    #[test]
    fn requests_come_back_from_their_lines() {
        for request in [Request::Answer(3), Request::Quit] {
            assert_eq!(request.to_string().parse(), Ok(request));
        }
        for line in ["", "answer", "answer -1", "answer 1 2", "stop"] {
            assert!(line.parse::<Request>().is_err(), "{line}");
        }
    }
}
