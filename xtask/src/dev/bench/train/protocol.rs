//! What `bench train` and its workers say to each other besides.
//!
//! `xtask/src/dev/bench/scripts/bench_transformers.py` speaks it too.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::dev::bench::protocol::QUIT;

/// Untimed steps of a worker before it is ready.
pub const WARM_UP: u32 = 3;

/// What a worker is asked for on its standard input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Request {
    /// So many steps: [`Times`].
    Step(u32),
    /// To end: [`Summary`]; the end of the input asks for the same.
    Quit,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Step(steps) => write!(f, "step {steps}"),
            Request::Quit => f.write_str(QUIT),
        }
    }
}

impl FromStr for Request {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let steps = |word: &str| word.parse().ok();
        let request = match words[..] {
            [QUIT] => Some(Request::Quit),
            ["step", count] => steps(count).map(Request::Step),
            _ => None,
        };
        request.ok_or_else(|| format!("expected 'step N' or 'quit', not {line:?}"))
    }
}

/// Milliseconds of each step.
#[derive(Debug, Serialize, Deserialize)]
pub struct Times {
    pub ms: Vec<f64>,
}

/// A worker's last words.
#[derive(Debug, Serialize, Deserialize)]
pub struct Summary {
    /// Of the last step.
    pub loss: f64,
    /// The process's largest resident set, where the system tells.
    pub peak_rss_bytes: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::Request;

    #[test]
    fn requests_come_back_from_their_lines() {
        for request in [Request::Step(3), Request::Quit] {
            assert_eq!(request.to_string().parse(), Ok(request));
        }
        for line in ["", "step", "step -1", "step 1 2", "stop"] {
            assert!(line.parse::<Request>().is_err(), "{line}");
        }
    }
}
