//! The random part of a child, as written in settings.

use std::fmt;
use std::str::FromStr;

use fusion_core::plan::StandardDeviation;
use serde::{Deserialize, Serialize};

/// The random part of a child: `zero`, `normal:STD`, `relative:SHARE`, `db:BELOW`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Cross {
    /// No cross-connections: the child is exact.
    #[default]
    Zero,
    /// A standard deviation.
    Normal(f64),
    /// A standard deviation as a share of the weights' root mean square.
    Relative(f64),
    /// The same in decibels below it (HyperCloning's signal-to-noise ratio).
    Decibels(f64),
}

impl FromStr for Cross {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |number: &str| {
            let number = number.parse().ok().filter(|number: &f64| number.is_finite());
            number.ok_or_else(|| format!("what follows the colon in {text:?} must be a number"))
        };
        let positive = |text: &str| match number(text)? {
            number if number > 0.0 => Ok(number),
            number => Err(format!("the standard deviation must be above 0, but is {number}")),
        };
        match text.split_once(':') {
            None if text == "zero" => Ok(Cross::Zero),
            Some(("normal", std)) => Ok(Cross::Normal(positive(std)?)),
            Some(("relative", share)) => Ok(Cross::Relative(positive(share)?)),
            // From noise ten thousand times the weights down to the limits of f32.
            Some(("db", below)) => match number(below)? {
                below if (-80.0..=700.0).contains(&below) => Ok(Cross::Decibels(below)),
                below => Err(format!("{below} dB is not between -80 and 700")),
            },
            _ => Err(format!("{text:?} is none of zero, normal:STD, relative:SHARE, db:BELOW")),
        }
    }
}

impl TryFrom<String> for Cross {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Cross {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cross::Zero => f.write_str("zero"),
            Cross::Normal(std) => write!(f, "normal:{std}"),
            Cross::Relative(share) => write!(f, "relative:{share}"),
            Cross::Decibels(below) => write!(f, "db:{below}"),
        }
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Cross {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Cross".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^(zero|(normal|relative|db):.+)$" })
    }
}

impl From<Cross> for String {
    fn from(cross: Cross) -> Self {
        cross.to_string()
    }
}

impl Cross {
    /// The standard deviation of the random part, if there is one.
    pub fn deviation(self) -> Option<StandardDeviation> {
        match self {
            Cross::Zero => None,
            Cross::Normal(std) => Some(StandardDeviation::Absolute(std)),
            Cross::Relative(share) => Some(StandardDeviation::Relative(share)),
            Cross::Decibels(below) => Some(StandardDeviation::Relative(10f64.powf(-below / 20.0))),
        }
    }
}
