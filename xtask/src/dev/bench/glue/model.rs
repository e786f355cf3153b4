//! The model that answers: a checkpoint, or random weights trained until they know what answers look like.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use fusion_core::checkpoint::{LazyTensor, Writer};
use glue_eval::data::{BadRows, read_task};
use glue_eval::{FineTuneSettings, lesson};
use pipeline::checkpoint::tokenizer_for;
use pipeline::source::ModelPlace;
use pipeline::write_json;
use t5_model::text::Tokenizer;
use t5_model::{Computation, Dropout, Initialization, Optimizer, T5Config, Update, backends, initialize};

use super::Arguments;
use crate::terminal::{Terminal, interrupt};

/// A model by its location or its size.
#[derive(Clone, Debug, PartialEq)]
pub enum Model {
    Given(ModelPlace),
    Random(Size),
}

/// A model with random weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    name: &'static str,
    d_model: usize,
    heads: usize,
    d_kv: usize,
    d_ff: usize,
    layers: usize,
}

const SIZES: [Size; 3] = [
    Size { name: "tiny", d_model: 16, heads: 2, d_kv: 8, d_ff: 32, layers: 1 }, // for tests
    Size { name: "probe", d_model: 256, heads: 4, d_kv: 64, d_ff: 512, layers: 4 },
    Size { name: "t5-small", d_model: 512, heads: 6, d_kv: 64, d_ff: 1024, layers: 8 },
];

impl FromStr for Model {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match SIZES.into_iter().find(|size| size.name == text) {
            Some(size) => Ok(Model::Random(size)),
            None => text.parse().map(Model::Given),
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Model::Given(place) => f.write_str(&place.name()),
            Model::Random(size) => f.write_str(size.name),
        }
    }
}

impl Size {
    /// The configuration with room for a vocabulary of that many tokens.
    fn config(self, vocabulary: usize) -> T5Config {
        // T5's 32,100 tokens are rounded up to the paper's 32,128.
        let vocabulary = vocabulary.next_multiple_of(128);
        T5Config::v1_1(vocabulary, self.d_model, self.heads, self.d_kv, self.d_ff, self.layers)
    }
}

impl Model {
    /// The checkpoint's directory, created in `folder` if necessary, and its tokenizer.
    pub fn prepare(&self, folder: &Path, arguments: &Arguments) -> Result<(PathBuf, Tokenizer)> {
        let given = arguments.tokenizer.as_deref();
        match self {
            Model::Given(place) => {
                let directory = place.directory(&Terminal)?;
                let (_, config) = T5Config::open(&directory)?;
                let tokenizer = tokenizer_for(&directory, &config, given)?;
                Ok((directory, tokenizer))
            }
            Model::Random(size) => {
                let Some(tokenizer) = given else {
                    bail!("a model with random weights needs a tokenizer: --tokenizer names one");
                };
                let tokenizer = Tokenizer::load(tokenizer)?;
                let directory = folder.join("model");
                teach(&size.config(tokenizer.vocab_size()), &tokenizer, arguments, &directory)?;
                Ok((directory, tokenizer))
            }
        }
    }
}

/// Trains random weights on examples of all tasks, on the first backend's first device, and writes them to a directory.
fn teach(config: &T5Config, tokenizer: &Tokenizer, arguments: &Arguments, directory: &Path) -> Result<()> {
    let tasks = arguments.sample.tasks().into_iter();
    let tasks = tasks.map(|task| read_task(task, &arguments.glue, BadRows::Skip));
    let tasks = tasks.collect::<Result<Vec<_>, _>>()?;
    let backend = backends().into_iter().next().context("no backend is compiled in")?;
    let device = backend.devices().into_iter().next().context("the backend has no device")?;
    let mut session =
        backend.open(&Computation::on(&device.name), config, &initialize(config, Initialization::T5, 1)?)?;
    // The task's name comes first in a prompt; a model that sees little more learns the task's answers
    // sooner.
    let settings = FineTuneSettings { batch_size: 32, input_length: 16, ..FineTuneSettings::default() };
    for step in 1..=arguments.lessons {
        interrupt::check("the measurement is given up")?;
        let batches = lesson(&tasks, tokenizer, &settings, step)?;
        let update = Update {
            optimizer: Optimizer::adafactor(),
            learning_rate: LEARNING_RATE,
            step,
            optimizer_step: step,
            clip_norm: Some(1.0),
            z_loss: 0.0,
            dropout: Dropout::default(),
        };
        let loss = session.train_step(&batches, &update)?.loss;
        eprintln!("lesson {step} of {}: loss {loss:.3}", arguments.lessons);
    }
    Writer::default().weights(directory, LazyTensor::all(&session.export()?)?)?;
    write_json(&directory.join("config.json"), &config.to_json())
}

/// High enough to learn what answers look like within a few dozen steps.
const LEARNING_RATE: f64 = 1e-2;
