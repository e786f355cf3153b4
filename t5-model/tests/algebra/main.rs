//! The algebra of every method, in f64: a fused model is the weighted ensemble of its parents, and methods
//! that claim to preserve the function of the model they grow do so, whatever the sizes, to 1e-12.

mod reference;

use std::slice::from_ref;

use fusion_core::grow::DirectSum;
use fusion_core::plan::{Fill, FusionPlan, Normalisation, StandardDeviation};
use proptest::prelude::*;
use reference::{Weights, logits};
use t5_model::conformance::random_weights;
use t5_model::method::{
    Arrangement, DepthAlignment, Fuse, FusionParent, Grown, GrowthMethod, HyperClone, Lemon, Net2Net,
    NewBlocks, Promise, SelfFusion, Stack, Widths,
};
use t5_model::{FeedForward, T5Config};

const NOISE: Option<(StandardDeviation, u64)> = Some((StandardDeviation::Relative(0.3), 5));

/// Gated or not, and the kinds of output head: untied, tied with scaled logits.
fn family() -> impl Strategy<Value = (bool, bool)> {
    any::<(bool, bool)>()
}

/// d_model, heads, d_kv, d_ff, encoder and decoder layers.
fn sizes() -> impl Strategy<Value = [usize; 6]> {
    [2..7usize, 1..4, 1..5, 1..8, 1..4, 1..4]
}

fn parent(label: &str, (gated, tied): (bool, bool), sizes: [usize; 6]) -> FusionParent {
    let [d_model, heads, d_kv, d_ff, encoder, decoder] = sizes;
    let mut config = T5Config::v1_1(23, d_model, heads, d_kv, d_ff, encoder);
    config.set_num_decoder_layers(decoder);
    config.tie_word_embeddings = tied;
    if !gated {
        config.feed_forward_proj = FeedForward::Relu;
    }
    FusionParent { label: label.into(), config, blake3: None, path: label.into() }
}

fn weights(config: &T5Config, seed: u64) -> Weights {
    Weights::new(&random_weights(config, seed).unwrap())
}

fn predict(config: &T5Config, weights: &Weights) -> Vec<f64> {
    logits(config, weights, &[5, 7, 2, 9, 5, 11, 3, 22, 1], &[0, 8, 6, 4, 20])
}

/// The largest difference, relative to the largest value.
fn difference(found: &[f64], expected: &[f64]) -> f64 {
    let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, |a: f64, b| a.max(b.abs()));
    largest(&mut found.iter().zip(expected).map(|(a, b)| a - b)) / largest(&mut expected.iter().copied())
}

/// How far a grown model's predictions are from its only parent's.
fn change(parent: &FusionParent, seed: u64, grown: &Grown) -> f64 {
    let own = weights(&parent.config, seed);
    let parents = vec![&own; grown.plan.parents.len()];
    let child = Weights::fused(&grown.plan, &parents);
    assert_eq!(shapes(&grown.plan), shapes_of(&grown.child), "the plan's child is the configuration's");
    let change = difference(&predict(&grown.child, &child), &predict(&parent.config, &own));
    let promised = Promise::of(&grown.plan).unwrap();
    assert!(!promised.is_exact() || change < 1e-12, "{promised:?} is promised, but it is off by {change:e}");
    change
}

/// How far a fused model's predictions are from the weighted average of its parents'.
fn from_ensemble(
    parents: &[FusionParent],
    own: &[Weights],
    shares: Option<Vec<f64>>,
    depth: DepthAlignment,
) -> f64 {
    let sum = DirectSum { weights: shares.clone(), ..DirectSum::default() };
    let Grown { plan, child } = Fuse { sum, depth }.grow(parents).unwrap();
    assert_eq!(Promise::of(&plan), Some(Promise::Ensemble));
    assert_eq!(shapes(&plan), shapes_of(&child), "the plan's child is the configuration's");
    let fused = predict(&child, &Weights::fused(&plan, &own.iter().collect::<Vec<_>>()));
    let shares = shares.unwrap_or(vec![1.0 / parents.len() as f64; parents.len()]);
    let mut ensemble = vec![0.0; fused.len()];
    for (share, (parent, own)) in shares.iter().zip(parents.iter().zip(own)) {
        ensemble.iter_mut().zip(predict(&parent.config, own)).for_each(|(sum, logit)| *sum += share * logit);
    }
    difference(&fused, &ensemble)
}

fn shapes(plan: &FusionPlan) -> Vec<(String, Vec<usize>)> {
    plan.params.iter().map(|param| (param.name.clone(), param.shape())).collect()
}

fn shapes_of(config: &T5Config) -> Vec<(String, Vec<usize>)> {
    let table = t5_model::parameter_table(config).unwrap();
    table.iter().map(|spec| (spec.name.clone(), spec.shape())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fusion_is_the_weighted_ensemble(
        family in family(),
        sizes in prop::collection::vec(sizes(), 2..5),
        depth in prop::sample::select(vec![DepthAlignment::Bottom, DepthAlignment::Top, DepthAlignment::Spread]),
        shares in prop::option::of(prop::collection::vec(0.1..1.0f64, 4)),
        seed in 0..1000u64,
    ) {
        let parents: Vec<_> = sizes.iter().map(|sizes| parent("p", family, *sizes)).collect();
        let own: Vec<_> = (seed..).zip(&parents).map(|(seed, parent)| weights(&parent.config, seed)).collect();
        let shares = shares.map(|shares| {
            let shares = &shares[..parents.len()];
            shares.iter().map(|share| share / shares.iter().sum::<f64>()).collect::<Vec<f64>>()
        });
        let difference = from_ensemble(&parents, &own, shares, depth);
        prop_assert!(difference < 1e-12, "off by {:e}", difference);
    }

    /// Logits from the embedding or a separate head, from scaled outputs or not.
    #[test]
    fn parents_with_different_heads_fuse(
        gated: bool,
        heads in prop::collection::vec((sizes(), any::<(bool, bool)>()), 2..4),
        seed in 0..1000u64,
    ) {
        let with_head = |(sizes, (tied, scaled)): &([usize; 6], (bool, bool))| {
            let mut parent = parent("p", (gated, *tied), *sizes);
            let mut json = parent.config.to_json();
            json.insert("scale_decoder_outputs".into(), (*scaled).into());
            parent.config = T5Config::from_json(&json, "config.json".as_ref()).unwrap();
            parent
        };
        let parents: Vec<_> = heads.iter().map(with_head).collect();
        let own: Vec<_> = (seed..).zip(&parents).map(|(seed, parent)| weights(&parent.config, seed)).collect();
        let difference = from_ensemble(&parents, &own, None, DepthAlignment::Top);
        prop_assert!(difference < 1e-12, "off by {:e}", difference);
    }

    #[test]
    fn self_fusion_preserves(family in family(), sizes in sizes(), times in 1..5usize, rule: bool, seed in 0..1000u64) {
        let parent = parent("p", family, sizes);
        let normalisation = if rule { Normalisation::Rule } else { Normalisation::Property };
        let grown = SelfFusion { times, sum: DirectSum { normalisation, ..DirectSum::default() } }.grow(from_ref(&parent)).unwrap();
        let change = change(&parent, seed, &grown);
        prop_assert!(change < 1e-12, "off by {:e}", change);
    }

    #[test]
    fn hyperclone_preserves(family in family(), sizes in sizes(), times in 1..5usize, noisy: bool, seed in 0..1000u64) {
        let parent = parent("p", family, sizes);
        let grown = HyperClone { times, noise: NOISE.filter(|_| noisy) }.grow(from_ref(&parent)).unwrap();
        let change = change(&parent, seed, &grown);
        prop_assert!(change < 1e-12, "off by {:e}", change);
    }

    #[test]
    fn net2net_and_lemon_preserve(
        family in family(),
        sizes in sizes(),
        (copies, more_heads, more_hidden) in (1..4usize, 0..5usize, 1..20usize),
        noisy: bool,
        seed in 0..1000u64,
    ) {
        let parent = parent("p", family, sizes);
        let [d_model, heads, _, d_ff, ..] = sizes;
        let widths =
            Widths { d_model: Some(copies * d_model), num_heads: Some(heads + more_heads), d_ff: Some(d_ff + more_hidden) };
        let copied = Net2Net { widths, seed, noise: NOISE.filter(|_| noisy) }.grow(from_ref(&parent)).unwrap();
        let unequal = Lemon { widths, seed }.grow(from_ref(&parent)).unwrap();
        for grown in [copied, unequal] {
            let change = change(&parent, seed, &grown);
            prop_assert!(change < 1e-12, "{} is off by {:e}", grown.plan.method, change);
        }
    }

    #[test]
    fn stacks_with_silent_blocks_preserve(
        family in family(),
        sizes in sizes(),
        times in 1..4usize,
        interleave: bool,
        seed in 0..1000u64,
    ) {
        let parent = parent("p", family, sizes);
        let arrangement = if interleave { Arrangement::Interleave } else { Arrangement::Repeat };
        let grown = Stack { times, arrangement, new_blocks: NewBlocks::Silent }.grow(from_ref(&parent)).unwrap();
        let silent = change(&parent, seed, &grown);
        prop_assert!(silent < 1e-12, "off by {:e}", silent);
        let grown = Stack { times, arrangement, new_blocks: NewBlocks::Active }.grow(from_ref(&parent)).unwrap();
        let active = change(&parent, seed, &grown);
        prop_assert!(times == 1 || active > 1e-6, "active copies would change nothing");
    }
}

/// Models fused under the property keep their groups when they grow.
#[test]
fn grouped_models_grow() {
    let mut parent = parent("p", (true, true), [7, 2, 3, 5, 2, 2]);
    parent.config.rms_norm_groups = vec![3, 4];
    let widths = Widths { d_model: Some(14), ..Widths::default() };
    let methods = [
        HyperClone { times: 2, noise: NOISE }.grow(from_ref(&parent)).unwrap(),
        Lemon { widths, seed: 1 }.grow(from_ref(&parent)).unwrap(),
        SelfFusion { times: 2, sum: DirectSum::default() }.grow(from_ref(&parent)).unwrap(),
    ];
    for grown in methods {
        assert_eq!(grown.child.rms_norm_groups, [3, 4, 3, 4]);
        assert!(change(&parent, 3, &grown) < 1e-12, "{}", grown.plan.method);
    }
    let deeper = Stack { times: 2, arrangement: Arrangement::Repeat, new_blocks: NewBlocks::Silent };
    let grown = deeper.grow(from_ref(&parent)).unwrap();
    assert_eq!(grown.child.rms_norm_groups, [3, 4]);
    assert!(change(&parent, 3, &grown) < 1e-12);
}

/// Where all widths double, Net2Net's second copies are HyperCloning's, noise included.
#[test]
fn net2net_doubles_as_hyperclone_does() {
    let parent = parent("p", (true, false), [4, 2, 3, 5, 1, 1]);
    let widths = Widths { d_model: Some(8), num_heads: Some(4), d_ff: Some(10) };
    for noise in [None, NOISE] {
        let cloned = HyperClone { times: 2, noise }.grow(from_ref(&parent)).unwrap();
        let copied = Net2Net { widths, seed: 1, noise }.grow(from_ref(&parent)).unwrap();
        assert_eq!(cloned.child, copied.child);
        assert_eq!(cloned.plan.params, copied.plan.params);
    }
}

/// The noise is really present, and differs between copies.
#[test]
fn noise_tells_copies_apart() {
    let parent = parent("p", (true, false), [4, 2, 3, 5, 1, 1]);
    let plans = |noise| {
        let widths = Widths { d_ff: Some(10), ..Widths::default() };
        [
            HyperClone { times: 2, noise }.grow(from_ref(&parent)).unwrap().plan,
            Net2Net { widths, seed: 1, noise }.grow(from_ref(&parent)).unwrap().plan,
        ]
    };
    for (quiet, noisy) in plans(None).iter().zip(plans(NOISE)) {
        assert_eq!(quiet.warnings().len(), 1, "copies stay equal");
        assert_eq!(noisy.warnings(), []);
        assert_eq!(noisy.cross(), Fill::normal(StandardDeviation::Relative(0.3), 5));
    }
    let lemon = Lemon { widths: Widths { d_ff: Some(10), ..Widths::default() }, seed: 1 }
        .grow(from_ref(&parent))
        .unwrap();
    assert_eq!(lemon.plan.warnings(), []);
}
