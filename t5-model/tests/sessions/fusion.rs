//! Fusing random models of random sizes: under the property, the child is the ensemble of its parents.

use fusion_core::execute::Executor;
use fusion_core::grow::DirectSum;
use fusion_core::plan::{Fill, Normalisation, StandardDeviation};
use fusion_core::{HostTensors, TensorSource};
use proptest::prelude::*;
use t5_model::conformance::random_weights;
use t5_model::method::{DepthAlignment, Fuse, FusionParent, Grown, GrowthMethod};
use t5_model::{Batch, FeedForward, T5Config};

use crate::open;

const NOISE: Fill = Fill::normal(StandardDeviation::Relative(0.1), 7);

#[derive(Clone, Debug)]
struct Family {
    gated: bool,
    tied: bool,
}

fn family() -> impl Strategy<Value = Family> {
    (any::<bool>(), any::<bool>()).prop_map(|(gated, tied)| Family { gated, tied })
}

fn depth() -> impl Strategy<Value = DepthAlignment> {
    prop::sample::select(vec![DepthAlignment::Bottom, DepthAlignment::Top, DepthAlignment::Spread])
}

/// d_model, heads, d_kv, d_ff, encoder and decoder layers.
fn sizes() -> impl Strategy<Value = [usize; 6]> {
    [3..14usize, 1..4, 2..7, 3..18, 1..4, 1..4]
}

fn config(family: &Family, [d_model, heads, d_kv, d_ff, encoder, decoder]: [usize; 6]) -> T5Config {
    let mut config = T5Config::v1_1(23, d_model, heads, d_kv, d_ff, encoder);
    config.set_num_decoder_layers(decoder);
    config.tie_word_embeddings = family.tied;
    if !family.gated {
        config.feed_forward_proj = FeedForward::Relu;
    }
    config
}

fn batch() -> Batch {
    let ids: Vec<i32> = (0..40).map(|i| 2 + (i * 5) % 21).collect();
    Batch::padded([(&ids[..12], &ids[20..27]), (&ids[5..14], &ids[30..35])], 0)
}

fn logits(config: &T5Config, weights: &HostTensors) -> Vec<f32> {
    open(config, weights).forward(&batch(), false).unwrap().logits.data
}

fn parent((label, config): (&str, &T5Config)) -> FusionParent {
    FusionParent { label: label.into(), config: config.clone(), blake3: None, path: "memory".into() }
}

/// The distance of the child's logits from the weighted mean of the parents': root mean square, relative to
/// the mean's.
fn deviation(configs: &[T5Config], models: &[HostTensors], sum: DirectSum, depth: DepthAlignment) -> f64 {
    let parents: Vec<_> =
        configs.iter().enumerate().map(|(index, config)| parent((&index.to_string(), config))).collect();
    let weights = sum.weights.clone();
    let Grown { plan, child: config } = Fuse { sum, depth }.grow(&parents).unwrap();
    let sources: Vec<_> = models.iter().map(|model| model as &dyn TensorSource).collect();
    let child = Executor::new(&plan, &sources).unwrap().in_memory().unwrap();
    let child = logits(&config, &child);
    let parts: Vec<_> = configs.iter().zip(models).map(|(config, model)| logits(config, model)).collect();
    let mean = vec![1.0 / models.len() as f64; models.len()];
    let weights = weights.unwrap_or(mean);
    let ensemble =
        |at: usize| -> f64 { weights.iter().zip(&parts).map(|(w, part)| w * f64::from(part[at])).sum() };
    let (mut error, mut size) = (0f64, 0f64);
    for (at, logit) in child.iter().enumerate() {
        error += (f64::from(*logit) - ensemble(at)).powi(2);
        size += ensemble(at).powi(2);
    }
    (error / size).sqrt()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_child_is_the_ensemble(
        family in family(),
        sizes in prop::collection::vec(sizes(), 2..4),
        depth in depth(),
        share in prop::option::of(0.1..0.9f64),
        seed in 0..1000u64,
    ) {
        let configs: Vec<_> = sizes.iter().map(|sizes| config(&family, *sizes)).collect();
        let models: Vec<_> = (seed..).zip(&configs).map(|(seed, config)| random_weights(config, seed).unwrap()).collect();
        let rest = (configs.len() - 1) as f64;
        let weights = share.map(|share| {
            (0..configs.len()).map(|i| if i == 0 { share } else { (1.0 - share) / rest }).collect()
        });
        let options = DirectSum { normalisation: Normalisation::Property, cross: Fill::Zero, weights };
        let deviation = deviation(&configs, &models, options, depth);
        prop_assert!(deviation < 1e-5, "off by {:e}", deviation);
    }

    #[test]
    fn self_fusion_under_the_rule_changes_nothing(
        family in family(),
        sizes in sizes(),
        times in 2..4usize,
        seed in 0..1000u64,
    ) {
        let config = config(&family, sizes);
        let model = random_weights(&config, seed).unwrap();
        let options = DirectSum { normalisation: Normalisation::Rule, ..DirectSum::default() };
        let deviation = deviation(&vec![config; times], &vec![model; times], options, DepthAlignment::Bottom);
        prop_assert!(deviation < 1e-5, "off by {:e}", deviation);
    }
}

/// A fused model can be fused again, and its groups are kept.
#[test]
fn fused_models_fuse() {
    let family = Family { gated: true, tied: false };
    let mut grouped = config(&family, [12, 2, 4, 9, 2, 1]);
    grouped.rms_norm_groups = vec![5, 7];
    let configs = [grouped, config(&family, [6, 1, 4, 5, 2, 1])];
    let models = [random_weights(&configs[0], 1).unwrap(), random_weights(&configs[1], 2).unwrap()];
    let deviation = deviation(&configs, &models, DirectSum::default(), DepthAlignment::Bottom);
    assert!(deviation < 1e-5, "off by {deviation:e}");
}

/// Zero features of a block that is passed through get no gradient; the warning's recommendation gives them
/// one.
#[test]
fn absent_features_learn_with_cross_connections() {
    let family = Family { gated: true, tied: false };
    let configs = [config(&family, [8, 2, 4, 6, 2, 1]), config(&family, [6, 1, 4, 5, 1, 1])];
    let parents: Vec<_> = ["deep", "shallow"].into_iter().zip(&configs).map(parent).collect();
    let models = [random_weights(&configs[0], 1).unwrap(), random_weights(&configs[1], 2).unwrap()];
    for (cross, learns) in [(Fill::Zero, false), (NOISE, true)] {
        let sum = DirectSum { cross, ..DirectSum::default() };
        let fuse = Fuse { sum, depth: DepthAlignment::Bottom };
        let Grown { plan, child: config } = fuse.grow(&parents).unwrap();
        assert_eq!(plan.warnings().is_empty(), learns);
        let child = Executor::new(&plan, &[&models[0], &models[1]]).unwrap().in_memory().unwrap();
        let gradients = open(&config, &child).forward(&batch(), true).unwrap().gradients;
        // The rows of the shallow parent's hidden features, [d_ff, d_model].
        let hidden = &gradients["encoder.block.1.layer.1.DenseReluDense.wi_0.weight"];
        assert_eq!(hidden.shape, [11, 14]);
        assert_eq!(hidden.data[6 * 14..].iter().any(|gradient| *gradient != 0.0), learns);
    }
}
