//! The tensors of an exported model.
//!
//! transformers 4 lets `tie_word_embeddings` decide both whether the head is the embedding and whether it
//! sees scaled outputs; transformers 5 decides the first by the weights. Both read a model the same way if it
//! has both or neither, with `shared.weight` and `lm_head.weight` in its file if neither. Any T5 can be
//! brought into one of these forms.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use fusion_core::checkpoint::{Checkpoint, LazyTensor};
use fusion_core::{Dtype, TensorSource, convert_tensor};
use t5_model::{T5Config, parameter_table};

const EMBEDDING: &str = "shared.weight";
const HEAD: &str = "lm_head.weight";

/// The configuration of the exported model.
pub fn portable(config: &T5Config) -> T5Config {
    config.clone().with_tied_and_scaled_head(config.tied_head() && config.scale_logits())
}

/// Checks that every tensor the configuration calls for is present and has the right shape.
pub fn check(checkpoint: &Checkpoint, config: &T5Config) -> Result<()> {
    for spec in &parameter_table(config)? {
        let view = checkpoint.view(&spec.name)?;
        let (expected, found, place) = (spec.shape(), view.shape(), checkpoint.directory().display());
        if found != expected {
            bail!("{place}: {} has shape {found:?}, but config.json calls for {expected:?}", spec.name);
        }
    }
    Ok(())
}

/// The tensors, by name.
pub fn tensors<'a>(
    checkpoint: &'a Checkpoint,
    config: &T5Config,
    dtype: Option<Dtype>,
) -> Result<Vec<LazyTensor<'a>>> {
    let mut tensors = Vec::new();
    for name in names(config)? {
        let (source, scale) = match (name == HEAD, config.tied_head(), config.scale_logits()) {
            (true, true, false) => (EMBEDDING, 1.0),
            (true, false, true) => (HEAD, (config.d_model as f64).powf(-0.5)),
            _ => (name.as_str(), 1.0),
        };
        tensors.push(tensor(checkpoint, source, name.clone(), dtype, scale)?);
    }
    Ok(tensors)
}

/// The names of the exported tensors.
fn names(config: &T5Config) -> Result<BTreeSet<String>> {
    let table = parameter_table(config)?;
    let mut names: BTreeSet<String> = table.iter().map(|spec| spec.name.clone()).collect();
    if !portable(config).tied_head() {
        names.insert(HEAD.into());
    }
    Ok(names)
}

fn tensor<'a>(
    checkpoint: &'a Checkpoint,
    source: &str,
    name: String,
    dtype: Option<Dtype>,
    scale: f64,
) -> Result<LazyTensor<'a>> {
    let view = checkpoint.view(source)?;
    let (shape, dtype) = (view.shape().to_vec(), dtype.unwrap_or(view.dtype()));
    let parameter = name.clone();
    if dtype == view.dtype() && scale == 1.0 {
        return Ok(LazyTensor::of_bytes(name, dtype, shape, view.data()));
    }
    Ok(LazyTensor::made(name, dtype, shape, move || convert_tensor(&parameter, &view, dtype, scale)))
}
