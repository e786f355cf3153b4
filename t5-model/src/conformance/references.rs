//! References that PyTorch and transformers computed. The scripts that made the files are next to them.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use fusion_core::checkpoint::TensorFile;
use fusion_core::{HostTensor, HostTensors, TensorSource};
use serde::de::DeserializeOwned;

use crate::{Batch, Error, Result};

/// The files and folders that the suite reads.
pub const REFERENCES: [&str; 7] = [
    "operations.safetensors",
    "trajectory.safetensors",
    "v1_1",
    "v1_0",
    "gated_tied",
    "relu_untied",
    "fusion",
];

static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// Sets the folder of the [`REFERENCES`]; call it before the suite runs. By default they are read from this
/// crate's sources, which exist only where the program was built. Only the first call has an effect.
pub fn set_references(folder: PathBuf) {
    let _ = FOLDER.set(folder); // whoever came first
}

pub(super) fn path(name: &str) -> PathBuf {
    FOLDER.get_or_init(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("src/conformance/goldens")).join(name)
}

pub(super) fn file(name: &str) -> Result<TensorFile> {
    Ok(TensorFile::open(&path(name))?)
}

pub(super) fn json<T: DeserializeOwned>(name: &str) -> Result<T> {
    let read = std::fs::read(path(name)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    read.ok_or_else(|| Error::References(format!("{name} cannot be read")))
}

/// A tensor of i64 and its shape.
pub(super) fn integers(file: &TensorFile, name: &str) -> Result<(Vec<usize>, Vec<i64>)> {
    let view = file.view(name)?;
    let whole: Option<Vec<i64>> =
        view.data().chunks(8).map(|bytes| Some(i64::from_le_bytes(bytes.try_into().ok()?))).collect();
    let values = whole.filter(|values| values.len() == view.shape().iter().product::<usize>());
    let values = values.ok_or_else(|| Error::References(format!("{name} is not of 64-bit integers")))?;
    Ok((view.shape().to_vec(), values))
}

/// The batch `input_ids`, `attention_mask`, `labels` of a file.
pub(super) fn batch(file: &TensorFile) -> Result<Batch> {
    let (inputs, input_ids) = integers(file, "input_ids")?;
    let (_, mask) = integers(file, "attention_mask")?;
    let (targets, labels) = integers(file, "labels")?;
    let [size, input_length] = shape(&inputs, "input_ids")?;
    let [_, target_length] = shape(&targets, "labels")?;
    Ok(Batch {
        size,
        input_length,
        target_length,
        input_ids: input_ids.into_iter().map(|id| id as i32).collect(),
        attention_mask: mask.into_iter().map(|mask| mask as u8).collect(),
        labels: labels.into_iter().map(|id| id as i32).collect(),
    })
}

/// A shape with `N` dimensions.
pub(super) fn shape<const N: usize>(shape: &[usize], name: &str) -> Result<[usize; N]> {
    shape.try_into().map_err(|_| Error::References(format!("{name} has {} dimensions", shape.len())))
}

/// The largest difference relative to the largest expected value; infinite if a tensor is missing, has
/// another shape or is not finite.
pub(super) fn deviation(found: Option<&HostTensor>, expected: &HostTensor) -> f64 {
    let Some(found) = found.filter(|found| found.shape == expected.shape) else { return f64::INFINITY };
    let largest = expected.data.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let larger = |worst: f32, difference: f32| if difference > worst { difference } else { worst };
    let difference = found.data.iter().zip(&expected.data).map(|(found, expected)| (found - expected).abs());
    if found.data.iter().any(|value| !value.is_finite()) {
        return f64::INFINITY;
    }
    let difference = difference.fold(0f32, larger);
    if difference == 0.0 { 0.0 } else { f64::from(difference) / f64::from(largest) }
}

/// The largest [`deviation`] of several tensors.
pub(super) fn deviations(found: &HostTensors, expected: &HostTensors) -> f64 {
    let each = expected.iter().map(|(name, tensor)| deviation(found.get(name), tensor));
    each.fold(0.0, f64::max)
}

/// The relative difference of one number.
pub(super) fn number_deviation(found: f64, expected: f64) -> f64 {
    let relative = ((found - expected) / expected).abs();
    if relative.is_nan() { f64::INFINITY } else { relative }
}
