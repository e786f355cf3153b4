//! Estimates the memory that training takes on the host.

use std::fs;

use fusion_core::table::ParamTable;

use crate::parameters::parameter_table;
use crate::{Computation, TrainingMemory, TrainingSize};

/// The program, its threads and the text being read, in bytes.
const PROGRAM: f64 = 0.09e9;
/// What the allocator keeps besides, and what operations allocate for themselves.
const FRAGMENTS: f64 = 1.15;
/// Bytes of an f32.
const ELEMENT: f64 = 4.0;

/// The memory that training takes with the host's kernels, which store no attention probabilities and only a
/// few rows of logits.
pub fn training_memory(how: &Computation, size: &TrainingSize<'_>) -> TrainingMemory {
    let (peak, total) = (peak(how, size), available());
    let fitting = total.and_then(|total| size.fitting(|size| self::peak(how, size) <= total));
    TrainingMemory { peak, total, fitting, stored_attention: None }
}

fn peak(how: &Computation, size: &TrainingSize<'_>) -> f64 {
    let &TrainingSize { config, examples, input_length, target_length, optimizer, dropout } = size;
    let table = parameter_table(config).ok();
    let of_table = |size: &dyn Fn(&ParamTable) -> u64| table.as_ref().map_or(0, size) as f64;
    let gradients = ELEMENT * of_table(&|table| table.parameter_count());
    let kept = gradients + of_table(&|table| optimizer.state_size(table));
    let [encoder, decoder] = [config.num_layers, config.num_decoder_layers()].map(|layers| layers as f64);
    let [inputs, targets] = [input_length, target_length].map(|length| (examples * length) as f64);
    let [model, inner, hidden] =
        [config.d_model, config.inner_dim(), config.d_ff].map(|width| ELEMENT * width as f64);
    // The residual stream and its normalised copy; q, k, v and the result; the gate, the value and their
    // product, and with dropout its result too.
    let (normed, attention) = (2.0 * model, 4.0 * inner);
    let feed_forward = normed + hidden * if dropout { 4.0 } else { 3.0 };
    let encoder_layer = inputs * (normed + attention + feed_forward);
    let crossing = targets * (normed + 2.0 * inner) + inputs * 2.0 * inner;
    let decoder_layer = targets * (normed + attention + feed_forward) + crossing;
    let backward = |tokens: f64| tokens * (2.0 * model + 3.0 * hidden);
    let (encoder_back, decoder_back) = (backward(inputs), backward(targets) + inputs * model);
    let head = config.vocab_size as f64 * model + 3.0 * targets * model;
    let activations = if how.checkpoint_activations {
        let streams = ((encoder + 1.0) * inputs + (decoder + 1.0) * targets) * model;
        let largest = f64::max(encoder_layer + encoder_back, decoder_layer + decoder_back);
        streams + f64::max(head, largest + gradients)
    } else {
        // With all activations and no gradient yet, or in the encoder's last layer, the decoder's being gone.
        let all = encoder * encoder_layer + decoder * decoder_layer + head;
        f64::max(all, encoder * encoder_layer + encoder_back + gradients)
    };
    PROGRAM + FRAGMENTS * (kept + 1.5 * inputs * model + activations)
}

/// The memory that this process may have, in bytes; `None` where the system does not tell.
fn available() -> Option<f64> {
    let read = |path: &str| fs::read_to_string(path).ok();
    let number = |text: String| text.trim().parse::<f64>().ok();
    let machine = read("/proc/meminfo").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        Some(1024.0 * line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()?)
    });
    // Containers have less.
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limits = limits.into_iter().filter_map(|path| number(read(path)?));
    machine.into_iter().chain(limits).reduce(f64::min)
}

#[cfg(test)]
mod tests {
    use crate::{Computation, Optimizer, T5Config, TrainingSize};

    use super::peak;

    /// Gigabytes that trainings took, as `getrusage` told (burn's device `cpu`, three updates; T5-Small:
    /// docs/performance.md).
    #[test]
    fn measured_peaks() {
        let tiny = T5Config::v1_1(4096, 64, 2, 32, 128, 2);
        let small = T5Config::v1_1(4096, 256, 4, 64, 512, 4);
        let wide = T5Config::v1_1(4096, 512, 8, 64, 1024, 6);
        let t5_small = T5Config::v1_1(32_128, 512, 6, 64, 1024, 8);
        for (measured, config, examples, [input_length, target_length], dropout, checkpoint_activations) in [
            (0.15, &tiny, 32, [128, 30], false, false),
            (0.47, &tiny, 256, [128, 30], false, false),
            (1.00, &small, 16, [512, 114], false, false),
            (1.01, &small, 16, [512, 114], true, false),
            (0.54, &small, 16, [512, 114], false, true),
            (1.38, &wide, 4, [512, 114], false, false),
            (2.5, &t5_small, 8, [512, 114], false, false),
        ] {
            let optimizer = Optimizer::adamw_scale();
            let size = TrainingSize { config, examples, input_length, target_length, optimizer, dropout };
            let how = Computation { checkpoint_activations, ..Computation::on("cpu") };
            let estimated = peak(&how, &size) / 1e9;
            assert!((estimated / measured - 1.0).abs() < 0.15, "{estimated} GB, not {measured}");
        }
    }
}
