//! Learning rates over the course of training.

#[cfg(feature = "clap")]
use clap::builder::PossibleValue;
use serde::{Deserialize, Serialize};

/// How the learning rate decays after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Decay {
    /// Not at all.
    Constant,
    /// `peak · sqrt(timescale / max(updates, timescale))`.
    ///
    /// With a peak of 0.01 and a timescale of 10⁴, T5's `1 / sqrt(max(step, 10⁴))`.
    InverseSquareRoot {
        /// Updates during which the rate stays at its peak.
        #[serde(default = "t5_timescale")]
        timescale: u64,
    },
    /// To `minimum` along half a cosine.
    Cosine {
        /// The rate at the end; the default is the peak, if that is lower.
        #[serde(default = "nano_t5_minimum")]
        minimum: f64,
    },
    /// To `minimum` along a line.
    Linear {
        /// The rate at the end.
        #[serde(default)]
        minimum: f64,
    },
    /// Not at all until the last steps, in which it decays to `minimum` (MiniCPM's WSD).
    ///
    /// With a share of 1 it decays from the end of the warm-up.
    #[serde(alias = "wsd")]
    WarmupStableDecay {
        /// Share of all steps over which the rate decays, at the end.
        #[serde(default = "mini_cpm_share")]
        decay_share: f64,
        /// The number of these steps, in place of a share of them.
        #[serde(default)]
        decay_steps: Option<u64>,
        /// The curve along which it decays.
        #[serde(default)]
        decay_shape: DecayShape,
        /// The rate at the end.
        #[serde(default)]
        minimum: f64,
    },
}

/// A curve from 1 to 0, with `t` from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum DecayShape {
    /// `1 - t`
    #[default]
    Linear,
    /// `(1 + cos(π·t)) / 2`
    Cosine,
    /// `1 - sqrt(t)` (Hägele et al., arXiv 2405.18392)
    #[serde(rename = "1-sqrt")]
    #[cfg_attr(feature = "clap", value(name = "1-sqrt"))]
    OneMinusSquareRoot,
}

impl DecayShape {
    fn at(self, progress: f64) -> f64 {
        match self {
            DecayShape::Linear => 1.0 - progress,
            DecayShape::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
            DecayShape::OneMinusSquareRoot => 1.0 - progress.sqrt(),
        }
    }
}

/// MiniCPM (arXiv 2404.06395): a tenth of the steps suffices.
const fn mini_cpm_share() -> f64 {
    0.1
}

const fn t5_timescale() -> u64 {
    10_000
}

const fn nano_t5_minimum() -> f64 {
    1e-5
}

#[cfg(feature = "clap")]
impl clap::ValueEnum for Decay {
    fn value_variants<'a>() -> &'a [Self] {
        const {
            &[
                Decay::Constant,
                Decay::InverseSquareRoot { timescale: t5_timescale() },
                Decay::Cosine { minimum: nano_t5_minimum() },
                Decay::Linear { minimum: 0.0 },
                Decay::WarmupStableDecay {
                    decay_share: mini_cpm_share(),
                    decay_steps: None,
                    decay_shape: DecayShape::Linear,
                    minimum: 0.0,
                },
            ]
        }
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Decay::Constant => PossibleValue::new("constant"),
            Decay::InverseSquareRoot { .. } => {
                PossibleValue::new("inverse_square_root").alias("inverse-square-root").help("T5's schedule")
            }
            Decay::Cosine { .. } => {
                PossibleValue::new("cosine").help("Decay to 1e-5, or to the learning rate if that is lower")
            }
            Decay::Linear { .. } => PossibleValue::new("linear").help("Decay to 0"),
            Decay::WarmupStableDecay { .. } => PossibleValue::new("warmup_stable_decay")
                .aliases(["warmup-stable-decay", "wsd"])
                .help("Stay at the learning rate, and decay to 0 over the last tenth of the steps"),
        })
    }
}

/// A warm-up and a decay, once or in cycles. In files, its keys stand among those of the training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Schedule {
    /// The learning rate at the end of the warm-up.
    #[serde(rename = "learning_rate")]
    #[cfg_attr(feature = "clap", arg(long = "learning-rate", value_name = "RATE", default_value_t = DEFAULT.peak))]
    pub peak: f64,
    /// Updates during which the rate rises linearly [default: a tenth of the steps].
    ///
    /// Of each cycle's steps, if there are several.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    pub warm_up: Option<u64>,
    /// Share of the learning rate that the warm-up starts from.
    ///
    /// nanoT5: 0.5.
    #[cfg_attr(feature = "clap", arg(long, value_name = "SHARE", default_value_t = DEFAULT.warm_up_from))]
    pub warm_up_from: f64,
    /// How the learning rate decays after the warm-up.
    #[serde(rename = "schedule")]
    #[cfg_attr(
        feature = "clap",
        arg(long = "schedule", value_enum, value_name = "SCHEDULE", default_value = "cosine")
    )]
    pub decay: Decay,
    /// How many times warm-up and decay are repeated, in cycles of equal length.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = DEFAULT.cycles))]
    pub cycles: u64,
    /// Updates that the schedule treats as already made.
    ///
    /// The schedule continues from there: after its warm-up, with the decay that has already happened.
    #[serde(rename = "schedule_offset")]
    #[cfg_attr(
        feature = "clap",
        arg(long = "schedule-offset", value_name = "N", default_value_t = DEFAULT.offset)
    )]
    pub offset: u64,
    /// Number of initial updates over which the learning rate rises from 0 to the scheduled value.
    ///
    /// It rises linearly (Staged Training, arXiv 2203.06211: 200 updates).
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = DEFAULT.re_warm_up))]
    pub re_warm_up: u64,
}

const DEFAULT: Schedule = Schedule::DEFAULT;

impl Default for Schedule {
    fn default() -> Self {
        DEFAULT
    }
}

/// A share of the steps: one in so many is in the warm-up if no number is given.
pub(crate) const WARM_UP_SHARE: u64 = 10;

impl Schedule {
    pub(crate) const DEFAULT: Self = Schedule {
        warm_up: None,
        decay: Decay::Cosine { minimum: nano_t5_minimum() },
        ..Schedule::constant(2e-2)
    };

    /// A rate that never changes.
    pub const fn constant(rate: f64) -> Self {
        Schedule {
            peak: rate,
            warm_up: Some(0),
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
        let warm_up = self.warm_up(total);
        share * self.planned(updates.saturating_add(self.offset), total.saturating_add(self.offset), warm_up)
    }

    /// Updates in each warm-up of a training with so many steps.
    pub fn warm_up(&self, steps: u64) -> u64 {
        self.warm_up.unwrap_or(steps / WARM_UP_SHARE / self.cycles.max(1))
    }

    /// The rate given by warm-up, decay and cycles alone.
    fn planned(&self, updates: u64, total: u64, warm_up: u64) -> f64 {
        let cycle = (total / self.cycles.max(1)).max(1);
        // The last cycle includes the remainder of the division.
        let first = (updates / cycle).min(self.cycles.max(1) - 1) * cycle;
        let length = if first / cycle + 1 >= self.cycles { total.saturating_sub(first) } else { cycle };
        let at = updates - first;
        if at < warm_up {
            let progress = at as f64 / warm_up as f64;
            return self.peak * (self.warm_up_from + (1.0 - self.warm_up_from) * progress);
        }
        let span = length.saturating_sub(warm_up).max(1);
        let progress = ((at - warm_up) as f64 / span as f64).min(1.0);
        match self.decay {
            Decay::Constant => self.peak,
            Decay::InverseSquareRoot { timescale } => {
                let timescale = timescale.max(1);
                self.peak * (timescale as f64 / at.max(timescale) as f64).sqrt()
            }
            Decay::Cosine { minimum } => {
                let minimum = minimum.min(self.peak);
                minimum + (self.peak - minimum) * DecayShape::Cosine.at(progress)
            }
            Decay::Linear { minimum } => minimum + (self.peak - minimum) * DecayShape::Linear.at(progress),
            Decay::WarmupStableDecay { decay_share, decay_steps, decay_shape, minimum } => {
                // No more than follow the warm-up.
                let share = (decay_share * length as f64).round() as u64;
                let steps = decay_steps.unwrap_or(share).min(length.saturating_sub(warm_up));
                let stable = length - steps;
                if at < stable {
                    return self.peak;
                }
                let progress = ((at - stable) as f64 / steps.max(1) as f64).min(1.0);
                minimum + (self.peak - minimum) * decay_shape.at(if steps == 0 { 1.0 } else { progress })
            }
        }
    }

    /// What is wrong with these settings, if anything: the setting's key, and the problem.
    #[cfg(feature = "train")]
    pub(crate) fn problem(&self, steps: u64) -> Option<(&'static str, String)> {
        let minimum = match self.decay {
            Decay::Cosine { minimum }
            | Decay::Linear { minimum }
            | Decay::WarmupStableDecay { minimum, .. } => minimum,
            Decay::Constant | Decay::InverseSquareRoot { .. } => 0.0,
        };
        let bad = |rate: f64| !(rate.is_finite() && rate >= 0.0);
        if bad(self.peak) {
            return Some(("learning_rate", format!("{} is not a rate of at least 0", self.peak)));
        }
        let usual = minimum == nano_t5_minimum();
        if bad(minimum) || (minimum > self.peak && !usual) {
            let problem =
                format!("the minimum is {minimum}; it lies between 0 and the learning rate {}", self.peak);
            return Some(("schedule", problem));
        }
        if let Decay::WarmupStableDecay { decay_share, .. } = self.decay
            && !(0.0..=1.0).contains(&decay_share)
        {
            return Some((
                "schedule",
                format!("decay_share is {decay_share}, not a share of the steps, from 0 to 1"),
            ));
        }
        if !(0.0..=1.0).contains(&self.warm_up_from) {
            let problem = format!("{} is not a share of the learning rate, from 0 to 1", self.warm_up_from);
            return Some(("warm_up_from", problem));
        }
        if self.cycles == 0 {
            return Some(("cycles", "it must be at least 1".into()));
        }
        if steps == 0 {
            return None;
        }
        let cycle = steps.saturating_add(self.offset) / self.cycles;
        if let Some(warm_up) = self.warm_up.filter(|warm_up| *warm_up >= cycle.max(1)) {
            let there = match self.cycles {
                1 => format!("there are {cycle} steps in all"),
                cycles => format!("each of {cycles} cycles has {cycle} steps"),
            };
            return Some(("warm_up", format!("it is {warm_up}, but {there}")));
        }
        if let Decay::WarmupStableDecay { decay_steps: Some(decay), .. } = self.decay {
            let after = cycle.saturating_sub(self.warm_up(steps));
            if decay > after {
                let there = match self.cycles {
                    1 => format!("there are {after} steps after the warm-up"),
                    cycles => format!("each of {cycles} cycles has {after} steps after its warm-up"),
                };
                return Some(("schedule", format!("decay_steps is {decay}, but {there}")));
            }
        }
        let re_warm_up = self.re_warm_up;
        (re_warm_up >= steps)
            .then(|| ("re_warm_up", format!("it is {re_warm_up}, but there are {steps} steps in all")))
    }
}
