//! Random initial weights.

use fusion_core::random::Philox;
use fusion_core::{HostTensor, HostTensors};

use crate::{Result, T5Config, parameter_table};

/// Fresh weights with Mesh TensorFlow's and T5X's standard deviations. Each tensor is a function of the seed and its
/// name.
pub fn initialize(config: &T5Config, seed: u64) -> Result<HostTensors> {
    let table = parameter_table(config)?;
    Ok(table
        .iter()
        .map(|spec| {
            let mut tensor = HostTensor::zeros(spec.shape());
            match standard_deviation(&spec.name, config) {
                None => tensor.data.fill(1.0),
                Some(std) => Philox::new(seed, &spec.name).fill_normal(0, std, &mut tensor.data),
            }
            (spec.name.clone(), tensor)
        })
        .collect())
}

/// `None` for a gain, which starts at 1.
fn standard_deviation(name: &str, config: &T5Config) -> Option<f64> {
    let (d_model, d_kv, inner, d_ff) =
        (config.d_model as f64, config.d_kv as f64, config.inner_dim() as f64, config.d_ff as f64);
    let mut parts = name.rsplit('.').skip(1);
    match parts.next().unwrap_or_default() {
        "layer_norm" | "final_layer_norm" => None,
        "shared" => Some(1.0),
        // T5 folds attention's 1/sqrt(d_kv) into q's initial scale.
        "q" => Some((d_model * d_kv).powf(-0.5)),
        "o" => Some(inner.powf(-0.5)),
        "wo" => Some(d_ff.powf(-0.5)),
        _ => Some(d_model.powf(-0.5)), // k, v, wi*, lm_head, relative_attention_bias
    }
}
