//! What may be wrong with weights.

use std::fmt;

use anyhow::Result;
use fusion_core::checkpoint::Checkpoint;
use fusion_core::table::ParamTable;
use fusion_core::{HostTensor, TensorSource};
use rayon::prelude::*;
use serde::Serialize;

use super::asymmetry::{self, Asymmetry};
use super::is_float;

/// Findings across all tensors.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Health {
    /// How the weights differ from what config.json calls for.
    pub misfits: Vec<String>,
    /// The number of non-finite elements, by tensor.
    pub not_finite: Vec<(String, u64)>,
    /// The number of all-zero rows of matrices, by tensor.
    pub zero_rows: Vec<(String, u64)>,
    /// Matrices whose two halves of the rows, or of the columns, are equal.
    pub equal_halves: Vec<String>,
    /// How far apart the halves of the matrices are, if there are any to compare.
    pub asymmetry: Option<Asymmetry>,
    /// How many of the tensors are matrices.
    pub matrices: u64,
}

impl Health {
    /// Reads all weights, one tensor per thread. Tensors of other types than weights have are passed over.
    pub fn of(checkpoint: &Checkpoint, table: &ParamTable) -> Result<Self> {
        let mut names = checkpoint.names();
        names.retain(|name| checkpoint.view(name).is_ok_and(|view| is_float(view.dtype())));
        let each = names.par_iter().map(|name| Ok((name, TensorHealth::of(&checkpoint.load_f32(name)?))));
        let mut health = Health { misfits: misfits(checkpoint, table), ..Health::default() };
        let mut asymmetries = Vec::new();
        for (name, tensor) in each.collect::<Result<Vec<_>>>()? {
            if tensor.not_finite > 0 {
                health.not_finite.push((name.clone(), tensor.not_finite));
            }
            if tensor.zero_rows > 0 {
                health.zero_rows.push((name.clone(), tensor.zero_rows));
            }
            if tensor.asymmetry == Some(0.0) {
                health.equal_halves.push(name.clone());
            }
            asymmetries.extend(tensor.asymmetry);
            health.matrices += u64::from(tensor.is_matrix);
        }
        health.asymmetry = Asymmetry::of(asymmetries);
        Ok(health)
    }
}

fn misfits(checkpoint: &Checkpoint, table: &ParamTable) -> Vec<String> {
    let mut misfits = Vec::new();
    for spec in table {
        let Ok(view) = checkpoint.view(&spec.name) else {
            misfits.push(format!("{} is missing", spec.name));
            continue;
        };
        let (expected, found) = (spec.shape(), view.shape());
        if found != expected {
            misfits.push(format!("{} has shape {found:?} instead of {expected:?}", spec.name));
        }
        if !is_float(view.dtype()) {
            misfits.push(format!("{} has type {}, which weights do not have", spec.name, view.dtype()));
        }
    }
    misfits
}

struct TensorHealth {
    is_matrix: bool,
    not_finite: u64,
    zero_rows: u64,
    asymmetry: Option<f64>,
}

impl TensorHealth {
    fn of(tensor: &HostTensor) -> Self {
        let not_finite = tensor.data.iter().filter(|value| !value.is_finite()).count() as u64;
        let columns = match tensor.shape.as_slice() {
            &[_, columns] if !tensor.data.is_empty() => columns,
            _ => return TensorHealth { is_matrix: false, not_finite, zero_rows: 0, asymmetry: None },
        };
        let zero = |row: &&[f32]| row.iter().all(|value| *value == 0.0);
        let zero_rows = tensor.data.chunks(columns).filter(zero).count() as u64;
        let asymmetry = asymmetry::of_matrix(&tensor.data, columns);
        TensorHealth { is_matrix: true, not_finite, zero_rows, asymmetry }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.misfits.is_empty() {
            writeln!(f, "  unlike config  {} tensors", self.misfits.len())?;
            self.misfits.iter().take(MAX_NAMES).try_for_each(|misfit| writeln!(f, "    {misfit}"))?;
            if self.misfits.len() > MAX_NAMES {
                writeln!(f, "    and {} more", self.misfits.len() - MAX_NAMES)?;
            }
        }
        for (what, tensors) in [("not finite", &self.not_finite), ("rows of zeros", &self.zero_rows)] {
            let total: u64 = tensors.iter().map(|(_, count)| count).sum();
            writeln!(f, "  {what:<14} {}", if total == 0 { "none".to_owned() } else { total.to_string() })?;
            for (name, count) in tensors.iter().take(MAX_NAMES) {
                writeln!(f, "    {name}: {count}")?;
            }
            if tensors.len() > MAX_NAMES {
                writeln!(f, "    and {} more tensors", tensors.len() - MAX_NAMES)?;
            }
        }
        let halves = match self.equal_halves.len() as u64 {
            0 => "none".to_owned(),
            all if all == self.matrices => {
                "all: nothing tells them apart, so they stay equal in training".to_owned()
            }
            some => format!("{some} of {} matrices", self.matrices),
        };
        writeln!(f, "  equal halves   {halves}")?;
        match &self.asymmetry {
            None => Ok(()),
            Some(asymmetry) => writeln!(f, "  half-asymmetry {asymmetry}"),
        }
    }
}

/// The maximum number of tensors named for each finding.
const MAX_NAMES: usize = 5;

#[cfg(test)]
mod tests {
    use fusion_core::HostTensor;

    use super::TensorHealth;

    fn matrix(rows: usize, data: &[f32]) -> TensorHealth {
        TensorHealth::of(&HostTensor { shape: vec![rows, data.len() / rows], data: data.to_vec() })
    }

    #[test]
    fn equal_halves() {
        let equal = |rows, data: &[f32]| matrix(rows, data).asymmetry == Some(0.0);
        assert!(equal(2, &[1.0, 2.0, 1.0, 2.0]), "rows and columns");
        assert!(equal(2, &[1.0, 0.0, 0.0, 1.0]), "block-diagonal");
        assert!(equal(1, &[1.0, 2.0, 1.0, 2.0]), "an embedding");
        assert!(!equal(2, &[1.0, 0.0, 0.0, 1.5]));
        assert!(!equal(2, &[0.0; 4]), "zeros say nothing");
    }

    #[test]
    fn zero_rows_and_what_is_not_finite() {
        let health = matrix(3, &[0.0, 0.0, f32::NAN, 1.0, f32::INFINITY, 0.0]);
        assert_eq!((health.not_finite, health.zero_rows), (2, 1));
    }
}
