//! `lineage.json`.

use fusion_core::grow::{DirectSum, Part, direct_sum};
use fusion_core::lineage::{Lineage, Training, TreeLine};
use fusion_core::plan::{Fill, StandardDeviation};

use crate::support::{TINY, t5};

fn trained(flops: f64) -> Lineage {
    Lineage {
        training: vec![Training { steps: 10, tokens: 20, flops, ..Training::default() }],
        ..Lineage::default()
    }
}

/// A child of models with the given hashes.
fn child(hashes: &[&str], lineages: Vec<Option<Lineage>>) -> Lineage {
    let table = t5(TINY);
    let parts: Vec<Part<'_>> = hashes
        .iter()
        .map(|hash| Part { label: "small", blake3: Some(hash), table: &table, embed_groups: &[] })
        .collect();
    let cross = Fill::normal(StandardDeviation::Relative(0.01), 7);
    let plan = direct_sum(&parts, &DirectSum { cross, ..DirectSum::default() }).unwrap();
    Lineage::of_fusion(&plan, lineages)
}

#[test]
fn as_a_file() {
    let mut lineage = child(&["12", "34"], vec![Some(trained(1e18)), None]);
    lineage.blake3 = Some("56".into());
    lineage.training.push(Training { steps: 5, tokens: 6, flops: 2.5e19, ..Training::default() });
    lineage.other.insert("note".into(), "kept".into());
    lineage.training[0].other.insert("recipe".into(), "kept, too".into());
    let directory = tempfile::tempdir().unwrap();
    lineage.write(directory.path()).unwrap();
    assert_eq!(Lineage::read(directory.path()).unwrap().unwrap(), lineage);
    insta::assert_snapshot!(std::fs::read_to_string(directory.path().join("lineage.json")).unwrap());
}

#[test]
fn computation_counts_every_ancestor_once() {
    assert_eq!(trained(3.0).total_flops(), 3.0);
    let different = child(&["1", "2"], vec![Some(trained(3.0)), Some(trained(5.0))]);
    assert_eq!(different.total_flops(), 8.0);
    // Table 4: a self fusion costs its one parent once.
    let mut same = child(&["1", "1"], vec![Some(trained(8.0)), Some(trained(8.0))]);
    same.training.push(Training { flops: 21.9, ..Training::default() });
    assert_eq!(same.total_flops(), 29.9);
    // The second occurrence is not even written.
    assert!(same.fusion.as_ref().unwrap().parents[1].lineage.is_none());
    // An ancestor of both parents.
    let other = child(&["1", "2"], vec![Some(trained(8.0)), Some(trained(4.0))]);
    let grandchild = child(&["a", "b"], vec![Some(same), Some(other)]);
    assert_eq!(grandchild.total_flops(), 8.0 + 21.9 + 4.0);
}

/// Models of several steps of a run share its beginning, however they went on.
#[test]
fn steps_of_one_run_count_once() {
    let step = |run: &str, flops| Training { flops, run: Some(run.to_owned()), ..Training::default() };
    let at = |training: &[Training]| Some(Lineage { training: training.to_vec(), ..Lineage::default() });
    let both = [
        at(&[step("trunk", 3.0), step("decay of 3", 1.0)]),
        at(&[step("trunk", 5.0), step("decay of 5", 0.5)]),
    ];
    let mut fused = child(&["1", "2"], both.to_vec());
    assert_eq!(fused.total_flops(), 5.0 + 1.0 + 0.5);
    fused.training.push(step("child", 2.0));
    let stretches = fused.stretches();
    assert_eq!(stretches.get("trunk"), Some(&5.0));
    assert_eq!(stretches.values().sum::<f64>(), 8.5);
}

#[test]
fn as_a_tree() {
    let pair = child(&["1", "1"], vec![Some(trained(8.0)), None]);
    let mut lineage = child(&["a", "b"], vec![Some(pair), None]);
    lineage.training.push(Training::default());
    let line = |(depth, line)| {
        let kind = match line {
            TreeLine::Random => "random".into(),
            TreeLine::Fused(fusion) => format!("fused {}", fusion.parents.len()),
            TreeLine::Parent(parent) => format!("parent {}", parent.blake3.as_deref().unwrap()),
            TreeLine::AsAbove => "as above".into(),
            TreeLine::Unknown => "unknown".into(),
            TreeLine::Trained(training) => format!("trained {}", training.steps),
        };
        format!("{depth} {kind}")
    };
    let expected = [
        "0 fused 2",
        "0 parent a",
        "1 fused 2",
        "1 parent 1",
        "2 random",
        "2 trained 10",
        "1 parent 1",
        "2 as above",
        "0 parent b",
        "1 unknown",
        "0 trained 0",
    ];
    assert_eq!(lineage.tree().into_iter().map(line).collect::<Vec<_>>(), expected);
}
