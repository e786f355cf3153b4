//! What trainings and fusions cost (the paper's Table 4).

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Node, ReadRun, Results};
use crate::run::journal;
use crate::stage::fuse;

/// A stage that made a model.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// The stage, unique among all runs.
    pub name: String,
    /// The index of its run.
    pub run: usize,
    /// Whether it is a fusion, which computes nothing.
    pub fusion: bool,
    /// Whether the recipe compares it.
    pub compared: bool,
    /// Floating-point operations of its own.
    pub own_flops: f64,
    /// Of everything behind it, each parent counted once.
    pub parents_flops: f64,
    /// Wall-clock time of its own.
    pub seconds: Option<f64>,
    /// With that of everything in this run that it was made from, each stage counted once.
    pub total_seconds: Option<f64>,
    /// Input and target tokens per second, evaluations and checkpoints left out.
    pub tokens_per_second: Option<f64>,
    /// The most memory that a process took while it worked on it, in bytes.
    pub memory: Option<u64>,
}

pub(super) fn costs(runs: &[ReadRun], results: &Results) -> Vec<Cost> {
    let mut costs = Vec::new();
    let with_stages = runs.iter().enumerate().filter(|(_, run)| !run.report.stages.is_empty());
    for ((index, run), shown) in with_stages.zip(&results.runs) {
        for (at, node) in shown.stages.iter().enumerate() {
            let training = results.trainings.iter().find(|own| own.run == index && own.stage == node.name);
            let fusion = node.kind == fuse::KIND.name;
            if node.seconds.is_none() && node.flops.is_none() || !(fusion || training.is_some()) {
                continue;
            }
            let sessions = run.stage(&node.name).map(|stage| journal::sessions(&run.directory(stage)));
            let memory = sessions.and_then(Result::ok).into_iter().flatten();
            costs.push(Cost {
                name: run.full_name(&node.name),
                run: index,
                fusion,
                compared: training.is_some_and(|training| training.compared),
                own_flops: training.map_or(0.0, super::Training::own_flops),
                parents_flops: training.map_or(0.0, |training| training.parents_flops),
                seconds: node.seconds,
                total_seconds: total_seconds(at, &shown.stages),
                tokens_per_second: training.and_then(super::Training::tokens_per_second),
                memory: memory.filter_map(|session| session.peak_memory).max(),
            });
        }
    }
    costs
}

/// The time of a stage and of all that it was made from, each once. `None` if that of one is not known.
fn total_seconds(at: usize, nodes: &[Node]) -> Option<f64> {
    let (mut open, mut seen, mut total) = (vec![at], BTreeSet::new(), 0.0);
    while let Some(at) = open.pop() {
        if seen.insert(at) {
            let node = nodes.get(at)?;
            total += node.seconds?;
            // What was made elsewhere took a time that nobody recorded.
            if !node.outside.is_empty() && node.kind == fuse::KIND.name {
                return None;
            }
            open.extend(node.links.iter().filter(|link| link.model).map(|link| link.from));
        }
    }
    Some(total)
}
