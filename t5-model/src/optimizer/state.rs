//! An optimiser's state stored next to a model's weights: the moments in `optimizer.safetensors`, and
//! `optimizer.json`, which identifies what they belong to.

use std::path::{Path, PathBuf};

use fusion_core::checkpoint::{LazyTensor, TensorFile, Writer};
use fusion_core::table::ParamTable;
use fusion_core::{HostTensors, TensorSource, json};
use serde::{Deserialize, Serialize};

use super::{Optimizer, Role};
use crate::{Error, Result};

const VERSION: u32 = 1;
const HEADER: &str = "optimizer.json";
const MOMENTS: &str = "optimizer.safetensors";

/// `optimizer.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u32,
    optimizer: Optimizer,
    step: u64,
    blake3: String,
    weights_blake3: String,
}

/// A stored state, which can be loaded or carried to a child.
#[derive(Debug)]
pub struct OptimizerState {
    pub(super) directory: PathBuf,
    pub(super) optimizer: Optimizer,
    pub(super) step: u64,
    blake3: String,
    pub(super) moments: TensorFile,
}

impl OptimizerState {
    /// Opens the state next to the weights with the given hash. Reads all of it to verify its own hash.
    ///
    /// # Errors
    /// [`Error::OptimizerState`] if there is no state, or it belongs to other weights.
    pub fn open(directory: &Path, weights_blake3: &str) -> Result<Self> {
        let fail = |problem: String| Err(Error::OptimizerState { directory: directory.into(), problem });
        let path = directory.join(HEADER);
        if !path.exists() {
            return fail(format!(
                "there is no {HEADER}; a training leaves one beside its last model if it is told to \
                 (keep_optimizer), and in each of its checkpoints/"
            ));
        }
        let value: serde_json::Value = json::read(&path)?;
        let version = value.get("version").and_then(serde_json::Value::as_u64);
        if let Some(version) = version.filter(|version| *version > VERSION.into()) {
            return fail(format!(
                "{HEADER} is of version {version}, newer than the {VERSION} this program reads"
            ));
        }
        let header: Header = serde_json::from_value(value).map_err(fusion_core::Error::json(path))?;
        let Header { optimizer, step, blake3, .. } = header;
        if let Some(problem) = optimizer.problem() {
            return fail(format!("{HEADER}: {problem}"));
        }
        if header.weights_blake3 != weights_blake3 {
            return fail("it belongs to other weights than those beside it".into());
        }
        let moments = TensorFile::open(&directory.join(MOMENTS))?;
        if moments.blake3()? != blake3 {
            return fail(format!("the hash of {MOMENTS} is not the one in {HEADER}"));
        }
        if step == 0 {
            return fail("no update was made yet, so there is nothing to go on from".into());
        }
        Ok(OptimizerState { directory: directory.into(), optimizer, step, blake3, moments })
    }

    /// The number of updates that the moments average over. Bias corrections and decays depend on it.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The hash of the moments.
    pub fn blake3(&self) -> &str {
        &self.blake3
    }

    /// Checks that an optimiser can continue from the state with a model of these parameters.
    ///
    /// # Errors
    /// [`Error::OptimizerState`] if the optimiser averages differently or a moment has another shape; an error of the file if a moment is missing.
    pub fn check(&self, optimizer: &Optimizer, table: &ParamTable) -> Result<()> {
        if !self.optimizer.averages_like(optimizer) {
            let problem = format!("it is that of {}, but the training is by {optimizer}", self.optimizer);
            return Err(Error::OptimizerState { directory: self.directory.clone(), problem });
        }
        table.iter().try_for_each(|spec| {
            self.check_moments(optimizer, &spec.name, &spec.shape(), Role::of(&spec.dims))
        })
    }

    /// Checks that an optimiser's moments for each parameter are present in the right shape.
    pub(super) fn check_moments(
        &self,
        optimizer: &Optimizer,
        parameter: &str,
        shape: &[usize],
        role: Role,
    ) -> Result<()> {
        for moment in optimizer.moments(shape, role) {
            let tensor = moment.of(parameter);
            let (found, expected) = (self.moments.view(&tensor)?.shape().to_vec(), moment.shape(shape));
            if found != expected {
                let problem = format!("`{tensor}` has shape {found:?} where {expected:?} is expected");
                return Err(Error::OptimizerState { directory: self.directory.clone(), problem });
            }
        }
        Ok(())
    }

    /// All moments, in the form that [`Session::load_optimizer_state`](crate::Session::load_optimizer_state)
    /// takes.
    pub fn load(&self) -> Result<HostTensors> {
        let load = |name: String| Ok((name.clone(), self.moments.load_f32(&name)?));
        self.moments.names().into_iter().map(load).collect()
    }
}

/// Writes a state next to weights with the given hash. Returns the moments' hash.
pub fn write_optimizer_state(
    directory: &Path,
    optimizer: Optimizer,
    step: u64,
    weights_blake3: &str,
    moments: Vec<LazyTensor<'_>>,
    writer: &Writer<'_>,
) -> Result<String> {
    let path = directory.join(MOMENTS);
    writer.file(&path, moments)?;
    // The hash of what arrived in the file, not of what was written to it.
    let blake3 = TensorFile::open(&path)?.blake3()?;
    let weights_blake3 = weights_blake3.to_owned();
    let header = Header { version: VERSION, optimizer, step, blake3: blake3.clone(), weights_blake3 };
    json::write(&directory.join(HEADER), &header)?;
    Ok(blake3)
}
