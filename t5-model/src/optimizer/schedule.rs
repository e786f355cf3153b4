//! Learning rates over the course of training.

#[cfg(feature = "clap")]
use clap::builder::PossibleValue;
use serde::{Deserialize, Serialize};

/// How the learning rate decays after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Decay {
    /// Not at all.
    Constant,
    /// `peak · sqrt(offset / max(updates, offset))`: with peak 0.01 and offset 10⁴,
    /// T5's `1 / sqrt(max(step, 10⁴))`.
    InverseSquareRoot {
        /// Updates during which the rate stays at its peak.
        offset: u64,
    },
    /// To `minimum` along half a cosine.
    Cosine {
        /// The rate at the end.
        #[serde(default)]
        minimum: f64,
    },
    /// To `minimum` along a line.
    Linear {
        /// The rate at the end.
        #[serde(default)]
        minimum: f64,
    },
}

#[cfg(feature = "clap")]
impl clap::ValueEnum for Decay {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Decay::Constant,
            Decay::InverseSquareRoot { offset: 10_000 },
            Decay::Cosine { minimum: 1e-5 },
            Decay::Linear { minimum: 0.0 },
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Decay::Constant => PossibleValue::new("constant"),
            Decay::InverseSquareRoot { .. } => {
                PossibleValue::new("inverse-square-root").alias("inverse_square_root").help("T5's schedule")
            }
            Decay::Cosine { .. } => {
                PossibleValue::new("cosine").help("Decay to 1e-5, or to the learning rate if that is lower")
            }
            Decay::Linear { .. } => PossibleValue::new("linear").help("Decay to 0"),
        })
    }
}

/// A warm-up and a decay, once or in cycles.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct Schedule {
    /// The learning rate at the end of the warm-up.
    #[cfg_attr(feature = "clap", arg(long = "learning-rate", value_name = "RATE", default_value_t = 2e-2))]
    pub peak: f64,
    /// Updates during which the rate rises linearly.
    #[serde(default)]
    #[cfg_attr(feature = "clap", arg(skip))]
    pub warm_up: u64,
    /// Share of the peak that the warm-up starts from (0; nanoT5: 0.5).
    #[serde(default)]
    #[cfg_attr(feature = "clap", arg(long, value_name = "SHARE", default_value_t))]
    pub warm_up_from: f64,
    /// How the learning rate decays after the warm-up.
    #[cfg_attr(
        feature = "clap",
        arg(long = "schedule", value_enum, value_name = "SCHEDULE", default_value = "cosine")
    )]
    pub decay: Decay,
    /// How many times warm-up and decay are repeated, in cycles of equal length.
    #[serde(default = "one")]
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = one()))]
    pub cycles: u64,
    /// Updates that the schedule treats as already made.
    ///
    /// The schedule continues from there: after its warm-up, with the decay that has already happened.
    #[serde(default)]
    #[cfg_attr(feature = "clap", arg(long = "schedule-offset", value_name = "N", default_value_t))]
    pub offset: u64,
    /// Number of initial updates over which the learning rate rises from 0 to the scheduled value.
    ///
    /// It rises linearly (Staged Training, arXiv 2203.06211: 200 updates).
    #[serde(default)]
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t))]
    pub re_warm_up: u64,
}

fn one() -> u64 {
    1
}

impl Schedule {
    /// A rate that never changes.
    pub const fn constant(rate: f64) -> Self {
        Schedule {
            peak: rate,
            warm_up: 0,
            warm_up_from: 0.0,
            decay: Decay::Constant,
            cycles: 1,
            offset: 0,
            re_warm_up: 0,
        }
    }

    /// The rate of the update after `updates` others, out of `total`; transformers' `lr_lambda(updates)`.
    pub fn rate(&self, updates: u64, total: u64) -> f64 {
        let share = match updates < self.re_warm_up {
            true => updates as f64 / self.re_warm_up as f64,
            false => 1.0,
        };
        share * self.planned(updates.saturating_add(self.offset), total.saturating_add(self.offset))
    }

    /// The rate given by warm-up, decay and cycles alone.
    fn planned(&self, updates: u64, total: u64) -> f64 {
        let cycle = (total / self.cycles.max(1)).max(1);
        // The last cycle includes the remainder of the division.
        let first = (updates / cycle).min(self.cycles.max(1) - 1) * cycle;
        let length = if first / cycle + 1 >= self.cycles { total.saturating_sub(first) } else { cycle };
        let at = updates - first;
        if at < self.warm_up {
            let progress = at as f64 / self.warm_up as f64;
            return self.peak * (self.warm_up_from + (1.0 - self.warm_up_from) * progress);
        }
        let span = length.saturating_sub(self.warm_up).max(1);
        let progress = ((at - self.warm_up) as f64 / span as f64).min(1.0);
        match self.decay {
            Decay::Constant => self.peak,
            Decay::InverseSquareRoot { offset } => {
                let offset = offset.max(1);
                self.peak * (offset as f64 / at.max(offset) as f64).sqrt()
            }
            Decay::Cosine { minimum } => {
                minimum + (self.peak - minimum) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
            Decay::Linear { minimum } => minimum + (self.peak - minimum) * (1.0 - progress),
        }
    }

    /// What is wrong with these settings, if anything.
    pub fn problem(&self) -> Option<String> {
        let minimum = match self.decay {
            Decay::Cosine { minimum } | Decay::Linear { minimum } => minimum,
            _ => 0.0,
        };
        let bad = |rate: f64| !(rate.is_finite() && rate >= 0.0);
        if bad(self.peak) {
            return Some(format!("peak is {}; a rate is at least 0", self.peak));
        }
        if bad(minimum) || minimum > self.peak {
            return Some(format!("minimum is {minimum}; it lies between 0 and the peak {}", self.peak));
        }
        if !(0.0..=1.0).contains(&self.warm_up_from) {
            return Some(format!("warm_up_from is {}; it is a share of the peak", self.warm_up_from));
        }
        (self.cycles == 0).then(|| "cycles is 0; one pass is 1".into())
    }
}
