use clap::{Args, ValueEnum};
use t5_model::{Batch, T5Config};

/// What is trained, and on what.
#[derive(Args, Clone, Copy, Debug)]
pub struct Workload {
    /// The model to train
    #[arg(long, value_enum, default_value = "probe")]
    model: Model,
    /// Examples per batch [default: depends on the model]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    batch: Option<u16>,
}

/// A model, with its usual batch.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Model {
    /// For tests
    #[value(hide = true)]
    Tiny,
    /// d_model 64, 2 heads of 32, d_ff 128, 2 + 2 layers, vocabulary 512; 16 x (128 + 29) tokens
    #[value(name = "width-64")]
    Width64,
    /// The same at twice the width; 16 x (128 + 29) tokens
    #[value(name = "width-128")]
    Width128,
    /// d_model 256, 4 heads of 64, d_ff 512, 4 + 4 layers, vocabulary 8,192; 16 x (128 + 32) tokens
    Probe,
    /// The paper's T5-Small; 8 x (512 + 114) tokens
    T5Small,
    /// T5 1.1 Base: d_model 768, 12 heads of 64, d_ff 2048, 12 + 12 layers, vocabulary 32,128; 8 x (512 + 114) tokens
    T5Base,
    /// T5 1.1 Large: d_model 1024, 16 heads of 64, d_ff 2816, 24 + 24 layers; 8 x (512 + 114) tokens
    T5Large,
    /// The paper's T5-L of 1.1 billion parameters: d_model 2048, 24 heads of 128, d_ff 4096, 8 + 8 layers; 8 x (512 +
    /// 114) tokens
    #[value(name = "t5-l")]
    T5L,
}

impl Model {
    /// What it is; examples, and tokens of an input and of a target.
    fn shape(self) -> (T5Config, [usize; 3]) {
        match self {
            Model::Tiny => (T5Config::v1_1(64, 16, 2, 8, 32, 1), [2, 8, 4]),
            Model::Width64 => (T5Config::v1_1(512, 64, 2, 32, 128, 2), [16, 128, 29]),
            Model::Width128 => (T5Config::v1_1(512, 128, 4, 32, 256, 2), [16, 128, 29]),
            Model::Probe => (T5Config::v1_1(8_192, 256, 4, 64, 512, 4), [16, 128, 32]),
            Model::T5Small => (T5Config::v1_1(32_128, 512, 6, 64, 1024, 8), [8, 512, 114]),
            Model::T5Base => (T5Config::v1_1(32_128, 768, 12, 64, 2048, 12), [8, 512, 114]),
            Model::T5Large => (T5Config::v1_1(32_128, 1024, 16, 64, 2816, 24), [8, 512, 114]),
            Model::T5L => (T5Config::v1_1(32_128, 2048, 24, 128, 4096, 8), [8, 512, 114]),
        }
    }
}

impl Workload {
    pub fn is_tiny(&self) -> bool {
        self.model == Model::Tiny
    }

    pub fn config(&self) -> T5Config {
        self.model.shape().0
    }

    /// The number of examples, and the tokens per input and per target.
    pub fn sizes(&self) -> [usize; 3] {
        let (_, [size, input, target]) = self.model.shape();
        [self.batch.map_or(size, usize::from), input, target]
    }

    /// Input and target tokens.
    pub fn tokens(&self) -> usize {
        let [size, input, target] = self.sizes();
        size * (input + target)
    }

    /// Arbitrary tokens without padding.
    pub fn batch(&self) -> Batch {
        let [size, input, target] = self.sizes();
        let ordinary = self.config().vocab_size - 2; // all but pad and end of sequence
        let ids = |count: usize| (0..count).map(|i| (2 + i * 7919 % ordinary) as i32).collect::<Vec<_>>();
        let (inputs, targets) = (ids(size * input), ids(size * target));
        Batch::padded(inputs.chunks(input).zip(targets.chunks(target)), 0)
    }

    /// The same as arguments for `train-worker`.
    pub fn arguments(&self) -> Vec<String> {
        let [size, ..] = self.sizes();
        vec!["--model".to_owned(), self.name(), "--batch".to_owned(), size.to_string()]
    }

    pub fn name(&self) -> String {
        self.model.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}
