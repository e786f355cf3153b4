//! Every operation, forward and backward, against PyTorch's; `operation_goldens.py` says what the cases hold.

use std::collections::BTreeMap;

use fusion_core::checkpoint::TensorFile;
use fusion_core::{HostTensor, TensorSource};

use super::Check;
use super::by_hand::{by_hand, check};
use super::references::{self, deviation, integers, shape};
use crate::backend::{Attention, Buckets, CrossEntropy, DropoutDraw, TokenIds, TokenLoss};
use crate::{Error, Ops, Precision, Result, SessionError};

/// As in the script.
pub(super) const LOSS: CrossEntropy = CrossEntropy { scale: 0.1, z_loss: 0.01 };
const DROPOUT_RATE: f64 = 0.25;

/// Runs operations on stored inputs and compares values, losses and gradients with stored references.
///
/// # Errors
/// The references cannot be read.
pub fn operations<O: Ops>(mut ops: O, precision: Precision) -> Result<Vec<Check>, SessionError> {
    let file = references::file("operations.safetensors")?;
    let names: Vec<String> =
        file.names().iter().filter_map(|name| name.strip_suffix("|out.y")).map(String::from).collect();
    let (mut checks, allowed) = (vec![], allowed(precision));
    for name in &names {
        let case = Case::read(&file, name)?;
        checks.push(check(&mut ops, format!("{name}, values"), allowed, |ops| case.values(ops))?);
        checks.push(check(&mut ops, format!("{name}, gradients"), allowed, |ops| case.gradients(ops))?);
    }
    checks.extend(by_hand(&mut ops, allowed)?);
    Ok(checks)
}

/// Of the largest value. bf16 keeps 8 bits, and an operation rounds its inputs, its result and their
/// gradients.
fn allowed(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 2e-5,
        Precision::Bf16 => 4e-2,
    }
}

/// Inputs of an operation, and what it should make of them.
struct Case<'a> {
    name: &'a str,
    inputs: BTreeMap<String, HostTensor>,
    integers: BTreeMap<String, (Vec<usize>, Vec<i64>)>,
    y: HostTensor,
    /// Of each label, in nats.
    losses: HostTensor,
    /// 1 for each label that is predicted.
    correct: Vec<i64>,
    gradients: BTreeMap<String, HostTensor>,
}

/// A case's inputs on the device. A parameter's gradient is what a backend gives, so an activation comes from
/// a parameter as well: as the rows of an embedding, in order.
struct Inputs<'a, O: Ops> {
    ops: &'a O,
    case: &'a Case<'a>,
    parameters: &'a BTreeMap<String, O::Parameter>,
}

impl<'a> Case<'a> {
    fn read(file: &TensorFile, name: &'a str) -> Result<Self> {
        let (mut inputs, mut gradients, mut whole) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for key in file.names() {
            let Some(role) = key.strip_prefix(name).and_then(|rest| rest.strip_prefix('|')) else { continue };
            if let Some(input) = role.strip_prefix("in.") {
                inputs.insert(input.to_owned(), file.load_f32(&key)?);
            } else if let Some(input) = role.strip_prefix("grad.") {
                gradients.insert(input.to_owned(), file.load_f32(&key)?);
            } else if let Some(of) = role.strip_prefix("int.") {
                whole.insert(of.to_owned(), integers(file, &key)?);
            }
        }
        let of = |what: &str| format!("{name}|out.{what}");
        Ok(Case {
            name,
            inputs,
            integers: whole,
            y: file.load_f32(&of("y"))?,
            losses: file.load_f32(&of("losses"))?,
            correct: integers(file, &of("correct"))?.1,
            gradients,
        })
    }

    /// The deviation of the result when nothing is recorded; of the loss, where that is the operation.
    fn values<O: Ops>(&self, ops: &mut O) -> Result<f64> {
        let parameters = self.parameters(ops);
        let y = self.apply(&Inputs { ops, case: self, parameters: &parameters })?;
        let worst = deviation(Some(&ops.read_activation(&y)), &self.y);
        if !self.name.starts_with("cross-entropy") {
            return Ok(worst);
        }
        let (_, losses) = ops.cross_entropy(&y, self.head(&parameters)?, &self.labels()?, LOSS);
        Ok(worst.max(self.loss_deviation(&losses.read())))
    }

    /// The worst deviation of the result, the loss and all gradients when they are recorded.
    fn gradients<O: Ops>(&self, ops: &mut O) -> Result<f64> {
        let parameters = self.parameters(ops);
        // Something that the loss does not depend on has a gradient of zeros.
        let unused = HostTensor { shape: vec![2, 3], data: vec![1.0; 6] };
        let unused_parameter = ops.parameter(unused.clone());

        ops.record(true);
        let y = self.apply(&Inputs { ops, case: self, parameters: &parameters })?;
        let recorded = ops.read_activation(&y);
        let (loss, losses) = ops.cross_entropy(&y, self.head(&parameters)?, &self.labels()?, LOSS);
        drop(y);
        let wanted: Vec<&O::Parameter> = parameters.values().chain([&unused_parameter]).collect();
        let (_, gradients) = ops.backward(loss, &[], &wanted);
        ops.record(false);

        let mut worst = deviation(Some(&recorded), &self.y).max(self.loss_deviation(&losses.read()));
        let mut found = gradients.iter().map(|gradient| ops.read_gradient(gradient));
        for (name, found) in parameters.keys().zip(&mut found) {
            let expected = self.gradients.get(name).ok_or_else(|| self.lacks(name))?;
            worst = worst.max(deviation(Some(&found), &matrix(expected)));
        }
        let zeros = HostTensor::zeros(unused.shape);
        Ok(worst.max(deviation(found.next().as_ref(), &zeros)))
    }

    fn parameters<O: Ops>(&self, ops: &O) -> BTreeMap<String, O::Parameter> {
        let each = self.inputs.iter();
        each.map(|(name, tensor)| (name.clone(), ops.parameter(matrix(tensor)))).collect()
    }

    fn head<'p, P>(&self, parameters: &'p BTreeMap<String, P>) -> Result<&'p P> {
        parameters.get("head").ok_or_else(|| self.lacks("head"))
    }

    fn loss_deviation(&self, found: &[TokenLoss]) -> f64 {
        if !found.iter().map(|token| i64::from(token.correct)).eq(self.correct.iter().copied()) {
            return f64::INFINITY;
        }
        let data = found.iter().map(|token| token.loss as f32).collect();
        deviation(Some(&HostTensor { shape: vec![found.len()], data }), &self.losses)
    }

    fn lacks(&self, what: &str) -> Error {
        Error::References(format!("case {:?} has no {what}", self.name))
    }

    fn labels(&self) -> Result<Vec<i32>> {
        Ok(self.integers("labels")?.1.iter().map(|label| *label as i32).collect())
    }

    fn integers(&self, name: &str) -> Result<&(Vec<usize>, Vec<i64>)> {
        self.integers.get(name).ok_or_else(|| self.lacks(name))
    }

    /// The operation that the case's name begins with.
    fn apply<O: Ops>(&self, inputs: &Inputs<'_, O>) -> Result<O::Activation> {
        let ops = inputs.ops;
        let (operation, detail) = self.name.split_once(", ").unwrap_or((self.name, ""));
        Ok(match operation {
            "embedding" => inputs.embedding("table")?,
            "tied embedding" => inputs.embedding("head")?,
            "linear" => ops.linear(&inputs.activation("x")?, inputs.parameter("w")?),
            "rms norm" => {
                let groups: &[usize] = match detail {
                    "groups" => &[1, 3, 2],
                    "near epsilon" => &[5],
                    _ => &[6],
                };
                ops.rms_norm(&inputs.activation("x")?, inputs.parameter("gain")?, groups, 1e-6)
            }
            "attention" => inputs.attention(detail)?,
            "gated GELU" if detail == "one operand" => {
                let x = inputs.activation("x")?;
                ops.gated_gelu(&x, &x)
            }
            "gated GELU" => ops.gated_gelu(&inputs.activation("gate")?, &inputs.activation("value")?),
            "relu" => ops.relu(&inputs.activation("x")?),
            "add" if detail == "one operand" => {
                let x = inputs.activation("x")?;
                ops.add(&x, &x)
            }
            "add" => ops.add(&inputs.activation("x")?, &inputs.activation("y")?),
            "scale" => ops.scale(&inputs.activation("x")?, 0.375),
            "dropout" => ops.dropout(&inputs.activation("x")?, draw()),
            "cross-entropy" => inputs.activation("x")?,
            other => return Err(Error::References(format!("no operation is called {other:?}"))),
        })
    }
}

impl<O: Ops> Inputs<'_, O> {
    fn parameter(&self, name: &str) -> Result<&O::Parameter> {
        self.parameters.get(name).ok_or_else(|| self.case.lacks(name))
    }

    fn activation(&self, name: &str) -> Result<O::Activation> {
        let dimensions = self.case.inputs.get(name).ok_or_else(|| self.case.lacks(name))?;
        let [batch, length, _] = shape(&dimensions.shape, name)?;
        let ids: Vec<i32> = (0..(batch * length) as i32).collect();
        Ok(self.ops.embedding(self.parameter(name)?, TokenIds { ids: &ids, batch, length }))
    }

    fn embedding(&self, table: &str) -> Result<O::Activation> {
        let (dimensions, ids) = self.case.integers("ids")?;
        let [batch, length] = shape(dimensions, "ids")?;
        let ids: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
        Ok(self.ops.embedding(self.parameter(table)?, TokenIds { ids: &ids, batch, length }))
    }

    fn attention(&self, detail: &str) -> Result<O::Activation> {
        let bias = match self.case.integers.get("buckets") {
            None => None,
            Some((dimensions, ids)) => {
                let [query, key] = shape(dimensions, "buckets")?;
                let buckets = Buckets { ids: ids.iter().map(|id| *id as u32).collect(), query, key };
                Some(self.ops.position_bias(self.parameter("table")?, &buckets))
            }
        };
        let mask: Option<Vec<u8>> =
            self.case.integers.get("mask").map(|(_, mask)| mask.iter().map(|mask| *mask as u8).collect());
        let how = Attention {
            heads: 2,
            bias: bias.as_ref(),
            causal: detail.starts_with("causal"),
            key_mask: mask.as_deref(),
            dropout: (detail == "dropout").then(draw),
        };
        if detail == "one operand" {
            let x = self.activation("x")?;
            return Ok(self.ops.attention(&x, &x, &x, how));
        }
        let [q, k, v] = ["q", "k", "v"].map(|name| self.activation(name));
        Ok(self.ops.attention(&q?, &k?, &v?, how))
    }
}

/// The draw whose first elements the script knows.
fn draw() -> DropoutDraw {
    DropoutDraw::new(DROPOUT_RATE, 7, "conformance")
}

/// An activation's rows.
fn matrix(HostTensor { shape, data }: &HostTensor) -> HostTensor {
    let shape = match shape.as_slice() {
        [batch, length, features] => vec![batch * length, *features],
        other => other.to_vec(),
    };
    HostTensor { shape, data: data.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The script's constant.
    #[test]
    fn what_the_script_knows_of_the_draw() {
        let mut factors = [0.0; 48];
        draw().factors(0, &mut factors);
        let kept: String = factors.iter().map(|factor| if *factor > 0.0 { '1' } else { '0' }).collect();
        let script = std::fs::read_to_string(references::path("operation_goldens.py")).unwrap();
        assert!(script.contains(&format!("KEPT = \"{kept}\"")), "{kept}");
    }
}
