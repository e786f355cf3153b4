//! The modules of a T5 that hold a parameter, and Hugging Face's names for them.

use std::fmt;

use crate::{FeedForward, T5Config};

/// One of T5's two stacks of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stack {
    /// Reads the input.
    Encoder,
    /// Predicts the target.
    Decoder,
}

impl Stack {
    /// Both, in the order in which they compute.
    pub const BOTH: [Stack; 2] = [Stack::Encoder, Stack::Decoder];

    /// The number of blocks.
    pub fn depth(self, config: &T5Config) -> usize {
        match self {
            Stack::Encoder => config.num_layers,
            Stack::Decoder => config.num_decoder_layers(),
        }
    }

    /// A sublayer of one of its blocks.
    pub fn sublayer(self, block: usize, kind: SublayerKind) -> Sublayer {
        Sublayer { stack: self, block, kind }
    }

    /// The attentions of a kind in all blocks.
    pub(super) fn attentions(
        self,
        config: &T5Config,
        kind: SublayerKind,
    ) -> impl Iterator<Item = Sublayer> + Clone {
        (0..self.depth(config)).map(move |block| self.sublayer(block, kind))
    }

    /// What each block consists of, in the order in which it computes.
    pub fn sublayers(self) -> &'static [SublayerKind] {
        use SublayerKind::{CrossAttention, FeedForward, SelfAttention};
        match self {
            Stack::Encoder => &[SelfAttention, FeedForward],
            Stack::Decoder => &[SelfAttention, CrossAttention, FeedForward],
        }
    }
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stack::Encoder => "encoder",
            Stack::Decoder => "decoder",
        })
    }
}

/// The kinds of sublayers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SublayerKind {
    /// Attention of a stack to itself.
    SelfAttention,
    /// Attention of the decoder to the encoder's output.
    CrossAttention,
    /// The MLP.
    FeedForward,
}

/// A sublayer of a block: `x + f(norm(x))`. Displayed as its path, `decoder.block.0.layer.2.DenseReluDense`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sublayer {
    /// The stack that the block belongs to.
    pub stack: Stack,
    /// The block's index.
    pub block: usize,
    /// What the sublayer computes.
    pub kind: SublayerKind,
}

impl Sublayer {
    /// Its linear maps, the one to the residual stream last.
    pub fn linears(self, feed_forward: FeedForward) -> &'static [Linear] {
        match (self.kind, feed_forward) {
            (SublayerKind::SelfAttention | SublayerKind::CrossAttention, _) => {
                &[Linear::Query, Linear::Key, Linear::Value, Linear::AttentionOutput]
            }
            (SublayerKind::FeedForward, FeedForward::Relu) => &[Linear::Input, Linear::Output],
            (SublayerKind::FeedForward, FeedForward::GatedGelu) => {
                &[Linear::Gate, Linear::GatedInput, Linear::Output]
            }
        }
    }

    /// The map to the residual stream.
    pub fn output(self) -> Module {
        match self.kind {
            SublayerKind::FeedForward => Module::Linear(self, Linear::Output),
            _ => Module::Linear(self, Linear::AttentionOutput),
        }
    }

    /// `decoder.block.0.layer.2`.
    fn layer(self) -> impl fmt::Display {
        let Sublayer { stack, block, kind } = self;
        let layer = match (stack, kind) {
            (_, SublayerKind::SelfAttention) => 0,
            (_, SublayerKind::CrossAttention) | (Stack::Encoder, SublayerKind::FeedForward) => 1,
            (Stack::Decoder, SublayerKind::FeedForward) => 2,
        };
        fmt::from_fn(move |f| write!(f, "{stack}.block.{block}.layer.{layer}"))
    }
}

impl fmt::Display for Sublayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            SublayerKind::SelfAttention => "SelfAttention",
            SublayerKind::CrossAttention => "EncDecAttention",
            SublayerKind::FeedForward => "DenseReluDense",
        };
        write!(f, "{}.{name}", self.layer())
    }
}

/// The linear maps of a sublayer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Linear {
    /// `q`
    Query,
    /// `k`
    Key,
    /// `v`
    Value,
    /// `o`
    AttentionOutput,
    /// `wi`, of the MLP without a gate
    Input,
    /// `wi_0`, whose GELU is the gate
    Gate,
    /// `wi_1`, which the gate is multiplied with
    GatedInput,
    /// `wo`
    Output,
}

impl Linear {
    /// Whether it maps to the residual stream.
    pub fn is_output(self) -> bool {
        matches!(self, Linear::AttentionOutput | Linear::Output)
    }
}

impl fmt::Display for Linear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Linear::Query => "q",
            Linear::Key => "k",
            Linear::Value => "v",
            Linear::AttentionOutput => "o",
            Linear::Input => "wi",
            Linear::Gate => "wi_0",
            Linear::GatedInput => "wi_1",
            Linear::Output => "wo",
        })
    }
}

/// A module that holds one parameter. Displayed as its path, `encoder.block.0.layer.0.SelfAttention.q`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Module {
    /// The embedding of both stacks, and the output head that is tied to it.
    Embedding,
    /// An output head of its own.
    Head,
    /// The table of position biases, which all blocks of a stack share.
    PositionBias(Stack),
    /// The norm before a sublayer.
    Norm(Sublayer),
    /// A linear map of a sublayer.
    Linear(Sublayer, Linear),
    /// The norm behind a stack's last block.
    FinalNorm(Stack),
}

impl Module {
    /// The name of its parameter.
    pub fn weight(self) -> String {
        format!("{self}.weight")
    }

    /// Whether it is a norm, whose parameter is a gain.
    pub fn is_norm(self) -> bool {
        matches!(self, Module::Norm(_) | Module::FinalNorm(_))
    }

    /// The block that it belongs to.
    pub fn block(self) -> Option<(Stack, usize)> {
        match self {
            Module::Embedding | Module::Head | Module::FinalNorm(_) => None,
            Module::PositionBias(stack) => Some((stack, 0)),
            Module::Norm(Sublayer { stack, block, .. })
            | Module::Linear(Sublayer { stack, block, .. }, _) => Some((stack, block)),
        }
    }

    /// The stack that computes with it; of the head, the decoder, whose output it reads.
    pub fn stack(self) -> Option<Stack> {
        match self {
            Module::Embedding => None,
            Module::Head => Some(Stack::Decoder),
            Module::FinalNorm(stack) => Some(stack),
            _ => self.block().map(|(stack, _)| stack),
        }
    }

    /// The same module of another block.
    pub fn in_block(self, block: usize) -> Module {
        match self {
            Module::Norm(sublayer) => Module::Norm(Sublayer { block, ..sublayer }),
            Module::Linear(sublayer, linear) => Module::Linear(Sublayer { block, ..sublayer }, linear),
            other => other,
        }
    }
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Module::Embedding => f.write_str("shared"),
            Module::Head => f.write_str("lm_head"),
            Module::PositionBias(stack) => {
                write!(f, "{stack}.block.0.layer.0.SelfAttention.relative_attention_bias")
            }
            Module::Norm(sublayer) => write!(f, "{}.layer_norm", sublayer.layer()),
            Module::Linear(sublayer, linear) => write!(f, "{sublayer}.{linear}"),
            Module::FinalNorm(stack) => write!(f, "{stack}.final_layer_norm"),
        }
    }
}
