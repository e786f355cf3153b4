use anyhow::Result;
use serde::Serialize;
use t5_model::training_flops_per_token;

use super::model::Model;
use super::product::SquareProduct;
use super::protocol::Summary;
use crate::command::bench::contestant::Contestant;
use crate::command::bench::{median, quantile};
use crate::output::{bytes, count, thousands};
use crate::report::table::Table;

/// What became of a contestant.
pub struct Measured {
    pub contestant: Contestant,
    /// Milliseconds of the steps of each round.
    pub rounds: Vec<Vec<f64>>,
    /// Or why it did not come to its end.
    pub summary: Result<Summary, String>,
}

/// Everything that was measured.
#[derive(Serialize)]
pub struct Report {
    model: String,
    threads: usize,
    /// Examples, and tokens of an input and of a target.
    batch: [usize; 3],
    /// Operations of a step: the matrix products of forward and backward, attention's included.
    step_flops: f64,
    product_size: usize,
    /// Operations per second of the fastest square f32 matrix product.
    product_flops_per_second: f64,
    /// Whom ratios compare with.
    reference: Option<String>,
    contestants: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    /// Milliseconds of the steps of each round.
    rounds: Vec<Vec<f64>>,
    #[serde(flatten)]
    figures: Option<Figures>,
    error: Option<String>,
}

/// Of a contestant that came to its end.
#[derive(Serialize)]
struct Figures {
    median_ms: f64,
    quartiles_ms: [f64; 2],
    /// Input and target tokens.
    tokens_per_second: f64,
    /// Its time over the reference's: the median over the rounds.
    ratio: f64,
    flops_per_second: f64,
    /// Of the matrix product's; on the CPU.
    share_of_product: Option<f64>,
    peak_memory: Option<u64>,
    /// Of the last step.
    loss: f64,
}

impl Report {
    pub fn new(model: Model, product: &SquareProduct, measured: Vec<Measured>) -> Self {
        let batch @ [_, input, target] = model.sizes();
        let tokens = model.tokens() as f64;
        let step_flops = tokens * training_flops_per_token(&model.config(), input, target);
        let ended = || measured.iter().filter(|one| one.summary.is_ok());
        let reference = ended().find(|one| one.contestant.needs_python()).or_else(|| ended().next());
        let figures = |one: &Measured| {
            let (Ok(summary), Some(reference)) = (&one.summary, reference) else { return None };
            let steps = || one.rounds.iter().flatten().copied();
            let in_turns = one.rounds.iter().zip(&reference.rounds);
            let middle = |round: &[f64]| median(round.iter().copied());
            let seconds = median(steps()) / 1e3;
            let rate = step_flops / seconds;
            Some(Figures {
                median_ms: median(steps()),
                quartiles_ms: [0.25, 0.75].map(|share| quantile(steps(), share)),
                tokens_per_second: tokens / seconds,
                ratio: median(in_turns.map(|(own, other)| middle(own) / middle(other))),
                flops_per_second: rate,
                share_of_product: one.contestant.on_cpu().then(|| rate / product.rate()),
                peak_memory: summary.peak_rss_bytes,
                loss: summary.loss,
            })
        };
        let entry = |one: &Measured| Entry {
            name: one.contestant.to_string(),
            rounds: one.rounds.clone(),
            figures: figures(one),
            error: one.summary.as_ref().err().cloned(),
        };
        Report {
            model: model.name(),
            threads: rayon::current_num_threads(),
            batch,
            step_flops,
            product_size: product.size(),
            product_flops_per_second: product.rate(),
            reference: reference.map(|one| one.contestant.to_string()),
            contestants: measured.iter().map(entry).collect(),
        }
    }

    pub fn failures(&self) -> usize {
        self.contestants.iter().filter(|one| one.error.is_some()).count()
    }

    pub fn text(&self) -> String {
        let [size, input, target] = self.batch;
        let (model, threads) = (&self.model, self.threads);
        let mut text = format!("{model}, batch {size} x ({input} + {target}), {threads} threads\n\n");
        let mut table =
            Table::new(["", "ms a step", "quartiles", "tokens/s", "ratio", "peak memory", "FLOP/s", "share"]);
        for Entry { name, figures, .. } in &self.contestants {
            table.rows.extend(figures.as_ref().map(|figures| figures.row(name)));
        }
        if !table.rows.is_empty() {
            text += &table.text();
        }
        for Entry { name, error, .. } in &self.contestants {
            text.extend(error.as_ref().map(|error| format!("{name}  failed: {error}\n")));
        }
        if let Some(reference) = &self.reference {
            let (step, size) = (count(self.step_flops), self.product_size);
            let product = count(self.product_flops_per_second);
            text += &format!(
                "\nratio: the time over that of {reference}, median of the rounds\n\
                 FLOP/s: of a step's {step}FLOP, the matrix products of forward and backward with attention's\n\
                 share: of the fastest f32 product of {size} x {size} matrices, {product}FLOP/s\n"
            );
        }
        text
    }
}

impl Figures {
    fn row(&self, name: &str) -> Vec<String> {
        let [low, high] = self.quartiles_ms;
        vec![
            name.to_owned(),
            milliseconds(self.median_ms),
            format!("{} – {}", milliseconds(low), milliseconds(high)),
            thousands(self.tokens_per_second.round() as u64),
            format!("{:.2}", self.ratio),
            self.peak_memory.map(|peak| bytes(peak as f64)).unwrap_or_default(),
            count(self.flops_per_second),
            self.share_of_product.map(|share| format!("{:.0} %", 100.0 * share)).unwrap_or_default(),
        ]
    }
}

/// Three figures at least.
fn milliseconds(ms: f64) -> String {
    match ms {
        ..10.0 => format!("{ms:.2}"),
        ..100.0 => format!("{ms:.1}"),
        _ => format!("{ms:.0}"),
    }
}
