//! What benches and their workers say to each other, one line each: requests are a word with a number, answers JSON
//! objects.
//!
//! Also spoken by the scripts in `xtask/src/dev/bench/scripts`.

use std::io;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::terminal::output::print;

/// The request to quit, which a worker answers with its last message. The end of its input means the same.
pub const QUIT: &str = "quit";

/// What a worker says without being asked, once the model stands and has warmed up.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ready {
    pub ready: bool,
    /// The number of the model's parameters.
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

/// Parses the answer in a line.
pub fn parse<Answer: DeserializeOwned>(line: &str) -> Result<Answer> {
    match serde_json::from_str(line) {
        Ok(Said::Answer(answer)) => Ok(answer),
        Ok(Said::Complaint(Complaint { error })) => bail!("{error}"),
        Err(_) => bail!("it said {:?}, which is no answer", line.chars().take(80).collect::<String>()),
    }
}

/// Works: is ready, then answers what is asked for with that word and a number, until it is to end.
pub fn serve<Answer: Serialize>(
    parameters: u64,
    word: &str,
    mut answer: impl FnMut(usize) -> Result<Answer>,
) -> Result<()> {
    say(&Ready { ready: true, parameters })?;
    for line in io::stdin().lines() {
        match requested(word, &line.context("cannot read standard input")?) {
            Ok(Some(number)) => say(&answer(number)?)?,
            Ok(None) => break,
            Err(error) => say(&Complaint { error })?,
        }
    }
    Ok(())
}

/// The number in a request of that word; `None` in that to end.
fn requested(word: &str, line: &str) -> Result<Option<usize>, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = match words[..] {
        [QUIT] => Some(None),
        [first, number] if first == word => number.parse().ok().map(Some),
        _ => None,
    };
    number.ok_or_else(|| format!("expected '{word} N' or '{QUIT}', not {line:?}"))
}

/// Says something, as a worker.
pub fn say(answer: &impl Serialize) -> Result<()> {
    print(&format!("{}\n", serde_json::to_string(answer)?))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::{parse, requested};

    #[derive(Deserialize)]
    struct Times {
        ms: Vec<f64>,
    }

    #[test]
    fn requests() {
        assert_eq!(requested("step", "step 3"), Ok(Some(3)));
        assert_eq!(requested("step", "quit"), Ok(None));
        for line in ["", "step", "step -1", "step 1 2", "stop", "answer 3"] {
            let error = format!("expected 'step N' or 'quit', not {line:?}");
            assert_eq!(requested("step", line), Err(error));
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
