//! The direct sum against a naive one that looks at every element by itself.

use fusion_core::execute::Executor;
use fusion_core::grow::{DirectSum, Part, direct_sum};
use fusion_core::plan::{Fill, Normalisation, StandardDeviation};
use fusion_core::random::Philox;
use fusion_core::table::Axis::{Embed, Heads, Hidden, Input, Kv, Mlp, Output, RelposBuckets, Vocab};
use fusion_core::table::{Axis, AxisRule, Dim, Factor, Origin, ParamSpec, ParamTable, dim, joined};
use fusion_core::{Error, HostTensors, TensorSource};
use proptest::prelude::*;

use crate::support::{TINY, plan, random, t5};

/// Axes of the parameters that are fused; the last two are averaged.
const PARAMS: [(&str, &[&[Axis]]); 9] = [
    ("embedding", &[&[Vocab], &[Embed]]),
    ("query", &[&[Heads, Kv], &[Embed]]),
    ("output", &[&[Embed], &[Heads, Kv]]),
    ("three", &[&[Heads], &[Kv], &[Embed]]),
    ("bias", &[&[RelposBuckets], &[Heads]]),
    ("norm", &[&[Embed]]),
    ("mlp", &[&[Mlp], &[Embed]]),
    ("head", &[&[Vocab], &[Embed]]),
    ("logit_bias", &[&[Vocab]]),
];

/// Parameters that have every stored dimension of the others.
const SIZES: [&str; 5] = ["embedding", "query", "three", "bias", "mlp"];

fn table(size: impl Fn(Axis) -> usize) -> ParamTable {
    ParamTable::new(PARAMS.iter().map(|(name, dims)| {
        let factors = |axes: &&[Axis]| axes.iter().map(|&axis| Factor { axis, size: size(axis) }).collect();
        let spec = ParamSpec::new(*name, dims.iter().map(|axes| Dim { factors: factors(axes) }));
        if ["head", "logit_bias"].contains(name) { spec.averaged() } else { spec }
    }))
    .unwrap()
}

/// The logical coordinates of every element, in row-major order.
fn coordinates(sizes: &[usize]) -> Vec<Vec<usize>> {
    sizes.iter().fold(vec![vec![]], |all, &size| {
        all.iter().flat_map(|c| (0..size).map(move |i| [c.as_slice(), &[i]].concat())).collect()
    })
}

/// The fused parameter, element by element.
fn naive(name: &str, tables: &[ParamTable], tensors: &[HostTensors], std: f64, seed: u64) -> Vec<f32> {
    let specs: Vec<&ParamSpec> = tables.iter().map(|table| table.get(name).unwrap()).collect();
    let axes: Vec<Vec<Axis>> =
        specs[0].dims.iter().map(|d| d.factors.iter().map(|f| f.axis).collect()).collect();
    let sizes: Vec<Vec<usize>> = specs
        .iter()
        .map(|s| s.dims.iter().flat_map(|d| d.factors.iter().map(|f| f.size)).collect())
        .collect();
    let flat: Vec<Axis> = axes.concat();
    let child: Vec<usize> = (0..flat.len())
        .map(|f| match flat[f].rule() {
            AxisRule::Shared => sizes[0][f],
            AxisRule::Fused => sizes.iter().map(|s| s[f]).sum(),
            AxisRule::Padded => sizes.iter().map(|s| s[f]).max().unwrap(),
        })
        .collect();
    // A parent's coordinate for a child's, along one axis.
    let local = |parent: usize, f: usize, c: usize| -> Option<usize> {
        let start = match flat[f].rule() {
            AxisRule::Fused => sizes[..parent].iter().map(|s| s[f]).sum(),
            _ => 0,
        };
        c.checked_sub(start).filter(|&c| c < sizes[parent][f])
    };
    let averaged = ["head", "logit_bias"].contains(&name);
    let mut values = Vec::new();
    for (index, coordinate) in coordinates(&child).iter().enumerate() {
        let owners: Vec<usize> = (0..specs.len())
            .filter(|&p| (0..flat.len()).all(|f| local(p, f, coordinate[f]).is_some()))
            .collect();
        let mut value = 0.0;
        for &p in &owners {
            let at = (0..flat.len()).fold(0, |at, f| at * sizes[p][f] + local(p, f, coordinate[f]).unwrap());
            let factor = if averaged { 1.0 / specs.len() as f64 } else { 1.0 };
            value += factor
                * match specs[p].origin {
                    Origin::Absent(constant) => constant,
                    _ => f64::from(tensors[p][name].data[at]),
                };
        }
        // Cross-connections are where every stored dimension by itself belongs to some parent.
        let mut factors = 0;
        let belongs = axes.iter().all(|axes| {
            let range = factors..factors + axes.len();
            factors += axes.len();
            (0..specs.len()).any(|p| range.clone().all(|f| local(p, f, coordinate[f]).is_some()))
        });
        if owners.is_empty() && belongs {
            value = std * Philox::new(seed, name).normal(index as u64);
        }
        values.push(value as f32);
    }
    values
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_naive_sum(
        fused in prop::collection::vec((1..4usize, 1..4usize, 1..4usize, 1..4usize), 1..5),
        vocab in 1..4usize,
        // Which of the later parents lack which parameters, and what stands in for them.
        absent in prop::collection::vec((1..5usize, 0..PARAMS.len() - 1, -1.0..1.0f64), 0..6),
        seed: u64,
        noise: bool,
    ) {
        let tables: Vec<ParamTable> = fused
            .iter()
            .map(|&(embed, heads, kv, mlp)| {
                table(|axis| match axis {
                    Embed => embed,
                    Heads => heads,
                    Kv => kv,
                    Mlp => mlp,
                    _ => vocab,
                })
            })
            .enumerate()
            .map(|(parent, table)| {
                ParamTable::new(table.iter().cloned().map(|spec| {
                    let gap = absent.iter().find(|(p, param, _)| *p == parent && PARAMS[*param].0 == spec.name);
                    // An embedding must be there: the sizes of what is absent come from what is not.
                    match gap.filter(|_| !SIZES.contains(&spec.name.as_str())) {
                        Some((_, _, value)) => spec.from_origin(Origin::Absent(*value)),
                        None => spec,
                    }
                }))
                .unwrap()
            })
            .collect();
        let tensors: Vec<HostTensors> =
            tables.iter().enumerate().map(|(i, table)| random(table, seed ^ i as u64)).collect();
        let std = if noise { 0.5 } else { 0.0 };
        let cross = match noise {
            true => Fill::normal(StandardDeviation::Absolute(std), seed),
            false => Fill::Zero,
        };
        let references: Vec<&ParamTable> = tables.iter().collect();
        let plan = plan(&references, &DirectSum { cross, ..DirectSum::default() }).unwrap();
        let sources: Vec<&dyn TensorSource> = tensors.iter().map(|t| t as &dyn TensorSource).collect();
        let child = Executor::new(&plan, &sources).unwrap().in_memory().unwrap();
        for (name, _) in PARAMS {
            let expected = naive(name, &tables, &tensors, std, seed);
            prop_assert_eq!(&child[name].data, &expected, "{}", name);
        }
    }
}

/// Logits of a tied head that are scaled by `d_model^-1/2` (T5 1.0), from the fused norm and embedding.
#[test]
fn tied_heads_average_their_logits() {
    let widths = [2, 5, 3];
    let vocab = 4;
    let tables = widths.map(|width| {
        let embedding = ParamSpec::new("embedding", [dim(Vocab, vocab), dim(Embed, width)]);
        ParamTable::new([embedding, ParamSpec::new("norm", [dim(Embed, width)]).averaged_tied()]).unwrap()
    });
    let tensors = [1, 2, 3].map(|seed| random(&tables[seed - 1], seed as u64));
    let weights = [0.5, 0.25, 0.25];
    let options = DirectSum { weights: Some(weights.to_vec()), ..DirectSum::default() };
    let plan = plan(&[&tables[0], &tables[1], &tables[2]], &options).unwrap();
    let sources: [&dyn TensorSource; 3] = [&tensors[0], &tensors[1], &tensors[2]];
    let child = Executor::new(&plan, &sources).unwrap().in_memory().unwrap();

    let logits = |model: &HostTensors, hidden: &[f32]| -> Vec<f32> {
        let gain = &model["norm"].data;
        let scale = (hidden.len() as f32).sqrt().recip();
        let rows = model["embedding"].data.chunks(hidden.len());
        rows.map(|row| scale * (0..hidden.len()).map(|i| row[i] * gain[i] * hidden[i]).sum::<f32>()).collect()
    };
    let hidden =
        widths.map(|width| (0..width).map(|i| (i as f32 + 1.0).sin() + width as f32).collect::<Vec<_>>());
    let fused = logits(&child, &hidden.concat());
    for (token, logit) in fused.iter().enumerate() {
        let average: f32 = (0..3).map(|p| weights[p] as f32 * logits(&tensors[p], &hidden[p])[token]).sum();
        assert!((logit - average).abs() < 1e-5, "{logit} {average}");
    }
}

/// A child of a child keeps the groups of all of its ancestors.
#[test]
fn groups_of_repeated_fusion() {
    let table = t5(TINY);
    let part =
        |groups: &'static [usize]| Part { label: "a", blake3: None, table: &table, embed_groups: groups };
    let groups = |parts: &[Part<'_>], normalisation| {
        direct_sum(parts, &DirectSum { normalisation, ..DirectSum::default() }).unwrap().embed_groups
    };
    assert_eq!(groups(&[part(&[2, 4]), part(&[])], Normalisation::Property), [2, 4, 6]);
    assert_eq!(groups(&[part(&[2, 4]), part(&[])], Normalisation::Rule), [12]);
}

#[test]
fn error_messages() {
    let ok = t5(TINY);
    let one = |name: &str, dims: Vec<Dim>| ParamTable::new([ParamSpec::new(name, dims)]).unwrap();
    let two = |a: &ParamTable, b: &ParamTable| plan(&[a, b], &DirectSum::default()).unwrap_err();
    let with = |options: DirectSum| plan(&[&ok, &ok], &options).unwrap_err();
    let bad_table = |specs: Vec<ParamSpec>| ParamTable::new(specs).unwrap_err();
    let embed = |name: &str| ParamSpec::new(name, [dim(Embed, 2)]);
    let normal = |std| Fill::normal(std, 0);

    let part = Part { label: "child", blake3: None, table: &ok, embed_groups: &[2, 2] };
    let plain_head = one("head", vec![dim(Input, 2), dim(Hidden, 2)]);
    let averaged_head =
        ParamTable::new([ParamSpec::new("head", [dim(Input, 2), dim(Hidden, 2)]).averaged()]).unwrap();
    let tied = ParamTable::new([ParamSpec::new("norm", [dim(Mlp, 2)]).averaged_tied()]).unwrap();
    let errors: Vec<Error> = vec![
        plan(&[], &DirectSum::default()).unwrap_err(),
        bad_table(vec![embed("norm"), embed("norm")]),
        bad_table(vec![ParamSpec::new("scalar", [])]),
        bad_table(vec![ParamSpec::new("empty", [dim(Embed, 0)])]),
        bad_table(vec![ParamSpec::new("huge", [dim(Embed, usize::MAX), joined(Heads, usize::MAX, Kv, 2)])]),
        two(&ok, &t5(crate::support::Sizes { layers: 1, ..TINY })),
        two(&t5(crate::support::Sizes { layers: 1, ..TINY }), &ok),
        two(&ok, &t5(crate::support::Sizes { vocab: 12, ..TINY })),
        two(&ok, &t5(crate::support::Sizes { buckets: 5, ..TINY })),
        two(&one("w", vec![joined(Heads, 2, Kv, 3)]), &one("w", vec![dim(Mlp, 6)])),
        two(&plain_head, &averaged_head),
        two(&one("bias", vec![dim(Output, 3)]), &one("bias", vec![dim(Output, 3)])),
        two(&tied, &tied),
        with(DirectSum { weights: Some(vec![1.0]), ..DirectSum::default() }),
        with(DirectSum { weights: Some(vec![1.0, 0.5]), ..DirectSum::default() }),
        with(DirectSum { weights: Some(vec![f64::NAN, 0.5]), ..DirectSum::default() }),
        with(DirectSum { cross: normal(StandardDeviation::Absolute(-1.0)), ..DirectSum::default() }),
        with(DirectSum { cross: normal(StandardDeviation::Relative(f64::INFINITY)), ..DirectSum::default() }),
        direct_sum(&[part], &DirectSum::default()).unwrap_err(),
    ];
    let messages: Vec<String> = errors.iter().map(Error::to_string).collect();
    insta::assert_snapshot!(messages.join("\n"));
}
