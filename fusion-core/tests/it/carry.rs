//! Moments of gradients, from parents to their child.

use fusion_core::carry::{Carry, CrossSquares, Squares};
use fusion_core::execute::Executor;
use fusion_core::grow::{DirectSum, Part, Shares, Widen, whole_copies, widen};
use fusion_core::plan::{Absence, Direction, Fill, FusionPlan, PlannedParam, StandardDeviation};
use fusion_core::table::ParamTable;
use fusion_core::{HostTensor, HostTensors, TensorSource};
use proptest::prelude::*;

use crate::support::{Sizes, TINY, plan, random, t5, without_last_blocks};

/// Squares as of sums of products: positive, and of matrices `row · column` for each element.
fn squares(table: &ParamTable, seed: u64) -> HostTensors {
    let mut squares = random(table, seed);
    for tensor in squares.values_mut() {
        let columns = tensor.shape[tensor.shape.len() - 1];
        let factor = |value: f32| 1e-6 * (0.1 + value * value);
        let column: Vec<f32> = tensor.data[..columns].iter().map(|value| factor(*value)).collect();
        for row in tensor.data.chunks_mut(columns) {
            let scale = if tensor.shape.len() == 2 { factor(row[0]) * 1e6 } else { 1.0 };
            row.iter_mut().zip(&column).for_each(|(value, column)| *value = scale * column);
        }
    }
    squares
}

/// Means over the rows and over the columns of a matrix, in f64.
fn means(tensor: &HostTensor) -> [Vec<f32>; 2] {
    let [rows, columns] = tensor.shape[..] else { panic!("{:?} is no matrix", tensor.shape) };
    let at = |row: usize, column: usize| f64::from(tensor.data[row * columns + column]);
    let over = |count: usize, sum: f64| (sum / count as f64) as f32;
    [
        (0..rows).map(|row| over(columns, (0..columns).map(|column| at(row, column)).sum())).collect(),
        (0..columns).map(|column| over(rows, (0..rows).map(|row| at(row, column)).sum())).collect(),
    ]
}

fn factored(tensor: &HostTensor) -> Squares {
    let [rows, columns] = means(tensor);
    Squares::factors(rows, columns)
}

fn elements(tensor: &HostTensor) -> Squares {
    Squares::Elements(tensor.clone())
}

/// The placements' sources among the parents' tensors.
fn sources<'a, T>(param: &PlannedParam, parents: &[&'a HostTensors], of: fn(&'a HostTensor) -> T) -> Vec<T> {
    param.placements.iter().map(|place| of(&parents[place.parent][&place.source])).collect()
}

/// What the executor makes of the parents' tensors with other scales, and nothing but what was placed.
fn executed(plan: &FusionPlan, parents: &[&HostTensors], scale: fn(f64) -> f64) -> HostTensors {
    let mut plan = plan.clone();
    for param in &mut plan.params {
        param.fill = Fill::Zero;
        param.absent.iter_mut().for_each(|absence: &mut Absence| absence.value = 0.0);
        for place in &mut param.placements {
            (place.scale, place.noise) = (scale(place.gradient.unwrap()), None);
        }
    }
    let parents: Vec<_> = parents.iter().map(|parent| *parent as &dyn TensorSource).collect();
    Executor::new(&plan, &parents).unwrap().in_memory().unwrap()
}

/// The largest difference, relative to the largest value.
fn error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(1e-30f32, |largest, value| largest.max(value.abs()));
    found.iter().zip(expected).fold(0f32, |worst, (a, b)| worst.max((a - b).abs())) / largest
}

/// Everything that a plan's moments must satisfy whatever the plan.
fn check(plan: &FusionPlan, parents: &[&HostTensors]) {
    let means_expected = executed(plan, parents, |gradient| gradient);
    let squares_expected = executed(plan, parents, |gradient| gradient * gradient);
    for param in &plan.params {
        let (carry, name) = (Carry::new(plan, param).unwrap(), &param.name);
        let found = carry.means(&sources(param, parents, |tensor| tensor)).unwrap();
        assert!(error(&found.data, &means_expected[name].data) < 1e-6, "{name}");
        let whole = sources(param, parents, elements);
        let whole: Vec<&Squares> = whole.iter().collect();
        let placed = carry.squares(&whole, CrossSquares::Zero).unwrap();
        assert!(error(&placed.data, &squares_expected[name].data) < 1e-6, "{name}");
        let estimated = carry.squares(&whole, CrossSquares::Estimated).unwrap();
        if param.dims.len() != 2 {
            assert_eq!(placed, estimated, "{name}");
            continue;
        }
        let factors = sources(param, parents, factored);
        let factors: Vec<&Squares> = factors.iter().collect();
        for (cross, expected) in [(CrossSquares::Zero, &placed), (CrossSquares::Estimated, &estimated)] {
            // These squares are products of their factors, so that nothing is lost in them.
            let from_factors = carry.squares(&factors, cross).unwrap();
            assert!(error(&from_factors.data, &expected.data) < 1e-5, "{name} {cross:?}");
            for sources in [&whole, &factors] {
                let found = carry.factors(sources, cross).unwrap();
                for (found, expected) in found.iter().zip(means(expected)) {
                    assert!(error(&found.data, &expected) < 1e-5, "{name} {cross:?}");
                }
            }
        }
    }
}

fn sizes() -> impl Strategy<Value = Sizes> {
    [1..6usize, 1..4, 1..4, 1..6].prop_map(|[embed, heads, kv, mlp]| Sizes { embed, heads, kv, mlp, ..TINY })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn moments_follow_the_plan(sizes in prop::collection::vec(sizes(), 1..4), shallow: bool, one_sided: bool) {
        let mut tables: Vec<ParamTable> = sizes.iter().map(|sizes| t5(*sizes)).collect();
        if shallow {
            tables[0] = without_last_blocks(tables[0].clone());
        }
        let direction = if one_sided { Direction::Forward } else { Direction::Both };
        let cross = Fill::Normal { std: StandardDeviation::Absolute(1.0), seed: 1, direction };
        let plan = plan(&tables.iter().collect::<Vec<_>>(), &DirectSum { cross, ..DirectSum::default() }).unwrap();
        let parents: Vec<_> = (0..).zip(&tables).map(|(seed, table)| squares(table, seed)).collect();
        check(&plan, &parents.iter().collect::<Vec<_>>());
    }

    #[test]
    fn moments_follow_copies(sizes in sizes(), times in 1..4usize) {
        let table = t5(sizes);
        let part = Part { label: "a", blake3: None, table: &table, embed_groups: &[] };
        let axes = [(fusion_core::table::Axis::Embed, sizes.embed), (fusion_core::table::Axis::Mlp, sizes.mlp)];
        let axes = axes.map(|(axis, size)| whole_copies(axis, size, times)).to_vec();
        let options = Widen { axes, shares: Shares::Equal, noise: None };
        check(&widen(&part, &options).unwrap(), &[&squares(&table, 3)]);
    }
}

/// The factors agree with each parent's own in its place, however unlike the parents are, and between them take the
/// geometric mean.
#[test]
fn estimates_agree_with_the_parents() {
    let tables = [t5(TINY), t5(Sizes { embed: 4, mlp: 3, ..TINY })];
    let plan = plan(&[&tables[0], &tables[1]], &DirectSum::default()).unwrap();
    let parents = [squares(&tables[0], 1), squares(&tables[1], 2)];
    let name = "encoder.block.0.layer.1.DenseReluDense.wi_0.weight";
    let param = plan.params.iter().find(|param| param.name == name).unwrap();
    let [mut a, b] = parents.map(|parent| parent[name].clone());
    a.data.iter_mut().for_each(|value| *value *= 100.0);
    let carry = Carry::new(&plan, param).unwrap();
    let [rows, columns] = carry.factors(&[&factored(&a), &factored(&b)], CrossSquares::Estimated).unwrap();
    let Squares::Factors { mean, .. } = Squares::factors(rows.data.clone(), columns.data.clone()) else {
        panic!("no factors")
    };
    let at = |row: usize, column: usize| rows.data[row] * columns.data[column] / mean as f32;
    for (row, column) in [(0, 0), (4, 5), (2, 3)] {
        let (found, expected) = (at(row, column), a.data[row * 6 + column] / 4.0);
        assert!((found / expected - 1.0).abs() < 1e-5, "{found} for {expected}");
    }
    for (row, column) in [(0, 0), (2, 3), (1, 2)] {
        let (found, expected) = (at(5 + row, 6 + column), b.data[row * 4 + column] / 4.0);
        assert!((found / expected - 1.0).abs() < 1e-5, "{found} for {expected}");
    }
    // What connects them: the product of opposite corners is that of the parents'.
    let (found, expected) = (at(0, 7) * at(6, 1), at(0, 1) * at(6, 7));
    assert!((found / expected - 1.0).abs() < 1e-5, "{found} for {expected}");
}

#[test]
fn error_messages() {
    let table = t5(TINY);
    let mut plan = plan(&[&table, &table], &DirectSum::default()).unwrap();
    let tensor = |value| HostTensor { shape: vec![11, 6], data: vec![value; 66] };
    let message = |result: fusion_core::Result<HostTensor>| result.unwrap_err().to_string();
    let mut messages = {
        let carry = Carry::new(&plan, &plan.params[0]).unwrap();
        let (small, one) = (HostTensor::zeros([11, 5]), tensor(1.0));
        let squares = [elements(&one), elements(&tensor(f32::INFINITY))];
        vec![
            message(carry.means(&[&one])),
            message(carry.means(&[&one, &small])),
            message(carry.squares(&[&squares[0], &squares[1]], CrossSquares::Zero)),
        ]
    };
    plan.params[0].placements[1].gradient = None;
    messages.push(Carry::new(&plan, &plan.params[0]).err().unwrap().to_string());
    insta::assert_snapshot!(messages.join("\n"));
}
