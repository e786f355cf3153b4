//! Estimates the memory that training takes on the host, for backends on the kernels and the tape of this crate.

use super::{Computation, TrainingMemory, TrainingSize};
use crate::{Optimizer, parameter_table};

/// The program, its threads, batches, and what the allocator keeps, in bytes.
const PROGRAM: f64 = 0.15e9;
/// Freed memory that does not suit what is asked for next.
const FRAGMENTS: f64 = 1.1;
/// Bytes of an activation.
const ELEMENT: f64 = 4.0;

/// The peak, and what of it this machine has.
pub fn training_memory(how: &Computation, size: &TrainingSize<'_>) -> TrainingMemory {
    let total = available();
    let peak = training_peak(how, size);
    let fitting = total.and_then(|total| size.fitting(|size| training_peak(how, size) <= total));
    TrainingMemory { peak, total, fitting }
}

/// Peak memory in bytes.
fn training_peak(how: &Computation, size: &TrainingSize<'_>) -> f64 {
    let TrainingSize { config, examples, input_length, target_length, dropout, .. } = *size;
    let parameters = parameter_table(config).map_or(0, |table| table.parameter_count()) as f64;
    let moments = match size.optimizer {
        Optimizer::Adamw { .. } | Optimizer::AdamwScale { .. } => 8.0,
        Optimizer::Adafactor { .. } => 0.1,
    };
    let [model, inner, hidden] = [config.d_model, config.inner_dim(), config.d_ff].map(|width| width as f64);
    let [inputs, targets] = [input_length, target_length].map(|length| (examples * length) as f64);
    // What a token's sublayers keep: the normalised stream, queries, keys, values and the result; the stream, gate, value,
    // activation and product. Dropout keeps what it makes.
    let attention = 2.0 * model + 4.0 * inner + if dropout { model } else { 0.0 };
    let feed_forward = 2.0 * model + 4.0 * hidden + if dropout { model + hidden } else { 0.0 };
    let encoder = ELEMENT * inputs * (attention + feed_forward);
    let crossing = ELEMENT * (targets * (2.0 * model + 2.0 * inner) + inputs * 2.0 * inner);
    let decoder = ELEMENT * targets * (attention + feed_forward) + crossing;
    let layers = [config.num_layers, config.num_decoder_layers()].map(|layers| layers as f64);
    let activations = if how.checkpoint_activations {
        let streams = ELEMENT * model * ((layers[0] + 1.0) * inputs + (layers[1] + 1.0) * targets);
        streams + 2.0 * f64::max(encoder, decoder)
    } else {
        // On the way back, a layer's gradients exist beside what the others keep.
        layers[0] * encoder + layers[1] * decoder + f64::max(encoder, decoder)
    };
    // Weights and gradients; the head's gradient exists before any other's.
    PROGRAM + FRAGMENTS * (parameters * (8.0 + moments) + activations)
}

/// Bytes that a process can still get: what the system has available, or what its group may have.
#[cfg(target_os = "linux")]
fn available() -> Option<f64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let number = |path: &str| read(path)?.trim().parse::<f64>().ok();
    let system = read("/proc/meminfo")?;
    let line = system.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let system = 1024.0 * line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()?;
    let group = number("/sys/fs/cgroup/memory.max").zip(number("/sys/fs/cgroup/memory.current"));
    Some(group.map_or(system, |(most, used)| system.min((most - used).max(0.0))))
}

#[cfg(not(target_os = "linux"))]
fn available() -> Option<f64> {
    None
}
