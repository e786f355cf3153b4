//! The types of weights, and values that are none.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use fusion_core::checkpoint::Checkpoint;
use fusion_core::{Dtype, TensorSource, TensorView, count_not_finite};
use t5_model::{T5Config, parameter_table, type_name};

use crate::Warning;

/// The types of a model's parameters. Tensors that are no parameters do not count.
pub fn types_of(checkpoint: &Checkpoint, config: &T5Config) -> Result<BTreeSet<Dtype>> {
    Ok(parameters_of(checkpoint, config)?.iter().map(|(_, view)| view.dtype()).collect())
}

/// The parameters that are there.
fn parameters_of<'a>(checkpoint: &'a Checkpoint, config: &T5Config) -> Result<Vec<(String, TensorView<'a>)>> {
    let table = parameter_table(config)?;
    let there = table.iter().filter_map(|spec| Some((spec.name.clone(), checkpoint.view(&spec.name).ok()?)));
    Ok(there.collect())
}

/// `F16 and F32`.
pub fn types_text(types: &BTreeSet<Dtype>) -> String {
    types.iter().map(Dtype::to_string).collect::<Vec<_>>().join(" and ")
}

/// Warns if `config.json` says that the weights have another type than they have. `model` names the model in
/// the warning if there are several.
pub fn check_said_type(
    checkpoint: &Checkpoint,
    config: &T5Config,
    model: Option<&str>,
) -> Result<Option<Warning>> {
    let Some(said) = config.said_type() else { return Ok(None) };
    let types = types_of(checkpoint, config)?;
    let said = said.strip_prefix("torch.").unwrap_or(said);
    // transformers 4 saves `wo` in F32 beside weights in F16, and reads both as they are.
    let is_so = types.iter().all(|dtype| type_name(*dtype) == Some(said))
        || (said == "float16"
            && types.iter().all(|dtype| matches!(dtype, Dtype::F16 | Dtype::F32))
            && only_wo(checkpoint, config)?);
    Ok((!is_so).then(|| Warning::OtherType {
        model: model.map(str::to_owned),
        said: said.to_owned(),
        found: types_text(&types),
    }))
}

/// Whether only the last matrices of the MLPs are in F32.
fn only_wo(checkpoint: &Checkpoint, config: &T5Config) -> Result<bool> {
    let parameters = parameters_of(checkpoint, config)?;
    let mut wide = parameters.iter().filter(|(_, view)| view.dtype() == Dtype::F32);
    Ok(wide.all(|(name, _)| name.ends_with(".wo.weight")))
}

/// The number of values that are infinite or not a number, of parameters that have any. Reads all weights.
pub fn not_finite(checkpoint: &Checkpoint, config: &T5Config) -> Result<Vec<(String, u64)>> {
    let counts = parameters_of(checkpoint, config)?.into_iter();
    let counts = counts.map(|(name, view)| (name, count_not_finite(&view)));
    Ok(counts.filter(|(_, count)| *count > 0).collect())
}

/// Fails if weights have values that are infinite or not a number.
pub fn check_finite(checkpoint: &Checkpoint, config: &T5Config) -> Result<()> {
    let found = not_finite(checkpoint, config)?;
    let Some((name, count)) = found.first() else { return Ok(()) };
    let (values, more) = (plural(*count, "value"), found.len() - 1);
    let others = match more {
        0 => String::new(),
        more => format!(", and so have {}", plural(more as u64, "more tensor")),
    };
    bail!(
        "{}: {name} has {values} that {} not finite (NaN or infinite){others}",
        checkpoint.directory().display(),
        if *count == 1 { "is" } else { "are" }
    )
}

fn plural(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
