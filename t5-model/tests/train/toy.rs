//! A model with eight weights, and runs of it.

use fusion_core::atomic::RECORD;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use fusion_core::checkpoint::Checkpoint;
use fusion_core::lineage::Lineage;
use fusion_core::{HostTensor, HostTensors, TensorSource};
use serde_json::Value;
use t5_model::backend::TokenLoss;
use t5_model::optimizer::OptimizerState;
use t5_model::text::{Corpus, DataPosition, Denoisers, ExampleStream, Objective, Order, StreamOptions};
use t5_model::train::{Control, Outcome, PretrainingEvent as Event, Run, Settings, TrainError, train};
use t5_model::{Batch, Forward, Schedule, Session, SessionError, T5Config, TrainStep, Update};
use tempfile::TempDir;

use crate::text_support::{documents, tokenizer};

const SIZE: usize = 8;

/// How and when the toy misbehaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// The device fails in this update.
    Update(u64),
    /// It panics in this update.
    Panic(u64),
    /// The loss of this update is not a number.
    NonFinite(u64),
    /// This update succeeds, but leaves a weight that is not a number.
    Weights(u64),
    /// From this update on, exported weights do not fit their shape.
    Export(u64),
    /// The loss of an evaluation after this update is not a number.
    Evaluation(u64),
}

/// Weights with momentum. An update depends on everything it is given: the tokens in order, the step, the
/// learning rate, the dropout seed.
struct Toy {
    config: T5Config,
    weights: Vec<f32>,
    momentum: Option<Vec<f32>>,
    step: u64,
    /// The number of updates behind the optimiser's state before the first.
    carried_steps: u64,
    micro_batches: usize,
    fault: Option<Fault>,
    asynchronous: bool,
    begun: Vec<Result<TrainStep, SessionError>>,
}

impl Toy {
    fn step(&mut self, micro_batches: &[Batch], update: &Update) -> Result<TrainStep, SessionError> {
        let step = update.step;
        match self.fault {
            Some(Fault::Update(at)) if at == step => return Err(SessionError::Device("it is gone".into())),
            Some(Fault::Panic(at)) if at == step => panic!("the toy is broken"),
            Some(Fault::NonFinite(at)) if at == step => {
                return Err(SessionError::NonFinite { step, loss: f64::NAN, gradient_norm: f64::INFINITY });
            }
            _ => {}
        }
        assert_eq!(micro_batches.len(), self.micro_batches);
        assert_eq!(update.optimizer_step, self.carried_steps + step);
        let labels: Vec<i32> = micro_batches.iter().flat_map(|batch| batch.labels.clone()).collect();
        let ids = micro_batches.iter().flat_map(|batch| &batch.input_ids).chain(&labels);
        let momentum = self.momentum.get_or_insert_with(|| vec![0.0; SIZE]);
        for (place, &id) in ids.enumerate() {
            let noise = (step + place as u64 + update.dropout.seed) % 13;
            momentum[id as usize % SIZE] += (id % 7) as f32 * 1e-3 + noise as f32 * 1e-4;
        }
        let loss = labels.iter().map(|&label| self.loss(label)).sum::<f64>() / labels.len() as f64;
        for (weight, momentum) in self.weights.iter_mut().zip(self.momentum.iter_mut().flatten()) {
            *momentum *= 0.9;
            *weight -= update.learning_rate as f32 * *momentum;
        }
        self.step = step;
        if self.fault == Some(Fault::Weights(step)) {
            self.weights[3] = f32::NAN;
        }
        let correct = labels.iter().filter(|&&label| label % 3 == 0).count() as u64;
        Ok(TrainStep { loss, correct, tokens: labels.len() as u64, gradient_norm: loss * 0.3 })
    }

    fn tensor(name: &str, data: &[f32]) -> HostTensors {
        [(name.to_owned(), HostTensor { shape: vec![SIZE], data: data.to_vec() })].into_iter().collect()
    }

    fn loss(&self, label: i32) -> f64 {
        self.weights[label as usize % SIZE].abs().into()
    }
}

impl Session for Toy {
    fn config(&self) -> &T5Config {
        &self.config
    }

    fn begin_step(&mut self, micro_batches: &[Batch], update: &Update) -> Result<(), SessionError> {
        // A failure on a device becomes known when its results are requested; no later update happens.
        let failed = self.begun.last().is_some_and(Result::is_err);
        match self.step(micro_batches, update) {
            Err(error) if !self.asynchronous => return Err(error),
            _ if failed => {}
            step => self.begun.push(step),
        }
        Ok(())
    }

    fn finish_steps(&mut self) -> Result<Vec<TrainStep>, SessionError> {
        self.begun.drain(..).collect()
    }

    fn is_asynchronous(&self) -> bool {
        self.asynchronous
    }

    fn evaluate(&mut self, batch: &Batch) -> Result<Vec<TokenLoss>, SessionError> {
        let fault = self.fault == Some(Fault::Evaluation(self.step));
        let token = |&label: &i32| TokenLoss {
            loss: if fault { f64::NAN } else { self.loss(label) },
            correct: self.loss(label) < 0.3,
        };
        Ok(batch.labels.iter().map(token).collect())
    }

    fn forward(&mut self, _: &Batch, _: bool) -> Result<Forward, SessionError> {
        unreachable!("training does not look at logits")
    }

    fn generate(
        &mut self,
        _: &Batch,
        _: &t5_model::Decoding,
        _: &dyn Fn(&[i32]) -> bool,
    ) -> Result<Vec<Vec<i32>>, SessionError> {
        unreachable!("training does not generate")
    }

    fn export(&self) -> Result<HostTensors, SessionError> {
        let mut tensors = Toy::tensor("toy.weight", &self.weights);
        if matches!(self.fault, Some(Fault::Export(step)) if self.step >= step) {
            tensors.insert("toy.bias".into(), HostTensor { shape: vec![3], data: vec![0.0; 2] });
        }
        Ok(tensors)
    }

    fn optimizer_state(&self) -> Result<HostTensors, SessionError> {
        let momentum = self.momentum.as_ref();
        Ok(momentum.map(|momentum| Toy::tensor("toy.weight.momentum", momentum)).unwrap_or_default())
    }

    fn load_optimizer_state(&mut self, mut state: HostTensors) -> Result<(), SessionError> {
        self.momentum = state.remove("toy.weight.momentum").map(|tensor| tensor.data);
        assert!(state.is_empty());
        Ok(())
    }
}

/// Ten updates; nothing else always falls on the same steps.
pub fn settings() -> Settings {
    Settings {
        steps: 10,
        batch_size: 4,
        micro_batch_size: Some(2),
        schedule: Schedule { warm_up: Some(3), ..Schedule::constant(0.5) },
        dropout: 0.1,
        seed: 5,
        evaluate_every: 4,
        evaluation_batches: 3,
        checkpoint_every: 3,
        keep_checkpoints: 2,
        log_every: 2,
        ..Settings::default()
    }
}

pub fn config() -> T5Config {
    T5Config::v1_1(256, 8, 2, 4, 16, 1)
}

/// Blocks end in the middle of updates.
pub fn text_options(batch_size: usize, seed: u64) -> StreamOptions {
    StreamOptions {
        order: Order::Training { shuffle_buffer: 7 },
        ..StreamOptions::training(batch_size, seed)
    }
}

/// A run in a temporary directory.
pub struct Trial {
    pub directory: TempDir,
    pub settings: Settings,
    pub config: T5Config,
    pub lineage: Lineage,
    pub carried: Option<OptimizerState>,
    pub identity: BTreeMap<String, Value>,
    pub fault: Option<Fault>,
    /// Whether the device is asynchronous.
    pub asynchronous: bool,
    /// Events of all calls so far, without times and paths.
    pub events: Vec<String>,
    /// The number of sessions opened.
    pub opened: usize,
}

impl Default for Trial {
    fn default() -> Self {
        Trial {
            directory: tempfile::tempdir().unwrap(),
            settings: settings(),
            config: config(),
            lineage: Lineage::default(),
            carried: None,
            identity: BTreeMap::from([("text.files".into(), Value::from("sample"))]),
            fault: None,
            asynchronous: false,
            events: Vec::new(),
            opened: 0,
        }
    }
}

impl Trial {
    /// Trains to the end.
    pub fn train(&mut self) -> Result<Outcome, TrainError> {
        self.train_until(|_| false)
    }

    /// Asks the run to stop at the event for which `stop` is true.
    pub fn train_until(&mut self, stop: impl Fn(&Event<'_>) -> bool) -> Result<Outcome, TrainError> {
        let flag = AtomicBool::new(false);
        let tokenizer = tokenizer();
        let spans = Denoisers::new(&Objective::T5, 20, &tokenizer).unwrap();
        let open = |options, position| {
            let corpus = Corpus::from_documents("sample", documents(60));
            ExampleStream::new(corpus, tokenizer.clone(), spans.clone(), options, position)
        };
        let (micro_batch_size, seed) = (self.settings.micro_batch_size(), self.settings.seed);
        let micro_batches = self.settings.batch_size / micro_batch_size;
        let (config, fault, opened) = (self.config.clone(), self.fault, &mut self.opened);
        let carried_steps = self.carried.as_ref().map_or(0, OptimizerState::step);
        let mut open_session = |checkpoint: Option<&Path>| {
            *opened += 1;
            let weights = match checkpoint {
                None => vec![0.5; SIZE],
                Some(directory) => Checkpoint::open(directory)?.load_f32("toy.weight")?.data,
            };
            let config = config.clone();
            let (momentum, begun, asynchronous) = (None, vec![], self.asynchronous);
            let toy = Toy {
                config,
                weights,
                momentum,
                step: 0,
                carried_steps,
                micro_batches,
                fault,
                asynchronous,
                begun,
            };
            Ok::<Box<dyn Session>, Box<dyn Error + Send + Sync>>(Box::new(toy))
        };
        let events = &mut self.events;
        let mut observer = |event: Event<'_>| {
            if stop(&event) {
                flag.store(true, Ordering::Relaxed);
            }
            events.extend(describe(&event));
        };
        let run = Run {
            directory: self.directory.path(),
            settings: &self.settings,
            config: &self.config,
            lineage: &self.lineage,
            carried: self.carried.as_ref(),
            tokenizer: &tokenizer,
            beside: &BTreeMap::new(),
            identity: self.identity.clone(),
            open_session: &mut open_session,
            open_training_text: &mut |position: DataPosition| {
                open(text_options(micro_batch_size, seed), position)
            },
            open_evaluation_text: &mut || open(StreamOptions::evaluation(), DataPosition::default()),
        };
        train(run, &mut observer, &Control::alone(&flag))
    }

    /// Starts from the optimiser state of another run's finished model.
    pub fn carry(&mut self, other: &Trial) {
        let model = other.path("model");
        let weights = Checkpoint::open(&model).unwrap().blake3().unwrap();
        self.carried = Some(OptimizerState::open(&model, &weights).unwrap());
        self.settings.carry_optimizer = true;
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// The names in a folder, sorted.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != RECORD);
        names.sort();
        names
    }

    pub fn message<T>(&self, result: Result<T, TrainError>) -> String {
        crate::text_support::message(result.err().expect("an error"), self.directory.path())
    }
}

fn describe(event: &Event<'_>) -> Option<String> {
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    match event {
        Event::Resumed { checkpoint, step, missing_metrics } => {
            Some(format!("resumed {} at {step}, {missing_metrics} lines missing", name(checkpoint)))
        }
        Event::Step { step, .. } => Some(format!("step {step}")),
        Event::Evaluated { step, .. } => Some(format!("evaluated {step}")),
        Event::CheckpointWritten { path, step, .. } => Some(format!("wrote {} at {step}", name(path))),
        _ => None,
    }
}
