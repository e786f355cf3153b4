//! Activation checkpointing (arXiv 1604.06174): the forward pass keeps only the inputs of blocks, and the
//! backward pass computes each block again, recorded this time. Less memory for about a third more
//! computation. Dropout draws are functions of their places, so both times drop the same.

use super::{Dropouts, T5};
use crate::backend::{CrossEntropy, Ops, Pending, TokenLoss};
use crate::parameters::{Module, Stack, Weights};
use crate::{Batch, T5Config};

/// One batch's way through a model and back.
pub(crate) struct Checkpointed<'a, O: Ops> {
    pub ops: &'a mut O,
    pub config: &'a T5Config,
    pub weights: &'a Weights,
    pub parameters: &'a [O::Parameter],
    pub batch: &'a Batch,
    pub dropout: Dropouts,
}

/// Sums of the segments' gradients so far, by parameter.
type Sums<O> = Vec<Option<<O as Ops>::Gradient>>;

impl<O: Ops> Checkpointed<'_, O> {
    fn model(&self) -> T5<'_, O> {
        T5::new(self.ops, self.config, self.weights, self.parameters).with_dropout(self.dropout)
    }

    /// The loss, and the gradients of all parameters in their order.
    pub fn run(mut self, how: CrossEntropy) -> (Pending<Vec<TokenLoss>>, Vec<O::Gradient>) {
        let (batch, weights) = (self.batch, self.weights);
        let model = self.model();
        let bias = model.encoder_bias(batch);
        let encoder = kept(model.embed_inputs(batch), self.config.num_layers, |block, x| {
            model.encoder_block(block, x, &bias, batch, None)
        });
        let last = encoder.last().expect("the embedding at least").clone();
        let memory = model.finish(Stack::Encoder, last.clone());
        let bias = model.decoder_bias(batch);
        let decoder = kept(model.embed_targets(batch), self.config.num_decoder_layers(), |block, x| {
            model.decoder_block(block, x, &memory, &bias, batch)
        });

        let mut gradients: Sums<O> = self.parameters.iter().map(|_| None).collect();
        let mut decoder = decoder.into_iter().enumerate().rev();
        let (_, end) = decoder.next().expect("the embedding at least");
        let mut losses = Pending::from(vec![]);
        let used = [Module::FinalNorm(Stack::Decoder), weights.head];
        let mut dx = self.segment(&mut gradients, &used, &[&end], |model, [x]| {
            let x = model.finish(Stack::Decoder, x.clone());
            let (loss, found) = model.ops.cross_entropy(&x, model.head(), &batch.labels, how);
            losses = found;
            loss
        });
        let mut dmemory: Option<O::Activation> = None;
        for (block, x) in decoder {
            let used = weights.of_block(Stack::Decoder, block);
            let [dy] = &dx;
            let [dinput, more] = self.segment(&mut gradients, &used, &[&x, &memory], |model, [x, memory]| {
                let y = model.decoder_block(block, x.clone(), memory, &model.decoder_bias(batch), batch);
                model.ops.product(&y, dy)
            });
            dx = [dinput];
            dmemory = Some(match dmemory {
                Some(sum) => self.ops.add(&sum, &more),
                None => more,
            });
        }
        let embedding = [Module::Embedding];
        let [dy] = &dx;
        self.segment(&mut gradients, &embedding, &[], |model, []| {
            model.ops.product(&model.embed_targets(batch), dy)
        });

        if let Some(dmemory) = dmemory {
            let used = [Module::FinalNorm(Stack::Encoder)];
            let mut dx = self.segment(&mut gradients, &used, &[&last], |model, [x]| {
                model.ops.product(&model.finish(Stack::Encoder, x.clone()), &dmemory)
            });
            for (block, x) in encoder.into_iter().enumerate().rev().skip(1) {
                let used = weights.of_block(Stack::Encoder, block);
                let [dy] = &dx;
                dx = self.segment(&mut gradients, &used, &[&x], |model, [x]| {
                    let y = model.encoder_block(block, x.clone(), &model.encoder_bias(batch), batch, None);
                    model.ops.product(&y, dy)
                });
            }
            let [dy] = &dx;
            self.segment(&mut gradients, &embedding, &[], |model, []| {
                model.ops.product(&model.embed_inputs(batch), dy)
            });
        }
        (losses, self.all(gradients))
    }

    /// Records one segment from its inputs on and differentiates it. Adds the gradients of the parameters it
    /// uses to the sums; returns those of its inputs.
    fn segment<const N: usize>(
        &mut self,
        sums: &mut Sums<O>,
        used: &[Module],
        inputs: &[&O::Activation; N],
        run: impl FnOnce(&T5<'_, O>, &[O::Activation; N]) -> O::Loss,
    ) -> [O::Activation; N] {
        self.ops.record(true);
        let leaves = inputs.map(|input| self.ops.leaf(input));
        let loss = run(&self.model(), &leaves);
        let places: Vec<usize> = used.iter().map(|module| self.weights.place(*module)).collect();
        let parameters: Vec<&O::Parameter> = places.iter().map(|place| &self.parameters[*place]).collect();
        let leaves: Vec<&O::Activation> = leaves.iter().collect();
        let (inputs, gradients) = self.ops.backward(loss, &leaves, &parameters);
        self.ops.record(false);
        for (place, gradient) in places.into_iter().zip(gradients) {
            match &mut sums[place] {
                Some(total) => self.ops.accumulate(total, gradient),
                none => *none = Some(gradient),
            }
        }
        let mut inputs = inputs.into_iter();
        std::array::from_fn(|_| inputs.next().expect("a gradient for each input"))
    }

    /// The gradients of all parameters. Those of an encoder that no decoder block reads are zeros, which an
    /// empty segment gives.
    fn all(mut self, mut gradients: Sums<O>) -> Vec<O::Gradient> {
        let missing = self.weights.modules().zip(&gradients).filter(|(_, gradient)| gradient.is_none());
        let missing: Vec<Module> = missing.map(|(module, _)| module).collect();
        if !missing.is_empty() {
            let batch = self.batch;
            self.segment(&mut gradients, &missing, &[], |model, []| {
                let x = model.embed_targets(batch);
                model.ops.product(&x, &model.ops.scale(&x, 0.0))
            });
        }
        gradients.into_iter().flatten().collect()
    }
}

/// The input of each block, and the output of the last one.
fn kept<A: Clone>(first: A, blocks: usize, mut run: impl FnMut(usize, A) -> A) -> Vec<A> {
    let mut all = vec![first];
    for block in 0..blocks {
        all.push(run(block, all[block].clone()));
    }
    all
}
