//! Records operations on dfdx's tape.
//!
//! In dfdx a tape belongs to one tensor and moves along with it, which suits a chain of layers. T5 branches
//! everywhere: residuals; queries, keys and values computed from one input; an encoder that every decoder
//! block attends to. So tensors carry no tape, and every operation appends its backward pass to the one here:
//! parents come before their children however the graph branches, and nothing needs to be merged.

use std::cell::RefCell;
use std::mem::take;

use dfdx::prelude::*;
use t5_model::backend::kernels::elementwise;

use crate::tensor::{Node, Slot};

/// The tape of what has been recorded so far, if recording is on.
#[derive(Default)]
pub struct Recorder {
    tape: RefCell<Option<OwnedTape<f32, Cpu>>>,
}

impl Recorder {
    /// Discards the recording, and starts a new one or stops.
    pub fn record(&self, on: bool) {
        self.tape.replace(on.then(OwnedTape::default));
    }

    pub fn is_recording(&self) -> bool {
        self.tape.borrow().is_some()
    }

    /// Records that something was computed from `parents`, whose gradients `backward` computes from the
    /// result's. Gradients accumulate, even where two parents are the same tensor. Does nothing when not
    /// recording.
    pub fn append<S: Shape, const N: usize>(
        &self,
        parents: [&Slot; N],
        result: &Tensor<S, f32, Cpu>,
        backward: impl FnOnce(Vec<f32>) -> [Vec<f32>; N] + 'static,
    ) {
        let Some(tape) = &mut *self.tape.borrow_mut() else { return };
        let (parents, result) = (parents.map(|parent| parent.ghost()), result.ghost());
        tape.add_backward_op(move |gradients| {
            let dy = take::<Vec<f32>>(gradients.get_or_alloc_mut(&result)?);
            if dy.is_empty() {
                return Ok(()); // the loss does not depend on it
            }
            for (parent, gradient) in parents.iter().zip(backward(dy)) {
                let total: &mut Vec<f32> = gradients.get_or_alloc_mut(parent)?;
                match total.is_empty() {
                    true => *total = gradient,
                    false => elementwise::add_to(total, &gradient),
                }
            }
            Ok(())
        });
    }

    /// The gradients of everything recorded. Discards the recording.
    pub fn backward(&self, loss: Tensor<Rank0, f32, Cpu>) -> Gradients<f32, Cpu> {
        let tape = self.tape.replace(Some(OwnedTape::default())).unwrap_or_default();
        loss.put_tape(tape).backward()
    }
}

/// Takes a tensor's gradient out of all gradients; zeros if it has none.
pub fn take_gradient<S: Shape>(
    gradients: &mut Gradients<f32, Cpu>,
    Node { tensor, gradient }: &Node<S>,
) -> Tensor<S, f32, Cpu> {
    let gradient: &mut Vec<f32> = gradients.get_or_alloc_mut(gradient).expect("memory for no elements");
    match gradient.is_empty() {
        true => tensor.device().zeros_like(tensor),
        false => tensor.device().tensor_from_vec(take(gradient), *tensor.shape()),
    }
}
