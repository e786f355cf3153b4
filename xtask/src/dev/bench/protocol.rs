//! What benches and their workers say to each other: requests are words, answers JSON objects, one a line.
//!
//! The scripts in `xtask/src/dev/bench/scripts` speak it too.

use anyhow::{Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::terminal::output::print;

/// The request to end; a worker's last words follow. The end of its input asks for the same.
pub const QUIT: &str = "quit";

/// Said without being asked, once the model stands and has warmed up.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ready {
    pub ready: bool,
    /// Weights of its model.
    pub parameters: u64,
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

/// Answers, as a worker.
pub fn say(answer: &impl Serialize) -> Result<()> {
    print(&format!("{}\n", serde_json::to_string(answer)?))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::parse;

    #[derive(Deserialize)]
    struct Times {
        ms: Vec<f64>,
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
