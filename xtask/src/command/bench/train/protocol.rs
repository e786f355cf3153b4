//! What the bench and its workers say to each other: requests are words, answers JSON objects, one a line.
//!
//! `t5-model/tests/python/bench_transformers.py` speaks it too.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Untimed steps of a worker before it is ready.
pub const WARM_UP: u32 = 3;

/// What a worker is asked for on its standard input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Request {
    /// So many steps: [`Times`].
    Step(u32),
    /// To end: [`Summary`]. The end of the input asks for the same.
    Quit,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Step(steps) => write!(f, "step {steps}"),
            Request::Quit => f.write_str("quit"),
        }
    }
}

impl FromStr for Request {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let steps = |word: &str| word.parse().ok();
        let request = match words[..] {
            ["quit"] => Some(Request::Quit),
            ["step", count] => steps(count).map(Request::Step),
            _ => None,
        };
        request.ok_or_else(|| format!("expected 'step N' or 'quit', not {line:?}"))
    }
}

/// Said without being asked, once the model stands and has warmed up.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ready {
    pub ready: bool,
    /// Weights of its model.
    pub parameters: u64,
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

/// Why there is no answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Complaint {
    pub error: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Said<Answer> {
    Answer(Answer),
    Complaint(Complaint),
}

/// The answer in a line.
pub fn parse<Answer: DeserializeOwned>(line: &str) -> Result<Answer> {
    match serde_json::from_str(line) {
        Ok(Said::Answer(answer)) => Ok(answer),
        Ok(Said::Complaint(Complaint { error })) => bail!("{error}"),
        Err(_) => bail!("it said {:?}, which is no answer", line.chars().take(80).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Request, Times, parse};

    #[test]
    fn requests_come_back_from_their_lines() {
        for request in [Request::Step(3), Request::Quit] {
            assert_eq!(request.to_string().parse(), Ok(request));
        }
        for line in ["", "step", "step -1", "step 1 2", "stop"] {
            assert!(line.parse::<Request>().is_err(), "{line}");
        }
    }

    #[test]
    fn answers() {
        let times = |line: &str| {
            parse::<Times>(line).map(|times| times.ms).map_err(|error: anyhow::Error| error.to_string())
        };
        assert_eq!(times(r#"{"ms": [1.5, 2]}"#), Ok(vec![1.5, 2.0]));
        assert_eq!(times(r#"{"error": "no memory"}"#), Err("no memory".into()));
        assert_eq!(times("hello"), Err("it said \"hello\", which is no answer".into()));
        assert_eq!(times(r#"{"ms": [NaN]}"#).map_err(|error| error.contains("NaN")), Err(true));
    }
}
