//! How answers are found: greedily, by drawing tokens, or by beam search.

use serde::{Deserialize, Serialize};

use super::{Rules, Sampling};
use crate::{Error, Result};

/// How answers are found. Without any of the options that draw or search, every token is the most likely one.
/// The names and their meanings are those of transformers' `generate`, except `beams` and `answers`
/// (`num_beams`, `num_return_sequences`), and that sampling leaves no token out unless it is told to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct Decoding {
    /// The maximum number of tokens per answer [default: what generation_config.json says, or else 64]
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    pub max_new_tokens: Option<usize>,
    /// Answers to each input, which takes sampling or as many beams.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = DEFAULT.answers))]
    pub answers: usize,
    /// Draw tokens at random; implied by the next four.
    #[cfg_attr(feature = "clap", arg(long))]
    pub sample: bool,
    /// Divide logits by this before drawing: less than 1 favours likely tokens [default: 1]
    #[cfg_attr(feature = "clap", arg(long, value_name = "T"))]
    pub temperature: Option<f64>,
    /// Draw from the K most likely tokens only.
    #[cfg_attr(feature = "clap", arg(long, value_name = "K"))]
    pub top_k: Option<usize>,
    /// Draw from the fewest tokens that together are this likely.
    #[cfg_attr(feature = "clap", arg(long, value_name = "P"))]
    pub top_p: Option<f64>,
    /// Draw from tokens at least this likely, relative to the most likely one.
    #[cfg_attr(feature = "clap", arg(long, value_name = "P"))]
    pub min_p: Option<f64>,
    /// Seed for drawing; a draw depends on it and on the input's number, not on the other inputs.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = DEFAULT.seed))]
    pub seed: u64,
    /// Search with this many beams; 1 is greedy.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = DEFAULT.beams))]
    pub beams: usize,
    /// Beams are compared by their log probability divided by length to this power: more than 0 favours long
    /// answers [default: 1]
    #[cfg_attr(feature = "clap", arg(long, value_name = "POWER", allow_negative_numbers = true))]
    pub length_penalty: Option<f64>,
    /// End the search once there are as many finished answers as beams.
    #[cfg_attr(feature = "clap", arg(long))]
    pub early_stopping: bool,
    /// Where answers begin and end, and which tokens they may have.
    #[serde(skip)]
    #[cfg_attr(feature = "clap", arg(skip))]
    pub rules: Rules,
}

const DEFAULT: Decoding = Decoding {
    max_new_tokens: None,
    answers: 1,
    sample: false,
    temperature: None,
    top_k: None,
    top_p: None,
    min_p: None,
    seed: 0,
    beams: 1,
    length_penalty: None,
    early_stopping: false,
    rules: Rules::NONE,
};

/// The most tokens of an answer if nobody says.
const USUAL_LENGTH: usize = 64;

impl Default for Decoding {
    fn default() -> Self {
        DEFAULT
    }
}

/// More tokens than an answer ever has.
const MAX_TOKENS: usize = 1 << 16;
/// More beams or answers than are ever of use.
const MAX_WIDTH: usize = 1 << 10;

/// What a model answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Up to but excluding the end-of-sequence token.
    pub tokens: Vec<i32>,
    /// The log of the answer's probability in nats, including the end-of-sequence token if the answer ended
    /// with it. That of the model: neither a temperature nor the tokens that were left out count.
    pub log_probability: f64,
    /// What beam search compares answers by: the log probability under a length penalty. Otherwise the same
    /// as the log probability.
    pub score: f64,
}

/// The way that a [`Decoding`] asks for.
pub(crate) enum Strategy {
    Greedy,
    Sampling(Sampling),
    Beams { length_penalty: f64 },
}

impl Decoding {
    /// The most likely tokens, up to this many.
    pub fn greedy(max_new_tokens: usize) -> Self {
        Decoding { max_new_tokens: Some(max_new_tokens), ..DEFAULT }
    }

    /// The maximum number of tokens per answer.
    pub fn limit(&self) -> usize {
        self.max_new_tokens.unwrap_or(USUAL_LENGTH)
    }

    /// Whether tokens are drawn.
    pub fn draws(&self) -> bool {
        self.drawing().is_some()
    }

    /// Checks the settings, individually and in combination.
    ///
    /// # Errors
    /// [`Error::Setting`] for the first that cannot be used.
    pub fn check(&self) -> Result<()> {
        let fail = |key: &'static str, problem: String| Err(Error::Setting { key, problem });
        for (key, number, most) in [
            ("max_new_tokens", self.limit(), MAX_TOKENS),
            ("answers", self.answers, MAX_WIDTH),
            ("beams", self.beams, MAX_WIDTH),
        ] {
            if !(1..=most).contains(&number) {
                return fail(key, format!("{number} is not a number from 1 to {most}"));
            }
        }
        if self.temperature == Some(0.0) {
            return fail("temperature", "0 is greedy decoding; leave it out for that".to_owned());
        }
        if let Some(temperature) = self.temperature.filter(|t| !(*t > 0.0 && t.is_finite())) {
            return fail("temperature", format!("{temperature} is not a number above 0"));
        }
        if self.top_k == Some(0) {
            return fail("top_k", "it must be at least 1; leave it out to draw from all tokens".to_owned());
        }
        if let Some(top_p) = self.top_p.filter(|p| !(*p > 0.0 && *p <= 1.0)) {
            return fail("top_p", format!("{top_p} is not a probability above 0 and up to 1"));
        }
        if let Some(min_p) = self.min_p.filter(|p| !(0.0..=1.0).contains(p)) {
            return fail("min_p", format!("{min_p} is not a probability from 0 to 1"));
        }
        let draws = self.drawing();
        if let Some(key) = draws.filter(|_| self.beams > 1) {
            return fail("beams", format!("beam search draws nothing, so it does not go with {key}"));
        }
        if let Some(power) = self.length_penalty {
            if !power.is_finite() {
                return fail("length_penalty", format!("{power} is not a number"));
            }
            if self.beams == 1 {
                return fail("length_penalty", "it compares beams, and there is only one".to_owned());
            }
        }
        if self.early_stopping && self.beams == 1 {
            return fail("early_stopping", "it ends a beam search, and there is only one beam".to_owned());
        }
        match self.answers {
            1 => Ok(()),
            answers if draws.is_none() && self.beams == 1 => fail(
                "answers",
                format!("greedy decoding has one answer, not {answers}; sampling and beams have more"),
            ),
            answers if draws.is_none() && answers > self.beams => {
                fail("answers", format!("{answers} is more than there are beams ({})", self.beams))
            }
            _ => Ok(()),
        }
    }

    /// The first setting that makes tokens be drawn.
    fn drawing(&self) -> Option<&'static str> {
        let asked = [
            ("sample", self.sample),
            ("temperature", self.temperature.is_some()),
            ("top_k", self.top_k.is_some()),
            ("top_p", self.top_p.is_some()),
            ("min_p", self.min_p.is_some()),
        ];
        asked.into_iter().find(|(_, asked)| *asked).map(|(key, _)| key)
    }

    pub(crate) fn strategy(&self) -> Strategy {
        match self.drawing() {
            Some(_) => Strategy::Sampling(Sampling {
                temperature: self.temperature.unwrap_or(1.0),
                top_k: self.top_k.unwrap_or(usize::MAX),
                top_p: self.top_p.unwrap_or(1.0),
                min_p: self.min_p.unwrap_or(0.0),
            }),
            None if self.beams > 1 => Strategy::Beams { length_penalty: self.length_penalty.unwrap_or(1.0) },
            None => Strategy::Greedy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_go_together_is_refused() {
        let default = Decoding::default;
        let refused = [
            Decoding { max_new_tokens: Some(0), ..default() },
            Decoding { answers: 2, ..default() },
            Decoding { answers: 3, beams: 2, ..default() },
            Decoding { beams: 2, top_k: Some(4), ..default() },
            Decoding { temperature: Some(0.0), ..default() },
            Decoding { temperature: Some(f64::NAN), ..default() },
            Decoding { top_k: Some(0), ..default() },
            Decoding { top_p: Some(0.0), ..default() },
            Decoding { top_p: Some(1.5), ..default() },
            Decoding { min_p: Some(-0.1), ..default() },
            Decoding { length_penalty: Some(1.0), ..default() },
            Decoding { length_penalty: Some(f64::INFINITY), beams: 2, ..default() },
            Decoding { early_stopping: true, ..default() },
        ];
        for decoding in refused {
            assert!(decoding.check().is_err(), "{decoding:?}");
        }
        let accepted = [
            default(),
            Decoding { answers: 3, sample: true, ..default() },
            Decoding { answers: 2, beams: 2, length_penalty: Some(-1.0), early_stopping: true, ..default() },
        ];
        for decoding in accepted {
            assert!(decoding.check().is_ok(), "{decoding:?}");
        }
    }
}
