//! Stages in the order of their inputs.

use anyhow::Result;
use toml::Spanned;

use super::Comparison;
use super::schema::Located;
use super::source::Sources;
use crate::stage::{Stage, Work};

/// Checks that inputs are of the right kind and lead back to stages without inputs, and puts each stage behind its own.
pub fn in_order(
    stages: Vec<Located>,
    comparison: Option<&Spanned<Comparison>>,
    sources: &Sources,
) -> Result<Vec<Stage>> {
    for located in &stages {
        check_inputs(located, &stages, sources)?;
    }
    if let Some(comparison) = comparison {
        let Comparison { baseline, arms } = comparison.get_ref();
        for name in std::iter::once(baseline).chain(arms) {
            let is_training = |located: &Located| {
                located.stage.name == *name && matches!(located.stage.work, Work::Pretrain(_))
            };
            if !stages.iter().any(is_training) {
                let message = format!("`[comparison]` names {name:?}, which is no stage that pretrains");
                return Err(sources.error(comparison.span(), message));
            }
        }
    }
    let mut order = Vec::with_capacity(stages.len());
    for index in 0..stages.len() {
        visit(index, &stages, &mut Vec::new(), &mut order, sources)?;
    }
    Ok(order
        .into_iter()
        .filter_map(|index: usize| stages.get(index))
        .map(|located| located.stage.clone())
        .collect())
}

fn visit(
    index: usize,
    stages: &[Located],
    path: &mut Vec<usize>,
    order: &mut Vec<usize>,
    sources: &Sources,
) -> Result<()> {
    if order.contains(&index) {
        return Ok(());
    }
    let Some(located) = stages.get(index) else { return Ok(()) };
    if let Some(start) = path.iter().position(|open| *open == index) {
        let names = path.iter().skip(start).chain([&index]).filter_map(|index| stages.get(*index));
        let names: Vec<&str> = names.map(|located| located.stage.name.as_str()).collect();
        return Err(sources
            .error(located.span.clone(), format!("stages wait for each other: {}", names.join(" -> "))));
    }
    path.push(index);
    for input in &located.inputs {
        if let Some(input) = stages.iter().position(|other| other.stage.name == *input.get_ref()) {
            visit(input, stages, path, order, sources)?;
        }
    }
    path.pop();
    order.push(index);
    Ok(())
}

fn check_inputs(located: &Located, stages: &[Located], sources: &Sources) -> Result<()> {
    let tokenizer = match &located.stage.work {
        Work::Pretrain(work) => work.data.tokenizer.stage(),
        Work::Evaluate(work) => work.data.tokenizer.stage(),
        Work::Fuse(work) => work.calibrate.as_ref().and_then(|calibrate| calibrate.data.tokenizer.stage()),
        _ => None,
    };
    for input in &located.inputs {
        let name = input.get_ref();
        let Some(other) = stages.iter().find(|other| other.stage.name == *name) else { continue };
        let wants_tokenizer = tokenizer == Some(name);
        let is_tokenizer = matches!(other.stage.work, Work::Tokenizer(_));
        let message = match (wants_tokenizer, is_tokenizer, other.stage.work.gives_model()) {
            (true, true, _) | (false, _, true) => continue,
            (true, false, _) => "a tokenizer",
            (false, ..) => "a model",
        };
        let kind = other.stage.work.kind();
        return Err(sources.error(input.span(), format!("stage {name:?} ({kind}) does not give {message}")));
    }
    Ok(())
}
