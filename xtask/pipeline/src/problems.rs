//! Several things that are wrong at once.

use std::fmt;

use anyhow::Result;

use crate::output::causes;

/// What has gone wrong so far. Whoever mends an input wants to hear of everything that is wrong with it.
#[derive(Debug, Default)]
pub struct Problems(Vec<anyhow::Error>);

/// More than one error.
#[derive(Debug)]
struct Several(Vec<anyhow::Error>);

impl Problems {
    /// The value, or else the error is noted.
    pub fn keep<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.0.push(error)).ok()
    }

    /// Fails if anything was noted.
    pub fn result(mut self) -> Result<()> {
        match (self.0.pop(), self.0.is_empty()) {
            (None, _) => Ok(()),
            (Some(only), true) => Err(only),
            (Some(last), false) => {
                self.0.push(last);
                Err(anyhow::Error::new(Several(self.0)))
            }
        }
    }
}

impl fmt::Display for Several {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            write!(f, "{}{}", if index == 0 { "" } else { "\n  and: " }, causes(error))?;
        }
        Ok(())
    }
}

impl std::error::Error for Several {}
