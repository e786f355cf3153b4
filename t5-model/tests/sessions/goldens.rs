//! Fusions compared with transformers beyond the conformance suite: with blocks in all alignments, and under
//! the rule.

use std::path::Path;

use fusion_core::checkpoint::{Checkpoint, TensorFile};
use fusion_core::execute::Executor;
use fusion_core::grow::DirectSum;
use fusion_core::plan::Normalisation;
use fusion_core::{HostTensor, TensorSource};
use t5_model::method::{DepthAlignment, Fuse, FusionParent, Grown, GrowthMethod};
use t5_model::{Batch, T5Config};

use crate::open;

fn integers(file: &TensorFile, name: &str) -> (Vec<usize>, Vec<i64>) {
    let view = file.view(name).unwrap();
    let read = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().unwrap());
    (view.shape().to_vec(), view.data().chunks(8).map(read).collect())
}

fn batch(file: &TensorFile) -> Batch {
    let (shape, ids) = integers(file, "input_ids");
    let (_, mask) = integers(file, "attention_mask");
    let (label_shape, labels) = integers(file, "labels");
    Batch {
        size: shape[0],
        input_length: shape[1],
        target_length: label_shape[1],
        input_ids: ids.iter().map(|id| *id as i32).collect(),
        attention_mask: mask.iter().map(|mask| *mask as u8).collect(),
        labels: labels.iter().map(|id| *id as i32).collect(),
    }
}

/// The largest difference over the largest value.
fn relative_error(found: &HostTensor, expected: &HostTensor) -> f64 {
    assert_eq!(found.shape, expected.shape);
    let largest = |values: &mut dyn Iterator<Item = f32>| values.fold(0f32, |a, b| a.max(b.abs()));
    let difference = largest(&mut found.data.iter().zip(&expected.data).map(|(a, b)| a - b));
    f64::from(difference / largest(&mut expected.data.iter().copied()))
}

/// Fuses goldens and returns the child's relative error compared with transformers' mean of the parents'
/// logits.
fn fusion_error(family: &str, names: &[&str], normalisation: Normalisation) -> f64 {
    aligned_fusion_error(family, names, normalisation, DepthAlignment::Bottom)
}

fn aligned_fusion_error(
    family: &str,
    names: &[&str],
    normalisation: Normalisation,
    depth: DepthAlignment,
) -> f64 {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/conformance/goldens");
    let directory = goldens.join("fusion").join(family);
    let checkpoints: Vec<_> =
        names.iter().map(|name| Checkpoint::open(&directory.join(name)).unwrap()).collect();
    let parents: Vec<_> = names
        .iter()
        .zip(&checkpoints)
        .map(|(name, checkpoint)| FusionParent {
            label: name.to_string(),
            config: T5Config::of_checkpoint(checkpoint).unwrap(),
            blake3: None,
            path: checkpoint.directory().into(),
        })
        .collect();
    let sum = DirectSum { normalisation, ..DirectSum::default() };
    let Grown { plan, child: config } = Fuse { sum, depth }.grow(&parents).unwrap();
    let sources: Vec<&dyn TensorSource> = checkpoints.iter().map(|c| c as &dyn TensorSource).collect();
    let child = Executor::new(&plan, &sources).unwrap().in_memory().unwrap();
    let mut session = open(&config, &child);
    let reference = TensorFile::open(&directory.join("reference.safetensors")).unwrap();
    let logits = session.forward(&batch(&reference), false).unwrap().logits;
    let mut distinct = names.to_vec();
    distinct.dedup();
    relative_error(&logits, &reference.load_f32(&format!("logits.{}", distinct.join("+"))).unwrap())
}

/// The unequal parent has other widths, fewer encoder layers and a different number of decoder layers.
#[test]
fn fusion_of_unequal_models_is_the_ensemble_wherever_their_blocks_go() {
    for family in ["untied", "tied"] {
        for depth in [DepthAlignment::Bottom, DepthAlignment::Top, DepthAlignment::Spread] {
            let parents = ["parent_0", "parent_unequal"];
            let error = aligned_fusion_error(family, &parents, Normalisation::Property, depth);
            assert!(error < 2e-5, "{family} {depth:?}: off by {error:e}");
        }
    }
}

#[test]
fn self_fusion_changes_nothing_under_either_normalisation() {
    for family in ["untied", "tied"] {
        for normalisation in [Normalisation::Property, Normalisation::Rule] {
            let error = fusion_error(family, &["parent_0", "parent_0"], normalisation);
            assert!(error < 2e-5, "{family}: off by {error:e}");
        }
    }
}

/// The rule normalises the concatenation as one vector, so two different parents do not keep their
/// predictions.
#[test]
fn fusion_under_the_rule_is_inexact() {
    assert!(fusion_error("untied", &["parent_0", "parent_1"], Normalisation::Rule) > 1e-3);
}
