//! A model's parameters as its blocks and layers use them, resolved once.

use std::collections::HashMap;

use super::module::{Linear, Module, Stack, Sublayer, SublayerKind};
use super::table::{Parameter, parameters};
use crate::{FeedForward, Result, T5Config};

/// A parameter's place among a model's, which are sorted by name.
#[derive(Clone, Copy)]
pub(crate) struct Weight {
    pub module: Module,
    pub index: usize,
}

/// All parameters of a model.
pub(crate) struct Weights {
    /// Sorted by name.
    pub parameters: Vec<Parameter>,
    pub embedding: Weight,
    /// The output head; the embedding, if it is tied.
    pub head: Weight,
    pub encoder: StackWeights<EncoderBlock>,
    pub decoder: StackWeights<DecoderBlock>,
}

pub(crate) struct StackWeights<B> {
    pub position_bias: Weight,
    pub blocks: Vec<B>,
    pub final_norm: Weight,
}

pub(crate) struct EncoderBlock {
    pub attention: AttentionWeights,
    pub feed_forward: FeedForwardWeights,
}

pub(crate) struct DecoderBlock {
    pub attention: AttentionWeights,
    pub cross_attention: AttentionWeights,
    pub feed_forward: FeedForwardWeights,
}

pub(crate) struct AttentionWeights {
    pub sublayer: Sublayer,
    pub norm: Weight,
    pub query: Weight,
    pub key: Weight,
    pub value: Weight,
    pub output: Weight,
}

pub(crate) struct FeedForwardWeights {
    pub sublayer: Sublayer,
    pub norm: Weight,
    pub input: FeedForwardInput,
    pub output: Weight,
}

pub(crate) enum FeedForwardInput {
    Relu(Weight),
    /// Gate and value.
    GatedGelu([Weight; 2]),
}

impl Weights {
    pub fn new(config: &T5Config) -> Result<Self> {
        let mut parameters = parameters(config)?;
        parameters.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        let places: HashMap<Module, usize> =
            parameters.iter().enumerate().map(|(index, parameter)| (parameter.module, index)).collect();
        // The table has every module of the configuration.
        let weight = |module| Weight { module, index: places[&module] };
        let attention = |stack, block, kind| {
            let sublayer = Sublayer { stack, block, kind };
            let linear = |linear| weight(Module::Linear(sublayer, linear));
            AttentionWeights {
                sublayer,
                norm: weight(Module::Norm(sublayer)),
                query: linear(Linear::Query),
                key: linear(Linear::Key),
                value: linear(Linear::Value),
                output: linear(Linear::AttentionOutput),
            }
        };
        let feed_forward = |stack, block| {
            let sublayer = Sublayer { stack, block, kind: SublayerKind::FeedForward };
            let linear = |linear| weight(Module::Linear(sublayer, linear));
            FeedForwardWeights {
                sublayer,
                norm: weight(Module::Norm(sublayer)),
                input: match config.feed_forward_proj {
                    FeedForward::Relu => FeedForwardInput::Relu(linear(Linear::Input)),
                    FeedForward::GatedGelu => {
                        FeedForwardInput::GatedGelu([Linear::Gate, Linear::GatedInput].map(linear))
                    }
                },
                output: linear(Linear::Output),
            }
        };
        let encoder_block = |block| EncoderBlock {
            attention: attention(Stack::Encoder, block, SublayerKind::SelfAttention),
            feed_forward: feed_forward(Stack::Encoder, block),
        };
        let decoder_block = |block| DecoderBlock {
            attention: attention(Stack::Decoder, block, SublayerKind::SelfAttention),
            cross_attention: attention(Stack::Decoder, block, SublayerKind::CrossAttention),
            feed_forward: feed_forward(Stack::Decoder, block),
        };
        Ok(Weights {
            embedding: weight(Module::Embedding),
            head: weight(if config.tied_head() { Module::Embedding } else { Module::Head }),
            encoder: StackWeights {
                position_bias: weight(Module::PositionBias(Stack::Encoder)),
                blocks: (0..config.num_layers).map(encoder_block).collect(),
                final_norm: weight(Module::FinalNorm(Stack::Encoder)),
            },
            decoder: StackWeights {
                position_bias: weight(Module::PositionBias(Stack::Decoder)),
                blocks: (0..config.num_decoder_layers()).map(decoder_block).collect(),
                final_norm: weight(Module::FinalNorm(Stack::Decoder)),
            },
            parameters,
        })
    }

    pub fn position_bias(&self, stack: Stack) -> Weight {
        match stack {
            Stack::Encoder => self.encoder.position_bias,
            Stack::Decoder => self.decoder.position_bias,
        }
    }

    pub fn final_norm(&self, stack: Stack) -> Weight {
        match stack {
            Stack::Encoder => self.encoder.final_norm,
            Stack::Decoder => self.decoder.final_norm,
        }
    }

    /// What a block computes with.
    pub fn of_block(&self, stack: Stack, block: usize) -> Vec<Weight> {
        let own = self.all().filter(|weight| weight.module.block() == Some((stack, block)));
        // Every block looks up the biases.
        own.chain((block > 0).then(|| self.position_bias(stack))).collect()
    }

    /// All of them, sorted by name.
    pub fn all(&self) -> impl Iterator<Item = Weight> {
        let modules = self.parameters.iter().map(|parameter| parameter.module);
        modules.enumerate().map(|(index, module)| Weight { module, index })
    }
}
