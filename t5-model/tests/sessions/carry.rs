//! An optimiser's state in a fusion: children's gradients compared with their parents', and carried moments
//! compared with those that the child accumulates itself.

use std::collections::BTreeMap;
use std::path::Path;

use fusion_core::carry::Carry;
use fusion_core::checkpoint::{LazyTensor, TensorFile, Writer};
use fusion_core::execute::Executor;
use fusion_core::grow::DirectSum;
use fusion_core::plan::{FusionPlan, Normalisation};
use fusion_core::random::Philox;
use fusion_core::table::Axis;
use fusion_core::{HostTensor, HostTensors, TensorSource};
use t5_model::conformance::random_weights;
use t5_model::method::{
    Arrangement, DepthAlignment, Fuse, FusionParent, Grown, GrowthMethod, HyperClone, Net2Net, NewBlocks,
    SelfFusion, Stack, Widths,
};
use t5_model::optimizer::{CarriedState, CarryOptimizer, OptimizerState, write_optimizer_state};
use t5_model::{Batch, Dropout, Optimizer, T5Config, Update, parameter_table};

use crate::open;

type Gradients = BTreeMap<String, HostTensor>;

/// Two texts of the given length and their continuations.
fn batch(vocabulary: i32, length: usize, seed: u64) -> Batch {
    let draws = Philox::new(seed, "tokens");
    let token = |index: u64| 2 + (draws.uniform(index) * (vocabulary - 2) as f32) as i32;
    let ids: Vec<i32> = (0..4 * length as u64).map(token).collect();
    let text = |at: usize| &ids[at * length..][..length];
    Batch::padded([(text(0), &text(1)[..length / 2]), (&text(2)[1..], text(3))], 0)
}

fn gradients(config: &T5Config, weights: &HostTensors, batch: &Batch) -> Gradients {
    open(config, weights).forward(batch, true).unwrap().gradients
}

fn parent(config: &T5Config) -> FusionParent {
    FusionParent { label: "parent".into(), config: config.clone(), blake3: None, path: "memory".into() }
}

fn fused(parents: &[&T5Config], weights: Option<Vec<f64>>) -> Grown {
    let parents: Vec<_> = parents.iter().map(|config| parent(config)).collect();
    let sum = DirectSum { weights, ..DirectSum::default() };
    Fuse { sum, depth: DepthAlignment::Spread }.grow(&parents).unwrap()
}

fn child(plan: &FusionPlan, parents: &[&HostTensors]) -> HostTensors {
    let sources: Vec<_> = parents.iter().map(|parent| *parent as &dyn TensorSource).collect();
    Executor::new(plan, &sources).unwrap().in_memory().unwrap()
}

/// For each of the child's parameters, the expected gradients at the parents' placements, and a mask that is
/// 1 there and 0 elsewhere.
fn expected(plan: &FusionPlan, parents: &[&Gradients]) -> Vec<(String, Vec<f32>, Vec<bool>)> {
    let expected = plan.params.iter().map(|param| {
        let mut all = plan.clone();
        all.params.retain(|other| other.name == param.name);
        let places = all.params[0].placements.iter_mut();
        places.for_each(|place| place.gradient = place.gradient.map(|_| 1.0));
        let sources: Vec<_> =
            param.placements.iter().map(|place| &parents[place.parent][&place.source]).collect();
        let ones: Vec<_> = sources
            .iter()
            .map(|source| HostTensor { shape: source.shape.clone(), data: vec![1.0; source.data.len()] })
            .collect();
        let ones: Vec<_> = ones.iter().collect();
        let gradient = Carry::new(plan, param).unwrap().means(&sources).unwrap();
        let placed = Carry::new(&all, &all.params[0]).unwrap().means(&ones).unwrap();
        (param.name.clone(), gradient.data, placed.data.iter().map(|placed| *placed > 0.0).collect())
    });
    expected.collect()
}

/// The largest difference where `placed`, relative to the largest value.
fn error(found: &[f32], expected: &[f32], placed: &[bool]) -> f32 {
    assert!(found.len() == expected.len() && found.len() == placed.len());
    let largest = expected.iter().fold(1e-20f32, |largest, value| largest.max(value.abs()));
    let pairs = found.iter().zip(expected).zip(placed).filter(|(_, placed)| **placed);
    pairs.fold(0f32, |worst, ((a, b), _)| worst.max((a - b).abs())) / largest
}

fn compare_gradients(what: &str, grown: &Grown, parents: &[(&T5Config, &HostTensors)]) {
    let batch = batch(23, 12, 5);
    let own: Vec<_> = parents.iter().map(|(config, weights)| gradients(config, weights, &batch)).collect();
    let models: Vec<_> = parents.iter().map(|(_, weights)| *weights).collect();
    let found = gradients(&grown.child, &child(&grown.plan, &models), &batch);
    let mut compared = 0;
    for (name, expected, placed) in expected(&grown.plan, &own.iter().collect::<Vec<_>>()) {
        let error = error(&found[&name].data, &expected, &placed);
        assert!(error < 1e-4, "{what}: the gradient of {name} is off by {error:e}");
        compared += placed.iter().filter(|placed| **placed).count();
    }
    assert!(compared as u64 >= parameter_table(parents[0].0).unwrap().parameter_count());
}

/// The same model with the order of its features, heads and hidden features reversed.
fn reversed(config: &T5Config, weights: &HostTensors) -> HostTensors {
    let mut reversed = weights.clone();
    for spec in &parameter_table(config).unwrap() {
        let factors: Vec<_> = spec.dims.iter().flat_map(|dim| &dim.factors).collect();
        let target = |mut index: usize| {
            let (mut target, mut stride) = (0, 1);
            for factor in factors.iter().rev() {
                let at = index % factor.size;
                index /= factor.size;
                let turned = matches!(factor.axis, Axis::Embed | Axis::Heads | Axis::Mlp);
                target += stride * if turned { factor.size - 1 - at } else { at };
                stride *= factor.size;
            }
            target
        };
        let source = &weights[&spec.name].data;
        let out = &mut reversed.get_mut(&spec.name).unwrap().data;
        source.iter().enumerate().for_each(|(index, value)| out[target(index)] = *value);
    }
    reversed
}

/// The plan predicts the child's gradients from its parents', for each kind of output head.
#[test]
fn gradients_are_the_parents() {
    for tied in [false, true] {
        let mut config = T5Config::v1_1(23, 12, 3, 4, 10, 2);
        config.tie_word_embeddings = tied;
        let model = random_weights(&config, 1).unwrap();
        let options = |normalisation| DirectSum { normalisation, ..DirectSum::default() };
        let widths = Widths { d_model: Some(24), num_heads: Some(4), d_ff: Some(27) };
        let deeper = Stack { times: 2, arrangement: Arrangement::Interleave, new_blocks: NewBlocks::Silent };
        let deeper = deeper.grow(&[parent(&config)]).unwrap();
        let cases = [
            (
                "self",
                SelfFusion { times: 2, sum: options(Normalisation::Property) }
                    .grow(&[parent(&config)])
                    .unwrap(),
            ),
            (
                "self, rule",
                SelfFusion { times: 3, sum: options(Normalisation::Rule) }.grow(&[parent(&config)]).unwrap(),
            ),
            ("hyperclone", HyperClone { times: 3, noise: None }.grow(&[parent(&config)]).unwrap()),
            ("net2net", Net2Net { widths, seed: 1, noise: None }.grow(&[parent(&config)]).unwrap()),
            ("stack", deeper.clone()),
        ];
        for (what, grown) in &cases {
            let parents = vec![(&config, &model); grown.plan.parents.len()];
            compare_gradients(what, grown, &parents);
        }
        // Different weights with the same predictions; the third model is deeper as well.
        let (turned, deep) = (reversed(&config, &model), child(&deeper.plan, &[&model]));
        assert_ne!(turned, model);
        let grown = fused(&[&config, &config, &deeper.child], Some(vec![0.5, 0.3, 0.2]));
        let parents = [(&config, &model), (&config, &turned), (&deeper.child, &deep)];
        compare_gradients("fuse", &grown, &parents);
    }
}

/// What a training run leaves: the weights before each update, the batches, and the optimiser's state.
struct Trained {
    path: Vec<HostTensors>,
    batches: Vec<Batch>,
    state: HostTensors,
    last: HostTensors,
}

fn trained(config: &T5Config, optimizer: Optimizer, seed: u64, steps: u64) -> Trained {
    let mut session = open(config, &random_weights(config, seed).unwrap());
    let (mut path, mut batches) = (Vec::new(), Vec::new());
    for step in 1..=steps {
        path.push(session.export().unwrap());
        let batch = batch(config.vocab_size as i32, 24, step);
        let update = Update {
            optimizer,
            learning_rate: 0.01,
            step,
            optimizer_step: step,
            clip_norm: None,
            z_loss: 0.0,
            dropout: Dropout::default(),
        };
        session.train_step(std::slice::from_ref(&batch), &update).unwrap();
        batches.push(batch);
    }
    let (state, last) = (session.optimizer_state().unwrap(), session.export().unwrap());
    Trained { path, batches, state, last }
}

/// Writes a state as a training run does.
fn written(directory: &Path, optimizer: Optimizer, step: u64, state: &HostTensors) -> OptimizerState {
    std::fs::create_dir_all(directory).unwrap();
    let tensors = LazyTensor::all(state).unwrap();
    write_optimizer_state(directory, optimizer, step, "hash", tensors, &Writer::default()).unwrap();
    OptimizerState::open(directory, "hash").unwrap()
}

/// The state that a plan carries from trained parents to their child.
fn carried(plan: &FusionPlan, parents: &[&Trained], optimizer: Optimizer, mode: CarryOptimizer) -> Gradients {
    let directory = tempfile::tempdir().unwrap();
    let states: Vec<_> = parents
        .iter()
        .enumerate()
        .map(|(index, parent)| {
            let place = directory.path().join(index.to_string());
            written(&place, optimizer, parent.path.len() as u64, &parent.state)
        })
        .collect();
    let states: Vec<_> = (0..plan.parents.len()).map(|at| &states[at.min(states.len() - 1)]).collect();
    let carried = CarriedState::new(plan, states, mode).unwrap().unwrap();
    let place = directory.path().join("child");
    std::fs::create_dir(&place).unwrap();
    carried.write(&place, "hash", &Writer::default()).unwrap();
    let file = TensorFile::open(&place.join("optimizer.safetensors")).unwrap();
    file.names().into_iter().map(|name| (name.clone(), file.load_f32(&name).unwrap())).collect()
}

/// The child's own gradients along its parents' trajectory.
fn gradients_on_the_way(grown: &Grown, parents: &[&Trained]) -> Vec<Gradients> {
    let steps = 0..parents[0].path.len();
    let at = |step: usize| {
        let models: Vec<_> =
            (0..grown.plan.parents.len()).map(|at| &parents[at.min(parents.len() - 1)].path[step]).collect();
        gradients(&grown.child, &child(&grown.plan, &models), &parents[0].batches[step])
    };
    steps.map(at).collect()
}

/// A running average from zero, `average = decay · average + (1 - decay) · value`, with one decay for each
/// step from 1.
fn average(
    steps: &[Gradients],
    name: &str,
    decay: impl Fn(u64) -> f64,
    value: impl Fn(f64) -> f64,
) -> Vec<f64> {
    let mut average = vec![0.0; steps[0][name].data.len()];
    for (step, gradients) in (1..).zip(steps) {
        let decay = decay(step);
        for (average, gradient) in average.iter_mut().zip(&gradients[name].data) {
            *average = decay * *average + (1.0 - decay) * value(f64::from(*gradient));
        }
    }
    average
}

fn single(values: &[f64]) -> Vec<f32> {
    values.iter().map(|value| *value as f32).collect()
}

/// AdamW's moments at the parents' placements, and the estimate between them.
#[test]
fn adamw_moments_are_the_childs_own() {
    let config = T5Config::v1_1(40, 16, 2, 8, 24, 1);
    let optimizer = Optimizer::adamw();
    let run = trained(&config, optimizer, 1, 6);
    let methods = [
        SelfFusion { times: 2, sum: DirectSum::default() }.grow(&[parent(&config)]).unwrap(),
        HyperClone { times: 2, noise: None }.grow(&[parent(&config)]).unwrap(),
    ];
    for grown in methods {
        let steps = gradients_on_the_way(&grown, &[&run]);
        let [carry, diagonal] = [CarryOptimizer::Carry, CarryOptimizer::Diagonal]
            .map(|mode| carried(&grown.plan, &[&run], optimizer, mode));
        let parents = vec![&run.last; grown.plan.parents.len()];
        for (name, _, placed) in expected(&grown.plan, &parents) {
            let means = single(&average(&steps, &name, |_| 0.9, |g| g));
            let squares = single(&average(&steps, &name, |_| 0.999, |g| g * g));
            for state in [&carry, &diagonal] {
                let off = error(&state[&format!("{name}.exp_avg")].data, &means, &placed);
                assert!(off < 1e-5, "{name}: means are off by {off:e}");
                let off = error(&state[&format!("{name}.exp_avg_sq")].data, &squares, &placed);
                assert!(off < 1e-5, "{name}: squares are off by {off:e}");
            }
            let cross: Vec<usize> = (0..placed.len()).filter(|index| !placed[*index]).collect();
            if cross.is_empty() {
                continue;
            }
            // The gradient of a connection equals that of the corresponding one within a half, whose squares
            // the estimate knows only by their rows and columns.
            let found = &carry[&format!("{name}.exp_avg_sq")].data;
            let sum = |values: &[f32]| cross.iter().map(|index| f64::from(values[*index])).sum::<f64>();
            let total = sum(found) / sum(&squares);
            assert!((total - 1.0).abs() < 1e-4, "{name}: the estimates add up to {total} of the squares");
            let near = |index: &&usize| (0.2..5.0).contains(&(found[**index] / squares[**index]));
            let near = cross.iter().filter(near).count() as f64 / cross.len() as f64;
            assert!(near > 0.9, "{name}: {near} of the estimates are within a factor of five");
            assert!(cross.iter().all(|index| diagonal[&format!("{name}.exp_avg_sq")].data[*index] == 0.0));
            assert!(cross.iter().all(|index| carry[&format!("{name}.exp_avg")].data[*index] == 0.0));
        }
    }
}

/// Muon's means at the parents' placements. Only what is no matrix has squares.
#[test]
fn muon_moments_are_the_childs_own() {
    let config = T5Config::v1_1(40, 16, 2, 8, 24, 1);
    let optimizer = Optimizer::muon();
    let run = trained(&config, optimizer, 1, 6);
    let grown = SelfFusion { times: 2, sum: DirectSum::default() }.grow(&[parent(&config)]).unwrap();
    let steps = gradients_on_the_way(&grown, &[&run]);
    let state = carried(&grown.plan, &[&run], optimizer, CarryOptimizer::Carry);
    let mut matrices = 0;
    for (name, _, placed) in expected(&grown.plan, &[&run.last, &run.last]) {
        let is_matrix =
            name.contains("Attention.") && !name.contains("bias") || name.contains("DenseReluDense");
        matrices += usize::from(is_matrix);
        assert_eq!(state.contains_key(&format!("{name}.exp_avg_sq")), !is_matrix, "{name}");
        let means = single(&average(&steps, &name, |_| if is_matrix { 0.95 } else { 0.9 }, |g| g));
        let off = error(&state[&format!("{name}.exp_avg")].data, &means, &placed);
        assert!(off < 1e-5, "{name}: means are off by {off:e}");
    }
    assert_eq!(matrices, 4 + 3 + 4 + 4 + 3, "of an encoder's block and a decoder's");
}

/// Adafactor's moments, for parents with factors and for some too small to have them.
#[test]
fn adafactor_moments_are_the_childs_own() {
    let optimizer = Optimizer::adafactor();
    for d_model in [64, 128] {
        let config = T5Config::v1_1(160, d_model, 4, d_model / 4, d_model, 1);
        let run = trained(&config, optimizer, 1, 4);
        let name = "encoder.block.0.layer.0.SelfAttention.q.weight";
        assert_eq!(run.state.contains_key(&format!("{name}.exp_avg_sq")), d_model == 64);
        let methods = [
            SelfFusion { times: 2, sum: DirectSum::default() }.grow(&[parent(&config)]).unwrap(),
            HyperClone { times: 2, noise: None }.grow(&[parent(&config)]).unwrap(),
        ];
        for grown in methods {
            let steps = gradients_on_the_way(&grown, &[&run]);
            let state = carried(&grown.plan, &[&run], optimizer, CarryOptimizer::Carry);
            let decay = |step: u64| 1.0 - (step as f64).powf(-0.8);
            for param in &grown.plan.params {
                let squares = average(&steps, &param.name, decay, |g| g * g + 1e-30);
                let shape = param.shape();
                let (moments, expected) = match shape[..] {
                    [rows, columns] if rows.min(columns) >= 128 => {
                        let row = |row: usize| {
                            squares[row * columns..][..columns].iter().sum::<f64>() / columns as f64
                        };
                        let column = |column: usize| {
                            squares.iter().skip(column).step_by(columns).sum::<f64>() / rows as f64
                        };
                        let all = [(0..rows).map(row).collect(), (0..columns).map(column).collect()];
                        (
                            vec!["exp_avg_sq_row", "exp_avg_sq_col"],
                            all.map(|all: Vec<f64>| single(&all)).to_vec(),
                        )
                    }
                    _ => (vec!["exp_avg_sq"], vec![single(&squares)]),
                };
                for (moment, expected) in moments.iter().zip(&expected) {
                    let found = &state[&format!("{}.{moment}", param.name)];
                    let off = error(&found.data, expected, &vec![true; expected.len()]);
                    assert!(
                        off < 1e-4,
                        "{} {d_model} {} {moment} is off by {off:e}",
                        grown.plan.method,
                        param.name
                    );
                }
            }
        }
    }
}

/// The child's gradients are those of its two parents' ensemble, which are close to their own to the extent
/// that they predict alike. Prints the ratios stated in docs/optimizer-state.md.
#[test]
fn moments_of_two_parents_are_near_the_childs_own() {
    let config = T5Config::v1_1(40, 16, 2, 8, 24, 1);
    let optimizer = Optimizer::adamw();
    let runs = [1, 2].map(|seed| trained(&config, optimizer, seed, 40));
    let runs = [&runs[0], &runs[1]];
    let grown = fused(&[&config, &config], None);
    let steps = gradients_on_the_way(&grown, &runs);
    let state = carried(&grown.plan, &runs, optimizer, CarryOptimizer::Carry);
    for (name, _, placed) in expected(&grown.plan, &[&runs[0].last, &runs[1].last]) {
        let own = average(&steps, &name, |_| 0.999, |g| g * g);
        let found = &state[&format!("{name}.exp_avg_sq")].data;
        for (what, wanted, range) in [("places", true, 0.9..1.5), ("cross", false, 0.5..2.0)] {
            let at: Vec<usize> = (0..placed.len()).filter(|at| placed[*at] == wanted).collect();
            if at.is_empty() {
                continue;
            }
            let squares = at.iter().map(|at| f64::from(found[*at])).sum::<f64>();
            let ratio = squares / at.iter().map(|at| own[*at]).sum::<f64>();
            println!("{name}, {what}: {ratio:.3} of the child's own");
            assert!(range.contains(&ratio), "{name}, {what}: {ratio}");
        }
    }
}
