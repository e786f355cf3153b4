//! Orders stages by their inputs.

use anyhow::Result;
use toml::Spanned;

use super::Comparison;
use super::resolve::Located;
use crate::located::Texts;
use crate::stage::Stage;

/// Checks that inputs are of the right kind and free of cycles, and puts each stage after its inputs.
pub fn in_order(
    stages: Vec<Located>,
    comparison: Option<&Spanned<Comparison>>,
    texts: &Texts,
) -> Result<Vec<Stage>> {
    for located in &stages {
        check_inputs(located, &stages, texts)?;
    }
    if let Some(comparison) = comparison {
        let Comparison { baseline, arms } = comparison.get_ref();
        for name in std::iter::once(baseline).chain(arms) {
            let is_training =
                |located: &Located| located.stage.name == *name && located.stage.kind.arm.is_some();
            if !stages.iter().any(is_training) {
                let message = format!("`[comparison]` names {name:?}, which is no stage that pretrains");
                return Err(texts.error(comparison.span(), message));
            }
        }
    }
    let mut order = Vec::with_capacity(stages.len());
    for index in 0..stages.len() {
        visit(index, &stages, &mut Vec::new(), &mut order, texts)?;
    }
    let ordered = order.into_iter().filter_map(|index: usize| stages.get(index));
    Ok(ordered.map(|located| located.stage.clone()).collect())
}

fn visit(
    index: usize,
    stages: &[Located],
    path: &mut Vec<usize>,
    order: &mut Vec<usize>,
    texts: &Texts,
) -> Result<()> {
    if order.contains(&index) {
        return Ok(());
    }
    let Some(located) = stages.get(index) else { return Ok(()) };
    if let Some(start) = path.iter().position(|open| *open == index) {
        let names = path.iter().skip(start).chain([&index]).filter_map(|index| stages.get(*index));
        let names: Vec<&str> = names.map(|located| located.stage.name.as_str()).collect();
        return Err(
            texts.error(located.span.clone(), format!("stages wait for each other: {}", names.join(" -> ")))
        );
    }
    path.push(index);
    for input in located.inputs.iter().map(|(input, _)| input).chain(&located.references) {
        if let Some(input) = stages.iter().position(|other| other.stage.name == *input.get_ref()) {
            visit(input, stages, path, order, texts)?;
        }
    }
    path.pop();
    order.push(index);
    Ok(())
}

fn check_inputs(located: &Located, stages: &[Located], texts: &Texts) -> Result<()> {
    for (input, wanted) in &located.inputs {
        let name = input.get_ref();
        let Some(other) = stages.iter().find(|other| other.stage.name == *name) else { continue };
        let kind = other.stage.kind;
        if kind.gives != Some(*wanted) {
            let message = format!("stage {name:?} ({}) does not give a {wanted}", kind.name);
            return Err(texts.error(input.span(), message));
        }
    }
    for reference in &located.references {
        let name = reference.get_ref();
        let other = stages.iter().find(|other| other.stage.name == *name);
        if let Some(kind) = other.map(|other| other.stage.kind).filter(|kind| kind.arm.is_none()) {
            let message = format!("stage {name:?} ({}) does not train, so it has no computation", kind.name);
            return Err(texts.error(reference.span(), message));
        }
    }
    Ok(())
}
