//! What a training may cost: the number of its steps may follow from the computation behind it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context as _, Result, ensure};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use toml::Spanned;

use super::{Input, Keys, Known};
use crate::numbers::flop;

/// The computation that all training behind a model may take, its own included.
#[derive(Clone, Debug, PartialEq)]
pub enum Budget {
    /// Floating-point operations, forward and backward.
    Flops(f64),
    /// As much as is behind another stage's model, or a share of it.
    Of {
        /// The stage, or a step of its training.
        stage: Input,
        /// 1 for as much.
        share: f64,
    },
}

/// A budget as a recipe writes it: `"baseline"`, `42.8e12`, or `{ of = "baseline", share = 0.6 }`.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum BudgetKey {
    Flops(f64),
    Stage(String),
    #[serde(rename_all = "snake_case")]
    Share {
        of: String,
        #[serde(default = "all")]
        share: f64,
    },
}

fn all() -> f64 {
    1.0
}

impl JsonSchema for BudgetKey {
    fn schema_name() -> Cow<'static, str> {
        "Budget".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "string" },
            { "type": "number" },
            {
                "type": "object",
                "properties": {
                    "of": { "type": "string", "description": "A stage that pretrains." },
                    "share": { "type": "number", "default": 1.0, "description": "How much of its computation." },
                },
                "required": ["of"],
                "additionalProperties": false,
            },
        ] })
    }
}

impl BudgetKey {
    /// The budget, which a stage's keys say at a place of the recipe.
    pub fn read(key: Spanned<BudgetKey>, keys: &mut Keys<'_>) -> Result<Budget> {
        let span = key.span();
        let wrong = |keys: &Keys<'_>, problem: String| Err(keys.error_at(span.clone(), problem));
        Ok(match key.into_inner() {
            BudgetKey::Flops(flops) if flops.is_finite() && flops > 0.0 => Budget::Flops(flops),
            BudgetKey::Flops(flops) => {
                let problem = format!("`computation` is a positive number of FLOP or a stage, not {flops}");
                return wrong(keys, problem);
            }
            BudgetKey::Share { share, .. } if !(share.is_finite() && share > 0.0) => {
                return wrong(keys, format!("`computation.share` is a positive number, not {share}"));
            }
            BudgetKey::Stage(stage) => {
                Budget::Of { stage: keys.reference(Spanned::new(span, stage))?, share: 1.0 }
            }
            BudgetKey::Share { of, share } => {
                Budget::Of { stage: keys.reference(Spanned::new(span, of))?, share }
            }
        })
    }
}

impl Budget {
    /// The stage that it is measured by, or a step of its training, if any.
    pub fn input(&self) -> Option<&Input> {
        match self {
            Budget::Flops(_) => None,
            Budget::Of { stage, .. } => Some(stage),
        }
    }

    /// The name of that stage.
    pub fn stage(&self) -> Option<&str> {
        self.input().and_then(Input::stage)
    }

    /// Floating-point operations, as far as the other stage's are known.
    fn flops(&self, known: &Known<'_>) -> Result<f64> {
        match self {
            Budget::Flops(flops) => Ok(*flops),
            Budget::Of { stage, share } => {
                let spent = known.computation(stage)?;
                let spent =
                    spent.with_context(|| format!("the computation behind stage {stage} is not known"))?;
                Ok(share * spent.total())
            }
        }
    }

    /// The number of updates that it pays for after what is `behind` the model that training starts from:
    /// the most that do not exceed it.
    pub fn steps(&self, known: &Known<'_>, behind: &Spent, each: f64) -> Result<u64> {
        let (allowed, behind) = (self.flops(known)?, behind.total());
        let allows = self.allows(allowed);
        ensure!(
            behind < allowed,
            "{allows}, but the training behind the model it starts from takes {}",
            flop(behind)
        );
        // Sums of the same numbers in another order may differ in their last digits.
        let steps = ((allowed * (1.0 + 1e-12) - behind) / each).floor();
        ensure!(
            steps >= 1.0,
            "{allows}, of which {} are left for its own training; one update takes {}",
            flop(allowed - behind),
            flop(each)
        );
        ensure!(steps < MOST_STEPS, "{allows}, which are more updates than can be counted");
        Ok(steps as u64)
    }

    /// What it allows, which is so many floating-point operations.
    fn allows(&self, flops: f64) -> String {
        match self {
            Budget::Flops(_) => format!("`computation` allows {}", flop(flops)),
            Budget::Of { .. } => format!("`computation` allows {}, {self}", flop(flops)),
        }
    }
}

/// A float counts so far.
const MOST_STEPS: f64 = (1_u64 << 53) as f64;

/// `as much as "baseline" takes`
impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Budget::Flops(_) => f.write_str("as much as `computation` allows"),
            Budget::Of { stage, share } if *share == 1.0 => write!(f, "as much as {stage} takes"),
            Budget::Of { stage, share } => {
                write!(f, "{} % of what {stage} takes", rounded(100.0 * share))
            }
        }
    }
}

/// Without the digits that a product of two decimal fractions has too many of.
fn rounded(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}

/// The training behind a model, in floating-point operations, each stretch once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spent(BTreeMap<String, f64>);

impl Spent {
    /// Adds a stretch of training. Of one that is known already, the longer part counts.
    pub fn add(&mut self, name: String, flops: f64) {
        let known = self.0.entry(name).or_default();
        *known = known.max(flops);
    }

    /// The same, with only a part of one stretch.
    pub fn with_part(mut self, name: &str, flops: f64) -> Self {
        self.0.insert(name.to_owned(), flops);
        self
    }

    /// Adds what is behind another model.
    pub fn join(&mut self, other: &Spent) {
        other.0.iter().for_each(|(name, flops)| self.add(name.clone(), *flops));
    }

    /// All of it.
    pub fn total(&self) -> f64 {
        // The sum of nothing would be -0.
        self.0.values().fold(0.0, |sum, flops| sum + flops)
    }
}

#[cfg(test)]
mod tests {
    use super::{Budget, Known, Spent};
    use crate::Silent;
    use crate::stage::{Forecast, Input};

    fn spent(parts: &[(&str, f64)]) -> Spent {
        let mut spent = Spent::default();
        parts.iter().for_each(|(name, flops)| spent.add((*name).to_owned(), *flops));
        spent
    }

    #[test]
    fn a_stretch_of_training_counts_once() {
        let mut both = spent(&[("trunk", 3.0), ("a", 2.0)]);
        both.join(&spent(&[("trunk", 5.0), ("b", 1.0)]));
        assert_eq!(both.total(), 8.0);
        assert_eq!(Spent::default().total().to_string(), "0");
    }

    #[test]
    fn steps_are_the_most_that_a_budget_pays_for() {
        let baseline = Forecast { computation: Some(spent(&[("baseline", 0.3e12)])), ..Forecast::default() };
        let known = Known {
            stages: vec![("baseline", baseline), ("other", Forecast::default())],
            ..Known::nothing(&Silent)
        };
        let steps = |budget: &Budget, behind: &[(&str, f64)], each: f64| {
            budget.steps(&known, &spent(behind), each).map_err(|error| error.to_string())
        };
        let of = |share| Budget::Of { stage: Input::Stage("baseline".into()), share };
        assert_eq!(steps(&Budget::Flops(1e12), &[], 3e11), Ok(3));
        // In units of 1e-12, 0.1 + 0.2 is more than 0.3 by its last digit.
        let small = Forecast { computation: Some(spent(&[("baseline", 0.3)])), ..Forecast::default() };
        let known_small = Known { stages: vec![("baseline", small)], ..Known::nothing(&Silent) };
        assert_eq!(of(1.0).steps(&known_small, &spent(&[("a", 0.1)]), 0.1).expect("steps"), 2);
        assert_eq!(steps(&of(0.5), &[("a", 0.1e12)], 0.02e12), Ok(2));
        let refused = [
            (
                steps(&of(1.0), &[("a", 0.2e12), ("b", 0.1e12)], 0.1e12),
                "`computation` allows 300.0 GFLOP, as much as baseline takes, but the training behind the model \
                 it starts from takes 300.0 GFLOP",
            ),
            (
                steps(&of(0.6), &[("a", 0.17e12)], 0.02e12),
                "`computation` allows 180.0 GFLOP, 60 % of what baseline takes, of which 10.0 GFLOP are left for its own \
                 training; one update takes 20.0 GFLOP",
            ),
            (
                steps(&Budget::Flops(1e30), &[], 1.0),
                "`computation` allows 1000000000.0 ZFLOP, which are more updates than can be counted",
            ),
            (
                steps(&Budget::Of { stage: Input::Stage("other".into()), share: 1.0 }, &[], 1.0),
                "the computation behind stage other is not known",
            ),
        ];
        for (refused, why) in refused {
            assert_eq!(refused, Err(why.to_owned()));
        }
    }
}
