//! The decoder, one token at a time, with cached keys and values.

use super::Packing;
use crate::Batch;
use crate::backend::{Ops, Positions};
use crate::model::{KeyValue, Layout, T5, View};
use crate::parameters::{Stack, SublayerKind};

/// The keys and values of the rows so far.
pub(crate) struct Memory<O: Ops> {
    pub blocks: Vec<BlockMemory<O>>,
    pub rows: usize,
    /// Answers to each row, which share its encoded inputs.
    width: usize,
    inputs: usize,
    /// `[rows, inputs]`, if anything is padded.
    pub key_mask: Option<Vec<u8>>,
    /// Tokens decoded so far in each answer.
    position: usize,
}

pub(crate) struct BlockMemory<O: Ops> {
    /// `[rows · width, position, heads · d_kv]`.
    own: Option<KeyValue<O>>,
    /// `[rows, inputs, heads · d_kv]`.
    pub encoder: KeyValue<O>,
}

impl<O: Ops> Memory<O> {
    /// Keeps these rows, in ascending order, with the answers at these places, `row · width + answer`, as many
    /// as rows times width.
    pub fn reorder(&mut self, ops: &O, rows: &[usize], places: &[usize]) {
        let own = whole_rows(places, self.position);
        for block in &mut self.blocks {
            if let Some(key_value) = &mut block.own {
                key_value.gather(ops, &own);
            }
        }
        if rows.len() == self.rows {
            return;
        }
        let inputs = whole_rows(rows, self.inputs);
        for block in &mut self.blocks {
            block.encoder.gather(ops, &inputs);
        }
        if let Some(mask) = &mut self.key_mask {
            *mask = inputs.ids.iter().map(|place| mask[*place as usize]).collect();
        }
        self.rows = rows.len();
    }

    /// How the answers to a row, each a row of its own, attend to its inputs together.
    fn together(&self) -> Option<[Positions; 2]> {
        let ids: Vec<i32> = (0..(self.rows * self.width) as i32).collect();
        (self.width > 1).then(|| {
            let together = Positions { ids: ids.clone(), batch: self.rows, length: self.width };
            [together, Positions { ids, batch: self.rows * self.width, length: 1 }]
        })
    }
}

impl<O: Ops> KeyValue<O> {
    fn gather(&mut self, ops: &O, positions: &Positions) {
        self.key = ops.gather(&self.key, positions);
        self.value = ops.gather(&self.value, positions);
    }
}

/// All positions of these rows, each of that length.
pub(crate) fn whole_rows(rows: &[usize], length: usize) -> Positions {
    let ids = rows.iter().flat_map(|row| row * length..(row + 1) * length);
    Positions { ids: ids.map(|place| place as i32).collect(), batch: rows.len(), length }
}

impl<O: Ops> T5<'_, O> {
    /// Encodes a batch's inputs, for this many answers to each.
    pub(crate) fn start_decoder(&self, batch: &Batch, width: usize) -> Memory<O> {
        let packing = Packing::of(batch);
        let encoded = self.encode(batch, packing.as_ref());
        let block = |block| {
            let mut encoder = self.key_value(block, &encoded);
            if let Some(packing) = &packing {
                encoder.gather(self.ops, &packing.padded);
            }
            BlockMemory { own: None, encoder }
        };
        Memory {
            blocks: (0..self.config.num_decoder_layers()).map(block).collect(),
            rows: batch.size,
            width,
            inputs: batch.input_length,
            key_mask: batch.padding().map(<[u8]>::to_vec),
            position: 0,
        }
    }

    /// The decoder's output for one more token of each answer, `[rows · width, 1, d_model]`.
    pub(crate) fn decode(&self, memory: &mut Memory<O>, ids: &[i32]) -> O::Activation {
        let together = memory.together();
        let layout = together.as_ref().map(|[queries, results]| Layout { queries, keys: None, results });
        let mut x = self.embed(ids, memory.rows * memory.width, 1, Stack::Decoder); // [rows · width, 1, d_model]
        let bias = self.position_bias(Stack::Decoder, memory.position, 1, memory.position + 1);
        for (block, cached) in memory.blocks.iter_mut().enumerate() {
            let attention = Stack::Decoder.sublayer(block, SublayerKind::SelfAttention);
            let (q, new) = self.query_key_value(attention, &x);
            let own = match cached.own.take() {
                None => new,
                Some(past) => KeyValue {
                    key: self.ops.append(&past.key, &new.key),
                    value: self.ops.append(&past.value, &new.value),
                },
            };
            let view = View { bias: Some(&bias), causal: false, key_mask: None, layout: None };
            let y = self.attend(attention, q, &own, view);
            x = self.residual(x, y, attention);
            let view = View { bias: None, causal: false, key_mask: memory.key_mask.as_deref(), layout };
            x = self.after_self_attention(block, x, &cached.encoder, view);
            cached.own = Some(own);
        }
        memory.position += 1;
        self.finish(Stack::Decoder, x)
    }
}
