//! Estimates the GPU memory that training needs.

use t5_model::{Computation, Precision, TrainingSize, parameter_table};

use crate::cuda::{fits_tiles, most_positions};

/// The CUDA context, cuBLAS workspaces and loaded kernels, in bytes.
const CONTEXT: f64 = 0.6e9;
/// Rounding and fragmentation in libtorch's caching allocator.
const FRAGMENTS: f64 = 1.04;
/// Logits may take 1 / LOGITS of the GPU's memory at a time.
pub const LOGITS: i64 = 64;

/// A GPU's memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub total: f64,
    /// The maximum shared memory per block.
    pub shared: i64,
}

impl Memory {
    pub const H100: Memory = Memory { total: 80e9, shared: 227 << 10 };
}

/// Peak memory in bytes, on a GPU with this memory.
pub fn training_peak(how: &Computation, size: &TrainingSize<'_>, memory: Memory) -> f64 {
    let TrainingSize { config, optimizer, .. } = size;
    let parameters = parameter_table(config).map_or(0, |table| table.parameter_count()) as f64;
    let element = element(how.precision);
    // Weights and gradients are f32; matrix products use copies of the weights in their own type.
    let copies = if how.precision == Precision::F32 { 0.0 } else { element };
    let moments = parameter_table(config).map_or(0, |table| optimizer.state_size(&table)) as f64;
    let kept = parameters * (4.0 + copies) + moments;
    let layers = Layers::new(how.precision, size, memory);
    let [encoder, decoder] = [config.num_layers, config.num_decoder_layers()].map(|layers| layers as f64);
    let [inputs, targets] =
        [size.input_length, size.target_length].map(|length| (size.examples * length) as f64);
    let stream = 4.0 * config.d_model as f64;
    // Head and loss, when all activations exist but no gradient of a layer does yet.
    let logits = (targets * config.vocab_size as f64 * element).min(memory.total / LOGITS as f64);
    let head = logits + 4.0 * (config.vocab_size * config.d_model) as f64 + 3.0 * targets * stream;
    let encoded = inputs * stream * 1.5;
    let peak = if how.checkpoint_activations {
        let streams = (encoder + 1.0) * inputs * stream + (decoder + 1.0) * targets * stream;
        let largest =
            f64::max(layers.encoder + layers.encoder_gradients, layers.decoder + layers.decoder_gradients);
        streams + encoded + f64::max(head, largest + 4.0 * parameters)
    } else {
        let activations = encoder * layers.encoder + decoder * layers.decoder;
        // The last encoder layer during the backward pass, when the decoder is finished.
        let back = encoder * layers.encoder + layers.encoder_gradients + 4.0 * parameters;
        encoded + f64::max(activations + head, back)
    };
    CONTEXT + FRAGMENTS * (kept + peak)
}

/// What our own attention kernels take, if that is not this training: libtorch's operations then store its
/// probabilities.
pub fn stored_attention(precision: Precision, size: &TrainingSize<'_>, memory: Memory) -> Option<String> {
    let features = size.config.d_kv as i64;
    if precision != Precision::Bf16 || !fits_tiles(features) {
        return Some("bf16, and heads of up to 128 features in multiples of 8".into());
    }
    let most = most_positions(features, memory.shared);
    (size.input_length.max(size.target_length) as i64 > most).then(|| match most {
        0 => "heads of up to 64 features, on this device".into(),
        most => format!("up to {most} positions with these heads, on this device"),
    })
}

fn element(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 4.0,
        Precision::Bf16 => 2.0,
    }
}

/// Bytes that one layer saves for the backward pass, and that its backward pass allocates.
struct Layers {
    encoder: f64,
    decoder: f64,
    encoder_gradients: f64,
    decoder_gradients: f64,
}

impl Layers {
    fn new(precision: Precision, size: &TrainingSize<'_>, memory: Memory) -> Self {
        let &TrainingSize { config, examples, input_length, target_length, dropout, .. } = size;
        let element = element(precision);
        let [model, inner, hidden] =
            [config.d_model, config.inner_dim(), config.d_ff].map(|width| width as f64);
        let [inputs, targets] = [input_length, target_length].map(|length| (examples * length) as f64);
        // The residual stream in f32, and its normalised copy.
        let normed = (4.0 + element) * model;
        // q, k, v and the result.
        let own = normed + 4.0 * element * inner;
        // The gate, the value and their product; dropout keeps its result in addition to its input.
        let feed_forward = normed + element * hidden * if dropout { 4.0 } else { 3.0 };
        let crossing = targets * (normed + 2.0 * element * inner) + inputs * 2.0 * element * inner;
        // Our own kernels store no probabilities; where they cannot be used, probabilities are stored, with
        // copies of what they are computed from.
        let is_stored = stored_attention(precision, size, memory).is_some();
        let stored = |queries: usize, keys: usize| {
            let pairs = (examples * config.num_heads * queries * keys) as f64;
            let copies = element * inner * (examples * (2 * queries + 2 * keys)) as f64;
            let probabilities = pairs * (4.0 + if dropout { 4.0 + element } else { 0.0 });
            match is_stored {
                true => probabilities + copies,
                // A bit for each probability.
                false => pairs * if dropout { 1.0 / 8.0 } else { 0.0 },
            }
        };
        let feed_forward_gradients = 4.0 * model + element * (model + 3.0 * hidden);
        Layers {
            encoder: inputs * (own + feed_forward) + stored(input_length, input_length),
            decoder: targets * (own + feed_forward)
                + crossing
                + stored(target_length, target_length)
                + stored(target_length, input_length),
            encoder_gradients: inputs * feed_forward_gradients + stored(input_length, input_length),
            decoder_gradients: targets * feed_forward_gradients + inputs * 4.0 * model,
        }
    }
}

/// The largest divisor of the batch whose estimated peak fits, if any.
pub fn fitting(how: &Computation, size: &TrainingSize<'_>, memory: Memory) -> Option<usize> {
    size.fitting(|size| training_peak(how, size, memory) <= memory.total)
}

#[cfg(test)]
mod tests {
    use t5_model::{Optimizer, T5Config};

    use super::*;

    fn base() -> T5Config {
        T5Config::v1_1(32_128, 768, 12, 64, 2048, 12)
    }

    /// One training: a batch of examples of 512 + 114 tokens.
    struct Training {
        config: T5Config,
        examples: usize,
        precision: Precision,
        checkpoint_activations: bool,
        optimizer: Optimizer,
        dropout: bool,
    }

    impl Training {
        fn of(config: T5Config, examples: usize) -> Self {
            Training {
                config,
                examples,
                precision: Precision::Bf16,
                checkpoint_activations: false,
                optimizer: Optimizer::adamw(),
                dropout: false,
            }
        }

        fn checkpointed(self) -> Self {
            Training { checkpoint_activations: true, ..self }
        }

        /// In GB, on a GPU with `total` bytes.
        fn peak(&self, total: f64) -> f64 {
            let &Training { ref config, examples, precision, checkpoint_activations, optimizer, dropout } =
                self;
            let how = Computation { precision, checkpoint_activations, ..Computation::on("cuda:0") };
            let size =
                TrainingSize { config, examples, input_length: 512, target_length: 114, optimizer, dropout };
            training_peak(&how, &size, Memory { total, ..Memory::H100 }) / 1e9
        }
    }

    /// What `nvidia-smi` reported during `bench train` and `bench train-worker`, in GB.
    #[test]
    fn measured_peaks() {
        let small = || T5Config::v1_1(32_128, 512, 6, 64, 1024, 8);
        let large = || T5Config::v1_1(32_128, 1024, 16, 64, 2816, 24);
        let in_f32 = |training| Training { precision: Precision::F32, ..training };
        let with_dropout = |training| Training { dropout: true, ..training };
        let with_adafactor = |training| Training { optimizer: Optimizer::adafactor(), ..training };
        let h100 = [
            (15.0, Training::of(small(), 128)),
            (36.8, Training::of(base(), 128)),
            (12.0, Training::of(base(), 128).checkpointed()),
            (25.9, in_f32(Training::of(base(), 32))),
        ];
        let h200 = [
            (15.0, Training::of(small(), 128)),
            (36.8, Training::of(base(), 128)),
            (34.3, with_adafactor(Training::of(base(), 128))),
            (38.0, with_dropout(Training::of(base(), 128))),
            (25.9, in_f32(Training::of(base(), 32))),
            (55.1, Training::of(large(), 64)),
            (27.0, Training::of(large(), 128).checkpointed()),
        ];
        let all = h100.map(|row| (85e9, row)).into_iter().chain(h200.map(|row| (150.8e9, row)));
        let mut wrong = vec![];
        for (total, (measured, training)) in all {
            let predicted = training.peak(total);
            if (predicted / measured - 1.0).abs() > 0.15 {
                wrong.push(format!("{predicted:.1} GB, measured {measured} GB: {:?}", training.config));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    fn of_lengths(config: &T5Config, input_length: usize) -> TrainingSize<'_> {
        let (optimizer, dropout) = (Optimizer::adamw(), false);
        TrainingSize { config, examples: 128, input_length, target_length: 114, optimizer, dropout }
    }

    #[test]
    fn other_attention_is_told() {
        let of_heads = |d_kv| T5Config::v1_1(32_128, 2048, 24, d_kv, 4096, 8);
        // As GPUs for games have it.
        let small = Memory { total: 24e9, shared: 99 << 10 };
        let takes = |d_kv, length, memory| {
            stored_attention(Precision::Bf16, &of_lengths(&of_heads(d_kv), length), memory)
        };
        assert_eq!(takes(64, 512, Memory::H100), None);
        assert_eq!(takes(128, 512, Memory::H100), None);
        assert_eq!(takes(64, 512, small), None);
        let other = Some("bf16, and heads of up to 128 features in multiples of 8".into());
        assert_eq!(takes(136, 512, Memory::H100), other);
        assert_eq!(stored_attention(Precision::F32, &of_lengths(&base(), 512), Memory::H100), other);
        assert_eq!(takes(128, 512, small), Some("heads of up to 64 features, on this device".into()));
        let shorter = "up to 2624 positions with these heads, on this device";
        assert_eq!(takes(64, 4096, Memory::H100), Some(shorter.into()));
    }

    #[test]
    fn smaller_batches_fit() {
        let how = Computation { precision: Precision::Bf16, ..Computation::on("cuda:0") };
        let config = base();
        let fitting = |total| fitting(&how, &of_lengths(&config, 512), Memory { total, ..Memory::H100 });
        assert_eq!(fitting(85e9), Some(128));
        assert_eq!(fitting(16e9), Some(32));
        assert_eq!(fitting(4e9), None);
    }
}
