use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, ensure};
use clap::Args;
use fusion_core::atomic::check_file;
use fusion_core::checkpoint::{LazyTensor, TensorFile, Writer};
use fusion_core::{Dtype, HostTensor, HostTensors, TensorSource};
use pipeline::source::ModelPlace;
use t5_model::{Batch, Forward, IGNORED_LABEL, T5Config};

use crate::cli::compute::ComputeArguments;
use crate::terminal::Terminal;

const EXAMPLES: &str = concat!(
    "Example:\n",
    "  cargo xtask forward --model fused --input batch.safetensors --output out.safetensors --grad",
);

/// Compute logits, loss and gradients for a given batch, to compare with any framework
///
/// IN contains `input_ids` i64 [batch, input], `labels` i64 [batch, target] with -100 as padding, and
/// optionally `attention_mask` i64 [batch, input] with 1 for a token and 0 for padding. OUT receives `logits`
/// f32 [batch, target, vocabulary], `loss` f32 [] (the mean cross-entropy of the target tokens in nats,
/// without z-loss), and with `--grad` also `grad.<parameter>` for every parameter, with Hugging Face's names.
/// Dropout is off.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The checkpoint: a directory in the Hugging Face layout, or `hf:ORG/NAME[@REVISION]`
    #[arg(long, value_name = "MODEL")]
    model: ModelPlace,
    /// The batch
    #[arg(long, value_name = "IN.safetensors")]
    input: PathBuf,
    /// The file to write; an earlier result in its place is replaced
    #[arg(long, value_name = "OUT.safetensors")]
    output: PathBuf,
    /// Also compute the gradients of the loss
    #[arg(long)]
    grad: bool,
    #[command(flatten)]
    compute: ComputeArguments,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        check_output(&self.output, &self.input)?;
        let batch = read_batch(&self.input)?;
        let (checkpoint, _) = T5Config::open(&self.model.directory(&Terminal)?)?;
        let forward = self
            .compute
            .run(|compute| Ok(compute.open_checkpoint(&checkpoint)?.forward(&batch, self.grad)?))?;
        write(&self.output, forward)
    }
}

/// Only an earlier result is replaced, or an empty file.
fn check_output(output: &Path, input: &Path) -> Result<()> {
    check_file(output)?;
    if fs::metadata(output).map_or(0, |found| found.len()) == 0 {
        return Ok(());
    }
    let shown = output.display();
    let same = fs::canonicalize(output).ok() == fs::canonicalize(input).ok();
    ensure!(!same, "{shown} is what is to be read, so it is not overwritten");
    let is_result = |file: &TensorFile| file.contains("logits") && file.contains("loss");
    let replaceable = TensorFile::open(output).is_ok_and(|file| is_result(&file));
    ensure!(replaceable, "{shown} exists and holds no logits and loss, so it is not overwritten");
    Ok(())
}

fn read_batch(path: &Path) -> Result<Batch> {
    let file = TensorFile::open(path)?;
    let batch = batch_of(&file);
    batch.map_err(|problem| anyhow!("{}: {problem}", path.display()))
}

fn batch_of(file: &TensorFile) -> Result<Batch, String> {
    let (shape, input_ids) = integers(file, "input_ids")?;
    let (label_shape, labels) = integers(file, "labels")?;
    let ([size, input_length], [label_size, target_length]) = (shape, label_shape);
    if size != label_size {
        return Err(format!(
            "`input_ids` has {size} rows (shape {shape:?}), `labels` has {label_size} ({label_shape:?})"
        ));
    }
    let attention_mask = if file.contains("attention_mask") {
        let (mask_shape, mask) = integers(file, "attention_mask")?;
        if mask_shape != shape {
            return Err(format!("`attention_mask` has shape {mask_shape:?}, `input_ids` has {shape:?}"));
        }
        let value = |(at, value): (usize, i32)| match value {
            0 | 1 => Ok(value as u8),
            _ => {
                Err(format!("{} is {value}; it must be 0 or 1", element("attention_mask", at, input_length)))
            }
        };
        mask.into_iter().enumerate().map(value).collect::<Result<_, _>>()?
    } else {
        vec![1; input_ids.len()]
    };
    let is_label = |label: &i32| *label >= 0 || *label == IGNORED_LABEL;
    if let Some((at, label)) = labels.iter().enumerate().find(|(_, label)| !is_label(label)) {
        return Err(format!(
            "{} is {label}; padding is {IGNORED_LABEL}",
            element("labels", at, target_length)
        ));
    }
    Ok(Batch { size, input_length, target_length, input_ids, attention_mask, labels })
}

/// `name[row, column]`.
fn element(name: &str, at: usize, columns: usize) -> String {
    format!("`{name}`[{}, {}]", at / columns.max(1), at % columns.max(1))
}

/// A matrix of i64 values that fit into i32, with its shape.
fn integers(file: &TensorFile, name: &str) -> Result<([usize; 2], Vec<i32>), String> {
    if !file.contains(name) {
        return Err(format!("there is no tensor `{name}`"));
    }
    let view = file.view(name).map_err(|error| error.to_string())?;
    let (Dtype::I64, &[rows, columns]) = (view.dtype(), view.shape()) else {
        let (dtype, shape) = (view.dtype(), view.shape());
        return Err(format!("`{name}` must be I64 with two dimensions; it is {dtype} {shape:?}"));
    };
    let value = |(at, bytes): (usize, &[u8; 8])| {
        let value = i64::from_le_bytes(*bytes);
        i32::try_from(value)
            .map_err(|_| format!("{} is {value}, which is not a token id", element(name, at, columns)))
    };
    let values = view.data().as_chunks().0.iter().enumerate().map(value);
    Ok(([rows, columns], values.collect::<Result<_, _>>()?))
}

fn write(path: &Path, forward: Forward) -> Result<()> {
    let loss = HostTensor { shape: Vec::new(), data: vec![forward.loss as f32] };
    let gradients = forward.gradients.into_iter().map(|(name, tensor)| (format!("grad.{name}"), tensor));
    let named = [("logits".to_owned(), forward.logits), ("loss".to_owned(), loss)];
    let tensors: HostTensors = named.into_iter().chain(gradients).collect();
    Writer::default().file(path, LazyTensor::all(&tensors)?)?;
    Ok(())
}
