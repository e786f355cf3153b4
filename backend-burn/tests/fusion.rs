//! Fusing random models of random sizes: under the property, the child is the ensemble of its parents.

use backend_burn as _;
use fusion_core::{DirectSum, Executor, Fill, HostTensors, Normalisation, Philox, TensorSource};
use proptest::prelude::*;
use t5_model::{Batch, FeedForward, FusionParent, T5Config, child_config, fusion_plan, initialize};

#[derive(Clone, Debug)]
struct Family {
    gated: bool,
    tied: bool,
    layers: (usize, usize),
}

fn family() -> impl Strategy<Value = Family> {
    (any::<bool>(), any::<bool>(), (1..3usize, 1..3usize)).prop_map(|(gated, tied, layers)| Family {
        gated,
        tied,
        layers,
    })
}

/// d_model, heads, d_kv and d_ff.
fn sizes() -> impl Strategy<Value = [usize; 4]> {
    [3..14usize, 1..4, 2..7, 3..18]
}

fn config(family: &Family, [d_model, heads, d_kv, d_ff]: [usize; 4]) -> T5Config {
    let mut config = T5Config::v1_1(23, d_model, heads, d_kv, d_ff, family.layers.0);
    config.set_num_decoder_layers(family.layers.1);
    config.tie_word_embeddings = family.tied;
    if !family.gated {
        config.feed_forward_proj = FeedForward::Relu;
    }
    config
}

/// Random weights, with gains that are not all 1.
fn weights(config: &T5Config, seed: u64) -> HostTensors {
    let mut weights = initialize(config, seed).unwrap();
    for (name, tensor) in weights.0.iter_mut().filter(|(name, _)| name.ends_with("layer_norm.weight")) {
        let gains = Philox::new(seed, &format!("gains of {name}"));
        (0..).zip(&mut tensor.data).for_each(|(index, gain)| *gain = 0.5 + gains.uniform(index));
    }
    weights
}

fn batch() -> Batch {
    let ids: Vec<i32> = (0..40).map(|i| 2 + (i * 5) % 21).collect();
    Batch::padded([(&ids[..12], &ids[20..27]), (&ids[5..14], &ids[30..35])], 0)
}

fn logits(config: &T5Config, weights: &HostTensors) -> Vec<f32> {
    let mut session = t5_model::backend("burn").unwrap().open("cpu", config, weights).unwrap();
    session.forward(&batch(), false).unwrap().logits.data
}

/// The child's largest deviation from the weighted mean of the parents' logits, relative to the largest of these.
fn deviation(configs: &[T5Config], models: &[HostTensors], options: DirectSum) -> f64 {
    let parents: Vec<_> = configs
        .iter()
        .enumerate()
        .map(|(index, config)| FusionParent {
            label: format!("parent {index}"),
            config: config.clone(),
            sha256: None,
            path: "memory".into(),
        })
        .collect();
    let plan = fusion_plan(&parents, &options).unwrap();
    let sources: Vec<_> = models.iter().map(|model| model as &dyn TensorSource).collect();
    let child = Executor::new(&plan, &sources).unwrap().in_memory().unwrap();
    let child = logits(&child_config(&parents, options.normalisation).unwrap(), &child);
    let parts: Vec<_> = configs.iter().zip(models).map(|(config, model)| logits(config, model)).collect();
    let mean = vec![1.0 / models.len() as f64; models.len()];
    let weights = options.weights.unwrap_or(mean);
    let ensemble =
        |at: usize| -> f64 { weights.iter().zip(&parts).map(|(w, part)| w * f64::from(part[at])).sum() };
    let (mut worst, mut largest) = (0f64, 0f64);
    for (at, logit) in child.iter().enumerate() {
        worst = worst.max((f64::from(*logit) - ensemble(at)).abs());
        largest = largest.max(ensemble(at).abs());
    }
    worst / largest
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_child_is_the_ensemble(
        family in family(),
        sizes in prop::collection::vec(sizes(), 2..4),
        share in prop::option::of(0.1..0.9f64),
        seed in 0..1000u64,
    ) {
        let configs: Vec<_> = sizes.iter().map(|sizes| config(&family, *sizes)).collect();
        let models: Vec<_> = (seed..).zip(&configs).map(|(seed, config)| weights(config, seed)).collect();
        let rest = (configs.len() - 1) as f64;
        let weights = share.map(|share| {
            (0..configs.len()).map(|i| if i == 0 { share } else { (1.0 - share) / rest }).collect()
        });
        let options = DirectSum { normalisation: Normalisation::Property, cross: Fill::Zero, weights };
        let deviation = deviation(&configs, &models, options);
        prop_assert!(deviation < 2e-5, "off by {:e}", deviation);
    }

    #[test]
    fn self_fusion_under_the_rule_changes_nothing(
        family in family(),
        sizes in sizes(),
        times in 2..4usize,
        seed in 0..1000u64,
    ) {
        let config = config(&family, sizes);
        let model = weights(&config, seed);
        let options = DirectSum { normalisation: Normalisation::Rule, ..DirectSum::default() };
        let deviation = deviation(&vec![config; times], &vec![model; times], options);
        prop_assert!(deviation < 2e-5, "off by {:e}", deviation);
    }
}

/// A fused model is fused again: its groups stay what they were.
#[test]
fn fused_models_fuse() {
    let family = Family { gated: true, tied: false, layers: (2, 1) };
    let mut grouped = config(&family, [12, 2, 4, 9]);
    grouped.rms_norm_groups = vec![5, 7];
    let configs = [grouped, config(&family, [6, 1, 4, 5])];
    let models = [weights(&configs[0], 1), weights(&configs[1], 2)];
    let deviation = deviation(&configs, &models, DirectSum::default());
    assert!(deviation < 2e-5, "off by {deviation:e}");
}
