//! Optimisers in libtorch operations, for devices whose memory the host cannot access.

use fusion_core::HostTensor;
use t5_model::optimizer::{AdafactorStep, AdamwStep, Moments, MuonStep, ParameterUpdate, UpdateRule};
use tch::{Device, Kind, Tensor};

use crate::tensor::{host, sizes, upload};

/// A running average, stored where its parameter is updated.
pub enum Moment {
    Host(HostTensor),
    Device(Tensor),
}

impl Moment {
    pub fn into_host(self) -> HostTensor {
        match self {
            Moment::Host(tensor) => tensor,
            Moment::Device(tensor) => host(&tensor),
        }
    }

    pub fn on_device(&mut self, device: Device) -> &mut Tensor {
        if let Moment::Host(tensor) = self {
            *self = Moment::Device(upload(&tensor.data, &sizes(&tensor.shape), device));
        }
        match self {
            Moment::Device(tensor) => tensor,
            Moment::Host(_) => unreachable!("it was put on the device"),
        }
    }

    pub fn into_device(self, device: Device) -> Tensor {
        match self {
            Moment::Host(tensor) => upload(&tensor.data, &sizes(&tensor.shape), device),
            Moment::Device(tensor) => tensor,
        }
    }
}

/// Takes one step in place. The host waits for nothing.
pub fn update_on_device(
    weights: &mut Tensor,
    gradient: Tensor,
    moments: &mut Moments<Tensor>,
    update: &ParameterUpdate,
    shape: &[usize],
) {
    let zeros = |shape: &[usize]| Tensor::zeros(sizes(shape), (Kind::Float, weights.device()));
    match update.rule(shape) {
        UpdateRule::Adamw(step) => {
            let (mean, squares) = moments.mean_and_squares(shape, zeros);
            adamw(step, weights, gradient, mean, squares);
        }
        UpdateRule::Adafactor(step) if step.factored => {
            let (rows, columns) = moments.rows_and_columns(shape, zeros);
            let gradient = gradient * f64::from(step.gradient_scale);
            let squares = gradient.square();
            renew(step, rows, squares.mean_dim(1, false, Kind::Float));
            renew(step, columns, squares.mean_dim(0, false, Kind::Float));
            let by_row = (&*rows / rows.mean(Kind::Float)).rsqrt().unsqueeze(1); // [rows, 1]
            descend(step, weights, gradient * by_row * columns.rsqrt());
        }
        UpdateRule::Adafactor(step) => {
            let squares = moments.squares(shape, zeros);
            let gradient = gradient * f64::from(step.gradient_scale);
            renew(step, squares, gradient.square());
            descend(step, weights, gradient * squares.rsqrt());
        }
        UpdateRule::Muon(step) => {
            let mean = moments.mean(shape, zeros);
            let gradient = gradient * f64::from(step.gradient_scale);
            let [momentum, rest] = [step.momentum, step.rest].map(f64::from);
            let _ = mean.g_mul_scalar_(momentum).g_add_(&(&gradient * rest));
            let direction = orthogonalised(gradient * rest + &*mean * momentum);
            let _ = weights.g_mul_scalar_(f64::from(step.kept)).g_sub_(&(direction * f64::from(step.step)));
        }
    }
}

/// A matrix with the same singular vectors and singular values of about 1.
fn orthogonalised(x: Tensor) -> Tensor {
    let size = x.size();
    if size[0] > size[1] {
        return orthogonalised(x.tr()).tr();
    }
    let norm = x.square().sum(Kind::Double).sqrt().clamp_min(f64::from(MuonStep::EPSILON));
    let mut x = (x / norm).to_kind(Kind::Float);
    let [c0, c1, c2] = MuonStep::COEFFICIENTS.map(f64::from);
    for _ in 0..MuonStep::ITERATIONS {
        let gram = x.matmul(&x.tr());
        let polynomial = &gram * c1 + gram.matmul(&gram) * c2;
        x = &x * c0 + polynomial.matmul(&x);
    }
    x
}

fn adamw(step: AdamwStep, weights: &mut Tensor, gradient: Tensor, mean: &mut Tensor, squares: &mut Tensor) {
    let scaled = |value: &Tensor, factor: f32| value * f64::from(factor);
    let gradient = scaled(&gradient, step.gradient_scale);
    let _ = mean.g_mul_scalar_(f64::from(step.beta1)).g_add_(&scaled(&gradient, step.rest1));
    let _ = squares.g_mul_scalar_(f64::from(step.beta2)).g_add_(&scaled(&gradient.square(), step.rest2));
    let direction = &*mean / (squares.sqrt() + f64::from(step.epsilon)) * step.step;
    let direction = if step.relative { direction * scale(weights) } else { direction };
    let _ = weights.g_mul_scalar_(f64::from(step.before)).g_sub_(&direction);
    let _ = weights.g_mul_scalar_(f64::from(step.after));
}

fn renew(step: AdafactorStep, average: &mut Tensor, squares: Tensor) {
    let found = (squares + f64::from(AdafactorStep::EPSILON)) * f64::from(1.0 - step.decay);
    let _ = average.g_mul_scalar_(f64::from(step.decay)).g_add_(&found);
}

/// Takes a step of Adafactor in a direction.
fn descend(step: AdafactorStep, weights: &mut Tensor, direction: Tensor) {
    let clip = (rms(&direction) / step.clip_threshold).clamp_min(1.0);
    let rate = scale(weights) / clip * step.learning_rate;
    let _ = weights.g_sub_(&(direction * rate));
}

/// `max(1e-3, RMS)`, a scalar.
fn scale(weights: &Tensor) -> Tensor {
    rms(weights).clamp_min(1e-3)
}

fn rms(x: &Tensor) -> Tensor {
    x.square().mean(Kind::Double).sqrt()
}

#[cfg(test)]
mod tests {
    use fusion_core::random::Philox;
    use t5_model::Optimizer;
    use t5_model::optimizer::Role;

    use super::*;

    fn drawn(name: &str, shape: &[usize]) -> HostTensor {
        let mut tensor = HostTensor::zeros(shape);
        Philox::new(1, name).fill_normal(0, 0.5, &mut tensor.data);
        tensor
    }

    /// There is no device but the CPU here; on it, both paths can be tested.
    #[test]
    fn updates_as_the_host_does() {
        let adafactor =
            Optimizer::Adafactor { decay_rate: 0.8, clip_threshold: 1.0, min_dim_size_to_factor: 4 };
        let decay = Optimizer::AdamwScale { beta1: 0.8, beta2: 0.95, epsilon: 1e-7, weight_decay: 0.1 };
        for optimizer in [Optimizer::adamw(), decay, adafactor, Optimizer::muon()] {
            for shape in [vec![9, 7], vec![7, 9], vec![9]] {
                let mut expected = drawn("weights", &shape);
                let mut weights = upload(&expected.data, &sizes(&shape), Device::Cpu);
                let (mut on_host, mut on_device) = (Moments::default(), Moments::default());
                for step in 1..=5 {
                    let gradient = drawn(&format!("gradient {step}"), &shape);
                    let update = ParameterUpdate {
                        optimizer,
                        learning_rate: 0.03,
                        step,
                        gradient_scale: 0.7,
                        role: if shape.len() == 2 { Role::Matrix } else { Role::Gain },
                    };
                    update.apply(&shape, &mut expected.data, &gradient.data, &mut on_host);
                    let gradient = upload(&gradient.data, &sizes(&shape), Device::Cpu);
                    update_on_device(&mut weights, gradient, &mut on_device, &update, &shape);
                }
                let close = |found: &Tensor, expected: &HostTensor| {
                    let found = host(found);
                    assert_eq!(found.shape, expected.shape);
                    for (found, expected) in found.data.iter().zip(&expected.data) {
                        assert!((found - expected).abs() < 2e-6, "{optimizer}: {found} is not {expected}");
                    }
                };
                close(&weights, &expected);
                assert!(on_host.iter().count() > 0);
                for ((name, moment), (other, expected)) in on_device.iter().zip(on_host.iter()) {
                    assert_eq!(name, other);
                    close(moment, expected);
                }
            }
        }
    }
}
