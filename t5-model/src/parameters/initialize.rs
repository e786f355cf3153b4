//! Random initial weights.

use fusion_core::random::Philox;
use fusion_core::{HostTensor, HostTensors};

use super::{Parameter, parameters};
use crate::{Result, T5Config};

/// Fresh weights with the table's [deviations](super::Parameter::initial_deviation). Each tensor is a
/// function of the seed and its name alone.
///
/// # Errors
/// The configuration is not that of a T5.
pub fn initialize(config: &T5Config, seed: u64) -> Result<HostTensors> {
    let rows = parameters(config)?.into_iter();
    Ok(rows
        .map(|Parameter { spec, initial_deviation, .. }| {
            let (name, mut tensor) = (spec.name.clone(), HostTensor::zeros(spec.shape()));
            match initial_deviation {
                None => tensor.data.fill(1.0),
                Some(std) => Philox::new(seed, &name).fill_normal(0, std, &mut tensor.data),
            }
            (name, tensor)
        })
        .collect())
}
