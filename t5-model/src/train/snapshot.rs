//! A checkpoint of a training run: a model, and what is needed to continue training it.

use std::collections::BTreeMap;
use std::path::Path;

use fusion_core::atomic::{write_directory_atomically, write_file_atomically};
use fusion_core::checkpoint::{Checkpoint, LazyTensor, TensorFile, Writer};
use fusion_core::lineage::Lineage;
use fusion_core::{Error, HostTensors, TensorSource, json};
use rayon::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{Result, TrainError};
use super::identity::Identity;
use crate::optimizer::write_optimizer_state;
use crate::text::Tokenizer;
use crate::{Optimizer, Session};

const VERSION: u32 = 1;
pub(super) const STATE: &str = "training_state.json";
const OPTIMIZER: &str = "optimizer.safetensors";

/// What is saved with the session's own weights and moments.
pub(super) struct Snapshot<'a, S> {
    /// The state of the run; stored in `training_state.json`, as is `identity`.
    pub state: &'a S,
    pub identity: &'a Identity,
    /// The lineage of the model as it is now, without the hash of its weights.
    pub lineage: Lineage,
    pub tokenizer: &'a Tokenizer,
    /// Other files, by name; those of the tokenizer replace the ones that it would write.
    pub beside: &'a BTreeMap<String, Vec<u8>>,
    /// The optimiser, the number of updates behind its moments, and these; `None` to leave them out.
    pub optimizer: Option<(Optimizer, u64, HostTensors)>,
}

impl<S: Serialize> Snapshot<'_, S> {
    /// Writes the whole checkpoint or nothing.
    ///
    /// # Errors
    /// [`TrainError::NonFiniteWeights`], or any error of the session or the files.
    pub fn write(self, session: &dyn Session, directory: &Path) -> Result<()> {
        let Snapshot { state, identity, mut lineage, tokenizer, beside, optimizer } = self;
        let weights = session.export()?;
        check_finite(&weights)?;
        write_directory_atomically(directory, |directory| {
            session.config().write(directory, LazyTensor::all(&weights)?, &Writer::default())?;
            tokenizer.save(directory)?;
            for (name, content) in beside {
                write_file_atomically(&directory.join(name), content)?;
            }
            // The hash of what arrived in the file, not of what was written to it.
            let weights_blake3 = Checkpoint::open(directory)?.blake3()?;
            let optimizer_blake3 = match optimizer {
                Some((optimizer, step, moments)) => {
                    let (tensors, writer) = (LazyTensor::all(&moments)?, Writer::default());
                    let hash = &weights_blake3;
                    Some(write_optimizer_state(directory, optimizer, step, hash, tensors, &writer)?)
                }
                None => None,
            };
            lineage.blake3 = Some(weights_blake3.clone());
            lineage.write(directory)?;
            let identity = identity.clone();
            let saved = Saved { version: VERSION, state, identity, weights_blake3, optimizer_blake3 };
            Ok(json::write(&directory.join(STATE), &saved)?)
        })
    }
}

/// What a checkpoint says about its training: `training_state.json`.
#[derive(Serialize, Deserialize)]
pub(super) struct Saved<S> {
    version: u32,
    #[serde(flatten)]
    pub state: S,
    pub identity: Identity,
    weights_blake3: String,
    optimizer_blake3: Option<String>,
}

impl<S: DeserializeOwned> Saved<S> {
    /// Reads `training_state.json`.
    ///
    /// # Errors
    /// [`TrainError::Version`], or an error in the file.
    pub fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(STATE);
        let value: Value = json::read(&path)?;
        let version = value.get("version").and_then(Value::as_u64);
        if let Some(version) = version.filter(|version| *version > VERSION.into()) {
            return Err(TrainError::Version { path, version, supported: VERSION });
        }
        Ok(serde_json::from_value(value).map_err(Error::json(path))?)
    }

    /// Whether the optimiser's moments were saved as well.
    pub fn has_optimizer(&self) -> bool {
        self.optimizer_blake3.is_some()
    }

    /// Reads all weights and the optimiser's moments, verifies their hashes, and returns the moments.
    ///
    /// # Errors
    /// If a hash differs or a file cannot be read.
    pub fn verify(&self, directory: &Path) -> Result<HostTensors> {
        let weights = Checkpoint::open(directory)?.blake3()?;
        expect_hash("the weights", &weights, Some(&self.weights_blake3), directory)?;
        let path = directory.join(OPTIMIZER);
        let file = TensorFile::open(&path)?;
        expect_hash(OPTIMIZER, &file.blake3()?, self.optimizer_blake3.as_ref(), directory)?;
        let load = |name: String| Ok((name.clone(), file.load_f32(&name)?));
        file.names().into_iter().map(load).collect()
    }
}

fn expect_hash(what: &str, found: &str, expected: Option<&String>, directory: &Path) -> Result<()> {
    if expected.is_some_and(|expected| expected == found) {
        return Ok(());
    }
    let message = format!("the hash of {what} is not the one in {STATE}");
    Err(Error::Weights { path: directory.into(), message }.into())
}

/// A session only checks weights in the next update, and this may have been the last.
fn check_finite(weights: &HostTensors) -> Result<()> {
    for (parameter, tensor) in weights {
        if !tensor.data.par_iter().all(|value| value.is_finite()) {
            return Err(TrainError::NonFiniteWeights { parameter: parameter.clone() });
        }
    }
    Ok(())
}
