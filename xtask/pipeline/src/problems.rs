//! Errors for people: several at once, and each with its causes.

use std::fmt::{self, Write as _};

use anyhow::Result;

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

/// An error with its causes, without those that its message already spells out.
pub fn causes(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            let _ = write!(text, "\n  because: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_cause_is_said_once() {
        let error =
            anyhow::anyhow!("no such file").context("cannot read it: no such file").context("cannot run");
        assert_eq!(super::causes(&error), "cannot run\n  because: cannot read it: no such file");
    }
}
