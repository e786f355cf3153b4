//! Errors for people: several at once, each with its causes and what would fix it.

use std::fmt::Write as _;

use anyhow::Result;

/// What has gone wrong so far: a user fixing an input wants to hear of everything that is wrong with it.
#[derive(Debug, Default)]
pub struct Problems(Vec<anyhow::Error>);

/// More than one error.
#[derive(Debug, thiserror::Error)]
#[error("{}", each(.0, &Plain))]
struct Several(Vec<anyhow::Error>);

impl Problems {
    /// Returns the value, or notes the error.
    pub fn keep<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.add(error)).ok()
    }

    /// Notes an error.
    pub fn add(&mut self, error: anyhow::Error) {
        self.0.push(error);
    }

    /// Whether no error was noted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Fails if any error was noted.
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

/// What would fix an error. The caller knows which flag or key that is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Remedy {
    /// Give a tokenizer from elsewhere.
    Tokenizer,
    /// Give a configuration, because none can be inferred from the weights' shapes.
    Configuration,
    /// Give another configuration than the one inferred from the weights' shapes.
    OtherConfiguration,
    /// Allow the checkpoint to be replaced.
    Overwrite,
    /// Allow results to be replaced, or choose another directory.
    Redo,
}

/// An error and its remedy.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
struct Mendable {
    problem: String,
    remedy: Remedy,
}

/// An error with a known remedy.
pub fn mendable(problem: impl Into<String>, remedy: Remedy) -> anyhow::Error {
    Mendable { problem: problem.into(), remedy }.into()
}

/// How the caller puts errors to its users.
pub trait Wording {
    /// What would fix an error, in the terms of whoever asked for the work.
    fn remedy(&self, remedy: Remedy) -> Option<&'static str> {
        let _ = remedy;
        None
    }

    /// An error's message, where it has a better one than its own.
    fn message(&self, error: &(dyn std::error::Error + 'static)) -> Option<String> {
        let _ = error;
        None
    }
}

/// Errors in their own words.
struct Plain;

impl Wording for Plain {}

/// An error with its causes, without those that its message already spells out.
pub fn causes(error: &anyhow::Error) -> String {
    causes_with(error, &Plain)
}

/// The same in the caller's words, with advice on how to fix it.
pub fn causes_with(error: &anyhow::Error, wording: &dyn Wording) -> String {
    let mut all = error.chain().map(|cause| said(cause, wording));
    let mut text = all.next().unwrap_or_default();
    for cause in all {
        if !text.contains(&cause) {
            let _ = write!(text, "\n  because: {cause}");
        }
    }
    text
}

fn each(errors: &[anyhow::Error], wording: &dyn Wording) -> String {
    let each: Vec<String> = errors.iter().map(|error| causes_with(error, wording)).collect();
    each.join("\n  and: ")
}

fn said(error: &(dyn std::error::Error + 'static), wording: &dyn Wording) -> String {
    if let Some(several) = error.downcast_ref::<Several>() {
        return each(&several.0, wording);
    }
    let message = wording.message(error).unwrap_or_else(|| error.to_string());
    match error.downcast_ref::<Mendable>().and_then(|mendable| wording.remedy(mendable.remedy)) {
        Some(words) => format!("{message}; {words}"),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let error =
            anyhow::anyhow!("no such file").context("cannot read it: no such file").context("cannot run");
        assert_eq!(causes(&error), "cannot run\n  because: cannot read it: no such file");
    }

    #[test]
    fn advice_is_the_callers() {
        let mut problems = Problems::default();
        problems.add(mendable("there is no tokenizer", Remedy::Tokenizer).context("cannot run"));
        problems.add(mendable("it exists", Remedy::Overwrite));
        let error = problems.result().expect_err("two problems");
        struct Advice;
        impl Wording for Advice {
            fn remedy(&self, remedy: Remedy) -> Option<&'static str> {
                (remedy == Remedy::Tokenizer).then_some("name one")
            }
        }
        let text = causes_with(&error, &Advice);
        assert_eq!(text, "cannot run\n  because: there is no tokenizer; name one\n  and: it exists");
        assert_eq!(causes(&error), text.replace("; name one", ""));
    }
}
