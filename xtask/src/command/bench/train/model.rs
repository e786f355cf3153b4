use clap::ValueEnum;
use t5_model::{Batch, T5Config};

/// A model and the batch it trains on.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Model {
    /// For tests
    #[value(hide = true)]
    Tiny,
    /// d_model 256, 4 heads of 64, d_ff 512, 4 + 4 layers, vocabulary 8,192; 16 x (128 + 32) tokens
    Probe,
    /// The paper's T5-Small; 8 x (512 + 114) tokens
    T5Small,
}

impl Model {
    pub fn config(self) -> T5Config {
        match self {
            Model::Tiny => T5Config::v1_1(64, 16, 2, 8, 32, 1),
            Model::Probe => T5Config::v1_1(8_192, 256, 4, 64, 512, 4),
            Model::T5Small => T5Config::v1_1(32_128, 512, 6, 64, 1024, 8),
        }
    }

    /// Examples, and tokens of an input and of a target.
    pub fn sizes(self) -> [usize; 3] {
        match self {
            Model::Tiny => [2, 8, 4],
            Model::Probe => [16, 128, 32],
            Model::T5Small => [8, 512, 114],
        }
    }

    /// Input and target tokens.
    pub fn tokens(self) -> usize {
        let [size, input, target] = self.sizes();
        size * (input + target)
    }

    /// Arbitrary tokens without padding.
    pub fn batch(self) -> Batch {
        let [size, input, target] = self.sizes();
        let ordinary = self.config().vocab_size as i32 - 2; // all but pad and end of sequence
        let ids = |count: usize| (0..count as i32).map(|i| 2 + i * 7919 % ordinary).collect::<Vec<_>>();
        let (inputs, targets) = (ids(size * input), ids(size * target));
        Batch::padded(inputs.chunks(input).zip(targets.chunks(target)), 0)
    }

    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}
