//! Converts weights from any readable format to checkpoints in Hugging Face's layout.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fusion_core::checkpoint::{Checkpoint, LazyTensor, TensorFile, Writer};
use fusion_core::lineage::Lineage;
use fusion_core::{Dtype, TensorSource, TensorView, convert_tensor, count_not_finite};
use t5_model::parameters::{ALIASES, EMBEDDING, HEAD, embedding_name};
use t5_model::text::Tokenizer;
use t5_model::{StoredParameter, T5Config, parameter_table, t5x_parameters};

use super::{BYTES, Beside, Made, known_lineage, load_tokenizer, tokenizer_of, write_directory};
use crate::problems::{Remedy, mendable};
use crate::source::content;
use crate::{Warning, Watch};

/// T5X's name for the file in a checkpoint's directory.
const T5X_FILE: &str = "checkpoint";

/// A model that has been checked and can be written.
pub struct Conversion {
    weights: Box<dyn TensorSource>,
    /// Keyed by Hugging Face's names.
    parameters: BTreeMap<String, StoredParameter>,
    config: T5Config,
    /// Whether the configuration is inferred from the weights' shapes alone.
    is_made_up: bool,
    lineage: Option<Lineage>,
    /// The files that go with it.
    beside: Beside,
    /// What the user should know.
    pub warnings: Vec<Warning>,
}

impl Conversion {
    /// Opens a checkpoint in Hugging Face's layout, a file of tensors, or a T5X checkpoint, and checks its
    /// tensors' shapes against its configuration: the one in the file `config`, or else its own, or else one
    /// inferred from the shapes.
    pub fn open(path: &Path, config: Option<&Path>) -> Result<Self> {
        let given = config.map(read_config).transpose()?;
        let mut conversion = match weights_file(path) {
            Some(file) => Self::of_file(&file, given),
            None => Self::of_checkpoint(path, given),
        }?;
        conversion.check().with_context(|| format!("{} is not converted", path.display()))?;
        Ok(conversion)
    }

    fn of_checkpoint(path: &Path, config: Option<T5Config>) -> Result<Self> {
        let (checkpoint, config) = match config {
            Some(config) => {
                let mut checkpoint = Checkpoint::open(path)?;
                let embedding = embedding_name(&checkpoint, config.tie_word_embeddings)?;
                checkpoint.rename(embedding, EMBEDDING);
                (checkpoint, config)
            }
            None => T5Config::open(path)?,
        };
        let mut warnings = Vec::new();
        let lineage = known_lineage(&checkpoint, None, &mut warnings)?;
        let beside = Beside::of(&[("", path)], Made::Same)?;
        warnings.extend(beside.warnings.iter().cloned());
        let parameters = under_their_names(&checkpoint);
        let weights = Box::new(checkpoint);
        Ok(Conversion { weights, parameters, config, is_made_up: false, lineage, beside, warnings })
    }

    fn of_file(path: &Path, config: Option<T5Config>) -> Result<Self> {
        let file = TensorFile::open(path)?;
        let mut parameters = t5x_parameters(&file.names()).with_context(|| path.display().to_string())?;
        let is_flax = file.names().iter().any(|name| name.contains('/'));
        ensure!(
            !(is_flax && parameters.is_empty()),
            "{} holds no parameters; T5X keeps large arrays in folders beside it, which cannot be read",
            path.display()
        );
        if parameters.is_empty() {
            parameters = under_their_names(&file);
            let tied = config.as_ref().is_none_or(|config| config.tie_word_embeddings);
            let embedding = embedding_name(&file, tied).with_context(|| path.display().to_string())?;
            if let Some(stored) = parameters.remove(embedding) {
                parameters.insert(EMBEDDING.to_owned(), stored);
            }
        }
        let (mut warnings, is_made_up) = (Vec::new(), config.is_none());
        let config = match config {
            Some(config) => config,
            None => {
                warnings.push(Warning::MadeUpConfiguration);
                let shape = |name: &str| {
                    let stored = parameters.get(name)?;
                    file.view(&stored.tensor).ok().map(|view| shape_of(&view, stored.transposed))
                };
                T5Config::of_shapes(shape).map_err(|error| {
                    mendable(format!("{}: {error}", path.display()), Remedy::Configuration)
                })?
            }
        };
        let weights = Box::new(file);
        let beside = Beside::default();
        Ok(Conversion { weights, parameters, config, is_made_up, lineage: None, beside, warnings })
    }

    /// Checks that every parameter the configuration calls for is present, has the right shape and holds
    /// floating-point numbers.
    fn check(&mut self) -> Result<()> {
        let table = parameter_table(&self.config)?;
        let mut called_for: BTreeMap<String, Vec<usize>> =
            table.iter().map(|spec| (spec.name.clone(), spec.shape())).collect();
        if self.parameters.contains_key(HEAD) {
            // The weights decide whether the head is tied.
            called_for.insert(HEAD.into(), vec![self.config.vocab_size, self.config.d_model]);
        }
        for (name, expected) in &called_for {
            let stored = self.parameters.get(name).with_context(|| format!("there is no {name}"))?;
            let view = self.weights.view(&stored.tensor)?;
            let found = shape_of(&view, stored.transposed);
            ensure!(
                found == *expected,
                "{name} has shape {found:?}, but the configuration calls for {expected:?}"
            );
            let is_float = matches!(view.dtype(), Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64);
            ensure!(is_float, "{name} has type {}, but weights are F16, BF16, F32 or F64", view.dtype());
        }
        let mut left = Vec::new();
        self.parameters.retain(|name, _| {
            let is_called_for = called_for.contains_key(name);
            if !is_called_for && !ALIASES.contains(&name.as_str()) {
                left.push(name.clone());
            }
            is_called_for
        });
        let tensors = self.parameters.iter().map(|(name, stored)| {
            let count = count_not_finite(&self.weights.view(&stored.tensor)?);
            Ok((name.clone(), count))
        });
        let mut tensors = tensors.collect::<Result<Vec<_>>>()?;
        tensors.retain(|(_, count)| *count > 0);
        if !tensors.is_empty() {
            self.warnings.push(Warning::NotFinite { tensors });
        }
        if !left.is_empty() {
            let names = left.join(", ");
            let problem = || format!("no T5 of these shapes has {names}");
            ensure!(!self.is_made_up, mendable(problem(), Remedy::OtherConfiguration));
            self.warnings.push(Warning::LeftOut { tensors: left });
        }
        Ok(())
    }

    /// Writes the whole checkpoint or nothing. `tokenizer` is a file or folder; without one, the checkpoint's
    /// own is used, if it has one.
    pub fn write(
        &self,
        output: &Path,
        tokenizer: Option<&Path>,
        dtype: Option<Dtype>,
        watch: &dyn Watch,
    ) -> Result<()> {
        let tensors = self.parameters.iter().map(|(name, stored)| self.tensor(name, stored, dtype));
        let tensors = tensors.collect::<Result<Vec<_>>>()?;
        let size = tensors.iter().map(LazyTensor::size).sum::<usize>() as u64;
        write_directory(output, ("convert", "the model"), size, watch, |directory, progress| {
            self.write_beside(directory, tokenizer)?;
            let hash = self.config.write(directory, tensors, &Writer::default().progress(progress))?;
            match &self.lineage {
                Some(lineage) => Ok(Lineage { blake3: Some(hash), ..lineage.clone() }.write(directory)?),
                None => Ok(()),
            }
        })
    }

    /// Writes the files that go with it, and `given`, a tokenizer, in place of its own.
    fn write_beside(&self, directory: &Path, given: Option<&Path>) -> Result<()> {
        let Some(given) = given else {
            self.beside.write(directory)?;
            return tokenizer_of(directory)?.map_or(Ok(()), |tokenizer| self.check_tokenizer(&tokenizer));
        };
        let (given, tokenizer) = (content(given)?, load_tokenizer(given)?);
        self.check_tokenizer(&tokenizer)?;
        self.beside.clone().without_tokenizer().write(directory)?;
        if given.is_dir() && given != Path::new(BYTES) {
            return Beside::of(&[("", &given)], Made::Same)?.only_tokenizer().write(directory);
        }
        Ok(tokenizer.save(directory)?)
    }

    fn check_tokenizer(&self, tokenizer: &Tokenizer) -> Result<()> {
        let (tokens, vocabulary) = (tokenizer.vocab_size(), self.config.vocab_size);
        ensure!(tokens <= vocabulary, "the tokenizer has {tokens} tokens, but the model only {vocabulary}");
        Ok(())
    }

    fn tensor<'a>(
        &'a self,
        name: &'a str,
        stored: &StoredParameter,
        dtype: Option<Dtype>,
    ) -> Result<LazyTensor<'a>> {
        let view = self.weights.view(&stored.tensor)?;
        let dtype = dtype.unwrap_or(view.dtype());
        if dtype == view.dtype() && !stored.transposed {
            return Ok(LazyTensor::of_bytes(name, dtype, view.shape(), view.data()));
        }
        let transposed = stored.transposed;
        let shape = shape_of(&view, transposed);
        Ok(LazyTensor::made(name, dtype, shape, move || {
            let bytes = convert_tensor(name, &view, dtype, 1.0)?;
            Ok(match (view.shape(), transposed) {
                ([rows, columns], true) => transpose(&bytes, [*rows, *columns], dtype.bitsize() / 8),
                _ => bytes,
            })
        }))
    }
}

fn read_config(path: &Path) -> Result<T5Config> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let json = fusion_core::json::from_slice(&text, path)?;
    Ok(T5Config::from_json(&json, path)?)
}

/// Tensors under their parameters' names.
fn under_their_names(weights: &dyn TensorSource) -> BTreeMap<String, StoredParameter> {
    let stored = |name: String| (name.clone(), StoredParameter { tensor: name, transposed: false });
    weights.names().into_iter().map(stored).collect()
}

fn shape_of(view: &TensorView<'_>, transposed: bool) -> Vec<usize> {
    let mut shape = view.shape().to_vec();
    if transposed {
        shape.reverse();
    }
    shape
}

/// A matrix of elements of `size` bytes, its columns as rows.
fn transpose(bytes: &[u8], [rows, columns]: [usize; 2], size: usize) -> Vec<u8> {
    let mut transposed = Vec::with_capacity(bytes.len());
    for column in 0..columns {
        for row in 0..rows {
            transposed.extend_from_slice(&bytes[(row * columns + column) * size..][..size]);
        }
    }
    transposed
}

/// The file of weights without a configuration that a path names, if it names one; a checkpoint in Hugging
/// Face's layout does not count.
fn weights_file(path: &Path) -> Option<PathBuf> {
    let t5x = path.join(T5X_FILE);
    let is_t5x = t5x.is_file() && !path.join("config.json").exists();
    if is_t5x { Some(t5x) } else { path.is_file().then(|| path.to_owned()) }
}
