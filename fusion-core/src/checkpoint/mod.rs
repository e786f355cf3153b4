//! Checkpoints in Hugging Face's layout: `config.json`, `model.safetensors` or shards with an index, tokenizer files,
//! and this project's `lineage.json`.

mod file;
mod hash;
mod layout;
mod lazy;
mod pieces;
mod write;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use safetensors::tensor::TensorView;
use serde_json::{Map, Value};

pub use file::TensorFile;
pub(crate) use hash::PIECE;
use hash::hash_source;
pub use lazy::{LazyTensor, Producer};
pub use pieces::Progress;
pub(crate) use pieces::writing_memory;
pub use write::{DEFAULT_SHARD_SIZE, write_tensor_file, write_tensors, write_weights};

use crate::{Error, Lineage, Result, TensorSource};

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const CONFIG: &str = "config.json";

/// An opened checkpoint. Its weights are mapped into memory, not read.
#[derive(Debug)]
pub struct Checkpoint {
    directory: PathBuf,
    config: Map<String, Value>,
    files: Vec<TensorFile>,
    /// The file that holds each tensor.
    tensors: BTreeMap<String, usize>,
}

impl Checkpoint {
    /// Opens a directory; reads the configuration and the headers of the weights.
    pub fn open(directory: &Path) -> Result<Self> {
        if !fs::metadata(directory).map_err(Error::io("open", directory))?.is_dir() {
            return Err(Error::NotADirectory { path: directory.into() });
        }
        let config_path = directory.join(CONFIG);
        if !config_path.exists() {
            return Err(Error::NoConfig { path: directory.into() });
        }
        let config = read_object(&config_path)?;
        let (files, tensors) = open_weights(directory)?;
        Ok(Checkpoint { directory: directory.into(), config, files, tensors })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// `config.json` as it is, with unknown keys and in its order.
    pub fn config(&self) -> &Map<String, Value> {
        &self.config
    }

    /// `lineage.json`, if there is one.
    pub fn lineage(&self) -> Result<Option<Lineage>> {
        Lineage::read(&self.directory)
    }

    /// A hash of the weights, as hexadecimal digits: BLAKE3 of every tensor's name, type, shape and BLAKE3, in the order
    /// of the names. It does not depend on how the tensors are laid out in files. Reads all weights.
    pub fn blake3(&self) -> Result<String> {
        hash_source(self)
    }
}

impl TensorSource for Checkpoint {
    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn view(&self, name: &str) -> Result<TensorView<'_>> {
        match self.tensors.get(name).and_then(|&file| self.files.get(file)) {
            Some(file) => file.view(name),
            None => {
                Err(Error::NoSuchTensor { origin: self.directory.display().to_string(), tensor: name.into() })
            }
        }
    }
}

/// The files of a checkpoint, and which of them holds each tensor. One file is preferred to an index.
fn open_weights(directory: &Path) -> Result<(Vec<TensorFile>, BTreeMap<String, usize>)> {
    let single = directory.join(WEIGHTS);
    if single.exists() {
        let file = TensorFile::open(&single)?;
        let tensors = file.names().into_iter().map(|name| (name, 0)).collect();
        return Ok((vec![file], tensors));
    }
    let index = directory.join(INDEX);
    if !index.exists() {
        return Err(Error::NoWeights {
            path: directory.into(),
            looked_for: "model.safetensors[.index.json]",
        });
    }
    let invalid = |message: &str| Error::Json { path: index.clone(), message: message.into() };
    let content = read_object(&index)?;
    let map = content.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| invalid("there is no object `weight_map`"))?;
    let mut files: Vec<TensorFile> = Vec::new();
    let mut opened: BTreeMap<&str, usize> = BTreeMap::new();
    let mut tensors = BTreeMap::new();
    for (tensor, file) in map {
        let file =
            file.as_str().ok_or_else(|| invalid(&format!("`weight_map.{tensor}` is not a file name")))?;
        let number = match opened.get(file) {
            Some(&number) => number,
            None => {
                check_shard_name(&index, file)?;
                files.push(TensorFile::open(&directory.join(file))?);
                opened.insert(file, files.len() - 1);
                files.len() - 1
            }
        };
        if !files.get(number).is_some_and(|file| file.contains(tensor)) {
            return Err(Error::NotInShard { path: index.clone(), tensor: tensor.clone(), file: file.into() });
        }
        tensors.insert(tensor.clone(), number);
    }
    Ok((files, tensors))
}

/// An index must not lead out of its directory.
fn check_shard_name(index: &Path, file: &str) -> Result<()> {
    let mut components = Path::new(file).components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(name)), None) if name == file => Ok(()),
        _ => Err(Error::ShardName { path: index.into(), file: file.into() }),
    }
}

/// Reads a JSON file that must hold an object.
pub(crate) fn read_object(path: &Path) -> Result<Map<String, Value>> {
    let text = fs::read(path).map_err(Error::io("read", path))?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::Json { path: path.into(), message: error.to_string() })
}
