//! Operations whose results are worked out here, beside those that [`operations`](super::operations) compares
//! with PyTorch's.

use fusion_core::HostTensor;

use super::Check;
use super::attention::Long;
use super::operations::LOSS;
use super::references::{deviation, number_deviation};
use crate::backend::{CrossEntropy, Positions, TokenIds, Trained};
use crate::optimizer::{Moments, ParameterUpdate, Role};
use crate::{Dropout, Ops, Optimizer, Result, SessionError, Update};

/// What generation, activation checkpoints and updates need. `allowed` is what products may deviate by.
pub(super) fn by_hand<O: Ops>(ops: &mut O, allowed: f64) -> Result<Vec<Check>, SessionError> {
    let mut checks = vec![
        check(ops, "append", 0.0, |ops| Ok(appended(ops)))?,
        check(ops, "gather", 0.0, |ops| Ok(gathered(ops)))?,
        check(ops, "leaf and product", allowed, |ops| Ok(differentiated(ops)))?,
        check(ops, "accumulate", 1e-6, |ops| Ok(accumulated(ops)))?,
        check(ops, "embedding, a frequent token", 1e-6, |ops| Ok(frequent_token(ops)))?,
        check(ops, "rms_norm, wide", allowed, |ops| Ok(wide_norm(ops)))?,
    ];
    let long = [
        Long::new(150, 150),
        Long { causal: true, ..Long::new(130, 130) },
        Long { padded: true, ..Long::new(70, 200) },
        Long { dropout: true, ..Long::new(75, 136) },
        Long { causal: true, dropout: true, ..Long::new(131, 131) },
        Long { padded: true, features: 128, ..Long::new(68, 130) },
        Long { causal: true, dropout: true, features: 96, ..Long::new(130, 130) },
    ];
    for long in long {
        let Long { queries, keys, causal, dropout, features, .. } = long;
        let details = [("causal", causal), ("dropout", dropout)].into_iter().filter(|(_, on)| *on);
        let details: String = details.map(|(name, _)| format!(", {name}")).collect();
        let name = format!("attention, {queries} × {keys} of {features} features{details}");
        checks.push(check(ops, name, allowed, |ops| Ok(long.deviation(ops)))?);
    }
    for (name, optimizer) in optimizers() {
        checks.push(check(ops, format!("update: {name}"), 1e-5, |ops| Ok(update(ops, optimizer)))?);
        let name = format!("update of all: {name}");
        checks.push(check(ops, name, 1e-5, |ops| Ok(update_of_all(ops, optimizer)))?);
    }
    Ok(checks)
}

/// Runs a check that begins with nothing recorded, whatever the one before left.
pub(super) fn check<O: Ops>(
    ops: &mut O,
    name: impl Into<String>,
    allowed: f64,
    run: impl FnOnce(&mut O) -> Result<f64>,
) -> Result<Check, SessionError> {
    Check::run(name, allowed, || {
        ops.record(false);
        Ok(run(ops)?)
    })
}

/// A tensor of numbers that repeat after a while.
fn pattern(shape: &[usize], first: usize) -> HostTensor {
    let value = |index: usize| ((index * 7 + first * 5) % 23) as f32 / 11.0 - 0.9;
    HostTensor { shape: shape.to_vec(), data: (0..shape.iter().product()).map(value).collect() }
}

/// Rows of whole numbers from `first` on, `[2 · length, 3]`: exact even in bf16, for they have few bits.
fn counting(length: usize, first: i32) -> HostTensor {
    let data = (0..2 * length as i32 * 3).map(|index| (first + index) as f32).collect();
    HostTensor { shape: vec![2 * length, 3], data }
}

/// `[2, length, 3]`.
fn activation_of<O: Ops>(ops: &O, tensor: &HostTensor, length: usize) -> O::Activation {
    let ids: Vec<i32> = (0..2 * length as i32).collect();
    ops.embedding(&ops.parameter(tensor.clone()), TokenIds { ids: &ids, batch: 2, length })
}

fn appended<O: Ops>(ops: &mut O) -> f64 {
    let (x, y) = (counting(2, 0), counting(1, 50));
    let appended = ops.append(&activation_of(ops, &x, 2), &activation_of(ops, &y, 1));
    let row = |row: usize| [&x.data[row * 6..][..6], &y.data[row * 3..][..3]].concat();
    let expected = HostTensor { shape: vec![2, 3, 3], data: [row(0), row(1)].concat() };
    deviation(Some(&ops.read_activation(&appended)), &expected)
}

/// Positions that are left out, taken twice and in another order.
fn gathered<O: Ops>(ops: &mut O) -> f64 {
    let x = counting(3, 10);
    let positions = Positions { ids: vec![5, 0, 0, 4, 1, 5, 2, 2], batch: 4, length: 2 };
    let found = ops.read_activation(&ops.gather(&activation_of(ops, &x, 3), &positions));
    let row = |id: &i32| x.data[*id as usize * 3..][..3].to_vec();
    let expected = HostTensor { shape: vec![4, 2, 3], data: positions.ids.iter().flat_map(row).collect() };
    deviation(Some(&found), &expected)
}

/// The way back through a linear layer alone: from a gradient of its output to those of its input and its
/// weight, and to none of what the input was computed from.
fn differentiated<O: Ops>(ops: &mut O) -> f64 {
    let (x, dy, weight) = (pattern(&[4, 3], 1), pattern(&[4, 2], 2), pattern(&[2, 3], 3));
    let dy_on_device = activation_of(ops, &dy, 2);
    let (table, weight_on_device) = (ops.parameter(x.clone()), ops.parameter(weight.clone()));
    ops.record(true);
    let leaf = ops.leaf(&ops.embedding(&table, TokenIds { ids: &[0, 1, 2, 3], batch: 2, length: 2 }));
    let loss = ops.product(&ops.linear(&leaf, &weight_on_device), &dy_on_device);
    let (leaves, gradients) = ops.backward(loss, &[&leaf], &[&table, &weight_on_device]);
    ops.record(false);
    let sum = |terms: usize, term: &dyn Fn(usize) -> f32| (0..terms).map(term).sum::<f32>();
    let dx = (0..12).map(|at| sum(2, &|out| dy.data[at / 3 * 2 + out] * weight.data[out * 3 + at % 3]));
    let dx = HostTensor { shape: vec![2, 2, 3], data: dx.collect() };
    let dweight = (0..6).map(|at| sum(4, &|row| dy.data[row * 2 + at / 3] * x.data[row * 3 + at % 3]));
    let dweight = HostTensor { shape: vec![2, 3], data: dweight.collect() };
    let found = leaves.first().map(|leaf| ops.read_activation(leaf));
    let [none, found_weight] = [0, 1].map(|at| gradients.get(at).map(|gradient| ops.read_gradient(gradient)));
    let nothing = if none == Some(HostTensor::zeros([4, 3])) { 0.0 } else { f64::INFINITY };
    let value =
        deviation(Some(&ops.read_activation(&leaf)), &HostTensor { shape: vec![2, 2, 3], ..x.clone() });
    let gradients = deviation(found.as_ref(), &dx).max(deviation(found_weight.as_ref(), &dweight));
    nothing.max(value).max(gradients)
}

/// Twice a gradient, and its norm: of `linear`, summed by the loss over labels.
fn accumulated<O: Ops>(ops: &mut O) -> f64 {
    let (table, head) = (ops.parameter(pattern(&[5, 4], 1)), ops.parameter(pattern(&[3, 4], 2)));
    ops.record(true);
    let gradient = || {
        let x = ops.embedding(&table, TokenIds { ids: &[0, 1, 2, 4], batch: 2, length: 2 });
        let (loss, _) = ops.cross_entropy(&x, &head, &[0, 1, 2, 0], LOSS);
        ops.backward(loss, &[], &[&table]).1.into_iter().next()
    };
    let gradients = (gradient(), gradient(), gradient());
    ops.record(false);
    let (Some(mut total), Some(second), Some(third)) = gradients else {
        return f64::INFINITY;
    };
    let one = ops.read_gradient(&total);
    ops.accumulate(&mut total, second);
    let twice = HostTensor { shape: one.shape, data: one.data.iter().map(|value| 2.0 * value).collect() };
    let squares: f64 = twice.data.iter().map(|value| f64::from(*value).powi(2)).sum();
    let sum = deviation(Some(&ops.read_gradient(&total)), &twice);
    // With one more, whose squares are a quarter of those.
    let norm = number_deviation(ops.squared_norm(&[total, third]), 1.25 * squares);
    sum.max(norm)
}

/// The gradient of a table of which one row is taken 150 times, which kernels sum in several pieces.
fn frequent_token<O: Ops>(ops: &mut O) -> f64 {
    let ids: Vec<i32> = (0..156).map(|at| if at % 26 == 0 { at / 26 } else { 6 }).collect();
    let (table, dy) = (ops.parameter(pattern(&[7, 4], 1)), pattern(&[156, 4], 2));
    let of_output = ops.parameter(dy.clone());
    let places: Vec<i32> = (0..156).collect();
    let dy_on_device = ops.embedding(&of_output, TokenIds { ids: &places, batch: 2, length: 78 });
    ops.record(true);
    let y = ops.embedding(&table, TokenIds { ids: &ids, batch: 2, length: 78 });
    let loss = ops.product(&y, &dy_on_device);
    let (_, gradients) = ops.backward(loss, &[], &[&table]);
    ops.record(false);
    let mut expected = HostTensor::zeros([7, 4]);
    for (id, row) in ids.iter().zip(dy.data.chunks(4)) {
        expected.data[*id as usize * 4..].iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    deviation(gradients.first().map(|gradient| ops.read_gradient(gradient)).as_ref(), &expected)
}

/// A norm of two groups of 1,024 features: its result, and the gradients of its input and of its gain.
fn wide_norm<O: Ops>(ops: &mut O) -> f64 {
    const GROUP: usize = 1024;
    const EPSILON: f32 = 1e-6;
    let (shape, mean) = ([2, 2 * GROUP], |sum: f64| sum / GROUP as f64);
    let (x, dy, gain) = (pattern(&shape, 1), pattern(&shape, 3), pattern(&[2 * GROUP], 2));
    let [table, of_output, of_gain] = [&x, &dy, &gain].map(|tensor| ops.parameter(tensor.clone()));
    let rows = |ops: &O, table| ops.embedding(table, TokenIds { ids: &[0, 1], batch: 1, length: 2 });
    let dy_on_device = rows(ops, &of_output);
    ops.record(true);
    let y = ops.rms_norm(&rows(ops, &table), &of_gain, &[GROUP, GROUP], EPSILON);
    let found_y = ops.read_activation(&y);
    let loss = ops.product(&y, &dy_on_device);
    let (_, gradients) = ops.backward(loss, &[], &[&table, &of_gain]);
    ops.record(false);
    let [mut y, mut dx] = [(); 2].map(|()| HostTensor::zeros(shape));
    let mut dgain = HostTensor::zeros([2 * GROUP]);
    for start in (0..x.data.len()).step_by(GROUP) {
        let value = |tensor: &HostTensor, at: usize| f64::from(tensor.data[at % tensor.data.len()]);
        let group = start..start + GROUP;
        let squares: f64 = group.clone().map(|at| value(&x, at).powi(2)).sum();
        let scale = 1.0 / (mean(squares) + f64::from(EPSILON)).sqrt();
        let projected: f64 =
            group.clone().map(|at| value(&gain, at) * value(&dy, at) * value(&x, at) * scale).sum();
        for at in group {
            let (normed, through) = (value(&x, at) * scale, value(&gain, at) * value(&dy, at));
            y.data[at] = (value(&gain, at) * normed) as f32;
            dx.data[at] = (scale * (through - normed * mean(projected))) as f32;
            dgain.data[at % (2 * GROUP)] += (value(&dy, at) * normed) as f32;
        }
    }
    let y = deviation(Some(&found_y), &HostTensor { shape: vec![1, 2, 2 * GROUP], ..y });
    let found = gradients.iter().map(|gradient| ops.read_gradient(gradient));
    found.zip([dx, dgain]).map(|(found, expected)| deviation(Some(&found), &expected)).fold(y, f64::max)
}

fn optimizers() -> [(&'static str, Optimizer); 6] {
    let decayed = Optimizer::Adamw { beta1: 0.8, beta2: 0.95, epsilon: 1e-7, weight_decay: 0.1 };
    let factored = Optimizer::Adafactor { decay_rate: 0.8, clip_threshold: 1.0, min_dim_size_to_factor: 4 };
    [
        ("adamw", Optimizer::adamw()),
        ("adamw, weight decay", decayed),
        ("adamw_scale", Optimizer::adamw_scale()),
        ("adafactor", Optimizer::adafactor()),
        ("adafactor, factored", factored),
        ("muon", Optimizer::muon()),
    ]
}

/// Five steps of an optimiser, against the host's; with gradients of the device's own and a rate that moves
/// the weights far.
fn update<O: Ops>(ops: &mut O, optimizer: Optimizer) -> f64 {
    let mut expected = pattern(&[6, 5], 3);
    let mut parameter = ops.parameter(expected.clone());
    let mut moments = (Moments::<HostTensor>::default(), Moments::<O::Moment>::default());
    let head = ops.parameter(pattern(&[4, 5], 4));
    let mut worst: f64 = 0.0;
    for step in 1..=5 {
        ops.record(true);
        let ids = [0, 2, 3, step as i32];
        let x = ops.embedding(&parameter, TokenIds { ids: &ids, batch: 1, length: 4 });
        let (loss, _) = ops.cross_entropy(&x, &head, &[0, 1, 2, 3], LOSS);
        let gradient = ops.backward(loss, &[], &[&parameter]).1.into_iter().next();
        ops.record(false);
        let Some(gradient) = gradient else { return f64::INFINITY };
        let update =
            ParameterUpdate { optimizer, learning_rate: 0.03, step, gradient_scale: 0.7, role: Role::Matrix };
        let on_host = ops.read_gradient(&gradient);
        update.apply(&expected.shape, &mut expected.data, &on_host.data, &mut moments.0);
        ops.update(&mut parameter, gradient, &mut moments.1, &update);
        worst = worst.max(deviation(Some(&ops.read_parameter(&parameter)), &expected));
        for (name, expected) in moments.0.iter() {
            let found = moments.1.iter().find(|(other, _)| *other == name);
            let found = found.map(|(_, moment)| ops.read_moment(moment));
            worst = worst.max(deviation(found.as_ref(), expected));
        }
    }
    worst
}

/// Three steps of an optimiser for a matrix that decays and one that does not, clipped together, against the
/// host's. Before the last comes one whose gradient is not finite, which changes nothing.
fn update_of_all<O: Ops>(ops: &mut O, optimizer: Optimizer) -> f64 {
    const ROLES: [Role; 2] = [Role::Matrix, Role::Gain];
    let mut expected = [pattern(&[6, 5], 3), pattern(&[4, 5], 4)];
    let mut parameters = expected.each_ref().map(|tensor| ops.parameter(tensor.clone()));
    let mut on_host = [Moments::<HostTensor>::default(), Moments::default()];
    let mut on_device = [Moments::<O::Moment>::default(), Moments::default()];
    let mut worst: f64 = 0.0;
    for step in [1, 2, 0, 3] {
        let is_finite = step > 0;
        ops.record(true);
        let [table, head] = parameters.each_ref();
        let x = ops.embedding(table, TokenIds { ids: &[0, 2, 3, step as i32], batch: 1, length: 4 });
        let scale = if is_finite { 0.1 } else { f32::NAN };
        let (loss, _) = ops.cross_entropy(&x, head, &[0, 1, 2, 3], CrossEntropy { scale, z_loss: 0.0 });
        let (_, gradients) = ops.backward(loss, &[], &[table, head]);
        ops.record(false);
        let found: Vec<HostTensor> = gradients.iter().map(|gradient| ops.read_gradient(gradient)).collect();
        let squares = found.iter().flat_map(|gradient| &gradient.data).map(|value| f64::from(*value).powi(2));
        let norm = squares.sum::<f64>().sqrt();
        let update = Update {
            optimizer,
            learning_rate: 0.03,
            step,
            optimizer_step: step.max(1),
            clip_norm: Some(0.3 * norm),
            z_loss: 0.0,
            dropout: Dropout::default(),
        };
        if is_finite {
            let each = expected.iter_mut().zip(&mut on_host).zip(&found).zip(ROLES);
            for (((expected, moments), gradient), role) in each {
                let each = update.of_parameter(norm, role);
                each.apply(&expected.shape, &mut expected.data, &gradient.data, moments);
            }
        }
        let each = parameters.iter_mut().zip(&mut on_device).zip(ROLES);
        let trained = each.map(|((parameter, moments), role)| Trained { parameter, moments, role });
        let found_norm = ops.update_all(trained.collect(), gradients, &update).read();
        worst = worst.max(match is_finite {
            true => number_deviation(found_norm, norm),
            false if found_norm.is_finite() => f64::INFINITY,
            false => 0.0,
        });
        for (parameter, expected) in parameters.iter().zip(&expected) {
            worst = worst.max(deviation(Some(&ops.read_parameter(parameter)), expected));
        }
    }
    worst
}
