use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use clap::Args;
use pipeline::checkpoint::verify::{Deviations, Family, RandomBatches};
use pipeline::checkpoint::{has_tokenizer, tokenizer_for};
use pipeline::report::table::Table;
use pipeline::source::ModelPlace;
use pipeline::stage::Input;
use pipeline::stage::text::Data;
use serde_json::json;
use t5_model::text::{ObjectiveOptions, TEXT_FIELD};
use t5_model::{Batch, Deviation};

use crate::cli::compute::ComputeArguments;
use crate::cli::text::only_with;
use crate::terminal::output::{print, print_json};
use crate::terminal::{Terminal, warn};

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask verify fused small-a small-b\n",
    "  cargo xtask verify fused small-a small-b --weights 0.7,0.3 --text validation.json.gz --tolerance 0.4",
);

/// Compare a fused model's predictions with the ensemble of its parents
///
/// Runs the child and its parents on the same batches and prints how far the child's logits are from the
/// average of the parents'. Exits with 1 if the deviation exceeds the tolerance. A model grown from one
/// parent is compared with that parent. Batches contain random tokens, or text corrupted as in pretraining.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, mut_args = only_with("text"))]
pub struct Arguments {
    /// The fused or grown checkpoint
    #[arg(value_name = "CHILD")]
    child: ModelPlace,
    /// Its parents: directories, or `hf:ORG/NAME[@REVISION]`
    #[arg(value_name = "PARENT", required = true)]
    parents: Vec<ModelPlace>,
    /// The parents' weights in the average [default: those in the child's lineage, otherwise all equal]
    #[arg(long, value_name = "W,…", value_delimiter = ',')]
    weights: Option<Vec<f64>>,
    /// Text, named as for `pretrain` [default: random tokens]
    #[arg(long, value_name = "PATH", num_args = 1..)]
    text: Vec<String>,
    /// The field of JSON, or column of a table, that holds the text
    #[arg(long, value_name = "NAME", default_value = TEXT_FIELD, requires = "text")]
    text_field: String,
    /// A tokenizer.json, spiece.model or folder, or bytes, for text [default: the child's, or that of the first parent that has one]
    #[arg(long, value_name = "PATH", requires = "text")]
    tokenizer: Option<PathBuf>,
    /// Tokens per input
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(8..))]
    input_length: u16,
    /// The maximum number of examples
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    examples: u32,
    /// Examples on the device at once; changes results by rounding at most
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: u16,
    /// Seed for the random tokens
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// The largest accepted deviation of a logit, relative to the ensemble's largest logit
    #[arg(long, value_name = "T", default_value_t = 1e-4)]
    tolerance: f64,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    objective: ObjectiveOptions,
    #[command(flatten)]
    compute: ComputeArguments,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        ensure!(self.tolerance >= 0.0, "--tolerance is {}; it is at least 0", self.tolerance);
        let family = Family::open(&self.child, &self.parents, &Terminal)?;
        family.warnings()?.iter().for_each(warn);
        let weights = family.weights(self.weights.as_deref())?;
        let batches = self.batches(&family)?;
        ensure!(!batches.is_empty(), "the text is too short for an input of {} tokens", self.input_length);
        let Deviations { child: deviation, parents } =
            self.compute.run(|compute| family.compare(&weights, &batches, compute, &Terminal))?;
        let accepted = deviation.largest <= self.tolerance;
        if self.json {
            let parent =
                |(name, deviation): &(String, Deviation)| json!({ "model": name, "deviation": deviation });
            let parents: Vec<_> = parents.iter().map(parent).collect();
            print_json(&json!({
                "deviation": deviation, "parents": parents, "weights": weights, "tolerance": self.tolerance,
                "accepted": accepted,
            }))?;
        } else {
            print(&report(&deviation, &family.child.name, &parents))?;
        }
        if !accepted {
            let (largest, tolerance) = (deviation.largest, self.tolerance);
            bail!("the largest deviation is {largest:.2e}, more than the tolerance of {tolerance:.0e}");
        }
        Ok(())
    }

    fn batches(&self, family: &Family) -> Result<Vec<Batch>> {
        let (examples, batch_size, input_length) = (self.examples, self.batch_size, self.input_length);
        if self.text.is_empty() {
            let sizes = RandomBatches { examples, batch_size, input_length, seed: self.seed };
            return Ok(family.random_batches(&sizes));
        }
        let child = family.child.checkpoint.directory();
        let models = family.parents.iter().map(|parent| parent.checkpoint.directory());
        let with_tokenizer = std::iter::once(child).chain(models).find(|model| has_tokenizer(model));
        let model = with_tokenizer.filter(|_| self.tokenizer.is_none()).unwrap_or(child);
        let tokenizer = Input::tokenizer(self.tokenizer.clone().unwrap_or_else(|| model.into()));
        let objective = self.objective.objective()?;
        let data =
            Data::to_evaluate(&self.text, &self.text_field, tokenizer, input_length.into(), objective)?;
        let tokenizer = tokenizer_for(model, &family.child.config, self.tokenizer.as_deref())?;
        Ok(data.open(tokenizer, &Terminal)?.held_out(examples as usize, batch_size.into())?)
    }
}

fn report(deviation: &Deviation, child: &str, parents: &[(String, Deviation)]) -> String {
    let mut table = Table::new(["", "deviation", "largest", "KL, nats", "same first choice", "loss"]);
    let mut row = |name: &str, d: &Deviation| {
        table.rows.push(vec![
            name.to_owned(),
            format!("{:.2e}", d.logits),
            format!("{:.2e}", d.largest),
            format!("{:.2e}", d.divergence),
            format!("{:.2} %", 100.0 * d.agreement),
            format!("{:.4}", d.loss),
        ]);
    };
    row(child, deviation);
    parents.iter().for_each(|(name, deviation)| row(name, deviation));
    let loss = format!("{:.4}", deviation.expected_loss);
    table.rows.push(["ensemble", "", "", "", "", &loss].map(str::to_owned).to_vec());
    let verdict = match deviation.largest {
        ..=2e-5 => "The child is the ensemble, to rounding.",
        ..=1e-2 => "The child is close to the ensemble.",
        _ => "The child is not the ensemble.",
    };
    format!(
        "From the ensemble's logits, relative, over {} target tokens:\n\n{}\n{verdict}\n",
        deviation.tokens,
        table.text()
    )
}
