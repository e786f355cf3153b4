//! `metrics.jsonl`: what a run measured, one JSON object per line.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fusion_core::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::evaluate::EvaluationPoint;
use crate::TrainStep;
use crate::backend::Communication;
use crate::train::error::{Result, TrainError};
use crate::train::regime::Progress;

pub(super) const FILE: &str = "metrics.jsonl";

/// A line of `metrics.jsonl`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Metrics {
    /// Means over the updates since the previous line.
    Train {
        /// The last of these updates.
        step: u64,
        /// Input and target tokens trained on so far.
        tokens: u64,
        /// Floating-point operations spent so far.
        flops: f64,
        /// Mean cross-entropy of the target tokens in nats, without z-loss.
        #[serde(deserialize_with = "number")]
        loss: f64,
        /// Share of target tokens predicted correctly.
        accuracy: f64,
        /// The norm of all gradients together, before clipping.
        #[serde(deserialize_with = "number")]
        gradient_norm: f64,
        /// The last update's learning rate.
        learning_rate: f64,
        /// Input and target tokens per second, without evaluations and checkpoints. Only what is measured in time differs
        /// from one run to the next.
        tokens_per_second: f64,
        /// Bytes that each of several processes gave to the others in an update.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exchanged_bytes: Option<f64>,
        /// The share of the time in which this process waited for others.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        communication_share: Option<f64>,
    },
    /// An evaluation.
    Evaluation(EvaluationPoint),
}

/// What JSON writes of a number that is not finite, `null`, is read as NaN: the log of a training that diverged can be
/// read.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

impl Metrics {
    pub(super) fn step(&self) -> u64 {
        match *self {
            Metrics::Train { step, .. } => step,
            Metrics::Evaluation(point) => point.step,
        }
    }

    /// The values shown in TensorBoard.
    pub(super) fn scalars(&self) -> Vec<(String, f64)> {
        match *self {
            Metrics::Train {
                loss,
                accuracy,
                gradient_norm,
                learning_rate,
                tokens_per_second,
                exchanged_bytes,
                communication_share,
                ..
            } => {
                let values = [
                    ("loss", Some(loss)),
                    ("accuracy", Some(accuracy)),
                    ("gradient_norm", Some(gradient_norm)),
                    ("learning_rate", Some(learning_rate)),
                    ("tokens_per_second", Some(tokens_per_second)),
                    ("exchanged_bytes", exchanged_bytes),
                    ("communication_share", communication_share),
                ];
                let known = values.into_iter().filter_map(|(name, value)| Some((name, value?)));
                known.map(|(name, value)| (format!("train/{name}"), value)).collect()
            }
            Metrics::Evaluation(point) => {
                point.quality.values().map(|(name, value)| (format!("eval/{name}"), value)).collect()
            }
        }
    }
}

/// Sums over updates; a line of metrics gives their means.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Window {
    pub updates: u64,
    pub loss: f64,
    pub correct: u64,
    pub target_tokens: u64,
    pub gradient_norm: f64,
    /// Input and target tokens of this process's updates, and the time they took.
    #[serde(skip)]
    pub timed_tokens: u64,
    #[serde(skip)]
    pub seconds: f64,
    /// What this process's updates have exchanged, if there are others.
    #[serde(skip)]
    communication: Option<Communication>,
}

impl Window {
    /// `tokens` are inputs and targets.
    pub fn add(&mut self, result: &TrainStep, tokens: u64, seconds: f64) {
        self.updates += 1;
        self.loss += result.loss * result.tokens as f64;
        self.correct += result.correct;
        self.target_tokens += result.tokens;
        self.gradient_norm += result.gradient_norm;
        self.timed_tokens += tokens;
        self.seconds += seconds;
    }

    pub fn communicated(&mut self, Communication { bytes, seconds }: Communication) {
        let all = self.communication.get_or_insert_default();
        all.bytes += bytes;
        all.seconds += seconds;
    }

    /// The means, if there was an update.
    pub fn metrics(&self, progress: Progress, learning_rate: f64) -> Metrics {
        let Progress { step, tokens, flops, .. } = progress;
        let target_tokens = self.target_tokens.max(1) as f64;
        Metrics::Train {
            step,
            tokens,
            flops,
            loss: self.loss / target_tokens,
            accuracy: self.correct as f64 / target_tokens,
            gradient_norm: self.gradient_norm / self.updates.max(1) as f64,
            learning_rate,
            tokens_per_second: self.timed_tokens as f64 / self.seconds.max(1e-9),
            exchanged_bytes: self.communication.map(|all| all.bytes as f64 / self.updates.max(1) as f64),
            communication_share: self.communication.map(|all| all.seconds / self.seconds.max(1e-9)),
        }
    }
}

/// Reads a run's metrics. An incomplete last line, left by a process that was killed, is ignored.
///
/// # Errors
/// If the file cannot be read, or a line is not [`Metrics`].
pub fn read_metrics(run_directory: &Path) -> Result<Vec<Metrics>, TrainError> {
    let path = run_directory.join(FILE);
    let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).enumerate();
    let parse = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| TrainError::Metrics {
            path: path.clone(),
            line: number + 1,
            problem: error.to_string(),
        })
    };
    lines.map(parse).collect()
}

/// The file, open for a run to append to.
pub(super) struct MetricsFile {
    path: PathBuf,
    file: File,
    /// How many there were when the file was opened.
    pub lines: u64,
}

impl MetricsFile {
    /// Opens the file, keeping its first `lines` lines, or as many as there are, and drops the rest.
    pub fn open(run_directory: &Path, lines: u64) -> Result<Self> {
        let path = run_directory.join(FILE);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(Error::io("open", &path))?;
        let mut reader = BufReader::new(file);
        let (mut kept, mut length, mut line) = (0, 0, Vec::new());
        while kept < lines {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).map_err(Error::io("read", &path))?;
            if line.last() != Some(&b'\n') {
                break;
            }
            kept += 1;
            length += read as u64;
        }
        let mut file = reader.into_inner();
        file.set_len(length).map_err(Error::io("truncate", &path))?;
        file.seek(SeekFrom::Start(length)).map_err(Error::io("read", &path))?;
        Ok(MetricsFile { path, file, lines: kept })
    }

    pub fn append(&mut self, metrics: &Metrics) -> Result<()> {
        let failed = |error| Error::io("write", &self.path)(error);
        let mut line = serde_json::to_vec(metrics).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        Ok(self.file.write_all(&line).map_err(failed)?)
    }

    /// Returns when all lines are on disk.
    pub fn sync(&self) -> Result<()> {
        Ok(self.file.sync_data().map_err(Error::io("sync", &self.path))?)
    }
}
