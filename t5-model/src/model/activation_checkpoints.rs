//! Activation checkpointing (arXiv 1604.06174): the forward pass keeps only what enters each block, and on the way back each
//! block is computed again, recorded this time. Less memory for about a third more computation; dropout draws are functions of
//! their places, so the second time is as the first.

use std::collections::BTreeMap;

use super::forward::{bias_table, head_name};
use crate::backend::{CrossEntropy, Dropout, LossSums, Ops, Pending};
use crate::{Batch, T5, T5Config};

/// One batch's way through a model and back.
pub(crate) struct Checkpointed<'a, O: Ops> {
    pub ops: &'a mut O,
    pub config: &'a T5Config,
    pub parameters: &'a BTreeMap<String, O::Parameter>,
    pub batch: &'a Batch,
    pub dropout: Dropout,
    /// Names this pass, see [`T5::with_dropout`].
    pub pass: String,
    /// Sums of what segments gave so far.
    pub gradients: BTreeMap<String, O::Gradient>,
}

impl<O: Ops> Checkpointed<'_, O> {
    fn model(&self) -> T5<'_, O> {
        T5::with_dropout(self.ops, self.config, self.parameters, self.dropout, self.pass.clone())
    }

    /// The loss, and the gradients of all parameters in their order.
    pub fn run(mut self, how: CrossEntropy) -> (Pending<LossSums>, Vec<O::Gradient>) {
        let batch = self.batch;
        let model = self.model();
        let bias = model.encoder_bias(batch);
        let encoder = kept(model.embed_inputs(batch), self.config.num_layers, |block, x| {
            model.encoder_block(block, x, &bias, batch, None)
        });
        let last = encoder.last().expect("the embedding at least").clone();
        let memory = model.finish("encoder", last.clone());
        let bias = model.decoder_bias(batch);
        let decoder = kept(model.embed_targets(batch), self.config.num_decoder_layers(), |block, x| {
            model.decoder_block(block, x, &memory, &bias, batch)
        });

        let mut decoder = decoder.into_iter().enumerate().rev();
        let (_, end) = decoder.next().expect("the embedding at least");
        let mut sums = Pending::from(LossSums::default());
        let names = ["decoder.final_layer_norm.weight", head_name(self.config)].map(String::from);
        let mut dx = self.segment(&names, &[&end], |model, [x]| {
            let x = model.finish("decoder", x.clone());
            let (loss, found) = model.ops.cross_entropy(&x, model.head(), &batch.labels, how);
            sums = found;
            loss
        });
        let mut dmemory: Option<O::Activation> = None;
        for (block, x) in decoder {
            let names = self.names("decoder", block);
            let [dy] = &dx;
            let [dinput, more] = self.segment(&names, &[&x, &memory], |model, [x, memory]| {
                let y = model.decoder_block(block, x.clone(), memory, &model.decoder_bias(batch), batch);
                model.ops.product(&y, dy)
            });
            dx = [dinput];
            dmemory = Some(match dmemory {
                Some(sum) => self.ops.add(&sum, &more),
                None => more,
            });
        }
        let shared = ["shared.weight".to_owned()];
        let [dy] = &dx;
        self.segment(&shared, &[], |model, []| model.ops.product(&model.embed_targets(batch), dy));

        if let Some(dmemory) = dmemory {
            let names = ["encoder.final_layer_norm.weight".to_owned()];
            let mut dx = self.segment(&names, &[&last], |model, [x]| {
                model.ops.product(&model.finish("encoder", x.clone()), &dmemory)
            });
            for (block, x) in encoder.into_iter().enumerate().rev().skip(1) {
                let names = self.names("encoder", block);
                let [dy] = &dx;
                dx = self.segment(&names, &[&x], |model, [x]| {
                    let y = model.encoder_block(block, x.clone(), &model.encoder_bias(batch), batch, None);
                    model.ops.product(&y, dy)
                });
            }
            let [dy] = &dx;
            self.segment(&shared, &[], |model, []| model.ops.product(&model.embed_inputs(batch), dy));
        }
        (sums, self.in_order())
    }

    /// What a block computes with; each block looks up the biases again.
    fn names(&self, stack: &str, block: usize) -> Vec<String> {
        let prefix = format!("{stack}.block.{block}.");
        let own = self.parameters.keys().filter(|name| name.starts_with(&prefix)).cloned();
        let table = (block > 0).then(|| bias_table(stack));
        own.chain(table).collect()
    }

    /// Records one segment from its inputs on and differentiates it; returns its inputs' gradients.
    fn segment<const N: usize>(
        &mut self,
        names: &[String],
        inputs: &[&O::Activation; N],
        run: impl FnOnce(&T5<'_, O>, &[O::Activation; N]) -> O::Loss,
    ) -> [O::Activation; N] {
        self.ops.record(true);
        let leaves = inputs.map(|input| self.ops.leaf(input));
        let loss = run(&self.model(), &leaves);
        let parameters: Vec<&O::Parameter> = names.iter().map(|name| &self.parameters[name]).collect();
        let leaves: Vec<&O::Activation> = leaves.iter().collect();
        let (inputs, gradients) = self.ops.backward(loss, &leaves, &parameters);
        self.ops.record(false);
        for (name, gradient) in names.iter().zip(gradients) {
            match self.gradients.get_mut(name) {
                Some(total) => self.ops.accumulate(total, gradient),
                None => drop(self.gradients.insert(name.clone(), gradient)),
            }
        }
        let mut inputs = inputs.into_iter();
        std::array::from_fn(|_| inputs.next().expect("a gradient for each input"))
    }

    /// A model without a decoder block has no gradient for its encoder: zeros, which an empty segment gives.
    fn in_order(mut self) -> Vec<O::Gradient> {
        let missing: Vec<String> =
            self.parameters.keys().filter(|name| !self.gradients.contains_key(*name)).cloned().collect();
        if !missing.is_empty() {
            let batch = self.batch;
            self.segment(&missing, &[], |model, []| {
                let x = model.embed_targets(batch);
                model.ops.product(&x, &model.ops.scale(&x, 0.0))
            });
        }
        let gradients = &mut self.gradients;
        self.parameters.keys().filter_map(|name| gradients.remove(name)).collect()
    }
}

/// What enters each block, and what leaves the last one.
fn kept<A: Clone>(first: A, blocks: usize, mut block: impl FnMut(usize, A) -> A) -> Vec<A> {
    let mut all = vec![first];
    for index in 0..blocks {
        let next = block(index, all[index].clone());
        all.push(next);
    }
    all
}
