//! Parents to fuse.

use fusion_core::grow::{DirectSum, Part, direct_sum};
use fusion_core::plan::FusionPlan;
use fusion_core::random::Philox;
use fusion_core::table::Axis::{Embed, Heads, Kv, Mlp, RelposBuckets, Vocab};
use fusion_core::table::{Origin, ParamSpec, ParamTable, dim, joined};
use fusion_core::{HostTensor, HostTensors, Result};

/// T5 1.1's dimensions.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub vocab: usize,
    pub buckets: usize,
    pub embed: usize,
    pub heads: usize,
    pub kv: usize,
    pub mlp: usize,
    pub layers: usize,
}

pub const T5_SMALL: Sizes =
    Sizes { vocab: 32_128, buckets: 32, embed: 512, heads: 6, kv: 64, mlp: 1024, layers: 8 };
pub const TINY: Sizes = Sizes { vocab: 11, buckets: 4, embed: 6, heads: 2, kv: 3, mlp: 5, layers: 2 };

/// T5 1.1 with an untied head.
pub fn t5(sizes: Sizes) -> ParamTable {
    let Sizes { vocab, buckets, embed, heads, kv, mlp, layers } = sizes;
    let mut specs = vec![ParamSpec::new("shared.weight", [dim(Vocab, vocab), dim(Embed, embed)])];
    let inner = || joined(Heads, heads, Kv, kv);
    for stack in ["encoder", "decoder"] {
        for block in 0..layers {
            let attentions: &[&str] =
                if stack == "encoder" { &["SelfAttention"] } else { &["SelfAttention", "EncDecAttention"] };
            for (layer, attention) in attentions.iter().enumerate() {
                let prefix = format!("{stack}.block.{block}.layer.{layer}");
                for projection in ["q", "k", "v"] {
                    let name = format!("{prefix}.{attention}.{projection}.weight");
                    specs.push(ParamSpec::new(name, [inner(), dim(Embed, embed)]).contracting(1));
                }
                let name = format!("{prefix}.{attention}.o.weight");
                specs.push(ParamSpec::new(name, [dim(Embed, embed), inner()]).contracting(1));
                if layer == 0 && block == 0 {
                    let name = format!("{prefix}.{attention}.relative_attention_bias.weight");
                    specs.push(ParamSpec::new(name, [dim(RelposBuckets, buckets), dim(Heads, heads)]));
                }
                specs.push(ParamSpec::new(format!("{prefix}.layer_norm.weight"), [dim(Embed, embed)]));
            }
            let prefix = format!("{stack}.block.{block}.layer.{}", attentions.len());
            for projection in ["wi_0", "wi_1"] {
                let name = format!("{prefix}.DenseReluDense.{projection}.weight");
                specs.push(ParamSpec::new(name, [dim(Mlp, mlp), dim(Embed, embed)]).contracting(1));
            }
            let name = format!("{prefix}.DenseReluDense.wo.weight");
            specs.push(ParamSpec::new(name, [dim(Embed, embed), dim(Mlp, mlp)]).contracting(1));
            specs.push(ParamSpec::new(format!("{prefix}.layer_norm.weight"), [dim(Embed, embed)]));
        }
        specs.push(ParamSpec::new(format!("{stack}.final_layer_norm.weight"), [dim(Embed, embed)]));
    }
    specs.push(
        ParamSpec::new("lm_head.weight", [dim(Vocab, vocab), dim(Embed, embed)]).contracting(1).averaged(),
    );
    ParamTable::new(specs).unwrap()
}

/// The same without block 1 of either stack: gains of one, other weights of zero.
#[allow(dead_code, reason = "the bench has no use for it")]
pub fn without_last_blocks(table: ParamTable) -> ParamTable {
    let specs = table.iter().cloned().map(|spec| match spec.name.contains(".block.1.") {
        true if spec.name.ends_with("layer_norm.weight") => spec.from_origin(Origin::Absent(1.0)),
        true => spec.from_origin(Origin::Absent(0.0)),
        false => spec,
    });
    ParamTable::new(specs).unwrap()
}

/// Normal values for every parameter that is not absent.
pub fn random(table: &ParamTable, seed: u64) -> HostTensors {
    let tensor = |spec: &ParamSpec| {
        let mut tensor = HostTensor::zeros(spec.shape());
        Philox::new(seed, &spec.name).fill_normal(0, 1.0, &mut tensor.data);
        (spec.name.clone(), tensor)
    };
    table.iter().filter(|spec| !matches!(spec.origin, Origin::Absent(_))).map(tensor).collect()
}

/// A plan of parents that are named `a`, `b`, ….
pub fn plan(tables: &[&ParamTable], options: &DirectSum) -> Result<FusionPlan> {
    let labels = ["a", "b", "c", "d"];
    let parts: Vec<Part<'_>> = tables
        .iter()
        .zip(labels)
        .map(|(table, label)| Part { label, blake3: None, table, embed_groups: &[] })
        .collect();
    direct_sum(&parts, options)
}
