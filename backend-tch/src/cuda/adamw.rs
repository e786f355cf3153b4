//! AdamW for all parameters at once.

use t5_model::backend::Pending;
use t5_model::optimizer::AdamwStep;
use tch::{Kind, Tensor};

use super::{Argument, Kernel, Kernels, Source, at, at_option};

/// The number of elements per block, as in `adamw.cu`.
const CHUNK: i64 = 32_768;

/// A parameter's tensors; all contiguous.
pub struct Updated<'a> {
    pub weights: &'a Tensor,
    /// The bf16 copy of the weights, if there is one.
    pub low: Option<&'a Tensor>,
    pub gradient: &'a Tensor,
    pub mean: &'a Tensor,
    pub squares: &'a Tensor,
    pub decays: bool,
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

impl Kernels {
    /// Clips the gradients to `clip_norm` and updates all parameters. Returns the gradient norm before
    /// clipping. `healthy` (f64, one element) is 1; a norm that is not finite sets it to 0, and updates are
    /// skipped until that norm has been read.
    pub fn adamw(
        &self,
        all: &[Updated<'_>],
        step: &AdamwStep,
        clip_norm: Option<f64>,
        healthy: &Tensor,
    ) -> Pending<f64> {
        let mut chunks = 0;
        let mut slots = Vec::with_capacity(8 * all.len());
        for Updated { weights, low, gradient, mean, squares, decays } in all {
            let size = weights.numel() as i64;
            let tensors = [at(weights), at(gradient), at(mean), at(squares), at_option(*low)];
            slots.extend(tensors.map(|address| address as i64));
            slots.extend([size, chunks, i64::from(*decays)]);
            chunks += (size + CHUNK - 1) / CHUNK;
        }
        let slots = self.upload(&slots);
        let (count, relative) = (all.len() as i32, i32::from(step.relative));
        let partial = self.empty(&[chunks, 2], Kind::Float);
        let stats = self.empty(&[3], Kind::Double);
        let scales = self.empty(&[all.len() as i64], Kind::Float);
        let launch = |name, blocks, arguments: &[&dyn Argument]| {
            let kernel = Kernel { source: Source::Adamw, bf16: false, vectors: 0, name };
            self.launch(kernel, [blocks, 1, 1], 256, 0, arguments);
        };
        launch("measure", chunks, &[&at(&slots), &count, &relative, &at(&partial)]);
        let limit = clip_norm.map_or(-1.0, |limit| limit as f32);
        launch(
            "decide",
            1,
            &[
                &at(&slots),
                &count,
                &at(&partial),
                &chunks,
                &limit,
                &relative,
                &at(healthy),
                &at(&stats),
                &at(&scales),
            ],
        );
        let rule = Step {
            beta1: step.beta1,
            rest1: step.rest1,
            beta2: step.beta2,
            rest2: step.rest2,
            step: step.step as f32,
            epsilon: step.epsilon,
            before: step.before,
            after: step.after,
        };
        launch("update", chunks, &[&at(&slots), &count, &rule, &at(&stats), &at(&scales), &relative]);
        let mut healthy = healthy.shallow_clone();
        Pending::new(move || {
            let norm = stats.double_value(&[0]);
            if !norm.is_finite() {
                let _ = healthy.fill_(1.0);
            }
            norm
        })
    }
}
