//! T5's forward pass.

use std::fmt;

use crate::backend::{Attention, Buckets, Dropout, DropoutDraw, Ops, Positions, TokenIds};
use crate::generate::Packing;
use crate::parameters::{Linear, Module, Stack, Sublayer, SublayerKind, Weights};
use crate::{Batch, FeedForward, T5Config, Update, position_bucket};

/// A T5 on a device: its configuration and parameters, and the operations to run them with.
pub(crate) struct T5<'a, O: Ops> {
    pub ops: &'a O,
    pub config: &'a T5Config,
    pub weights: &'a Weights,
    /// In the order of [`Weights::parameters`].
    parameters: &'a [O::Parameter],
    norm_groups: Vec<usize>,
    dropout: Dropouts,
    observer: Option<Observer<'a, O>>,
}

/// A place where activations can be read: see [`Session::activations`](crate::Session::activations).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Probe {
    /// What a norm or linear map reads.
    Input(Module),
    /// What a norm or linear map computes.
    Output(Module),
}

/// Sees what every norm and linear map reads and computes.
type Observer<'a, O> = &'a dyn Fn(Probe, &<O as Ops>::Activation);

/// The dropout of one forward pass: every place where T5 drops has a draw of its own. By default, nothing is
/// dropped.
#[derive(Clone, Copy, Default)]
pub(crate) struct Dropouts {
    dropout: Dropout,
    /// The number of the update.
    step: u64,
    /// The number in the whole batch of the first example of this pass.
    first_example: usize,
    input_length: usize,
    target_length: usize,
}

impl Dropouts {
    /// Those of an update, for a part of its batch.
    pub fn new(update: &Update, first_example: usize, batch: &Batch) -> Self {
        let Batch { input_length, target_length, .. } = *batch;
        Dropouts { dropout: update.dropout, step: update.step, first_example, input_length, target_length }
    }

    /// Positions of a stack.
    fn length(&self, stack: Stack) -> usize {
        match stack {
            Stack::Encoder => self.input_length,
            Stack::Decoder => self.target_length,
        }
    }

    /// The draw at a site where an example has so many elements.
    fn draw(&self, site: impl fmt::Display, elements: usize) -> Option<DropoutDraw> {
        let Dropout { rate, seed } = self.dropout;
        (rate > 0.0).then(|| {
            let draw = DropoutDraw::new(rate, seed, &format!("dropout {} {site}", self.step));
            draw.of_examples(self.first_example, elements)
        })
    }
}

/// Keys and values of one attention, `[batch, length, heads · d_kv]`.
pub(crate) struct KeyValue<O: Ops> {
    pub key: O::Activation,
    pub value: O::Activation,
}

/// What attention may look at.
pub(crate) struct View<'a, O: Ops> {
    pub bias: Option<&'a O::Bias>,
    pub causal: bool,
    pub key_mask: Option<&'a [u8]>,
    /// How queries, keys and values are rearranged for it, if they are.
    pub layout: Option<Layout<'a>>,
}

/// Where attention sees what linear maps have in other places.
#[derive(Clone, Copy)]
pub(crate) struct Layout<'a> {
    pub queries: &'a Positions,
    pub keys: Option<&'a Positions>,
    /// Back to where the queries came from.
    pub results: &'a Positions,
}

impl<'a, O: Ops> T5<'a, O> {
    /// For evaluation: nothing is dropped.
    pub fn new(
        ops: &'a O,
        config: &'a T5Config,
        weights: &'a Weights,
        parameters: &'a [O::Parameter],
    ) -> Self {
        let norm_groups = config.norm_groups();
        T5 { ops, config, weights, parameters, norm_groups, dropout: Dropouts::default(), observer: None }
    }

    /// For training.
    pub fn with_dropout(self, dropout: Dropouts) -> Self {
        T5 { dropout, ..self }
    }

    /// With an observer of its activations.
    pub fn observed(self, observer: Observer<'a, O>) -> Self {
        T5 { observer: Some(observer), ..self }
    }

    /// The decoder's output for a batch's targets, ready for [`T5::head`].
    pub fn forward(&self, batch: &Batch) -> O::Activation {
        let memory = self.encode(batch, None); // [batch, input, d_model]
        let bias = self.decoder_bias(batch);
        let blocks = 0..self.config.num_decoder_layers();
        let x = blocks.fold(self.embed_targets(batch), |x, block| {
            self.decoder_block(block, x, &memory, &bias, batch) // [batch, target, d_model]
        });
        self.finish(Stack::Decoder, x)
    }

    /// The output head's weights, `[vocabulary, d_model]`.
    pub fn head(&self) -> &'a O::Parameter {
        self.parameter(self.weights.head)
    }

    /// The encoder's output, `[batch, input, d_model]`, or packed.
    pub fn encode(&self, batch: &Batch, packing: Option<&Packing>) -> O::Activation {
        let bias = self.encoder_bias(batch);
        let x = match packing {
            None => self.embed_inputs(batch),
            Some(packing) => self.embed(&packing.tokens(batch), 1, packing.packed.length, Stack::Encoder),
        };
        let blocks = 0..self.config.num_layers;
        let x = blocks.fold(x, |x, block| self.encoder_block(block, x, &bias, batch, packing));
        self.finish(Stack::Encoder, x)
    }

    pub fn embed_inputs(&self, batch: &Batch) -> O::Activation {
        self.embed(&batch.input_ids, batch.size, batch.input_length, Stack::Encoder)
    }

    pub fn embed_targets(&self, batch: &Batch) -> O::Activation {
        let ids = batch.decoder_input_ids(self.config);
        self.embed(&ids, batch.size, batch.target_length, Stack::Decoder)
    }

    pub fn encoder_bias(&self, batch: &Batch) -> O::Bias {
        self.position_bias(Stack::Encoder, 0, batch.input_length, batch.input_length)
    }

    pub fn decoder_bias(&self, batch: &Batch) -> O::Bias {
        self.position_bias(Stack::Decoder, 0, batch.target_length, batch.target_length)
    }

    pub fn encoder_block(
        &self,
        block: usize,
        x: O::Activation,
        bias: &O::Bias,
        batch: &Batch,
        packing: Option<&Packing>,
    ) -> O::Activation {
        let layout = packing.map(Packing::layout);
        let view = View { bias: Some(bias), causal: false, key_mask: batch.padding(), layout };
        let sublayer = |kind| Stack::Encoder.sublayer(block, kind);
        let x = self.self_attention(sublayer(SublayerKind::SelfAttention), x, view);
        self.feed_forward(sublayer(SublayerKind::FeedForward), x)
    }

    pub fn decoder_block(
        &self,
        block: usize,
        x: O::Activation,
        memory: &O::Activation,
        bias: &O::Bias,
        batch: &Batch,
    ) -> O::Activation {
        let own = View { bias: Some(bias), causal: true, key_mask: None, layout: None };
        let x = self.self_attention(Stack::Decoder.sublayer(block, SublayerKind::SelfAttention), x, own);
        let view = View { bias: None, causal: false, key_mask: batch.padding(), layout: None };
        self.after_self_attention(block, x, &self.key_value(block, memory), view)
    }

    pub fn self_attention(&self, sublayer: Sublayer, x: O::Activation, view: View<'_, O>) -> O::Activation {
        let (q, key_value) = self.query_key_value(sublayer, &x);
        let y = self.attend(sublayer, q, &key_value, view);
        self.residual(x, y, sublayer)
    }

    /// The rest of a decoder's block: its attention to the encoder, and its MLP.
    pub fn after_self_attention(
        &self,
        block: usize,
        x: O::Activation,
        encoder: &KeyValue<O>,
        view: View<'_, O>,
    ) -> O::Activation {
        let cross = Stack::Decoder.sublayer(block, SublayerKind::CrossAttention);
        let normed = self.norm(&x, Module::Norm(cross));
        let q = self.linear(&normed, cross, Linear::Query);
        let y = self.attend(cross, q, encoder, view);
        let x = self.residual(x, y, cross);
        self.feed_forward(Stack::Decoder.sublayer(block, SublayerKind::FeedForward), x)
    }

    /// What a decoder's block sees of the encoder's output.
    pub fn key_value(&self, block: usize, memory: &O::Activation) -> KeyValue<O> {
        let cross = Stack::Decoder.sublayer(block, SublayerKind::CrossAttention);
        let [key, value] = self.linears(memory, cross, [Linear::Key, Linear::Value]);
        KeyValue { key, value }
    }

    /// What an attention of a stack to itself sees of the residual stream.
    pub fn query_key_value(&self, sublayer: Sublayer, x: &O::Activation) -> (O::Activation, KeyValue<O>) {
        let normed = self.norm(x, Module::Norm(sublayer));
        let [q, key, value] = self.linears(&normed, sublayer, [Linear::Query, Linear::Key, Linear::Value]);
        (q, KeyValue { key, value })
    }

    pub fn attend(
        &self,
        sublayer: Sublayer,
        q: O::Activation, // [batch, query, heads · d_kv]
        KeyValue { key, value }: &KeyValue<O>,
        view: View<'_, O>,
    ) -> O::Activation {
        let keys = match sublayer.kind {
            SublayerKind::CrossAttention => Stack::Encoder,
            _ => sublayer.stack,
        };
        let pairs = self.dropout.length(sublayer.stack) * self.dropout.length(keys);
        let site = format_args!("{}.probabilities", sublayer);
        let how = Attention {
            heads: self.config.num_heads,
            bias: view.bias,
            causal: view.causal,
            key_mask: view.key_mask,
            dropout: self.dropout.draw(site, self.config.num_heads * pairs),
        };
        let y = match view.layout {
            None => self.ops.attention(&q, key, value, how), // [batch, query, heads · d_kv]
            Some(Layout { queries, keys, results }) => {
                let q = self.ops.gather(&q, queries);
                let y = match keys.map(|keys| [key, value].map(|x| self.ops.gather(x, keys))) {
                    None => self.ops.attention(&q, key, value, how),
                    Some([key, value]) => self.ops.attention(&q, &key, &value, how),
                };
                self.ops.gather(&y, results)
            }
        };
        self.linear(&y, sublayer, Linear::AttentionOutput)
    }

    pub fn feed_forward(&self, sublayer: Sublayer, x: O::Activation) -> O::Activation {
        let normed = self.norm(&x, Module::Norm(sublayer));
        let hidden = match self.config.feed_forward_proj {
            FeedForward::Relu => self.ops.relu(&self.linear(&normed, sublayer, Linear::Input)),
            FeedForward::GatedGelu => {
                let [gate, value] = self.linears(&normed, sublayer, [Linear::Gate, Linear::GatedInput]);
                self.ops.gated_gelu(&gate, &value)
            }
        }; // [batch, length, d_ff]
        let hidden =
            self.dropped(hidden, sublayer.stack, self.config.d_ff, format_args!("{}.hidden", sublayer));
        let y = self.linear(&hidden, sublayer, Linear::Output);
        self.residual(x, y, sublayer)
    }

    pub fn residual(&self, x: O::Activation, y: O::Activation, sublayer: Sublayer) -> O::Activation {
        self.ops.add(&x, &self.dropped(y, sublayer.stack, self.config.d_model, sublayer))
    }

    pub fn embed(&self, ids: &[i32], batch: usize, length: usize, stack: Stack) -> O::Activation {
        let table = self.parameter(Module::Embedding);
        let x = self.ops.embedding(table, TokenIds { ids, batch, length });
        self.dropped(x, stack, self.config.d_model, format_args!("{stack}.embedding"))
    }

    /// A stack's last steps; the decoder's include the logits' scaling.
    pub fn finish(&self, stack: Stack, x: O::Activation) -> O::Activation {
        let x = self.norm(&x, Module::FinalNorm(stack));
        let x = self.dropped(x, stack, self.config.d_model, format_args!("{stack}.final"));
        if stack == Stack::Decoder && self.config.scale_logits() {
            return self.ops.scale(&x, (self.config.d_model as f32).powf(-0.5));
        }
        x
    }

    fn dropped(
        &self,
        x: O::Activation,
        stack: Stack,
        width: usize,
        site: impl fmt::Display,
    ) -> O::Activation {
        match self.dropout.draw(site, self.dropout.length(stack) * width) {
            None => x,
            Some(draw) => self.ops.dropout(&x, draw),
        }
    }

    fn norm(&self, x: &O::Activation, gain: Module) -> O::Activation {
        let epsilon = self.config.layer_norm_epsilon as f32;
        let y = self.ops.rms_norm(x, self.parameter(gain), &self.norm_groups, epsilon);
        self.observe(gain, x, &y);
        y
    }

    fn linear(&self, x: &O::Activation, sublayer: Sublayer, linear: Linear) -> O::Activation {
        let module = Module::Linear(sublayer, linear);
        let y = self.ops.linear(x, self.parameter(module));
        self.observe(module, x, &y);
        y
    }

    /// Several linear maps of the same activation.
    fn linears<const N: usize>(
        &self,
        x: &O::Activation,
        sublayer: Sublayer,
        linears: [Linear; N],
    ) -> [O::Activation; N] {
        let modules = linears.map(|linear| Module::Linear(sublayer, linear));
        let all = self.ops.linears(x, modules.map(|module| self.parameter(module)));
        modules.iter().zip(&all).for_each(|(module, y)| self.observe(*module, x, y));
        all
    }

    fn observe(&self, module: Module, x: &O::Activation, y: &O::Activation) {
        if let Some(observer) = self.observer {
            observer(Probe::Input(module), x);
            observer(Probe::Output(module), y);
        }
    }

    /// The bias of queries `first..first + query` against keys `0..key`, shared by a stack's blocks.
    pub fn position_bias(&self, stack: Stack, first: usize, query: usize, key: usize) -> O::Bias {
        let config = self.config;
        let (buckets, distance) =
            (config.relative_attention_num_buckets, config.relative_attention_max_distance);
        // Of each distance key - query once, from the last query's to the first's.
        let last = (first + query - 1) as i64;
        let distances = (-last..).take(query + key - 1);
        let of_distance: Vec<u32> = distances
            .map(|offset| position_bucket(offset, stack == Stack::Encoder, buckets, distance) as u32)
            .collect();
        let ids =
            (0..query).rev().flat_map(|start| of_distance[start..start + key].iter().copied()).collect();
        let table = self.parameter(Module::PositionBias(stack));
        self.ops.position_bias(table, &Buckets { ids, query, key })
    }

    fn parameter(&self, module: Module) -> &'a O::Parameter {
        &self.parameters[self.weights.place(module)]
    }
}
