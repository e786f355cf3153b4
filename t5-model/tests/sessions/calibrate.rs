//! Children under the fusion rule, fitted to their parents' ensembles.

use fusion_core::execute::Executor;
use fusion_core::grow::DirectSum;
use fusion_core::plan::Normalisation;
use fusion_core::random::Philox;
use fusion_core::{HostTensors, TensorSource};
use t5_model::conformance::random_weights;
use t5_model::method::{DepthAlignment, Fuse, FusionParent, Grown, GrowthMethod};
use t5_model::{Batch, Calibration, Comparison, FeedForward, Session, SessionError, T5Config};

const VOCABULARY: usize = 24;

fn open(config: &T5Config, weights: &HostTensors) -> Result<Box<dyn Session>, SessionError> {
    t5_model::backend("minimal").unwrap().open(&t5_model::Computation::on("cpu"), config, weights)
}

/// Random weights, with the first parent's residual stream twice as large as the others'.
fn weights(config: &T5Config, seed: u64) -> HostTensors {
    let mut weights = random_weights(config, seed).unwrap();
    let louder = if seed == 1 { 2.0 } else { 1.0 };
    let embedding = weights.get_mut("shared.weight").unwrap();
    embedding.data.iter_mut().for_each(|value| *value *= louder);
    weights
}

/// Random tokens in examples of different lengths.
fn batches(seed: u64, count: u64) -> Vec<Batch> {
    let draws = Philox::new(seed, "tokens");
    let token = |at: u64| 2 + (draws.uniform(at) * (VOCABULARY - 2) as f32) as i32;
    let batch = |index: u64| {
        let ids: Vec<i32> = (0..240).map(|at| token(index * 240 + at)).collect();
        let examples = (0..8).map(|at| (&ids[30 * at..][..20 - at], &ids[30 * at + 20..][..10 - at]));
        Batch::padded(examples, 0)
    };
    (0..count).map(batch).collect()
}

/// The relative deviation of a child's logits from its ensemble's, before and after fitting.
fn fit(configs: &[T5Config], models: &[HostTensors]) -> (f64, f64) {
    let parent = |config: &T5Config| FusionParent {
        label: "parent".into(),
        config: config.clone(),
        blake3: None,
        path: "memory".into(),
    };
    let parents: Vec<_> = configs.iter().map(parent).collect();
    let sources: Vec<_> = models.iter().map(|model| model as &dyn TensorSource).collect();
    let fused = |normalisation| {
        let sum = DirectSum { normalisation, ..DirectSum::default() };
        let fuse = Fuse { sum, depth: DepthAlignment::Bottom };
        let Grown { plan, child } = fuse.grow(&parents).unwrap();
        let weights = Executor::new(&plan, &sources).unwrap().in_memory().unwrap();
        (child, weights)
    };
    let (exact, ensemble) = fused(Normalisation::Property);
    let (config, mut child) = fused(Normalisation::Rule);
    let mut ensemble = open(&exact, &ensemble).unwrap();
    let mut deviation = |child: &HostTensors| {
        let (mut child, mut comparison) = (open(&config, child).unwrap(), Comparison::default());
        for batch in batches(2, 4) {
            let expected = ensemble.forward(&batch, false).unwrap().logits;
            comparison.add(&expected, &child.forward(&batch, false).unwrap().logits, &batch.labels);
        }
        comparison.deviation().logits
    };
    let before = deviation(&child);
    let calibration = Calibration { open: &open, batches: &batches(1, 16), progress: &|_, _| true };
    let mut fitted = open(&exact, &fused(Normalisation::Property).1).unwrap();
    assert!(calibration.fit(fitted.as_mut(), &config, &mut child).unwrap());
    assert!(config.is_stock());
    (before, deviation(&child))
}

#[test]
fn different_parents_come_closer() {
    for tied in [false, true] {
        for relu in [false, true] {
            let config = |d_model, heads, layers| {
                let mut config = T5Config::v1_1(VOCABULARY, d_model, heads, 4, 2 * d_model, layers);
                config.tie_word_embeddings = tied;
                if relu {
                    config.feed_forward_proj = FeedForward::Relu;
                }
                config
            };
            let configs = [config(8, 2, 2), config(12, 3, 1)];
            let models = [weights(&configs[0], 1), weights(&configs[1], 2)];
            let (before, after) = fit(&configs, &models);
            let share = if tied { 0.7 } else { 0.5 };
            assert!(before > 0.1 && after < share * before, "tied {tied}, ReLU {relu}: {before} to {after}");
        }
    }
}

/// Self fusion is exact under the rule, and fitting keeps it so.
#[test]
fn what_is_exact_stays_exact() {
    let config = T5Config::v1_1(VOCABULARY, 8, 2, 4, 16, 1);
    let model = weights(&config, 3);
    let (before, after) = fit(&[config.clone(), config], &[model.clone(), model]);
    assert!(before < 1e-5 && after < 1e-3, "{before} to {after}");
}

#[test]
fn fitting_can_be_stopped() {
    let config = T5Config::v1_1(VOCABULARY, 8, 2, 4, 16, 1);
    let mut model = weights(&config, 3);
    let mut ensemble = open(&config, &model).unwrap();
    let calibration = Calibration { open: &open, batches: &batches(1, 1), progress: &|done, _| done < 2 };
    assert!(!calibration.fit(ensemble.as_mut(), &config, &mut model).unwrap());
}
