use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use fusion_core::{Checkpoint, HostTensor, Philox};
use serde_json::json;
use t5_model::{Batch, Comparison, Deviation, Session, T5Config};

use crate::compute::{Compute, ComputeArguments};
use crate::corpus;
use crate::model::{ModelPlace, tokenizer_for, tokenizer_of};
use crate::output::{print, print_json};
use crate::report::table::Table;
use crate::stage::Source;
use crate::stage::text::{Data, HeldOut};

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask verify fused small-a small-b\n",
    "  cargo xtask verify fused small-a small-b --weights 0.7,0.3 --text validation.json.gz --tolerance 0.4",
);

/// Compare a fused model's predictions with the ensemble of its parents
///
/// Runs the child and its parents on the same batches and prints how far the child's logits are from the average of the
/// parents'. Exits with 1 if that is more than the tolerance. A model grown from one parent is compared with it. Batches
/// hold random tokens, or text that is corrupted as in pretraining.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The fused or grown checkpoint
    #[arg(value_name = "CHILD")]
    child: ModelPlace,
    /// What it was made from; models are directories, or `hf:ORG/NAME[@REVISION]`
    #[arg(value_name = "PARENT", required = true)]
    parents: Vec<ModelPlace>,
    /// The parents' weights in the average [default: the child's lineage, or else all equal]
    #[arg(long, value_name = "W,…", value_delimiter = ',')]
    weights: Option<Vec<f64>>,
    /// Files, folders or globs of text, or builtin:webster [default: random tokens]
    #[arg(long, value_name = "PATH", num_args = 1..)]
    text: Vec<String>,
    /// A tokenizer.json, spiece.model or folder, for text [default: the child's or the first parent's]
    #[arg(long, value_name = "PATH", requires = "text")]
    tokenizer: Option<PathBuf>,
    /// Tokens of an input
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(8..))]
    input_length: u16,
    /// Examples in a batch
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: u16,
    /// At most so many batches
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batches: u32,
    /// Of the random tokens
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// The largest deviation of a logit that is accepted, relative to the ensemble's largest
    #[arg(long, value_name = "T", default_value_t = 1e-4)]
    tolerance: f64,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: ComputeArguments,
}

/// A model under comparison.
struct Model {
    name: String,
    checkpoint: Checkpoint,
    config: T5Config,
}

impl Model {
    fn open(place: &ModelPlace) -> Result<Self> {
        let checkpoint = Checkpoint::open(&place.directory()?)?;
        let config = T5Config::of_checkpoint(&checkpoint)?;
        Ok(Model { name: place.to_string(), checkpoint, config })
    }
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        ensure!(self.tolerance >= 0.0, "--tolerance is {}; it is at least 0", self.tolerance);
        let child = Model::open(&self.child)?;
        let parents = self.parents.iter().map(Model::open).collect::<Result<Vec<_>>>()?;
        for parent in &parents {
            let (own, others) = (child.config.vocab_size, parent.config.vocab_size);
            ensure!(own == others, "{} has {own} tokens, but {} {others}", child.name, parent.name);
        }
        check_lineage(&child, &parents)?;
        let weights = self.weights(&child)?;
        let batches = self.batches(&child, &parents[0])?;
        ensure!(!batches.is_empty(), "the text is too short for a batch of {} inputs", self.batch_size);
        let compute = self.compute.start()?;

        let ensemble = ensemble(&parents, &weights, &batches, &compute)?;
        let compare = |model: &Model| -> Result<Deviation> {
            let mut comparison = Comparison::default();
            let mut session = compute.open_checkpoint(&model.checkpoint)?;
            for (batch, expected) in batches.iter().zip(&ensemble) {
                comparison.add(expected, &logits(session.as_mut(), batch, &model.name)?, &batch.labels);
            }
            Ok(comparison.deviation())
        };
        let deviation = compare(&child)?;
        // A parent that occurs twice, as in self fusion, is shown once.
        let mut shown: Vec<(&str, Deviation)> = Vec::new();
        for parent in &parents {
            if !shown.iter().any(|(name, _)| *name == parent.name) {
                shown.push((&parent.name, compare(parent)?));
            }
        }
        let accepted = deviation.largest <= self.tolerance;
        if self.json {
            let parents: Vec<_> = shown
                .iter()
                .map(|(name, deviation)| json!({ "model": name, "deviation": deviation }))
                .collect();
            print_json(&json!({
                "deviation": deviation, "parents": parents, "weights": weights, "tolerance": self.tolerance,
                "accepted": accepted,
            }))?;
        } else {
            print(&report(&deviation, &child.name, &shown))?;
        }
        if !accepted {
            let (largest, tolerance) = (deviation.largest, self.tolerance);
            bail!("the largest deviation is {largest:.2e}, more than the tolerance of {tolerance:.0e}");
        }
        Ok(())
    }

    fn weights(&self, child: &Model) -> Result<Vec<f64>> {
        let parents = self.parents.len();
        let recorded = || -> Result<Option<Vec<f64>>> {
            let fusion = child.checkpoint.lineage()?.and_then(|lineage| lineage.fusion);
            let weights = fusion.and_then(|fusion| fusion.other.get("weights").cloned());
            let weights = weights.map(serde_json::from_value).transpose();
            weights.with_context(|| format!("{}: the weights in lineage.json are no numbers", child.name))
        };
        let weights = match &self.weights {
            Some(weights) => Some(weights.clone()),
            None => recorded()?,
        };
        let weights = weights.unwrap_or_else(|| vec![1.0 / parents as f64; parents]);
        ensure!(weights.len() == parents, "there are {} weights for {parents} parents", weights.len());
        let total: f64 = weights.iter().sum();
        ensure!((total - 1.0).abs() <= 1e-6, "the weights must add up to 1, but they add up to {total}");
        Ok(weights)
    }

    fn batches(&self, child: &Model, parent: &Model) -> Result<Vec<Batch>> {
        if self.text.is_empty() {
            let last = child.config.vocab_size as f64;
            return Ok((0..self.batches).map(|batch| self.random_batch(batch, last)).collect());
        }
        let (model, parent) = (child.checkpoint.directory(), parent.checkpoint.directory());
        let model = match tokenizer_of(model)? {
            None if self.tokenizer.is_none() => parent,
            _ => model,
        };
        let text =
            self.text.iter().map(|text| corpus::absolute(Path::new(""), text)).collect::<Result<Vec<_>>>()?;
        let data = Data {
            held_out: HeldOut::Text(text.clone()),
            text,
            tokenizer: Source::Path(self.tokenizer.clone().unwrap_or_else(|| model.into())),
            input_length: self.input_length.into(),
            max_documents: None,
        };
        let tokenizer = tokenizer_for(model, &child.config, self.tokenizer.as_deref())?;
        let stream = data.open(tokenizer)?.evaluation(self.batch_size.into())?;
        stream.take(self.batches as usize).map(|next| Ok(next?.batch)).collect()
    }

    /// Inputs of different lengths, so that some are padded, and targets of a quarter of the length.
    fn random_batch(&self, index: u32, vocabulary: f64) -> Batch {
        let stream = Philox::new(self.seed, &format!("verify {index}"));
        let (length, size) = (u64::from(self.input_length), u64::from(self.batch_size));
        let token = |at: u64| (f64::from(stream.uniform(at)) * vocabulary) as i32;
        let examples: Vec<(Vec<i32>, Vec<i32>)> = (0..size)
            .map(|example| {
                let first = example * 2 * length;
                let input = length - example % (length / 4);
                let of = |from: u64, count: u64| (from..from + count).map(token).collect();
                (of(first, input), of(first + length, length / 4))
            })
            .collect();
        Batch::padded(examples.iter().map(|(input, target)| (input.as_slice(), target.as_slice())), 0)
    }
}

/// Warns if the child says that it was made from other weights.
fn check_lineage(child: &Model, parents: &[Model]) -> Result<()> {
    let Some(fusion) = child.checkpoint.lineage()?.and_then(|lineage| lineage.fusion) else { return Ok(()) };
    for parent in parents {
        let hash = parent.checkpoint.blake3()?;
        let known =
            fusion.parents.iter().any(|known| known.blake3.as_ref().is_none_or(|known| *known == hash));
        if !known {
            eprintln!(
                "warning: {} was not made from the weights of {}, says its lineage.json",
                child.name, parent.name
            );
        }
    }
    Ok(())
}

/// The average of the parents' logits for each batch. One parent is on the device at a time.
fn ensemble(
    parents: &[Model],
    weights: &[f64],
    batches: &[Batch],
    compute: &Compute,
) -> Result<Vec<HostTensor>> {
    let mut sums: Vec<Option<HostTensor>> = vec![None; batches.len()];
    for (parent, &weight) in parents.iter().zip(weights) {
        let mut session = compute.open_checkpoint(&parent.checkpoint)?;
        for (batch, sum) in batches.iter().zip(&mut sums) {
            let mut logits = logits(session.as_mut(), batch, &parent.name)?;
            logits.data.iter_mut().for_each(|logit| *logit = (f64::from(*logit) * weight) as f32);
            match sum {
                None => *sum = Some(logits),
                Some(sum) => sum.data.iter_mut().zip(logits.data).for_each(|(sum, logit)| *sum += logit),
            }
        }
    }
    Ok(sums.into_iter().flatten().collect())
}

/// `[batch, target, vocabulary]`.
fn logits(session: &mut dyn Session, batch: &Batch, name: &str) -> Result<HostTensor> {
    Ok(session.forward(batch, false).with_context(|| format!("cannot run {name}"))?.logits)
}

fn report(deviation: &Deviation, child: &str, parents: &[(&str, Deviation)]) -> String {
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
    table.rows.push(["ensemble", "", "", "", ""].map(str::to_owned).to_vec());
    table.rows.last_mut().into_iter().for_each(|row| row.push(format!("{:.4}", deviation.expected_loss)));
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
