use anyhow::Result;
use pipeline::numbers::{bytes, count, thousands};
use pipeline::report::table::Table;
use serde::Serialize;
use t5_model::training_flops_per_token;

use super::model::Workload;
use super::product::SquareProduct;
use super::protocol::Summary;
use crate::dev::bench::contestant::Contestant;
use crate::dev::bench::gpu::{Gpu, peak};
use crate::dev::bench::{median, quantile};

/// What became of a contestant.
pub struct Measured {
    pub contestant: Contestant,
    /// What it computed on, if that is one of NVIDIA's that can be asked.
    pub gpu: Option<Gpu>,
    /// Milliseconds of the steps of each round.
    pub rounds: Vec<Vec<f64>>,
    /// Or why it did not come to its end.
    pub summary: Result<Summary, String>,
    /// Bytes: of its resident set, or of what it holds on a GPU.
    pub peak_memory: Option<u64>,
}

impl Measured {
    /// Milliseconds by round: of each step, or of the mean one on a GPU, where one may begin before another has ended.
    fn times(&self) -> Vec<Vec<f64>> {
        let mean = |round: &Vec<f64>| vec![round.iter().sum::<f64>() / round.len() as f64];
        if self.contestant.on_cpu() { self.rounds.clone() } else { self.rounds.iter().map(mean).collect() }
    }
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
    /// The CPU's, if a contestant computes there.
    product: Option<Product>,
    /// Whom ratios compare with.
    reference: Option<String>,
    contestants: Vec<Entry>,
}

/// A product of square f32 matrices.
#[derive(Serialize)]
struct Product {
    size: usize,
    /// Operations per second of the fastest.
    flops_per_second: f64,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    /// Of an NVIDIA GPU.
    gpu: Option<String>,
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
    /// The model's FLOP utilisation: of the GPU's peak in bf16, where it is known.
    mfu: Option<f64>,
    peak_memory: Option<u64>,
    /// Of the last step.
    loss: f64,
}

impl Report {
    pub fn new(
        workload: &Workload,
        reference: Option<&str>,
        product: Option<&SquareProduct>,
        measured: Vec<Measured>,
    ) -> Self {
        let batch @ [_, input, target] = workload.sizes();
        let tokens = workload.tokens() as f64;
        let step_flops = tokens * training_flops_per_token(&workload.config(), input, target);
        let ended = || measured.iter().filter(|one| one.summary.is_ok());
        let named = ended().find(|one| Some(one.contestant.to_string().as_str()) == reference);
        let usual = || ended().find(|one| one.contestant.needs_python()).or_else(|| ended().next());
        let reference = named.or_else(usual);
        let figures = |one: &Measured| {
            let (Ok(summary), Some(reference)) = (&one.summary, reference) else { return None };
            let (own, others) = (one.times(), reference.times());
            let times = || own.iter().flatten().copied();
            let middle = |round: &[f64]| median(round.iter().copied());
            let seconds = median(times()) / 1e3;
            let rate = step_flops / seconds;
            let rate_of = |product: &SquareProduct| rate / product.rate();
            Some(Figures {
                median_ms: median(times()),
                quartiles_ms: [0.25, 0.75].map(|share| quantile(times(), share)),
                tokens_per_second: tokens / seconds,
                ratio: median(own.iter().zip(&others).map(|(own, other)| middle(own) / middle(other))),
                flops_per_second: rate,
                share_of_product: product.filter(|_| one.contestant.on_cpu()).map(rate_of),
                mfu: one.gpu.as_ref().and_then(|gpu| peak(&gpu.name)).map(|peak| rate / peak),
                peak_memory: one.peak_memory,
                loss: summary.loss,
            })
        };
        let entry = |one: &Measured| Entry {
            name: one.contestant.to_string(),
            gpu: one.gpu.as_ref().map(|gpu| gpu.name.clone()),
            rounds: one.rounds.clone(),
            figures: figures(one),
            error: one.summary.as_ref().err().cloned(),
        };
        let rate =
            |product: &SquareProduct| Product { size: product.size(), flops_per_second: product.rate() };
        Report {
            model: workload.name(),
            threads: rayon::current_num_threads(),
            batch,
            step_flops,
            product: product.map(rate),
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
        let share = match self.contestants.iter().any(|one| one.gpu.is_some()) {
            true if self.product.is_some() => "share or MFU",
            true => "MFU",
            false => "share",
        };
        let mut table =
            Table::new(["", "ms a step", "quartiles", "tokens/s", "ratio", "peak memory", "FLOP/s", share]);
        for Entry { name, figures, .. } in &self.contestants {
            table.rows.extend(figures.as_ref().map(|figures| figures.row(name)));
        }
        if !table.rows.is_empty() {
            text += &table.text();
        }
        for Entry { name, error, .. } in &self.contestants {
            text.extend(error.as_ref().map(|error| format!("{name}  failed: {error}\n")));
        }
        text + &self.legend()
    }

    /// What the columns are.
    fn legend(&self) -> String {
        let Some(reference) = &self.reference else { return String::new() };
        let mut text = format!(
            "\nratio: the time over that of {reference}, median of the rounds\n\
             FLOP/s: of a step's {}FLOP, the matrix products of forward and backward with attention's\n",
            count(self.step_flops)
        );
        if let Some(Product { size, flops_per_second }) = &self.product {
            let rate = count(*flops_per_second);
            text += &format!("share: of the fastest f32 product of {size} x {size} matrices, {rate}FLOP/s\n");
        }
        if self.contestants.iter().any(|one| one.gpu.is_some()) {
            text += "peak memory: on a GPU what the process holds there, with what its framework keeps for later\n";
        }
        let mut gpus: Vec<&str> = self.contestants.iter().filter_map(|one| one.gpu.as_deref()).collect();
        gpus.sort_unstable();
        gpus.dedup();
        for gpu in gpus {
            text += &match peak(gpu) {
                Some(peak) => format!("MFU: of the {}FLOP/s of {gpu} in dense bf16\n", count(peak)),
                None => format!("MFU: unknown, as is the peak of {gpu} in dense bf16\n"),
            };
        }
        text
    }
}

impl Figures {
    fn row(&self, name: &str) -> Vec<String> {
        let [low, high] = self.quartiles_ms;
        let share = self.share_of_product.or(self.mfu);
        vec![
            name.to_owned(),
            milliseconds(self.median_ms),
            format!("{} – {}", milliseconds(low), milliseconds(high)),
            thousands(self.tokens_per_second.round() as u64),
            format!("{:.2}", self.ratio),
            self.peak_memory.map(|peak| bytes(peak as f64)).unwrap_or_default(),
            count(self.flops_per_second),
            share.map(|share| format!("{:.0} %", 100.0 * share)).unwrap_or_default(),
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{Measured, Report};
    use crate::dev::bench::contestant::Contestant;
    use crate::dev::bench::gpu::Gpu;
    use crate::dev::bench::train::model::Workload;
    use crate::dev::bench::train::protocol::Summary;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        workload: Workload,
    }

    #[test]
    fn gpus_are_measured_by_turns_and_by_their_peak() {
        let measured = |variant, rounds: &[[f64; 2]]| Measured {
            contestant: Contestant::transformers("cuda:0", variant),
            gpu: Some(Gpu::named("NVIDIA A100-SXM4-80GB")),
            rounds: rounds.iter().map(|round| round.to_vec()).collect(),
            summary: Ok(Summary { loss: 7.0, peak_rss_bytes: Some(1) }),
            peak_memory: Some(64_000_000_000),
        };
        let all = vec![measured("", &[[300.0, 500.0], [400.0, 400.0]]), measured("sdpa", &[[190.0, 210.0]])];
        let arguments = Arguments::parse_from(["", "--model", "t5-base", "--batch", "128"]);
        let report = Report::new(&arguments.workload, Some("transformers cuda:0 sdpa"), None, all);
        let text: Vec<String> = report.text().lines().skip(2).map(str::to_owned).collect();
        insta::assert_snapshot!(text.join("\n"), @"
                                  ms a step  quartiles  tokens/s  ratio  peak memory   FLOP/s   MFU
        transformers cuda:0             400  400 – 400   200,320   2.00      64.0 GB  136.3 T  44 %
        transformers cuda:0 sdpa        200  200 – 200   400,640   1.00      64.0 GB  272.6 T  87 %

        ratio: the time over that of transformers cuda:0 sdpa, median of the rounds
        FLOP/s: of a step's 54.5 TFLOP, the matrix products of forward and backward with attention's
        peak memory: on a GPU what the process holds there, with what its framework keeps for later
        MFU: of the 312.0 TFLOP/s of NVIDIA A100-SXM4-80GB in dense bf16
        ");
    }
}
