//! What a model learns to do with text, as a setting.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::{Result, TextError};
use crate::Error;

/// What a model learns to do with text: how a chunk of tokens becomes an input and a target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Objective {
    /// Each of several spans is replaced by a sentinel, and the target says what the sentinels stand for
    /// (Raffel et al. 2020, Section 3.1.4).
    SpanCorruption {
        /// Share of the tokens that are replaced.
        #[serde(default = "noise_density")]
        noise_density: f64,
        /// Mean length of the replaced spans, in tokens. ByT5: 20 bytes.
        #[serde(default = "mean_span_length")]
        mean_span_length: f64,
    },
    /// Prefix language modelling: the target continues the input (Raffel et al. 2020, Section 3.3.1).
    PrefixLm {
        /// Share of the tokens that follow the prefix, on average.
        #[serde(default = "half")]
        noise_density: f64,
    },
    /// UL2's seven denoisers, each at the same rate (arXiv 2205.05131, Table 1).
    Ul2 {
        /// Begin each input with its denoiser's mode, `[R]`, `[X]` or `[S]`, in the vocabulary's tokens.
        #[serde(default)]
        mode_tokens: bool,
    },
    /// Several denoisers, of which each chunk of text gets one at random.
    Mixture {
        /// Names, or tables with a `kind`, that objective's keys, a `rate` relative to those of the others (by default
        /// 1), and a `mode`, the text that inputs begin with.
        denoisers: Vec<Denoiser>,
    },
}

/// One of the denoisers of a mixture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Denoiser {
    /// As the objective of this name.
    SpanCorruption {
        /// Share of the tokens that are replaced.
        #[serde(default = "noise_density")]
        noise_density: f64,
        /// Mean length of the replaced spans, in tokens.
        #[serde(default = "mean_span_length")]
        mean_span_length: f64,
        /// How often it is drawn, relative to the other denoisers.
        #[serde(default = "one")]
        rate: f64,
        /// Text that its inputs begin with, such as `[X]`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<String>,
    },
    /// As the objective of this name.
    PrefixLm {
        /// Share of the tokens that follow the prefix, on average.
        #[serde(default = "half")]
        noise_density: f64,
        /// How often it is drawn, relative to the other denoisers.
        #[serde(default = "one")]
        rate: f64,
        /// Text that its inputs begin with, such as `[S]`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<String>,
    },
}

/// T5's.
const fn noise_density() -> f64 {
    0.15
}

/// T5's.
const fn mean_span_length() -> f64 {
    3.0
}

/// T5's, for which the prefix may have any length with the same probability.
const fn half() -> f64 {
    0.5
}

const fn one() -> f64 {
    1.0
}

/// UL2's R and X denoisers: modes, mean span lengths and noise densities. For the S denoiser see
/// [`Objective::parts`].
const UL2: [(&str, f64, f64); 6] = [
    ("[R]", 3.0, 0.15),
    ("[R]", 8.0, 0.15),
    ("[X]", 3.0, 0.5),
    ("[X]", 8.0, 0.5),
    ("[X]", 64.0, 0.15),
    ("[X]", 64.0, 0.5),
];
/// The share of the text that UL2's S denoiser predicts, on average.
const UL2_SUFFIX: f64 = 0.25;

/// What a denoiser does to a chunk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Denoising {
    Spans { noise_density: f64, mean_span_length: f64 },
    Prefix { noise_density: f64 },
}

/// A denoiser, whichever objective it comes from.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    pub denoising: Denoising,
    pub rate: f64,
    pub mode: Option<String>,
}

impl Default for Objective {
    fn default() -> Self {
        Self::T5
    }
}

impl Objective {
    /// T5's own span corruption.
    pub const T5: Objective =
        Objective::SpanCorruption { noise_density: noise_density(), mean_span_length: mean_span_length() };

    /// Whether it is T5's own.
    pub fn is_t5(&self) -> bool {
        *self == Self::T5
    }

    /// Its denoisers, one unless it is a mixture.
    ///
    /// UL2's S denoiser corrupts one span, whose length is uniformly distributed with a mean of a quarter of the
    /// text, and which ends where the text ends: a prefix language model.
    pub(super) fn parts(&self) -> Vec<Part> {
        let spans = |mean_span_length, noise_density| Denoising::Spans { noise_density, mean_span_length };
        let only = |denoising| vec![Part { denoising, rate: 1.0, mode: None }];
        match self {
            Objective::SpanCorruption { noise_density, mean_span_length } => {
                only(spans(*mean_span_length, *noise_density))
            }
            Objective::PrefixLm { noise_density } => {
                only(Denoising::Prefix { noise_density: *noise_density })
            }
            Objective::Ul2 { mode_tokens } => {
                let suffix = Denoising::Prefix { noise_density: UL2_SUFFIX };
                let all = UL2.map(|(mode, length, density)| (mode, spans(length, density)));
                let mode = |mode: &str| mode_tokens.then(|| mode.to_owned());
                let all = all.into_iter().chain([("[S]", suffix)]);
                all.map(|(name, denoising)| Part { denoising, rate: 1.0, mode: mode(name) }).collect()
            }
            Objective::Mixture { denoisers } => denoisers.iter().map(Denoiser::part).collect(),
        }
    }

    /// Checks the settings by themselves. Whether they suit a length and a vocabulary is found out where these
    /// are known.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn check(&self) -> Result<()> {
        let parts = self.parts();
        if parts.is_empty() {
            return Err(TextError::NoDenoisers);
        }
        parts.iter().try_for_each(Part::check)
    }
}

impl Denoiser {
    fn part(&self) -> Part {
        match self.clone() {
            Denoiser::SpanCorruption { noise_density, mean_span_length, rate, mode } => {
                Part { denoising: Denoising::Spans { noise_density, mean_span_length }, rate, mode }
            }
            Denoiser::PrefixLm { noise_density, rate, mode } => {
                Part { denoising: Denoising::Prefix { noise_density }, rate, mode }
            }
        }
    }
}

impl Part {
    fn check(&self) -> Result<()> {
        self.denoising.check()?;
        if !(self.rate > 0.0 && self.rate.is_finite()) {
            return Err(TextError::Rate { value: self.rate });
        }
        match &self.mode {
            Some(mode) if mode.trim().is_empty() => {
                Err(TextError::Mode { mode: mode.clone(), problem: "it has no text".to_owned() })
            }
            _ => Ok(()),
        }
    }
}

impl Denoising {
    pub fn check(self) -> Result<()> {
        let (Denoising::Spans { noise_density, .. } | Denoising::Prefix { noise_density }) = self;
        if !(noise_density > 0.0 && noise_density < 1.0) {
            return Err(TextError::NoiseDensity { value: noise_density });
        }
        match self {
            Denoising::Spans { mean_span_length: value, .. } if !(value >= 1.0 && value.is_finite()) => {
                Err(TextError::MeanSpanLength { value })
            }
            _ => Ok(()),
        }
    }
}

/// `[X] span_corruption, noise_density 0.5, mean_span_length 8`
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mode.as_ref().map_or(Ok(()), |mode| write!(f, "{mode} "))?;
        match self.denoising {
            Denoising::Spans { noise_density, mean_span_length } => {
                write!(
                    f,
                    "span_corruption, noise_density {noise_density}, mean_span_length {mean_span_length}"
                )
            }
            Denoising::Prefix { noise_density } => write!(f, "prefix_lm, noise_density {noise_density}"),
        }
    }
}

/// `span_corruption, noise_density 0.15, mean_span_length 3`
impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.parts().as_slice()) {
            (Objective::Ul2 { mode_tokens: false }, _) => f.write_str("ul2"),
            (Objective::Ul2 { mode_tokens: true }, _) => f.write_str("ul2 with mode tokens"),
            (_, [only]) => only.fmt(f),
            (_, parts) => write!(f, "a mixture of {} denoisers", parts.len()),
        }
    }
}

/// A denoiser as an argument: `span_corruption,noise_density=0.5,rate=2,mode=[X]`.
impl FromStr for Denoiser {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self> {
        let unread = |problem| Err(TextError::UnreadDenoiser { problem });
        let mut parts = text.split(',').map(str::trim);
        let kind = parts.next().unwrap_or_default().replace('-', "_");
        let usual = |kind: &str| serde_json::from_value::<Denoiser>(json!({ "kind": kind }));
        let Ok(Value::Object(mut settings)) = usual(&kind).map(|denoiser| json!(denoiser)) else {
            return unread(format!("{kind:?} is neither span_corruption nor prefix_lm"));
        };
        for part in parts {
            let Some((key, value)) = part.split_once('=') else {
                return unread(format!("{part:?} is not KEY=VALUE"));
            };
            let key = key.replace('-', "_");
            let value = match (key.as_str(), value.parse::<f64>()) {
                ("mode", _) => Value::from(value),
                (key, _) if key == "kind" || !settings.contains_key(key) => {
                    let known = settings.keys().filter(|key| *key != "kind").map(String::as_str);
                    let known: Vec<&str> = known.chain(["mode"]).collect();
                    return unread(format!("{kind} has no {key:?}; it has {}", known.join(", ")));
                }
                (_, Ok(number)) if number.is_finite() => Value::from(number),
                (key, _) => return unread(format!("{key} is {value:?}, which is no number")),
            };
            settings.insert(key, value);
        }
        let denoiser: Denoiser = serde_json::from_value(Value::Object(settings))
            .map_err(|error| TextError::UnreadDenoiser { problem: error.to_string() })?;
        denoiser.part().check()?;
        Ok(denoiser)
    }
}

/// An objective as a command line gives it.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "clap", derive(clap::Args), command(next_help_heading = "Objective"))]
pub struct ObjectiveOptions {
    /// What models learn to do with text: fill in spans, go on after a prefix, or UL2's mixture of both
    #[cfg_attr(
        feature = "clap",
        arg(
            long,
            value_enum,
            value_name = "OBJECTIVE",
            default_value = "span_corruption",
            conflicts_with = "denoiser"
        )
    )]
    pub objective: ObjectiveKind,
    /// Share of the tokens that are masked (span_corruption), or that follow the prefix on average (prefix_lm)
    /// [default: 0.15, prefix_lm: 0.5]
    #[cfg_attr(feature = "clap", arg(long, value_name = "SHARE", conflicts_with = "denoiser"))]
    pub noise_density: Option<f64>,
    /// Mean length of the masked spans in tokens (span_corruption); ByT5: 20 bytes [default: 3]
    #[cfg_attr(feature = "clap", arg(long, value_name = "TOKENS", conflicts_with = "denoiser"))]
    pub mean_span_length: Option<f64>,
    /// Begin each input with its denoiser's mode, `[R]`, `[X]` or `[S]` (ul2).
    #[cfg_attr(feature = "clap", arg(long, conflicts_with = "denoiser", help = MODE_TOKENS))]
    pub mode_tokens: bool,
    /// The denoisers of a mixture, such as `span_corruption,noise_density=0.5,mean_span_length=8,rate=2,mode=[X]`
    /// or `prefix_lm`.
    #[cfg_attr(feature = "clap", arg(long, value_name = "KIND[,KEY=VALUE…]", help = DENOISER))]
    pub denoiser: Vec<Denoiser>,
}

#[cfg(feature = "clap")]
const MODE_TOKENS: &str = "Begin each input with its denoiser's mode, [R], [X] or [S] (ul2)";
#[cfg(feature = "clap")]
const DENOISER: &str = "One denoiser of a mixture, such as \
    span_corruption,noise_density=0.5,mean_span_length=8,rate=2,mode=[X] or prefix_lm; repeat the option for each";

/// The kinds of objectives that have names of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[cfg_attr(feature = "clap", clap(rename_all = "snake_case"))]
pub enum ObjectiveKind {
    /// T5's: masked spans are filled in
    #[default]
    #[cfg_attr(feature = "clap", clap(alias = "span-corruption"))]
    SpanCorruption,
    /// The target continues the input
    #[cfg_attr(feature = "clap", clap(alias = "prefix-lm"))]
    PrefixLm,
    /// UL2's seven denoisers
    Ul2,
}

impl ObjectiveOptions {
    /// The objective with these settings, which are still to be [checked](Objective::check).
    ///
    /// # Errors
    /// [`Error::Setting`] for a setting that the objective does not have.
    pub fn objective(&self) -> crate::Result<Objective> {
        if !self.denoiser.is_empty() {
            return Ok(Objective::Mixture { denoisers: self.denoiser.clone() });
        }
        let none = |key, given: bool, name: &str| match given {
            true => Err(Error::Setting { key, problem: format!("{name} has no such setting") }),
            false => Ok(()),
        };
        let (density, length) = (self.noise_density, self.mean_span_length);
        match self.objective {
            ObjectiveKind::SpanCorruption => {
                none("mode_tokens", self.mode_tokens, "span_corruption")?;
                Ok(Objective::SpanCorruption {
                    noise_density: density.unwrap_or(noise_density()),
                    mean_span_length: length.unwrap_or(mean_span_length()),
                })
            }
            ObjectiveKind::PrefixLm => {
                none("mean_span_length", length.is_some(), "prefix_lm")?;
                none("mode_tokens", self.mode_tokens, "prefix_lm")?;
                Ok(Objective::PrefixLm { noise_density: density.unwrap_or(half()) })
            }
            ObjectiveKind::Ul2 => {
                none("noise_density", density.is_some(), "ul2")?;
                none("mean_span_length", length.is_some(), "ul2")?;
                Ok(Objective::Ul2 { mode_tokens: self.mode_tokens })
            }
        }
    }
}
