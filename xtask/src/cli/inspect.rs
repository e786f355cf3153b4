use std::path::Path;

use anyhow::Result;
use clap::Args;
use fusion_core::TensorSource;
use fusion_core::checkpoint::Checkpoint;
use fusion_core::lineage::{Fusion, Lineage, Training, TreeLine};
use pipeline::checkpoint::export::MODELING_FILE;
use pipeline::checkpoint::health::Health;
use pipeline::checkpoint::{check_said_type, parameter_count};
use pipeline::numbers::{count, thousands};
use pipeline::source::ModelPlace;
use serde_json::{Map, Value, json};
use t5_model::{T5Config, parameter_table};

use crate::terminal::output::{print, print_json};
use crate::terminal::{Terminal, warn};

const EXAMPLES: &str = concat!("Example:\n", "  cargo xtask inspect fused",);

/// Show a checkpoint's dimensions, ancestors and health
///
/// Reads every weight, and warns if config.json says that they have another type. Health covers values that are not numbers, rows that are entirely zero (dead), and
/// equal halves: the halves of a self-fusion that nothing has made differ. Half-asymmetry measures how much
/// they differ.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The checkpoint: a directory in the Hugging Face layout, or `hf:ORG/NAME[@REVISION]`
    #[arg(value_name = "CKPT")]
    checkpoint: ModelPlace,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        let (checkpoint, config) = T5Config::open(&self.checkpoint.directory(&Terminal)?)?;
        let parameters = parameter_count(&checkpoint)?;
        let types = types(&checkpoint)?;
        let lineage = checkpoint.lineage()?;
        let health = Health::of(&checkpoint, &parameter_table(&config)?)?;
        if self.json {
            return print_json(&json!({
                "config": config.to_json(),
                "parameters": parameters,
                "tensors_by_type": types,
                "norm_groups": config.norm_groups(),
                "tied_head": config.tied_head(),
                "is_stock": config.is_stock(),
                "blake3": checkpoint.blake3()?,
                "lineage": lineage,
                "total_flops": lineage.as_ref().map(Lineage::total_flops),
                "health": health,
            }));
        }
        let mut text = dimensions(checkpoint.directory(), &config, parameters, &types);
        if let Some(warning) = check_said_type(&checkpoint, &config, None)? {
            warn(&warning);
        }
        text += "\nlineage\n";
        match &lineage {
            None => text += "  unknown (there is no lineage.json)\n",
            Some(lineage) => text += &tree(lineage),
        }
        text += "\nhealth\n";
        text += &health.to_string();
        print(&text)
    }
}

fn dimensions(path: &Path, config: &T5Config, parameters: u64, types: &Map<String, Value>) -> String {
    let groups = config.norm_groups();
    let normalisation = match groups.len() {
        1 => "one group (stock T5)".to_owned(),
        _ => format!("groups {}", groups.iter().map(usize::to_string).collect::<Vec<_>>().join(" + ")),
    };
    let types: Vec<String> =
        types.iter().map(|(name, tensors)| format!("{name} ({tensors} tensors)")).collect();
    let head = if config.tied_head() { "tied to the embedding" } else { "its own" };
    let feed_forward = serde_json::to_value(config.feed_forward_proj).unwrap_or_default();
    let rows = [
        ("parameters", thousands(parameters)),
        ("weights", types.join(", ")),
        ("vocabulary", config.vocab_size.to_string()),
        ("d_model", config.d_model.to_string()),
        ("heads", format!("{} × {}", config.num_heads, config.d_kv)),
        ("d_ff", format!("{} ({})", config.d_ff, feed_forward.as_str().unwrap_or_default())),
        ("layers", format!("{} + {}", config.num_layers, config.num_decoder_layers())),
        ("output head", head.to_owned()),
        ("normalisation", normalisation),
        ("transformers", transformers(path, config).to_owned()),
    ];
    let rows: String = rows.iter().map(|(name, value)| format!("  {name:<14} {value}\n")).collect();
    format!("{}\n{rows}", path.display())
}

/// How to load the checkpoint in transformers.
fn transformers(path: &Path, config: &T5Config) -> &'static str {
    match (config.is_stock(), path.join(MODELING_FILE).is_file()) {
        (true, _) => "as any T5",
        (false, true) => "with trust_remote_code=True: its modelling file is included",
        (false, false) => "needs a modelling file, which the command `export` writes",
    }
}

fn types(checkpoint: &Checkpoint) -> Result<Map<String, Value>> {
    let mut types = Map::new();
    for name in checkpoint.names() {
        let dtype = checkpoint.view(&name)?.dtype().to_string();
        let seen = types.get(&dtype).and_then(Value::as_u64).unwrap_or(0);
        types.insert(dtype, json!(seen + 1));
    }
    Ok(types)
}

fn tree(lineage: &Lineage) -> String {
    let line = |(depth, line)| {
        let text = match line {
            TreeLine::Random => "random weights".to_owned(),
            TreeLine::Fused(Fusion { method, parents, normalisation, cross, .. }) => {
                format!("{method} of {}, normalisation {normalisation}, cross {cross}", parents.len())
            }
            TreeLine::Parent(parent) => format!("- {}", parent.label),
            TreeLine::AsAbove => "as above".to_owned(),
            TreeLine::Unknown => "unknown".to_owned(),
            TreeLine::Trained(Training { steps, tokens, flops, .. }) => {
                let (tokens, flops) = (count(*tokens as f64), count(*flops));
                format!("trained {steps} steps, {tokens} tokens, {flops}FLOP")
            }
        };
        format!("  {}{text}\n", "  ".repeat(depth))
    };
    lineage.tree().into_iter().map(line).collect()
}
