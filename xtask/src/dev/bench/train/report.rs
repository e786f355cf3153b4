use pipeline::numbers::{bytes, count, thousands};
use serde::Serialize;
use t5_model::training_flops_per_token;

use super::model::Workload;
use super::product::SquareProduct;
use super::protocol::Summary;
use crate::dev::bench::gpu::peak;
use crate::dev::bench::report::{Device, Entry, reference, table};
use crate::dev::bench::{median, quantile, turns};

/// What became of a contestant, with the milliseconds of the steps of each turn.
pub type Measured = turns::Measured<Vec<f64>, Summary>;

/// Milliseconds by round: of each step, or of the mean step on a GPU, where a step may begin before the
/// previous one has ended.
fn times(of: &Measured) -> Vec<Vec<f64>> {
    let mean = |round: &Vec<f64>| vec![round.iter().sum::<f64>() / round.len() as f64];
    let rounds = of.rounds.iter().flatten();
    if of.contestant.on_cpu() { rounds.cloned().collect() } else { rounds.map(mean).collect() }
}

/// Everything that was measured.
#[derive(Serialize)]
pub struct Report {
    model: String,
    threads: usize,
    /// The number of examples, and the tokens per input and per target.
    batch: [usize; 3],
    /// Operations per step: the matrix products of forward and backward passes, including attention's.
    step_flops: f64,
    /// Measured on the CPU, if a contestant computes there.
    product: Option<Product>,
    /// The contestant that ratios are relative to.
    reference: Option<String>,
    /// With the milliseconds of each step.
    pub contestants: Vec<Entry<Figures>>,
}

/// A product of square f32 matrices.
#[derive(Serialize)]
struct Product {
    size: usize,
    /// Operations per second of the fastest run.
    flops_per_second: f64,
}

/// The figures of a contestant that finished.
#[derive(Serialize)]
pub struct Figures {
    median_ms: f64,
    quartiles_ms: [f64; 2],
    /// Input and target tokens.
    tokens_per_second: f64,
    /// Its time relative to the reference's: the median over the rounds.
    ratio: f64,
    flops_per_second: f64,
    /// Relative to the rate of the matrix product; CPU only.
    share_of_product: Option<f64>,
    /// Model FLOP utilisation: the share of the GPU's bf16 peak, where that is known.
    mfu: Option<f64>,
    /// Bytes of its resident set, or those it holds on a GPU.
    peak_memory: Option<u64>,
    /// The last step's loss.
    loss: f64,
}

impl Report {
    pub fn new(
        workload: &Workload,
        named: Option<&str>,
        product: Option<&SquareProduct>,
        measured: &[Measured],
    ) -> Self {
        let batch @ [_, input, target] = workload.sizes();
        let tokens = workload.tokens() as f64;
        let step_flops = tokens * training_flops_per_token(&workload.config(), input, target);
        let reference = reference(measured, named);
        let figures = |one: &Measured| {
            let (Ok(summary), Some(reference)) = (&one.summary, reference) else { return None };
            let (own, others) = (times(one), times(reference));
            let steps = || own.iter().flatten().copied();
            let middle = |round: &[f64]| median(round.iter().copied());
            let seconds = median(steps()) / 1e3;
            let rate = step_flops / seconds;
            let rate_of = |product: &SquareProduct| rate / product.rate();
            Some(Figures {
                median_ms: median(steps()),
                quartiles_ms: [0.25, 0.75].map(|share| quantile(steps(), share)),
                tokens_per_second: tokens / seconds,
                ratio: median(own.iter().zip(&others).map(|(own, other)| middle(own) / middle(other))),
                flops_per_second: rate,
                share_of_product: product.filter(|_| one.contestant.on_cpu()).map(rate_of),
                mfu: one.gpu.as_ref().and_then(|gpu| peak(&gpu.name)).map(|peak| rate / peak),
                peak_memory: if one.contestant.on_cpu() { summary.peak_rss_bytes } else { one.on_gpu },
                loss: summary.loss,
            })
        };
        let entry = |one: &Measured| {
            let device = Device { gpu: one.gpu.as_ref().map(|gpu| gpu.name.clone()) };
            Entry::new(one, Some(device), one.rounds.iter().flatten().cloned(), figures(one))
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

    /// NVIDIA's.
    fn gpus(&self) -> Vec<&str> {
        self.contestants.iter().filter_map(|one| one.device.as_ref()?.gpu.as_deref()).collect()
    }

    pub fn text(&self) -> String {
        let [size, input, target] = self.batch;
        let (model, threads) = (&self.model, self.threads);
        let text = format!("{model}, batch {size} x ({input} + {target}), {threads} threads\n\n");
        let share = match self.gpus().is_empty() {
            true => "share",
            false if self.product.is_some() => "share or MFU",
            false => "MFU",
        };
        let header = ["", "ms a step", "quartiles", "tokens/s", "ratio", "peak memory", "FLOP/s", share];
        text + &table(header, &self.contestants, Figures::row) + &self.legend()
    }

    /// Explains the columns.
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
        let mut gpus = self.gpus();
        if !gpus.is_empty() {
            text += "peak memory: on a GPU what the process holds there, with what its framework keeps for later\n";
        }
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
    fn row(&self, name: &str) -> [String; 8] {
        let [low, high] = self.quartiles_ms;
        let share = self.share_of_product.or(self.mfu);
        [
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

/// Formats with at least three significant figures.
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
            rounds: rounds.iter().map(|round| vec![round.to_vec()]).collect(),
            summary: Ok(Summary { loss: 7.0, peak_rss_bytes: Some(1) }),
            on_gpu: Some(64_000_000_000),
        };
        let all = vec![measured("", &[[300.0, 500.0], [400.0, 400.0]]), measured("sdpa", &[[190.0, 210.0]])];
        let arguments = Arguments::parse_from(["", "--model", "t5-base", "--batch", "128"]);
        let report = Report::new(&arguments.workload, Some("transformers cuda:0 sdpa"), None, &all);
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
