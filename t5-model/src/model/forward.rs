//! T5's forward pass.

use std::collections::BTreeMap;

use crate::backend::{Attention, Buckets, Dropout, DropoutDraw, Ops, Positions, TokenIds};
use crate::generate::Packing;
use crate::{Batch, FeedForward, T5Config, position_bucket};

/// A T5 on a device: its configuration and parameters, and the operations to run them with.
pub struct T5<'a, O: Ops> {
    pub ops: &'a O,
    pub config: &'a T5Config,
    pub parameters: &'a BTreeMap<String, O::Parameter>,
    dropout: Dropouts,
    observer: Option<Observer<'a, O>>,
}

/// Sees activations by the places where they are: `PATH.input` and `PATH.output` of every norm and linear map, such as
/// `decoder.block.0.layer.2.DenseReluDense.wo.input`.
type Observer<'a, O> = &'a dyn Fn(&str, &<O as Ops>::Activation);

/// The dropout of one forward pass: every place where T5 drops has a draw of its own.
struct Dropouts {
    dropout: Dropout,
    /// Tells micro-batches and updates apart.
    pass: String,
}

impl Dropouts {
    fn draw(&self, site: &str) -> Option<DropoutDraw> {
        let Dropout { rate, seed } = self.dropout;
        (rate > 0.0).then(|| DropoutDraw::new(rate, seed, &format!("dropout {} {site}", self.pass)))
    }
}

/// Keys and values of one attention, `[batch, length, heads · d_kv]`.
pub(crate) struct KeyValue<O: Ops> {
    pub key: O::Activation,
    pub value: O::Activation,
}

/// Where attention looks.
pub(crate) struct View<'a, O: Ops> {
    pub bias: Option<&'a O::Bias>,
    pub causal: bool,
    pub key_mask: Option<&'a [u8]>,
    /// Where queries, keys and values are to stand for it, if not as they come.
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
    pub fn new(ops: &'a O, config: &'a T5Config, parameters: &'a BTreeMap<String, O::Parameter>) -> Self {
        Self::with_dropout(ops, config, parameters, Dropout::default(), String::new())
    }

    /// For training; `pass` names this pass among all that share the seed.
    pub fn with_dropout(
        ops: &'a O,
        config: &'a T5Config,
        parameters: &'a BTreeMap<String, O::Parameter>,
        dropout: Dropout,
        pass: String,
    ) -> Self {
        T5 { ops, config, parameters, dropout: Dropouts { dropout, pass }, observer: None }
    }

    /// The same with somebody who sees its activations.
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
        self.finish("decoder", x)
    }

    /// The output head's weights, `[vocabulary, d_model]`.
    pub fn head(&self) -> &'a O::Parameter {
        self.parameter(head_name(self.config))
    }

    /// The encoder's output, `[batch, input, d_model]`, or packed.
    pub(crate) fn encode(&self, batch: &Batch, packing: Option<&Packing>) -> O::Activation {
        let bias = self.encoder_bias(batch);
        let x = match packing {
            None => self.embed_inputs(batch),
            Some(packing) => self.embed(&packing.tokens(batch), 1, packing.len(), "encoder"),
        };
        let blocks = 0..self.config.num_layers;
        let x = blocks.fold(x, |x, block| self.encoder_block(block, x, &bias, batch, packing));
        self.finish("encoder", x)
    }

    pub(crate) fn embed_inputs(&self, batch: &Batch) -> O::Activation {
        self.embed(&batch.input_ids, batch.size, batch.input_length, "encoder")
    }

    pub(crate) fn embed_targets(&self, batch: &Batch) -> O::Activation {
        let ids = batch.decoder_input_ids(self.config);
        self.embed(&ids, batch.size, batch.target_length, "decoder")
    }

    pub(crate) fn encoder_bias(&self, batch: &Batch) -> O::Bias {
        self.position_bias("encoder", 0, batch.input_length, batch.input_length)
    }

    pub(crate) fn decoder_bias(&self, batch: &Batch) -> O::Bias {
        self.position_bias("decoder", 0, batch.target_length, batch.target_length)
    }

    pub(crate) fn encoder_block(
        &self,
        block: usize,
        x: O::Activation,
        bias: &O::Bias,
        batch: &Batch,
        packing: Option<&Packing>,
    ) -> O::Activation {
        let path = format!("encoder.block.{block}");
        let layout = packing.map(Packing::layout);
        let view = View { bias: Some(bias), causal: false, key_mask: batch.padding(), layout };
        let x = self.self_attention(&path, x, view);
        self.feed_forward(&format!("{path}.layer.1"), x)
    }

    pub(crate) fn decoder_block(
        &self,
        block: usize,
        x: O::Activation,
        memory: &O::Activation,
        bias: &O::Bias,
        batch: &Batch,
    ) -> O::Activation {
        let path = format!("decoder.block.{block}");
        let own = View { bias: Some(bias), causal: true, key_mask: None, layout: None };
        let x = self.self_attention(&path, x, own);
        let encoder = self.key_value(&cross_attention(&path), memory);
        let view = View { bias: None, causal: false, key_mask: batch.padding(), layout: None };
        let x = self.cross_attention(&path, x, &encoder, view);
        self.feed_forward(&format!("{path}.layer.2"), x)
    }

    pub(crate) fn self_attention(&self, path: &str, x: O::Activation, view: View<'_, O>) -> O::Activation {
        let attention = format!("{path}.layer.0.SelfAttention");
        let normed = self.norm(&x, &format!("{path}.layer.0.layer_norm"));
        let (q, key_value) = self.query_key_value(&attention, &normed);
        let y = self.attend(&attention, q, &key_value, view);
        self.residual(x, y, &attention)
    }

    pub(crate) fn cross_attention(
        &self,
        path: &str,
        x: O::Activation,
        encoder: &KeyValue<O>,
        view: View<'_, O>,
    ) -> O::Activation {
        let attention = cross_attention(path);
        let normed = self.norm(&x, &format!("{path}.layer.1.layer_norm"));
        let q = self.linear(&normed, &format!("{attention}.q"));
        let y = self.attend(&attention, q, encoder, view);
        self.residual(x, y, &attention)
    }

    pub(crate) fn key_value(&self, attention: &str, x: &O::Activation) -> KeyValue<O> {
        let [key, value] = self.linears(x, ["k", "v"].map(|name| format!("{attention}.{name}")));
        KeyValue { key, value }
    }

    /// What an attention to itself sees of `x`.
    pub(crate) fn query_key_value(&self, attention: &str, x: &O::Activation) -> (O::Activation, KeyValue<O>) {
        let [q, key, value] = self.linears(x, ["q", "k", "v"].map(|name| format!("{attention}.{name}")));
        (q, KeyValue { key, value })
    }

    pub(crate) fn attend(
        &self,
        attention: &str,
        q: O::Activation, // [batch, query, heads · d_kv]
        KeyValue { key, value }: &KeyValue<O>,
        view: View<'_, O>,
    ) -> O::Activation {
        let how = Attention {
            heads: self.config.num_heads,
            bias: view.bias,
            causal: view.causal,
            key_mask: view.key_mask,
            dropout: self.dropout.draw(&format!("{attention}.probabilities")),
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
        self.linear(&y, &format!("{attention}.o"))
    }

    pub(crate) fn feed_forward(&self, layer: &str, x: O::Activation) -> O::Activation {
        let normed = self.norm(&x, &format!("{layer}.layer_norm"));
        let path = format!("{layer}.DenseReluDense");
        let hidden = match self.config.feed_forward_proj {
            FeedForward::Relu => self.ops.relu(&self.linear(&normed, &format!("{path}.wi"))),
            FeedForward::GatedGelu => {
                let [gate, value] =
                    self.linears(&normed, ["wi_0", "wi_1"].map(|name| format!("{path}.{name}")));
                self.ops.gated_gelu(&gate, &value)
            }
        }; // [batch, length, d_ff]
        let hidden = self.dropped(hidden, &format!("{path}.hidden"));
        let y = self.linear(&hidden, &format!("{path}.wo"));
        self.residual(x, y, &path)
    }

    pub(crate) fn residual(&self, x: O::Activation, y: O::Activation, site: &str) -> O::Activation {
        self.ops.add(&x, &self.dropped(y, site))
    }

    pub(crate) fn embed(&self, ids: &[i32], batch: usize, length: usize, stack: &str) -> O::Activation {
        let x = self.ops.embedding(self.parameter("shared.weight"), TokenIds { ids, batch, length });
        self.dropped(x, &format!("{stack}.embedding"))
    }

    /// A stack's last steps; the decoder's include the logits' scaling.
    pub(crate) fn finish(&self, stack: &str, x: O::Activation) -> O::Activation {
        let x = self.norm(&x, &format!("{stack}.final_layer_norm"));
        let x = self.dropped(x, &format!("{stack}.final"));
        if stack == "decoder" && self.config.scale_logits() {
            return self.ops.scale(&x, (self.config.d_model as f32).powf(-0.5));
        }
        x
    }

    fn dropped(&self, x: O::Activation, site: &str) -> O::Activation {
        match self.dropout.draw(site) {
            None => x,
            Some(draw) => self.ops.dropout(&x, draw),
        }
    }

    pub(crate) fn norm(&self, x: &O::Activation, path: &str) -> O::Activation {
        let gain = self.parameter(&format!("{path}.weight"));
        let (groups, epsilon) = (self.config.norm_groups(), self.config.layer_norm_epsilon as f32);
        self.observe(path, x, |x| self.ops.rms_norm(x, gain, &groups, epsilon))
    }

    fn linear(&self, x: &O::Activation, path: &str) -> O::Activation {
        self.observe(path, x, |x| self.ops.linear(x, self.parameter(&format!("{path}.weight"))))
    }

    /// Several linear maps of the same activation.
    fn linears<const N: usize>(&self, x: &O::Activation, paths: [String; N]) -> [O::Activation; N] {
        let weights = std::array::from_fn(|i| self.parameter(&format!("{}.weight", paths[i])));
        let all = self.ops.linears(x, weights);
        if let Some(observer) = self.observer {
            for (path, y) in paths.iter().zip(&all) {
                observer(&format!("{path}.input"), x);
                observer(&format!("{path}.output"), y);
            }
        }
        all
    }

    fn observe(
        &self,
        path: &str,
        x: &O::Activation,
        run: impl FnOnce(&O::Activation) -> O::Activation,
    ) -> O::Activation {
        let y = run(x);
        if let Some(observer) = self.observer {
            observer(&format!("{path}.input"), x);
            observer(&format!("{path}.output"), &y);
        }
        y
    }

    /// The bias of queries `first..first + query` against keys `0..key`, shared by a stack's blocks.
    pub(crate) fn position_bias(&self, stack: &str, first: usize, query: usize, key: usize) -> O::Bias {
        let config = self.config;
        let (buckets, distance) =
            (config.relative_attention_num_buckets, config.relative_attention_max_distance);
        // Of each distance key - query once, from the last query's to the first's.
        let last = (first + query - 1) as i64;
        let distances = (-last..).take(query + key - 1);
        let of_distance: Vec<u32> = distances
            .map(|offset| position_bucket(offset, stack == "encoder", buckets, distance) as u32)
            .collect();
        let ids =
            (0..query).rev().flat_map(|start| of_distance[start..start + key].iter().copied()).collect();
        self.ops.position_bias(self.parameter(&bias_table(stack)), &Buckets { ids, query, key })
    }

    fn parameter(&self, name: &str) -> &'a O::Parameter {
        // A session holds every parameter of its configuration's table.
        &self.parameters[name]
    }
}

/// The name of a stack's table of position biases.
pub(crate) fn bias_table(stack: &str) -> String {
    format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight")
}

/// The name of a decoder block's cross-attention.
pub(crate) fn cross_attention(block: &str) -> String {
    format!("{block}.layer.1.EncDecAttention")
}

pub(crate) fn head_name(config: &T5Config) -> &'static str {
    if config.tied_head() { "shared.weight" } else { "lm_head.weight" }
}
