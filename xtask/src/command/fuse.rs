use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::Args;
use fusion_core::Normalisation;
use serde_json::json;
use t5_model::DepthAlignment;

use crate::output::{print, print_json};
use crate::stage::fuse::{Cross, FuseSettings, NamedModel, PlannedFusion, WeightType};

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask fuse small-a small-b --output fused\n",
    "  cargo xtask fuse small-a --times 2 --norm rule --cross relative:0.01 --output grown",
);

/// Fuse checkpoints into one model whose logits are the average of theirs
///
/// Every parent's weights are placed block-diagonally into a model as wide as all parents together; what connects the
/// blocks is filled by `--cross`. One parent with `--times 2` is self fusion. The parents need the same tokenizer and
/// kind of MLP; their widths, heads, d_ff and numbers of layers may differ. Prints the plan, and writes a checkpoint in
/// Hugging Face's layout with the first parent's tokenizer and a lineage.json.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The checkpoints to fuse
    #[arg(required = true, value_name = "PARENT")]
    parents: Vec<PathBuf>,
    /// Where to write the fused checkpoint
    #[arg(long, value_name = "DIR", required_unless_present = "plan_only")]
    output: Option<PathBuf>,
    /// Normalise each parent's slice by itself (property: exact) or all as one vector (rule: stock T5)
    #[arg(long, value_name = "NORM", value_enum, default_value = "property")]
    norm: Norm,
    /// Cross-connections: zero, normal:STD (absolute) or relative:SHARE (of the weights' root mean square)
    #[arg(long, value_name = "CROSS", default_value = "zero")]
    cross: Cross,
    /// Seed of the cross-connections
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Take the only parent so often; 2 is self fusion
    #[arg(long, value_name = "N", default_value_t = 1)]
    times: usize,
    /// The parents' weights in the average, adding up to 1 [default: all equal]
    #[arg(long, value_name = "W,…", value_delimiter = ',')]
    weights: Option<Vec<f64>>,
    /// Which of the child's blocks a parent with fewer takes; it passes its features through the others
    #[arg(long, value_name = "WHERE", value_enum, default_value = "bottom")]
    depth: Depth,
    /// Type of the fused weights [default: the parents']
    #[arg(long, value_enum)]
    dtype: Option<WeightType>,
    /// Print the plan and write nothing
    #[arg(long)]
    plan_only: bool,
    /// Replace a checkpoint that is already in DIR
    #[arg(long)]
    overwrite: bool,
    /// Print the plan as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Norm {
    Property,
    Rule,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Depth {
    /// The first ones
    Bottom,
    /// The last ones
    Top,
    /// The first, the last, and evenly spaced ones in between
    Spread,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        if let Some(output) = self.output.as_deref().filter(|_| !self.plan_only) {
            self.check_output(output)?;
        }
        let settings = FuseSettings {
            norm: match self.norm {
                Norm::Property => Normalisation::Property,
                Norm::Rule => Normalisation::Rule,
            },
            cross: self.cross,
            seed: self.seed,
            times: self.times,
            weights: self.weights.clone(),
            depth: match self.depth {
                Depth::Bottom => DepthAlignment::Bottom,
                Depth::Top => DepthAlignment::Top,
                Depth::Spread => DepthAlignment::Spread,
            },
            dtype: self.dtype,
        };
        let fusion = PlannedFusion::new(&named(&self.parents), &settings)?;
        for warning in &fusion.warnings {
            eprintln!("warning: {warning}");
        }
        if let Some(output) = self.output.as_deref().filter(|_| !self.plan_only) {
            fusion.write(output)?;
        }
        if self.json {
            return print_json(
                &json!({ "plan": fusion.plan, "config": fusion.child.to_json(), "warnings": fusion.warnings }),
            );
        }
        print(&fusion.plan.to_string())?;
        match &self.output {
            Some(output) if !self.plan_only => print(&format!("\nwritten to {}\n", output.display())),
            _ => Ok(()),
        }
    }

    fn check_output(&self, output: &Path) -> Result<()> {
        let Ok(entries) = fs::read_dir(output) else { return Ok(()) };
        if entries.count() == 0 {
            return Ok(());
        }
        let place = output.display();
        ensure!(self.overwrite, "{place} exists and is not empty; --overwrite replaces the checkpoint in it");
        ensure!(
            output.join("config.json").is_file(),
            "{place} holds no checkpoint, so it is not overwritten"
        );
        let same = |parent: &PathBuf| fs::canonicalize(parent).ok() == fs::canonicalize(output).ok();
        ensure!(!self.parents.iter().any(same), "{place} is one of the parents, so it is not overwritten");
        Ok(())
    }
}

/// Names the parents by their directories, or by their paths where two directories have the same name.
fn named(parents: &[PathBuf]) -> Vec<NamedModel> {
    let name = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        name.unwrap_or_else(|| path.display().to_string())
    };
    let unique = |path: &PathBuf| !parents.iter().any(|other| other != path && name(other) == name(path));
    let label = |path: &PathBuf| if unique(path) { name(path) } else { path.display().to_string() };
    parents.iter().map(|path| NamedModel { label: label(path), directory: path.clone() }).collect()
}
