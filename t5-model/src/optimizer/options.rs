//! Settings of optimisers and schedules one by one, as a command line takes them.

use serde_json::{Map, Value, json};

use super::{Decay, DecayShape, Optimizer};
use crate::{Error, Result};

/// What differs from an optimiser's usual settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct OptimizerOptions {
    /// Share of the weights that an update takes away, times the learning rate (adamw, adamw_scale, muon) [default: 0]
    #[cfg_attr(feature = "clap", arg(long, value_name = "SHARE"))]
    pub weight_decay: Option<f64>,
    /// Decay of the mean of gradients (adamw, adamw_scale, muon for what is no matrix) [default: 0.9]
    #[cfg_attr(feature = "clap", arg(long, value_name = "DECAY"))]
    pub beta1: Option<f64>,
    /// Decay of the mean of squared gradients (adamw, adamw_scale, muon) [default: 0.999]
    #[cfg_attr(feature = "clap", arg(long, value_name = "DECAY"))]
    pub beta2: Option<f64>,
    /// Added to the root of the mean of squares (adamw, adamw_scale, muon) [default: 1e-6, adamw: 1e-8]
    #[cfg_attr(feature = "clap", arg(long, value_name = "EPSILON"))]
    pub epsilon: Option<f64>,
    /// Decay of the mean of matrices' gradients (muon) [default: 0.95]
    #[cfg_attr(feature = "clap", arg(long, value_name = "DECAY"))]
    pub momentum: Option<f64>,
    /// The decay of the mean of squares at update t is 1 - t^-RATE (adafactor) [default: 0.8]
    #[cfg_attr(feature = "clap", arg(long, value_name = "RATE"))]
    pub decay_rate: Option<f64>,
    /// Root mean square that a parameter's change is scaled down to (adafactor) [default: 1]
    #[cfg_attr(feature = "clap", arg(long, value_name = "RMS"))]
    pub clip_threshold: Option<f64>,
    /// Smallest dimension of a matrix whose squares are kept as factors (adafactor) [default: 128]
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    pub min_dim_size_to_factor: Option<usize>,
}

/// What differs from a schedule's usual settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct DecayOptions {
    /// The learning rate at the end (cosine, linear, warmup_stable_decay) [default: 0; cosine 1e-5, or the learning rate
    /// if that is lower]
    #[cfg_attr(feature = "clap", arg(long = "minimum-learning-rate", value_name = "RATE"))]
    pub minimum: Option<f64>,
    /// Updates during which the rate stays at its peak (inverse_square_root) [default: 10000]
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    pub timescale: Option<u64>,
    /// Share of the steps over which the rate decays, at the end (warmup_stable_decay) [default: 0.1]
    #[cfg_attr(feature = "clap", arg(long, value_name = "SHARE", conflicts_with = "decay_steps"))]
    pub decay_share: Option<f64>,
    /// Updates over which the rate decays, the last ones (warmup_stable_decay) [default: a tenth of the steps]
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    pub decay_steps: Option<u64>,
    /// The curve along which the rate decays (warmup_stable_decay) [default: linear]
    #[cfg_attr(feature = "clap", arg(long, value_name = "CURVE"))]
    pub decay_shape: Option<DecayShape>,
}

impl OptimizerOptions {
    /// An optimiser with these settings.
    ///
    /// # Errors
    /// [`Error::Setting`] if it has no such setting.
    pub fn of(&self, optimizer: Optimizer) -> Result<Optimizer> {
        let own = json!(optimizer);
        let name = own["name"].as_str().unwrap_or_default().to_owned();
        serde_json::from_value(with(own, json!(self), &name)?)
            .map_err(|error| Error::Setting { key: "optimizer", problem: error.to_string() })
    }
}

impl DecayOptions {
    /// A decay with these settings.
    ///
    /// # Errors
    /// [`Error::Setting`] if it has no such setting.
    pub fn of(&self, decay: Decay) -> Result<Decay> {
        let own = json!(decay);
        let kind = own["kind"].as_str().unwrap_or_default().to_owned();
        serde_json::from_value(with(own, json!(self), &kind)?)
            .map_err(|error| Error::Setting { key: "schedule", problem: error.to_string() })
    }
}

/// Settings with those options that were given, all of which they must have.
fn with(settings: Value, options: Value, name: &str) -> Result<Value> {
    let (mut settings, options) = (object(settings), object(options));
    for (key, value) in options.into_iter().filter(|(_, value)| !value.is_null()) {
        match settings.get_mut(&key) {
            Some(setting) => *setting = value,
            None => {
                let key = KEYS.into_iter().find(|known| *known == key).unwrap_or("optimizer");
                return Err(Error::Setting { key, problem: format!("{name} has no such setting") });
            }
        }
    }
    Ok(Value::Object(settings))
}

const KEYS: [&str; 13] = [
    "weight_decay",
    "momentum",
    "beta1",
    "beta2",
    "epsilon",
    "decay_rate",
    "clip_threshold",
    "min_dim_size_to_factor",
    "minimum",
    "timescale",
    "decay_share",
    "decay_steps",
    "decay_shape",
];

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_belong_to_optimizers() {
        let options = OptimizerOptions { weight_decay: Some(0.1), beta2: Some(0.95), ..Default::default() };
        let expected = Optimizer::Adamw { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1 };
        assert_eq!(options.of(Optimizer::adamw()).unwrap(), expected);
        let refused = options.of(Optimizer::adafactor()).unwrap_err().to_string();
        assert_eq!(refused, "weight_decay: adafactor has no such setting");
        let none = OptimizerOptions::default();
        assert_eq!(none.of(Optimizer::adafactor()).unwrap(), Optimizer::adafactor());
        let factor = OptimizerOptions { min_dim_size_to_factor: Some(4), ..none };
        let Optimizer::Adafactor { min_dim_size_to_factor: 4, .. } =
            factor.of(Optimizer::adafactor()).unwrap()
        else {
            panic!("not set")
        };
    }

    #[test]
    fn options_belong_to_schedules() {
        let minimum = DecayOptions { minimum: Some(1e-3), ..DecayOptions::default() };
        assert_eq!(minimum.of(Decay::Cosine { minimum: 0.0 }).unwrap(), Decay::Cosine { minimum: 1e-3 });
        let refused = minimum.of(Decay::InverseSquareRoot { timescale: 5 }).unwrap_err().to_string();
        assert_eq!(refused, "minimum: inverse_square_root has no such setting");
        let timescale = DecayOptions { timescale: Some(7), ..DecayOptions::default() };
        let decay = timescale.of(Decay::InverseSquareRoot { timescale: 5 }).unwrap();
        assert_eq!(decay, Decay::InverseSquareRoot { timescale: 7 });
    }
}
