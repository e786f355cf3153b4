//! Records operations on burn's autodiff tape, with their backward pass as a closure.

use std::fmt;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex};
use burn_flex::FlexTensor;

/// A tensor that knows its place on the tape.
pub type Node = FloatTensor<Autodiff<Flex>>;

/// Records that `output` was computed from `parents`. `backward` receives the output's gradient and which
/// parents need theirs. If no parent needs a gradient, nothing is kept.
pub fn record<const N: usize, F>(parents: [&Node; N], output: FlexTensor, backward: F) -> Node
where
    F: FnOnce(FlexTensor, [bool; N]) -> [Option<FlexTensor>; N] + Send + 'static,
{
    if !parents.iter().any(|parent| parent.is_tracked()) {
        return Node::new(output);
    }
    let prepared = Recorded(backward).prepare::<NoCheckpointing>(parents.map(|parent| parent.node()));
    prepared.compute_bound().stateless(output)
}

struct Recorded<F>(F);

impl<F> fmt::Debug for Recorded<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recorded")
    }
}

impl<F, const N: usize> Backward<Flex, N> for Recorded<F>
where
    F: FnOnce(FlexTensor, [bool; N]) -> [Option<FlexTensor>; N] + Send + 'static,
{
    type State = ();

    fn backward(self, ops: Ops<(), N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let wanted = ops.parents.each_ref().map(|parent| parent.is_some());
        for (parent, gradient) in ops.parents.into_iter().zip((self.0)(gradient, wanted)) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<Flex>(parent.id, gradient);
            }
        }
    }
}
