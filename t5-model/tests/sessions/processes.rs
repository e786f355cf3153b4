//! Processes that train together end where one does. They are threads here.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fusion_core::checkpoint::{Checkpoint, TensorFile};
use fusion_core::lineage::Lineage;
use fusion_core::{HostTensors, TensorSource};
use t5_model::backend::{GroupOptions, ProcessGroup};
use t5_model::conformance::{ThreadGroup, random_weights};
use t5_model::text::{Corpus, DataPosition, Denoisers, ExampleStream, Objective, StreamOptions};
use t5_model::train::{Control, Event, Metrics, Outcome, Run, Settings, TrainError, read_metrics, train};
use t5_model::{Schedule, Session, T5Config};
use tempfile::TempDir;

use crate::open;
use crate::text_support::{documents, tokenizer};

/// What happens to a run on one of its ranks.
#[derive(Clone, Copy)]
enum Incident {
    Nothing,
    /// The rank is told to stop after this update.
    Stop {
        rank: usize,
        step: u64,
    },
    /// The rank cannot open the model.
    Fail {
        rank: usize,
    },
}

fn settings() -> Settings {
    Settings {
        steps: 6,
        batch_size: 5,
        micro_batch_size: Some(5),
        schedule: Schedule { warm_up: Some(2), ..Schedule::constant(0.02) },
        dropout: 0.1,
        evaluate_every: 3,
        evaluation_batches: 2,
        checkpoint_every: 2,
        log_every: 1,
        keep_optimizer: true,
        ..Settings::default()
    }
}

/// One rank's part in a run in a directory.
fn run(
    directory: &Path,
    settings: &Settings,
    group: Option<Arc<dyn ProcessGroup>>,
    event: Incident,
) -> Result<Outcome, TrainError> {
    let rank = group.as_ref().map_or(0, |group| group.rank());
    let config = T5Config::v1_1(160, 8, 2, 4, 16, 1);
    let mut open_session =
        |checkpoint: Option<&Path>| -> Result<Box<dyn Session>, Box<dyn Error + Send + Sync>> {
            if matches!(event, Incident::Fail { rank: failing } if failing == rank) {
                return Err("the device is busy".into());
            }
            Ok(match checkpoint {
                None => open(&config, &random_weights(&config, 3)?),
                Some(directory) => open(&config, &Checkpoint::open(directory)?),
            })
        };
    let text = |options: StreamOptions, position| {
        let spans = Denoisers::new(&Objective::T5, 20, &tokenizer()).unwrap();
        let corpus = Corpus::from_documents("sample", documents(60));
        ExampleStream::new(corpus, tokenizer(), spans, options, position)
    };
    let (stop, micro_batch) = (AtomicBool::new(false), settings.micro_batch_size());
    let mut observer = |seen: Event<'_, _>| {
        if let (Event::Step { step, .. }, Incident::Stop { rank: stopping, step: last }) = (&seen, event) {
            stop.fetch_or(stopping == rank && *step == last, Ordering::Relaxed);
        }
    };
    let run = Run {
        directory,
        settings,
        config: &config,
        lineage: &Lineage::default(),
        carried: None,
        tokenizer: &tokenizer(),
        beside: &BTreeMap::new(),
        identity: BTreeMap::new(),
        open_session: &mut open_session,
        open_training_text: &mut |at: DataPosition| text(StreamOptions::training(micro_batch, 5), at),
        open_evaluation_text: &mut || text(StreamOptions::evaluation(), DataPosition::default()),
    };
    train(run, &mut observer, &Control::new(&stop, group))
}

fn run_on(directory: &Path, processes: usize, event: Incident) -> Vec<Result<Outcome, TrainError>> {
    ThreadGroup::run(processes, |group| run(directory, &settings(), Some(group), event))
}

/// The same, with a share of the optimiser's state on each.
fn run_sharded(directory: &Path, processes: usize, event: Incident) -> Vec<Result<Outcome, TrainError>> {
    let options = GroupOptions { shard_optimizer: true, ..GroupOptions::default() };
    ThreadGroup::run_with(processes, options, |group| run(directory, &settings(), Some(group), event))
}

/// The losses of updates and evaluations, and the weights at the end.
fn result(directory: &Path) -> (Vec<f64>, HostTensors) {
    let losses = read_metrics(directory).unwrap().into_iter().map(|metrics| match metrics {
        Metrics::Train { loss, .. } => loss,
        Metrics::Evaluation(point) => point.quality.loss,
    });
    let model = Checkpoint::open(&directory.join("model")).unwrap();
    let weights = model.names().into_iter().map(|name| (name.clone(), model.load_f32(&name).unwrap()));
    (losses.collect(), weights.collect())
}

fn alone() -> (Vec<f64>, HostTensors) {
    let directory = TempDir::new().unwrap();
    run(directory.path(), &settings(), None, Incident::Nothing).unwrap();
    result(directory.path())
}

fn assert_alike(found: &(Vec<f64>, HostTensors), expected: &(Vec<f64>, HostTensors)) {
    assert_eq!(found.0.len(), expected.0.len());
    for (found, expected) in found.0.iter().zip(&expected.0) {
        assert!((found / expected - 1.0).abs() < 1e-5, "{found} is not {expected}");
    }
    for (name, expected) in &expected.1 {
        for (found, expected) in found.1[name].data.iter().zip(&expected.data) {
            assert!((found - expected).abs() < 1e-4, "{name}: {found} is not {expected}");
        }
    }
}

/// Two and three do not divide the batch of five.
#[test]
fn several_train_as_one_does() {
    let expected = alone();
    assert!(expected.0[0] > *expected.0.last().unwrap(), "it learns");
    for processes in [1, 2, 3, 5] {
        let directory = TempDir::new().unwrap();
        let outcomes = run_on(directory.path(), processes, Incident::Nothing);
        let outcomes: Vec<Outcome> = outcomes.into_iter().map(Result::unwrap).collect();
        assert!(outcomes.iter().all(|outcome| outcome == &outcomes[0] && outcome.finished));
        assert_alike(&result(directory.path()), &expected);
        // The same number gives the same bits.
        let again = TempDir::new().unwrap();
        run_on(again.path(), processes, Incident::Nothing)
            .into_iter()
            .for_each(|outcome| drop(outcome.unwrap()));
        assert_eq!(result(again.path()), result(directory.path()));
    }
}

/// How the batch is cut on each process does not matter either.
#[test]
fn micro_batches_change_nothing() {
    let directory = TempDir::new().unwrap();
    let settings = Settings { micro_batch_size: Some(1), ..settings() };
    let outcomes =
        ThreadGroup::run(2, |group| run(directory.path(), &settings, Some(group), Incident::Nothing));
    outcomes.into_iter().for_each(|outcome| drop(outcome.unwrap()));
    assert_alike(&result(directory.path()), &alone());
}

/// Whoever is told to stop, all stop after the same update, and another number of processes goes on.
#[test]
fn what_one_number_began_another_ends() {
    let expected = alone();
    for (before, stopped, after) in [(2, 1, 1), (1, 0, 3), (3, 0, 2)] {
        let directory = TempDir::new().unwrap();
        let outcomes = run_on(directory.path(), before, Incident::Stop { rank: stopped, step: 3 });
        for outcome in outcomes {
            let outcome = outcome.unwrap();
            assert_eq!((outcome.finished, outcome.step), (false, 3));
        }
        for outcome in run_on(directory.path(), after, Incident::Nothing) {
            assert!(outcome.unwrap().finished);
        }
        assert_alike(&result(directory.path()), &expected);
    }
}

/// The moments of all are saved together, and any number goes on from them, with shares or without.
#[test]
fn shares_of_the_optimizer_make_the_whole() {
    let expected = alone();
    for (before, after) in [(2, 3), (3, 1)] {
        let directory = TempDir::new().unwrap();
        for outcome in run_sharded(directory.path(), before, Incident::Stop { rank: 0, step: 3 }) {
            assert_eq!(outcome.unwrap().step, 3);
        }
        for outcome in run_sharded(directory.path(), after, Incident::Stop { rank: 0, step: 4 }) {
            assert_eq!(outcome.unwrap().step, 4);
        }
        run_on(directory.path(), 2, Incident::Nothing).into_iter().for_each(|outcome| drop(outcome.unwrap()));
        assert_alike(&result(directory.path()), &expected);
        let moments = |directory: &Path| {
            let file = TensorFile::open(&directory.join("model/optimizer.safetensors")).unwrap();
            file.names()
        };
        let whole = TempDir::new().unwrap();
        run(whole.path(), &settings(), None, Incident::Nothing).unwrap();
        assert_eq!(moments(directory.path()), moments(whole.path()));
    }
}

#[test]
fn one_that_fails_ends_all() {
    let directory = TempDir::new().unwrap();
    let outcomes = run_on(directory.path(), 3, Incident::Fail { rank: 1 });
    let messages: Vec<String> =
        outcomes.into_iter().map(|outcome| outcome.unwrap_err().to_string()).collect();
    let own = "the model cannot be opened: the device is busy";
    assert_eq!(messages[1], own);
    for message in [&messages[0], &messages[2]] {
        assert_eq!(message, &format!("evaluation at step 0: rank 1: {own}; there is no checkpoint yet"));
    }
}

#[test]
fn more_processes_than_examples_are_refused() {
    let directory = TempDir::new().unwrap();
    for outcome in run_on(directory.path(), 6, Incident::Nothing) {
        let message = outcome.unwrap_err().to_string();
        assert!(message.contains("its 5 examples cannot be divided among 6 processes"), "{message}");
    }
}
