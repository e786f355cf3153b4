//! Fuses T5s into one that predicts what they predict on average:
//!
//! ```sh
//! cargo run --release --package t5-model --no-default-features --example fuse -- PARENT PARENT... OUTPUT
//! ```
//!
//! Parents are Hugging Face checkpoints. It needs no feature of the crate.

use std::error::Error;
use std::path::{Path, PathBuf};

use fusion_core::TensorSource;
use fusion_core::atomic::{write_directory_atomically, write_file_atomically};
use fusion_core::checkpoint::{Checkpoint, Writer};
use fusion_core::execute::Executor;
use t5_model::T5Config;
use t5_model::method::{Fuse, FusionParent, Grown, GrowthMethod};

fn main() -> Result<(), Box<dyn Error>> {
    let mut paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let output = paths.pop().filter(|_| paths.len() >= 2).ok_or("usage: fuse PARENT PARENT... OUTPUT")?;
    let checkpoints: Vec<Checkpoint> =
        paths.iter().map(|path| Checkpoint::open(path)).collect::<Result<_, _>>()?;
    let parents: Vec<FusionParent> = checkpoints.iter().map(parent).collect::<Result<_, _>>()?;

    // What becomes of each parameter: plain data, which can be read before anything is computed.
    let Grown { plan, child } = Fuse::default().grow(&parents)?;
    println!("{plan}");

    let sources: Vec<&dyn TensorSource> = checkpoints.iter().map(|checkpoint| checkpoint as _).collect();
    let executor = Executor::new(&plan, &sources)?;
    write_directory_atomically(&output, |directory: &Path| {
        let config = serde_json::to_string_pretty(&child.to_json()).expect("JSON has a text");
        write_file_atomically(&directory.join("config.json"), config.as_bytes())?;
        Writer::default().weights(directory, executor.tensors()?)?;
        Ok::<_, fusion_core::Error>(())
    })?;
    println!("{} is a T5 with d_model {}", output.display(), child.d_model);
    Ok(())
}

fn parent(checkpoint: &Checkpoint) -> t5_model::Result<FusionParent> {
    let path = checkpoint.directory().to_owned();
    let label = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    Ok(FusionParent { label, config: T5Config::of_checkpoint(checkpoint)?, blake3: None, path })
}
