//! The table of T5's parameters: axes, initial values, roles in training, and how logits average (Section 3.1).

use fusion_core::table::Axis::{Embed, Heads, Kv, Mlp, RelposBuckets, Vocab};
use fusion_core::table::{Averaging, Dim, Origin, ParamSpec, ParamTable, dim, joined};

use super::module::{Linear, Module, Stack, Sublayer, SublayerKind};
use crate::optimizer::Role;
use crate::{Result, T5Config};

/// A row of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// The module that holds it.
    pub module: Module,
    /// Its name, its axes, and what fusing makes of it.
    pub spec: ParamSpec,
    /// The standard deviation of its initial values, as in Mesh TensorFlow and T5X. A gain has none and
    /// starts at 1.
    pub initial_deviation: Option<f64>,
    /// What it is to an optimiser.
    pub role: Role,
}

impl Parameter {
    fn new(module: Module, config: &T5Config, dims: impl IntoIterator<Item = Dim>) -> Self {
        let spec = ParamSpec::new(module.weight(), dims);
        let role = Role::of(&spec.dims);
        Parameter { module, spec, initial_deviation: initial_deviation(module, config), role }
    }

    fn with_spec(self, change: impl FnOnce(ParamSpec) -> ParamSpec) -> Self {
        Parameter { spec: change(self.spec), ..self }
    }
}

fn initial_deviation(module: Module, config: &T5Config) -> Option<f64> {
    let (d_model, d_kv, inner, d_ff) =
        (config.d_model as f64, config.d_kv as f64, config.inner_dim() as f64, config.d_ff as f64);
    match module {
        Module::Norm(_) | Module::FinalNorm(_) => None,
        Module::Embedding => Some(1.0),
        // T5 folds attention's 1/sqrt(d_kv) into the initial scale of the queries.
        Module::Linear(_, Linear::Query) => Some((d_model * d_kv).powf(-0.5)),
        Module::Linear(_, Linear::AttentionOutput) => Some(inner.powf(-0.5)),
        Module::Linear(_, Linear::Output) => Some(d_ff.powf(-0.5)),
        Module::Linear(..) | Module::PositionBias(_) | Module::Head => Some(d_model.powf(-0.5)),
    }
}

/// What a model computes in the place of one of a deeper model's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    /// Its own block of that index.
    Own(usize),
    /// The same, but with output projections of zero: it adds nothing to the residual stream.
    Silent(usize),
    /// Nothing: all weights are zero.
    Absent,
}

impl Block {
    /// Where a model's values of a module in block `at` of the deeper model are.
    fn origin(self, module: Module, at: usize) -> Origin {
        let absent = Origin::Absent(if module.is_norm() { 1.0 } else { 0.0 });
        match self {
            Block::Silent(_) if matches!(module, Module::Linear(_, linear) if linear.is_output()) => absent,
            Block::Own(own) | Block::Silent(own) if own == at => Origin::SameName,
            Block::Own(own) | Block::Silent(own) => Origin::Tensor(module.in_block(own).weight()),
            Block::Absent => absent,
        }
    }
}

/// The parameters of a T5, in the order in which it computes.
///
/// # Errors
/// The configuration is not that of a T5.
pub fn parameters(config: &T5Config) -> Result<Vec<Parameter>> {
    config.validate()?;
    let own = |stack: Stack| (0..stack.depth(config)).map(Block::Own).collect();
    Ok(rows(config, Stack::BOTH.map(own)))
}

/// The parameters of a T5 as fusing sees them, with Hugging Face's names and `[out, in]` layout.
///
/// # Errors
/// The configuration is not that of a T5.
pub fn parameter_table(config: &T5Config) -> Result<ParamTable> {
    Ok(ParamTable::new(parameters(config)?.into_iter().map(|parameter| parameter.spec))?)
}

/// The parameters of a T5 that takes part in a deeper one: what is in the place of each block of the deeper
/// encoder and decoder.
pub(crate) fn table_with_blocks(config: &T5Config, blocks: [Vec<Block>; 2]) -> Result<ParamTable> {
    Ok(ParamTable::new(rows(config, blocks).into_iter().map(|parameter| parameter.spec))?)
}

fn rows(config: &T5Config, blocks: [Vec<Block>; 2]) -> Vec<Parameter> {
    let embed = || dim(Embed, config.d_model);
    let joined_kv = || joined(Heads, config.num_heads, Kv, config.d_kv);
    let mlp = || dim(Mlp, config.d_ff);
    let vocab = || dim(Vocab, config.vocab_size);
    let mut rows = vec![Parameter::new(Module::Embedding, config, [vocab(), embed()])];

    for (stack, blocks) in Stack::BOTH.into_iter().zip(blocks) {
        for (block, here) in blocks.into_iter().enumerate() {
            for &kind in stack.sublayers() {
                let sublayer = Sublayer { stack, block, kind };
                for &linear in sublayer.linears(config.feed_forward_proj) {
                    let dims = match linear {
                        Linear::Query | Linear::Key | Linear::Value => [joined_kv(), embed()],
                        Linear::AttentionOutput => [embed(), joined_kv()],
                        Linear::Input | Linear::Gate | Linear::GatedInput => [mlp(), embed()],
                        Linear::Output => [embed(), mlp()],
                    };
                    let module = Module::Linear(sublayer, linear);
                    let row = Parameter::new(module, config, dims);
                    rows.push(
                        row.with_spec(|spec| spec.from_origin(here.origin(module, block)).contracting(1)),
                    );
                }
                if block == 0 && kind == SublayerKind::SelfAttention {
                    // All blocks use it, so it is that of the model's first block wherever that is.
                    let dims = [
                        dim(RelposBuckets, config.relative_attention_num_buckets),
                        dim(Heads, config.num_heads),
                    ];
                    rows.push(Parameter::new(Module::PositionBias(stack), config, dims));
                }
                let module = Module::Norm(sublayer);
                let row = Parameter::new(module, config, [embed()]);
                rows.push(row.with_spec(|spec| spec.from_origin(here.origin(module, block))));
            }
        }
        rows.push(Parameter::new(Module::FinalNorm(stack), config, [embed()]));
    }

    // The average of the logits is folded into the last linear step before them that no one else uses.
    let averaged = if config.tied_head() {
        rows.pop()
    } else {
        let head = Parameter::new(Module::Head, config, [vocab(), embed()]);
        Some(head.with_spec(|spec| spec.contracting(1)))
    };
    let average =
        |spec: ParamSpec| if config.scale_logits() { spec.averaged_tied() } else { spec.averaged() };
    rows.extend(averaged.map(|row| row.with_spec(average)));
    rows
}

/// The parameters of a T5 as one with a head of its own that sees the decoder's output unscaled. It computes
/// the same.
pub(crate) fn with_plain_head(table: &ParamTable, config: &T5Config) -> Result<ParamTable> {
    let mut specs: Vec<ParamSpec> =
        table.iter().map(|spec| ParamSpec { averaging: Averaging::None, ..spec.clone() }).collect();
    if config.tied_head() {
        let dims = [dim(Vocab, config.vocab_size), dim(Embed, config.d_model)];
        let head = ParamSpec::new(Module::Head.weight(), dims).contracting(1);
        specs.push(head.from_origin(Origin::Tensor(Module::Embedding.weight())));
    }
    let scale = if config.scale_logits() { (config.d_model as f64).powf(-0.5) } else { 1.0 };
    let head = specs.pop().map(|head| head.times(scale).averaged());
    Ok(ParamTable::new(specs.into_iter().chain(head))?)
}
