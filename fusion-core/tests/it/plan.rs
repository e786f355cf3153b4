//! Plans as text and as JSON, and what is wrong with bad ones.

use fusion_core::grow::{DirectSum, Part, direct_sum};
use fusion_core::plan::{
    Fill, FusionPlan, Normalisation, Placement, PlannedParam, StandardDeviation, Warning,
};
use fusion_core::table::{Axis, dim};
use fusion_core::{HostTensor, HostTensors, TensorSource};

use crate::support::{Sizes, T5_SMALL, TINY, plan, random, t5, without_last_blocks};

const NOISE: Fill = Fill::normal(StandardDeviation::Relative(0.01), 7);

fn noisy() -> DirectSum {
    DirectSum { cross: NOISE, ..DirectSum::default() }
}

#[test]
fn text_of_t5_medium() {
    let table = t5(T5_SMALL);
    let blake3 = ["0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"];
    let part = |label, blake3| Part { label, blake3: Some(blake3), table: &table, embed_groups: &[] };
    let plan = direct_sum(&[part("small-a", blake3[0]), part("small-b", blake3[1])], &noisy()).unwrap();
    // Table of the paper: 242 M with one set of relative biases for each stack.
    assert_eq!(plan.parameter_count() / 1_000_000, 242);
    insta::assert_snapshot!(plan);
}

#[test]
fn text_of_unequal_parents() {
    let other = Sizes { embed: 4, heads: 1, kv: 2, mlp: 3, ..TINY };
    let options = DirectSum {
        normalisation: Normalisation::Rule,
        weights: Some(vec![0.6, 0.2, 0.2]),
        ..DirectSum::default()
    };
    insta::assert_snapshot!(plan(&[&t5(TINY), &t5(other), &t5(TINY)], &options).unwrap());
}

#[test]
fn text_of_an_absent_parent() {
    let shallow = without_last_blocks(t5(Sizes { embed: 4, heads: 1, kv: 2, mlp: 3, ..TINY }));
    let plan = plan(&[&t5(TINY), &shallow], &noisy()).unwrap();
    insta::assert_snapshot!(plan);
    let wo =
        plan.params.iter().find(|param| param.name == "encoder.block.1.layer.1.DenseReluDense.wo.weight");
    let json = serde_json::to_string_pretty(&wo.unwrap()).unwrap();
    insta::assert_snapshot!("json_of_an_absent_parent", json);
    assert_eq!(serde_json::from_str::<PlannedParam>(&json).unwrap(), *wo.unwrap());
}

#[test]
fn text_of_names_and_sources() {
    let param = |name: &str, source: &str, size: usize| PlannedParam {
        name: name.into(),
        dims: vec![dim(Axis::Embed, size)],
        placements: vec![Placement {
            parent: 0,
            source: source.into(),
            offset: vec![0],
            extent: vec![size],
            scale: 2.0f64.sqrt(),
            from: None,
            noise: None,
            gradient: None,
        }],
        absent: vec![],
        fill: Fill::Zero,
        contracts: None,
    };
    let mut plan = plan(&[&t5(TINY)], &DirectSum::default()).unwrap();
    plan.params = vec![
        param("norm", "norm", 2),
        param("norm.0", "norm.0", 2),
        param("norm.1", "norm.1", 2),
        param("norm.3", "norm.3", 2),
        param("norm.4", "norm.4", 3),
        param("norm.01", "norm.01", 2),
        param("norm.5", "other", 2),
        param("norm.6", "norm.4", 2),
        param("norm.7", "norm.5", 2),
        param("norm.8", "norm.9", 2),
        param("ünïcode.7.x", "ünïcode.7.x", 1234567),
    ];
    let text = plan.to_string();
    insta::assert_snapshot!(text.split_once("\n\n").unwrap().1);
}

#[test]
fn json_round_trip() {
    let plan = plan(&[&t5(TINY), &t5(Sizes { kv: 2, ..TINY })], &noisy()).unwrap();
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<FusionPlan>(&json).unwrap(), plan);
    insta::assert_snapshot!(serde_json::to_string_pretty(&plan.params[1]).unwrap());
    // A key that an executor does not know may change the meaning.
    let unknown = json.replacen("\"fill\"", "\"filling\"", 1);
    assert!(serde_json::from_str::<FusionPlan>(&unknown).unwrap_err().to_string().contains("filling"));
}

#[test]
fn warnings() {
    let table = t5(TINY);
    let narrow = t5(Sizes { kv: 2, ..TINY });
    let part = |label, blake3, table| Part { label, blake3, table, embed_groups: &[] };
    let warnings = |parts: &[Part<'_>], options: &DirectSum| direct_sum(parts, options).unwrap().warnings();
    let zero = DirectSum::default();
    let rule = DirectSum { normalisation: Normalisation::Rule, ..DirectSum::default() };

    let same = [part("a", None, &table), part("a", None, &table)];
    let same_hash =
        [part("a", Some("1"), &table), part("b", Some("2"), &table), part("c", Some("1"), &table)];
    let different = [part("a", Some("1"), &table), part("a", Some("2"), &table)];
    let unequal = [part("a", None, &table), part("b", None, &narrow)];
    assert_eq!(warnings(&same, &zero), [Warning::HalvesStayEqual { first: 0, second: 1 }]);
    assert_eq!(warnings(&same_hash, &zero), [Warning::HalvesStayEqual { first: 0, second: 2 }]);
    assert_eq!(warnings(&same, &rule), [Warning::HalvesStayEqual { first: 0, second: 1 }]);
    assert_eq!(warnings(&different, &rule), [Warning::InexactNormalisation]);
    assert_eq!(warnings(&same, &noisy()), []);
    assert_eq!(warnings(&different, &zero), []);
    assert_eq!(warnings(&same[..1], &zero), []);

    let shallow = without_last_blocks(t5(TINY));
    let depths = [part("a", None, &table), part("b", None, &shallow)];
    let absent = |count| Warning::AbsentStaysZero {
        parameter: "encoder.block.1.layer.0.SelfAttention.q.weight".into(),
        parent: 1,
        count,
    };
    assert_eq!(warnings(&depths, &zero), [absent(18)]);
    assert_eq!(warnings(&depths, &noisy()), []);

    let all = [
        warnings(&same, &zero),
        warnings(&different, &rule),
        warnings(&unequal, &zero),
        warnings(&depths, &zero),
    ];
    let all = all.concat();
    insta::assert_snapshot!(all.iter().map(Warning::to_string).collect::<Vec<_>>().join("\n"));
}

/// Plans that were damaged in one place.
#[test]
fn error_messages() {
    let mut messages = Vec::new();
    let sound = plan(&[&t5(TINY), &t5(TINY)], &noisy()).unwrap();
    let mut check = |damage: &dyn Fn(&mut FusionPlan)| {
        let mut plan = sound.clone();
        damage(&mut plan);
        messages.push(plan.validate().unwrap_err().to_string());
    };
    // Parameter 0 is [vocab, embed], 1 is [heads · kv, embed].
    check(&|plan| plan.parents.clear());
    check(&|plan| plan.params[1].name = "shared.weight".into());
    check(&|plan| plan.params[0].dims.clear());
    check(&|plan| plan.params[0].dims[0].factors.clear());
    check(&|plan| plan.params[0].placements.clear());
    check(&|plan| plan.params[0].placements[1].parent = 2);
    check(&|plan| plan.params[1].placements[1].offset.truncate(2));
    check(&|plan| plan.params[1].placements[1].scale = f64::NAN);
    check(&|plan| plan.params[1].placements[1].offset[0] += 1);
    check(&|plan| plan.params[1].placements[1].offset[2] = usize::MAX);
    check(&|plan| plan.params[1].placements[1].extent[2] = 0);
    check(&|plan| drop(plan.params[1].placements.pop()));
    check(&|plan| {
        plan.params[0].dims[1] = dim(Axis::Embed, 1 << 40);
        plan.params[0].placements[1].offset[1] = (1 << 40) - 6;
    });
    check(&|plan| {
        plan.params[0].placements[1].offset[1] -= 1;
        plan.params[0].placements[1].extent[1] += 1;
    });
    check(&|plan| plan.params[0].placements[1] = plan.params[0].placements[0].clone());
    check(&|plan| {
        let again = plan.params[0].placements[0].clone();
        plan.params[0].placements.push(again);
    });
    check(&|plan| plan.params[1].fill = Fill::normal(StandardDeviation::Absolute(0.0), 0));
    check(&|plan| plan.params[0].fill = NOISE);
    check(&|plan| plan.embed_groups = vec![usize::MAX, 12]);

    let sound = plan(&[&t5(TINY), &without_last_blocks(t5(TINY))], &noisy()).unwrap();
    let at = |name: &str| sound.params.iter().position(|param| param.name == name).unwrap();
    let (norm, wo) = (
        at("encoder.block.1.layer.0.layer_norm.weight"),
        at("encoder.block.1.layer.1.DenseReluDense.wo.weight"),
    );
    let mut check = |damage: &dyn Fn(&mut FusionPlan)| {
        let mut plan = sound.clone();
        damage(&mut plan);
        messages.push(plan.validate().unwrap_err().to_string());
    };
    check(&|plan| plan.params[wo].placements.clear());
    check(&|plan| plan.params[wo].absent.clear());
    check(&|plan| plan.params[wo].absent[0].parent = 2);
    check(&|plan| plan.params[wo].absent[0].extent.truncate(1));
    check(&|plan| plan.params[wo].absent[0].offset[0] += 1);
    check(&|plan| plan.params[wo].absent[0].value = f64::INFINITY);
    // Sizes that no file accounts for.
    check(&|plan| {
        plan.params[wo].dims[1] = dim(Axis::Mlp, 1 << 40);
        plan.params[wo].absent[0].extent[1] = (1 << 40) - 5;
    });
    check(&|plan| plan.params[wo].absent[0].parent = 0);
    check(&|plan| {
        plan.params[norm].absent[0].parent = 0;
        plan.params[norm].absent[0].offset = vec![0];
    });
    check(&|plan| {
        let again = plan.params[wo].absent[0].clone();
        plan.params[wo].absent.push(again);
    });

    let sound = plan(&[&t5(TINY), &t5(TINY)], &noisy()).unwrap();
    let tensors = random(&t5(TINY), 1);
    let without =
        tensors.clone().into_iter().filter(|(name, _)| name != "shared.weight").collect::<HostTensors>();
    let mut reshaped = tensors.clone();
    reshaped.insert("shared.weight".into(), HostTensor::zeros([6, 11]));
    let mut broken = tensors.clone();
    broken.get_mut("shared.weight").unwrap().data.pop();
    for sources in
        [vec![&tensors], vec![&tensors, &without], vec![&tensors, &reshaped], vec![&tensors, &broken]]
    {
        let sources: Vec<&dyn TensorSource> = sources.into_iter().map(|source| source as _).collect();
        messages.push(sound.check_sources(&sources).unwrap_err().to_string());
    }
    insta::assert_snapshot!(messages.join("\n"));
}
