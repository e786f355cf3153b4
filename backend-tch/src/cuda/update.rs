//! Updates of all parameters at once: AdamW, AdamWScale and Adafactor.

use t5_model::backend::Pending;
use t5_model::optimizer::{AdafactorStep, AdamwStep};
use tch::{Kind, Tensor};

use super::{Argument, Kernel, Kernels, Source, Unit, at, at_option};

/// The number of elements that a block takes, except of factored matrices.
const CHUNK: i64 = 32_768;
/// The number of rows of a factored matrix that a block takes, as in `adafactor.cu`.
const ROWS: i64 = 64;
/// The number of threads in a block, as in the kernels.
const THREADS: i64 = 256;

/// A parameter's tensors; all contiguous.
pub struct Updated<'a> {
    pub weights: &'a Tensor,
    /// The bf16 copy of the weights, if there is one.
    pub low: Option<&'a Tensor>,
    pub gradient: &'a Tensor,
    pub averages: Averages<'a>,
}

/// A parameter's running averages.
pub enum Averages<'a> {
    /// AdamW's, of the gradient and of its squares.
    Adamw { mean: &'a Tensor, squares: &'a Tensor, decays: bool },
    /// Adafactor's, of the squares of a matrix over rows and over columns.
    Factored { rows: &'a Tensor, columns: &'a Tensor },
    /// Adafactor's of all squares.
    Squares(&'a Tensor),
}

/// The rule of an update.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    Adamw(AdamwStep),
    Adafactor(AdafactorStep),
}

/// The same layout as in `adamw.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Step {
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    step: f32,
    epsilon: f32,
    before: f32,
    after: f32,
}

impl Argument for Step {}

/// The parameters as the kernels see them.
struct Slots {
    on_device: Tensor,
    count: i64,
    chunks: i64,
    /// The partial sums over the columns of all factored matrices.
    scratch: i64,
    /// The columns of the widest of them.
    widest: i64,
}

impl Kernels {
    /// Clips the gradients to `clip_norm` and updates all parameters. Returns the gradient norm before
    /// clipping. `healthy` (f64, one element) is 1; a norm that is not finite sets it to 0, and updates are
    /// skipped until that norm has been read.
    pub fn update(
        &self,
        all: &[Updated<'_>],
        rule: Rule,
        clip_norm: Option<f64>,
        healthy: &Tensor,
    ) -> Pending<f64> {
        let slots = self.slots(all);
        let (on_device, count) = (at(&slots.on_device), slots.count as i32);
        let relative = match rule {
            Rule::Adamw(step) => i32::from(step.relative),
            Rule::Adafactor(_) => 1,
        };
        let partial = self.empty(&[slots.chunks, 2], Kind::Float);
        let stats = self.empty(&[3], Kind::Double);
        let scales = self.empty(&[slots.count], Kind::Float);
        let source = match rule {
            Rule::Adamw(_) => Source::Adamw,
            Rule::Adafactor(_) => Source::Adafactor,
        };
        self.step(source, "measure", slots.chunks, &[&on_device, &count, &relative, &at(&partial)]);
        let limit = clip_norm.map_or(-1.0, |limit| limit as f32);
        self.step(
            source,
            "decide",
            1,
            &[
                &on_device,
                &count,
                &at(&partial),
                &slots.chunks,
                &limit,
                &relative,
                &at(healthy),
                &at(&stats),
                &at(&scales),
            ],
        );
        match rule {
            Rule::Adamw(step) => {
                let step = Step {
                    beta1: step.beta1,
                    rest1: step.rest1,
                    beta2: step.beta2,
                    rest2: step.rest2,
                    step: step.step as f32,
                    epsilon: step.epsilon,
                    before: step.before,
                    after: step.after,
                };
                let arguments: &[&dyn Argument] =
                    &[&on_device, &count, &step, &at(&stats), &at(&scales), &relative];
                self.step(source, "adamw", slots.chunks, arguments);
            }
            Rule::Adafactor(step) => self.adafactor(&slots, step, &stats, &scales),
        }
        let mut healthy = healthy.shallow_clone();
        Pending::new(move || {
            let norm = stats.double_value(&[0]);
            if !norm.is_finite() {
                let _ = healthy.fill_(1.0);
            }
            norm
        })
    }

    fn adafactor(&self, slots: &Slots, step: AdafactorStep, stats: &Tensor, scales: &Tensor) {
        let (all, count, decay) = (at(&slots.on_device), slots.count as i32, step.decay);
        let [means, rates] = [(); 2].map(|()| self.empty(&[slots.count], Kind::Float));
        let partial = self.empty(&[slots.chunks], Kind::Float);
        let columns = self.empty(&[slots.scratch], Kind::Float);
        let (stats, means, partial) = (&at(stats), &at(&means), &at(&partial));
        let source = Source::Adafactor;
        if slots.widest > 0 {
            self.step(source, "factor", slots.chunks, &[&all, &count, &decay, stats, &at(&columns)]);
            let kernel = Kernel { unit: Unit { source, bf16: false, variant: 0 }, name: "factor_columns" };
            let blocks = [slots.count, blocks(slots.widest, THREADS) + 1, 1];
            self.launch(kernel, blocks, THREADS as u32, 0, &[&all, &decay, stats, &at(&columns), means]);
        }
        self.step(source, "direct", slots.chunks, &[&all, &count, &decay, stats, means, partial]);
        let [learning_rate, threshold] = [step.learning_rate, step.clip_threshold].map(|value| value as f32);
        let rates = &at(&rates);
        let arguments: &[&dyn Argument] =
            &[&all, &count, &slots.chunks, stats, partial, &at(scales), &learning_rate, &threshold, rates];
        self.step(source, "clip", blocks(slots.count, THREADS), arguments);
        self.step(source, "descend", slots.chunks, &[&all, &count, stats, means, rates]);
    }

    fn step(&self, source: Source, name: &'static str, blocks: i64, arguments: &[&dyn Argument]) {
        let kernel = Kernel { unit: Unit { source, bf16: false, variant: 0 }, name };
        self.launch(kernel, [blocks, 1, 1], THREADS as u32, 0, arguments);
    }

    fn slots(&self, all: &[Updated<'_>]) -> Slots {
        let (mut chunks, mut scratch, mut widest) = (0, 0, 0);
        let mut slots = Vec::with_capacity(10 * all.len()); // `Slot` in `update.cu`
        for Updated { weights, low, gradient, averages } in all {
            let size = weights.numel() as i64;
            let (first, second, length, detail) = match averages {
                Averages::Adamw { mean, squares, decays } => {
                    (mean, Some(*squares), CHUNK, i64::from(*decays))
                }
                Averages::Factored { rows, columns } => {
                    let width = columns.numel() as i64;
                    (rows, Some(*columns), ROWS * width, width)
                }
                Averages::Squares(squares) => (squares, None, CHUNK, 0),
            };
            let addresses = [at(weights), at(gradient), at(first), at_option(second), at_option(*low)];
            slots.extend(addresses.map(|address| address as i64));
            slots.extend([size, chunks, length, detail, scratch]);
            let own = blocks(size, length);
            chunks += own;
            if matches!(averages, Averages::Factored { .. }) {
                scratch += own * detail;
                widest = widest.max(detail);
            }
        }
        Slots { on_device: self.upload(&slots), count: all.len() as i64, chunks, scratch, widest }
    }
}

/// The number of blocks that take so many elements each.
fn blocks(elements: i64, each: i64) -> i64 {
    (elements + each - 1) / each
}
