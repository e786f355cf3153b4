//! RMSNorm: our CUDA kernel on GPUs, the host kernel on CPUs, and libtorch operations on GPUs that cannot run
//! ours.

use std::rc::Rc;

use t5_model::backend::kernels::norm;
use tch::{Device, Kind, Tensor};

use crate::cuda::Kernels;
use crate::node::{Gradient, Node};
use crate::operations::TchOps;
use crate::parameter::Parameter;
use crate::tensor::{elements, sizes, upload};

pub fn rms_norm(ops: &TchOps, x: &Node, gain: &Parameter, groups: &[usize], epsilon: f32) -> Node {
    let sizes = sizes(groups);
    if let Some(kernels) = ops.kernels.clone().filter(|kernels| kernels.can_norm(&sizes)) {
        return by_kernels(ops, kernels, x, gain, &sizes, epsilon);
    }
    let (saved_x, saved_gain) = (x.value().to_kind(Kind::Float).contiguous(), gain.value());
    let inputs = [x.input(), (ops.place(gain), Kind::Float)];
    if ops.works_on_host() {
        let size = saved_x.size();
        let y = norm::rms_norm(here(&saved_x), here(&saved_gain), groups, epsilon);
        let (y, groups) = (upload(&y, &size, Device::Cpu), groups.to_vec());
        return ops.node(y.to_kind(ops.kind), inputs, move |dy, _| {
            let dy = dy.to_kind(Kind::Float).contiguous();
            let [x, gain, dy] = [&saved_x, &saved_gain, &dy].map(here);
            let (dx, dgain) = norm::rms_norm_gradient(x, gain, &groups, epsilon, dy);
            let features = [gain.len() as i64];
            [Some(upload(&dx, &size, Device::Cpu)), Some(upload(&dgain, &features, Device::Cpu))]
        });
    }
    let (y, scales) = forward(&saved_x, &saved_gain, &sizes, epsilon);
    ops.node(y.to_kind(ops.kind), inputs, move |dy, _| {
        gradients(&dy.to_kind(Kind::Float), &saved_x, &saved_gain, &sizes, &scales).map(Some)
    })
}

fn here(tensor: &Tensor) -> &[f32] {
    elements(tensor).expect("it lies in the host's memory, in f32")
}

fn by_kernels(
    ops: &TchOps,
    kernels: Rc<Kernels>,
    x: &Node,
    gain: &Parameter,
    groups: &[i64],
    epsilon: f32,
) -> Node {
    let (kind, saved_gain, sum) = (x.kind(), gain.value(), x.sum());
    let (known, more) = match &sum {
        Some((x, y)) => (x.shallow_clone(), Some(y)),
        None => (x.value().to_kind(Kind::Float).contiguous(), None),
    };
    let (sum, value, normed) = kernels.rms_norm(&known, more, &saved_gain, groups, epsilon, ops.kind);
    if let Some(sum) = &sum {
        x.set(sum);
    }
    let saved_x = sum.unwrap_or(known);
    let place = ops.tape.adding_step([x.place, ops.place(gain)], move |dy, [before, gain_before], _| {
        // The residual stream's gradient is added in the same pass.
        let before = before.map(|before: Gradient| before.value.to_kind(Kind::Float).contiguous());
        let dy = dy.value.contiguous();
        let ([dx, dgain], low) =
            kernels.rms_norm_gradients(&dy, &saved_x, &saved_gain, &normed, before.as_ref());
        let dgain = match gain_before {
            Some(before) => dgain + before.value,
            None => dgain,
        };
        [Some(Gradient { value: dx, low }.or_in(kind)), Some(dgain.into())]
    });
    Node::new(value, place)
}

/// The result, and the inverse RMS of each group.
fn forward(x: &Tensor, gain: &Tensor, groups: &[i64], epsilon: f32) -> (Tensor, Vec<Tensor>) {
    let inverse_rms = |x: &Tensor| {
        let features = x.size()[2] as f64;
        let squares = x.norm_scalaropt_dim(2, [-1].as_slice(), true).square(); // [batch, length, 1]
        (squares / features + f64::from(epsilon)).rsqrt()
    };
    let scales: Vec<Tensor> = split(x, groups).iter().map(inverse_rms).collect();
    let parts = split(x, groups).into_iter().zip(&scales).map(|(x, scale)| x * scale);
    (join(parts) * gain, scales)
}

/// The gradients of `x` and of the gain.
fn gradients(dy: &Tensor, x: &Tensor, gain: &Tensor, groups: &[i64], scales: &[Tensor]) -> [Tensor; 2] {
    let scaled = dy * gain;
    let (mut dx, mut normed) = (vec![], vec![]);
    for ((x, dy), scale) in split(x, groups).into_iter().zip(split(&scaled, groups)).zip(scales) {
        let x = x * scale;
        let projection = (&x * &dy).mean_dim(-1, true, Kind::Float); // [batch, length, 1]
        dx.push((dy - &x * projection) * scale);
        normed.push(x);
    }
    let dgain = (dy * join(normed.into_iter())).sum_dim_intlist([0, 1].as_slice(), false, Kind::Float);
    [join(dx.into_iter()), dgain]
}

/// Splits the features into groups.
fn split(x: &Tensor, groups: &[i64]) -> Vec<Tensor> {
    match groups {
        [_] => vec![x.shallow_clone()],
        groups => x.split_with_sizes(groups, -1),
    }
}

fn join(mut parts: impl ExactSizeIterator<Item = Tensor>) -> Tensor {
    match (parts.len(), parts.next()) {
        (1, Some(part)) => part,
        (_, first) => Tensor::cat(&first.into_iter().chain(parts).collect::<Vec<_>>(), -1),
    }
}
