//! Records operations on dfdx's tape.
//!
//! In dfdx a tape belongs to one tensor and moves on with it, which suits a chain of layers. T5 branches everywhere:
//! residuals, queries, keys and values of one input, an encoder that each block of the decoder sees. So there is one tape,
//! tensors carry none, and each operation takes the tape, appends its backward and puts it back. Every parent is then
//! recorded before its children, whichever way the graph branches.

use std::cell::{Cell, OnceCell};
use std::mem::take;
use std::rc::Rc;

use dfdx::prelude::*;
use t5_model::kernels::elementwise;

use crate::tensor::{Flat, Matrix};

/// The tape of what was recorded so far, if operations are to be recorded.
#[derive(Default)]
pub struct Recorder {
    tape: Cell<Option<OwnedTape<f32, Cpu>>>,
}

impl Recorder {
    /// Forgets what was recorded and starts again, or stops.
    pub fn record(&self, on: bool) {
        self.tape.set(on.then(OwnedTape::default));
    }

    pub fn is_recording(&self) -> bool {
        let tape = self.tape.take();
        let recording = tape.is_some();
        self.tape.set(tape);
        recording
    }

    /// Records that `y` was computed from `parents`, whose gradients `backward` makes of `y`'s. They add up, also where two
    /// parents are the same tensor. Does nothing when not recording.
    pub fn append<S: Shape, const N: usize>(
        &self,
        parents: [&Flat; N],
        y: &Tensor<S, f32, Cpu>,
        backward: impl FnOnce(Vec<f32>) -> [Vec<f32>; N] + 'static,
    ) {
        let Some(mut tape) = self.tape.take() else { return };
        // Ghosts keep no values.
        let (parents, y) = (parents.map(|parent| parent.ghost()), y.ghost());
        tape.add_backward_op(move |gradients| {
            let dy = take::<Vec<f32>>(gradients.get_or_alloc_mut(&y)?);
            for (parent, gradient) in parents.iter().zip(backward(dy)) {
                elementwise::add_to(gradients.get_or_alloc_mut(parent)?, &gradient);
            }
            Ok(())
        });
        self.tape.set(Some(tape));
    }

    /// `x · weightᵀ` for `x` `[rows, in]` and `weight` `[out, in]`, as dfdx computes, records and differentiates it.
    pub fn product(&self, x: Matrix, weight: Matrix) -> Matrix {
        let transposed = weight.permute::<(usize, usize), Axes2<1, 0>>(); // [in, out]
        let Some(mut tape) = self.tape.take() else { return x.matmul(transposed) };
        // Recorded before the product, so executed after its backward: the last that needs the gradient of its result.
        let result = Rc::new(OnceCell::<Matrix>::new());
        let done = result.clone();
        tape.add_backward_op(move |gradients| {
            done.get().map_or(Ok(()), |y| gradients.get_or_alloc_mut(y).map(|dy| drop(take::<Vec<f32>>(dy))))
        });
        let (y, tape) = x.put_tape(tape).matmul(transposed).split_tape();
        self.tape.set(Some(tape));
        result.set(y.clone()).expect("it is set once");
        y
    }

    /// The gradients of all that was recorded. Forgets it.
    pub fn backward(&self, loss: Tensor<Rank0, f32, Cpu>) -> Gradients<f32, Cpu> {
        let tape = self.tape.replace(Some(OwnedTape::default())).unwrap_or_default();
        loss.put_tape(tape).backward()
    }
}

/// Takes a parameter's gradient out of all gradients; zeros, if there is none.
pub fn take_gradient(gradients: &mut Gradients<f32, Cpu>, parameter: &Matrix) -> Matrix {
    let gradient = gradients.get_or_alloc_mut(parameter).expect("memory for a gradient");
    parameter.device().tensor_from_vec(take::<Vec<f32>>(gradient), *parameter.shape())
}
