//! Fuses two checkpoints into a third. `cargo run --example fuse --package fusion-core -- small large fused`
//!
//! The models are networks of one hidden layer, `output · relu(hidden · x)`, whose weights PyTorch would store as
//! `[out, in]`. Directories that do not exist yet are filled with random models first.

use std::path::Path;

use fusion_core::atomic::{write_directory_atomically, write_file_atomically};
use fusion_core::checkpoint::{Checkpoint, LazyTensor, Writer};
use fusion_core::execute::Executor;
use fusion_core::grow::{DirectSum, Part, direct_sum};
use fusion_core::lineage::Lineage;
use fusion_core::random::Philox;
use fusion_core::table::{Axis, ParamSpec, ParamTable, dim};
use fusion_core::{HostTensor, HostTensors, Result, TensorSource};

const INPUTS: usize = 8;
const OUTPUTS: usize = 3;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [first, second, child] = arguments.as_slice() else {
        eprintln!("usage: fuse PARENT PARENT CHILD");
        return Ok(());
    };
    let parents = [open(Path::new(first), 16)?, open(Path::new(second), 24)?];

    // What the axes of each parent's parameters are.
    let tables = [table(&parents[0])?, table(&parents[1])?];
    let [first_hash, second_hash] = [parents[0].blake3()?, parents[1].blake3()?];
    let parts = [
        Part { label: first, blake3: Some(&first_hash), table: &tables[0], embed_groups: &[] },
        Part { label: second, blake3: Some(&second_hash), table: &tables[1], embed_groups: &[] },
    ];

    // The plan is data: it can be printed, checked for what its author may not want, and stored.
    let plan = direct_sum(&parts, &DirectSum::default())?;
    println!("{plan}");
    plan.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));

    // The child streams from the parents' files to its own.
    let sources: [&dyn TensorSource; 2] = [&parents[0], &parents[1]];
    let executor = Executor::new(&plan, &sources)?;
    write_directory_atomically(Path::new(child), |directory| {
        write_file_atomically(&directory.join("config.json"), b"{}\n")?;
        let hash = Writer::default().weights(directory, executor.tensors()?)?;
        let known = parents.iter().map(|parent| Ok(parent.history()?.known())).collect::<Result<Vec<_>>>()?;
        Lineage { blake3: Some(hash), ..Lineage::of_fusion(&plan, known) }.write(directory)
    })
}

/// The parameters of a model of this kind, with the sizes of its tensors.
fn table(model: &Checkpoint) -> Result<ParamTable> {
    let hidden = model.view("hidden.weight")?.shape()[0];
    ParamTable::new([
        ParamSpec::new("hidden.weight", [dim(Axis::Hidden, hidden), dim(Axis::Input, INPUTS)]).contracting(1),
        ParamSpec::new("output.weight", [dim(Axis::Output, OUTPUTS), dim(Axis::Hidden, hidden)])
            .contracting(1)
            .averaged(),
    ])
}

/// Opens a checkpoint; makes one with random weights if there is none.
fn open(directory: &Path, hidden: usize) -> Result<Checkpoint> {
    if !directory.exists() {
        let random = |name: &str, shape: [usize; 2]| {
            let mut tensor = HostTensor::zeros(shape);
            Philox::new(hidden as u64, name).fill_normal(0, 0.1, &mut tensor.data);
            (name.to_owned(), tensor)
        };
        let model: HostTensors =
            [random("hidden.weight", [hidden, INPUTS]), random("output.weight", [OUTPUTS, hidden])].into();
        write_directory_atomically(directory, |directory| {
            write_file_atomically(&directory.join("config.json"), b"{}\n")?;
            Writer::default().weights(directory, LazyTensor::all(&model)?).map(drop)
        })?;
    }
    Checkpoint::open(directory)
}
