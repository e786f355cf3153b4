use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use fusion_core::atomic::free_space;
use pipeline::checkpoint::check_replaceable;
use pipeline::numbers::{bytes, thousands};
use pipeline::problems::Problems;
use pipeline::report::table::Table;
use pipeline::source::ModelPlace;
use pipeline::stage::fuse::Parents;
use serde::Serialize;
use t5_model::method::{Method, MethodSettings, Paper, Promise};
use t5_model::{T5Config, parameter_table};

use super::fuse::named;
use crate::terminal::output::{print, print_json};
use crate::terminal::{Asked, causes, with_advice};

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask check small-a small-b --output fused\n",
    "  cargo xtask check small-a --method lemon --num-heads 9",
);

/// Show what a fusion would produce and require, and every reason it would be refused
///
/// Takes the same options as `fuse` but writes nothing. Prints dimensions and parameters, what the child will
/// predict, and the disk space and memory needed to write and to train it. Exits with 1 if `fuse` would
/// refuse.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The checkpoints to fuse: directories, or `hf:ORG/NAME[@REVISION]`
    #[arg(required = true, value_name = "PARENT")]
    parents: Vec<ModelPlace>,
    /// Where the fused checkpoint would be written
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    #[command(flatten)]
    settings: MethodSettings,
    /// Assume that a checkpoint already in DIR may be replaced
    #[arg(long, requires = "output")]
    overwrite: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is known of a fusion before it runs.
#[derive(Serialize)]
struct Outlook {
    method: Method,
    parents: Vec<Model>,
    child: Model,
    promise: Option<Promise>,
    /// Size in bytes of the child's weights and, if carried over, its optimiser's state.
    weights: u64,
    /// Free bytes on the output's file system.
    free: Option<u64>,
    /// Bytes of memory that the fusion needs, excluding mapped pages of its parents.
    memory: u64,
    /// Size in bytes of the child's weights, its gradients and AdamW's moments in f32.
    training_memory: u64,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Model {
    label: String,
    parameters: u64,
    config: T5Config,
}

impl Model {
    fn new(label: &str, config: &T5Config) -> Result<Self> {
        let parameters = parameter_table(config)?.parameter_count();
        Ok(Model { label: label.to_owned(), parameters, config: config.clone() })
    }
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        let mut problems = Problems::default();
        if let Some(output) = &self.output {
            let parents: Vec<&Path> = self.parents.iter().filter_map(ModelPlace::path).collect();
            problems.keep(check_replaceable(output, self.overwrite, &parents));
        }
        let outlook = problems.keep(self.outlook());
        let result = problems.result();
        if self.json {
            let refused = result.as_ref().err().map(|error| causes(error, Asked::ByFlags));
            print_json(&serde_json::json!({ "outlook": outlook, "refused": refused }))?;
        } else if let Some(outlook) = &outlook {
            print(&outlook.text())?;
        }
        result
    }

    fn outlook(&self) -> Result<Outlook> {
        let parents = Parents::open(&named(&self.parents)?, &self.settings)?;
        let models = parents.models.iter().map(|model| Model::new(&model.label, &model.config));
        let models = models.collect::<Result<Vec<_>>>()?;
        let fusion = parents.plan(&self.settings)?;
        let child = Model::new("child", &fusion.child)?;
        let output = self.output.as_deref().map(std::path::absolute).transpose()?;
        // The output need not exist yet.
        let existing = output.as_deref().and_then(|output| output.ancestors().find(|path| path.exists()));
        Ok(Outlook {
            method: self.settings.method,
            parents: models,
            promise: Promise::of(&fusion.plan),
            weights: fusion.size()?,
            free: existing.and_then(free_space),
            memory: fusion.memory()?,
            training_memory: child.parameters.saturating_mul(16),
            child,
            warnings: fusion.warnings.iter().map(|warning| with_advice(warning, Asked::ByFlags)).collect(),
        })
    }
}

impl Outlook {
    fn text(&self) -> String {
        let mut table = Table::new(["", "parameters", "d_model", "heads", "d_ff", "layers"]);
        for Model { label, parameters, config } in self.parents.iter().chain([&self.child]) {
            table.rows.push(vec![
                label.clone(),
                thousands(*parameters),
                config.d_model.to_string(),
                format!("{} × {}", config.num_heads, config.d_kv),
                config.d_ff.to_string(),
                format!("{} + {}", config.num_layers, config.num_decoder_layers()),
            ]);
        }
        let Paper { name, url } = self.method.paper();
        let mut text = format!("{name}, {url}\n\n{}\n", table.text());
        if let Some(promise) = self.promise {
            text += &format!("{}\n", said(promise));
        }
        let free =
            self.free.map_or(String::new(), |free| format!("; the disk has room for {}", bytes(free as f64)));
        text += &format!("To write: {}{free}.\n", bytes(self.weights as f64));
        let (fusing, training) = (bytes(self.memory as f64), bytes(self.training_memory as f64));
        text += &format!(
            "Memory: {fusing} to fuse. To train the child, {training} for weights, gradients and AdamW's moments in f32; \
             activations come on top.\n"
        );
        text += &self.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect::<String>();
        text
    }
}

fn said(promise: Promise) -> &'static str {
    match promise {
        Promise::Ensemble => "The child's logits are the average of its parents', exactly.",
        Promise::Parent => "The child's logits are its parent's, exactly.",
        Promise::Noisy => {
            "The child's logits are the average of its parents', except for the noise in its cross-connections."
        }
        Promise::Rule => {
            "The child's logits are close to the average of its parents'; `verify` measures how close."
        }
        Promise::Other => "The child's logits are not its parent's.",
    }
}
