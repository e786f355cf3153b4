//! Norm, gated GELU, dropout, output head and loss.

use t5_model::backend::CrossEntropy;
use tch::{Kind, Tensor};

use super::{Kernel, Kernels, Source, Unit, at, at_option, is_bf16};
use crate::product::product_in_f32;
use crate::tensor::beside;

/// The widest row that a warp holds: 16 vectors of 4 elements for each of 32 lanes.
const WIDEST: i64 = 16 * 128;

/// What the backward pass of a norm needs.
pub struct Normed {
    /// One past the last feature of each group.
    ends: Tensor,
    groups: i32,
    width: i64,
    /// `[rows, groups]`, f32.
    scales: Tensor,
}

impl Kernels {
    /// Whether the kernels support these groups.
    pub fn can_norm(&self, groups: &[i64]) -> bool {
        groups.iter().sum::<i64>() <= WIDEST && groups.iter().all(|size| size % 4 == 0)
    }

    fn norm_kernel(width: i64, kind: Kind, name: &'static str) -> Kernel {
        Kernel {
            unit: Unit { source: Source::Norm, bf16: is_bf16(kind), variant: (width + 127) / 128 },
            name,
        }
    }

    /// `x` and `gain` are f32 and contiguous; the result has type `kind`. If there is `more` (of type
    /// `kind`), it is added to `x` first, and that sum is returned as well.
    pub fn rms_norm(
        &self,
        x: &Tensor,
        more: Option<&Tensor>,
        gain: &Tensor,
        groups: &[i64],
        epsilon: f32,
        kind: Kind,
    ) -> (Option<Tensor>, Tensor, Normed) {
        let width: i64 = groups.iter().sum();
        let rows = x.numel() as i64 / width;
        let ends = groups.iter().scan(0, |end, size| {
            *end += *size as i32;
            Some(*end)
        });
        let normed = Normed {
            ends: self.list(&ends.collect::<Vec<_>>()),
            groups: groups.len() as i32,
            width,
            scales: self.empty(&[rows, groups.len() as i64], Kind::Float),
        };
        let y = self.empty(&x.size(), kind);
        let sum = more.map(|_| self.empty(&x.size(), Kind::Float));
        let kernel = Self::norm_kernel(width, kind, "norm_forward");
        let Normed { ends, groups, scales, .. } = &normed;
        self.launch(
            kernel,
            [(rows + 7) / 8, 1, 1],
            256,
            0,
            &[
                &at(x),
                &at_option(more),
                &at_option(sum.as_ref()),
                &at(gain),
                &at(ends),
                groups,
                &epsilon,
                &at(&y),
                &at(scales),
                &rows,
                &(width as i32),
            ],
        );
        (sum, y, normed)
    }

    /// The f32 gradients of `x` (plus `carry`) and of the gain, and a bf16 copy of the first if `dy` is bf16.
    /// `dy` is contiguous.
    pub fn rms_norm_gradients(
        &self,
        dy: &Tensor,
        x: &Tensor,
        gain: &Tensor,
        normed: &Normed,
        carry: Option<&Tensor>,
    ) -> ([Tensor; 2], Option<Tensor>) {
        let Normed { ends, groups, width, scales } = normed;
        let rows = x.numel() as i64 / width;
        let blocks = ((rows + 7) / 8).min(2 * self.limits.multiprocessors);
        let dx = self.empty(&x.size(), Kind::Float);
        let low = is_bf16(dy.kind()).then(|| self.empty(&x.size(), Kind::BFloat16));
        let dgains = self.empty(&[blocks, *width], Kind::Float);
        let kernel = Self::norm_kernel(*width, dy.kind(), "norm_backward");
        self.launch(
            kernel,
            [blocks, 1, 1],
            256,
            4 * width,
            &[
                &at(dy),
                &at(x),
                &at(gain),
                &at(ends),
                groups,
                &at(scales),
                &at_option(carry),
                &at(&dx),
                &at_option(low.as_ref()),
                &at(&dgains),
                &rows,
                &(*width as i32),
            ],
        );
        ([dx, dgains.sum_dim_intlist([0].as_slice(), false, Kind::Float)], low)
    }

    fn activation_kernel(kind: Kind, name: &'static str) -> Kernel {
        Kernel { unit: Unit { source: Source::Activation, bf16: is_bf16(kind), variant: 0 }, name }
    }

    /// Whether gate and value, `[batch, length, width]`, are aligned for vector loads.
    pub fn can_gate(&self, gate: &Tensor, value: &Tensor) -> bool {
        let width = gate.size()[2];
        let fits = |x: &Tensor| {
            let (stride, size) = (x.stride(), x.size());
            let evenly = stride[0] == stride[1] * size[1] || size[0] == 1;
            stride[2] == 1 && stride[1] % 4 == 0 && evenly && (x.data_ptr() as u64).is_multiple_of(16)
        };
        width % 4 == 0
            && gate.kind() == value.kind()
            && gate.stride()[1] == value.stride()[1]
            && fits(gate)
            && fits(value)
    }

    pub fn gated_gelu(&self, gate: &Tensor, value: &Tensor) -> Tensor {
        let size = gate.size();
        let (rows, width) = (size[0] * size[1], size[2]);
        let y = self.empty(&size, gate.kind());
        let kernel = Self::activation_kernel(gate.kind(), "gated_gelu_forward");
        self.launch(
            kernel,
            [blocks(rows * width / 4), 1, 1],
            256,
            0,
            &[&at(gate), &at(value), &gate.stride()[1], &at(&y), &rows, &(width as i32)],
        );
        y
    }

    /// The gradients of gate and value, packed into one tensor.
    pub fn gated_gelu_gradients(&self, dy: &Tensor, gate: &Tensor, value: &Tensor) -> [Tensor; 2] {
        let size = gate.size();
        let (rows, width) = (size[0] * size[1], size[2]);
        let both = self.empty(&[size[0], size[1], 2 * width], gate.kind());
        let [dgate, dvalue] = [0, 1].map(|half| both.narrow(2, half * width, width));
        let kernel = Self::activation_kernel(gate.kind(), "gated_gelu_backward");
        self.launch(
            kernel,
            [blocks(rows * width / 4), 1, 1],
            256,
            0,
            &[
                &at(dy),
                &at(gate),
                &at(value),
                &gate.stride()[1],
                &at(&dgate),
                &at(&dvalue),
                &(2 * width),
                &rows,
                &(width as i32),
            ],
        );
        [dgate, dvalue]
    }

    /// `x` (contiguous) times the dropout factors.
    pub fn dropout(&self, x: &Tensor, draw: &t5_model::backend::DropoutDraw) -> Tensor {
        let y = self.empty(&x.size(), x.kind());
        self.drop(at(x), &y, draw);
        y
    }

    /// The dropout factors, f32.
    pub fn dropout_factors(&self, shape: &[i64], draw: &t5_model::backend::DropoutDraw) -> Tensor {
        let factors = self.empty(shape, Kind::Float);
        self.drop(0, &factors, draw);
        factors
    }

    fn drop(&self, x: u64, y: &Tensor, draw: &t5_model::backend::DropoutDraw) {
        let (first, example) = draw.examples();
        let size = (y.numel() as i64).min(i64::try_from(example).unwrap_or(i64::MAX)).max(1);
        let examples = y.numel() as i64 / size;
        let name = if is_bf16(y.kind()) { "dropout_bf16" } else { "dropout_f32" };
        let ([key0, key1], (threshold, keep)) = (draw.key(), draw.threshold());
        let kernel = Self::activation_kernel(Kind::BFloat16, name);
        self.launch(
            kernel,
            [blocks((size + 7) / 8 * examples), 1, 1],
            256,
            0,
            &[&x, &at(y), &key0, &key1, &threshold, &keep, &(first as i64), &size, &examples],
        );
    }

    /// The loss of each row and whether its label is predicted, `[2, rows]`, f32, and the gradients of `x`
    /// `[rows, features]` and of `head`; empty tensors unless they are `wanted`. Logits exist for `at_once` rows at a time.
    pub fn cross_entropy(
        &self,
        x: &Tensor,
        head: &Tensor,
        labels: &[i32],
        how: CrossEntropy,
        wanted: bool,
        at_once: i64,
    ) -> (Tensor, [Tensor; 2]) {
        let (rows, vocabulary) = (labels.len() as i64, head.size()[0]);
        let labels = self.upload(labels);
        let transposed = head.tr();
        let results = self.empty(&[2, rows], Kind::Float);
        let variant = i64::from(vocabulary % 4 == 0);
        let kernel = Kernel {
            unit: Unit { source: Source::CrossEntropy, bf16: is_bf16(x.kind()), variant },
            name: "cross_entropy",
        };
        let mut dx = vec![];
        let mut dhead: Option<Tensor> = None;
        for first in (0..rows).step_by(at_once as usize) {
            let count = at_once.min(rows - first);
            let x = x.narrow(0, first, count);
            let logits = x.matmul(&transposed); // [count, vocabulary]
            self.launch(
                kernel,
                [count, 1, 1],
                512,
                0,
                &[
                    &at(&logits),
                    &at(&labels.narrow(0, first, count)),
                    &how.scale,
                    &how.z_loss,
                    &i32::from(wanted),
                    &at(&results.get(0).narrow(0, first, count)),
                    &at(&results.get(1).narrow(0, first, count)),
                    &(vocabulary as i32),
                ],
            );
            if !wanted {
                continue;
            }
            dx.push(logits.matmul(head));
            let part = product_in_f32(&logits.tr(), &x);
            dhead = Some(match dhead {
                Some(mut sum) => sum.g_add_(&part),
                None => part,
            });
        }
        let none = || self.empty(&[0], Kind::Float);
        let dx = match beside(&dx, 0) {
            Some(dx) => dx,
            None if dx.is_empty() => none(),
            None => Tensor::cat(&dx, 0),
        };
        (results, [dx, dhead.unwrap_or_else(none)])
    }
}

/// Blocks of 256 threads.
fn blocks(threads: i64) -> i64 {
    (threads + 255) / 256
}
