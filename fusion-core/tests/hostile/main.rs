//! Files that somebody damaged or made to do harm: no panic, no large piece of memory, and an error that names the file.

mod damage;

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use damage::{damage, replacement, within_memory};
use fusion_core::checkpoint::{Checkpoint, LazyTensor, TensorFile, Writer};
use fusion_core::execute::Executor;
use fusion_core::grow::{DirectSum, Part, direct_sum};
use fusion_core::lineage::Lineage;
use fusion_core::plan::{Fill, FusionPlan, StandardDeviation};
use fusion_core::table::{Axis, ParamSpec, ParamTable, dim, joined};
use fusion_core::{HostTensor, HostTensors, TensorSource};
use proptest::prelude::*;
use serde_json::Value;

fn model() -> HostTensors {
    let tensor = |name: &str, shape: &[usize]| {
        let data = (0..shape.iter().product::<usize>()).map(|i| i as f32 / 8.0).collect();
        (name.to_owned(), HostTensor { shape: shape.to_vec(), data })
    };
    [tensor("embed", &[5, 3]), tensor("q", &[4, 3]), tensor("norm", &[3])].into_iter().collect()
}

fn table() -> ParamTable {
    let embed = || dim(Axis::Embed, 3);
    let specs = [
        ParamSpec::new("embed", [dim(Axis::Vocab, 5), embed()]),
        ParamSpec::new("q", [joined(Axis::Heads, 2, Axis::Kv, 2), embed()]).contracting(1),
        ParamSpec::new("norm", [embed()]),
    ];
    ParamTable::new(specs).unwrap()
}

/// A checkpoint of one file, or of one for each tensor.
fn checkpoint(in_shards: bool) -> tempfile::TempDir {
    type Files = Vec<(OsString, Vec<u8>)>;
    static FILES: [OnceLock<Files>; 2] = [OnceLock::new(), OnceLock::new()];
    let files = FILES[usize::from(in_shards)].get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let (model, size) = (model(), if in_shards { 1 } else { u64::MAX });
        Writer::default().shard_size(size).weights(path, LazyTensor::all(&model).unwrap()).unwrap();
        fs::write(path.join("config.json"), r#"{"d_model": 3, "nested": {"list": [1, 2]}}"#).unwrap();
        let entries = fs::read_dir(path).unwrap().map(Result::unwrap);
        entries.map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap())).collect()
    });
    let directory = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, bytes)| fs::write(directory.path().join(name), bytes).unwrap());
    directory
}

fn plan() -> FusionPlan {
    let table = table();
    let part = |label| Part { label, blake3: None, table: &table, embed_groups: &[] };
    let cross = Fill::normal(StandardDeviation::Relative(0.1), 3);
    direct_sum(&[part("a"), part("b")], &DirectSum { cross, ..DirectSum::default() }).unwrap()
}

/// Reads everything in a checkpoint; an error names its directory.
fn read_all(directory: &Path) -> Result<(), TestCaseError> {
    let read = || {
        let checkpoint = Checkpoint::open(directory)?;
        for name in checkpoint.names() {
            drop(checkpoint.view(&name)?);
        }
        checkpoint.blake3()?;
        checkpoint.lineage().map(drop)
    };
    if let Err(error) = within_memory(read) {
        let (error, place) = (error.to_string(), directory.to_string_lossy());
        prop_assert!(error.contains(&*place), "{} does not name {}", error, place);
    }
    Ok(())
}

/// With a new header, whose length is put right, and the old values.
fn with_header(file: &[u8], header: &Value) -> Vec<u8> {
    let old = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header = header.to_string().into_bytes();
    [&(header.len() as u64).to_le_bytes()[..], &header, &file[8 + old..]].concat()
}

fn header(file: &[u8]) -> Value {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    serde_json::from_slice(&file[8..8 + length]).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn weights(damage in damage()) {
        let directory = checkpoint(false);
        let path = directory.path().join("model.safetensors");
        fs::write(&path, damage.apply(&fs::read(&path).unwrap())).unwrap();
        read_all(directory.path())?;
    }

    /// In the formats of other programs.
    #[test]
    fn weights_of_others(
        name in prop::sample::select(&[
            "pytorch/archive.bin", "pytorch/protocol4.bin", "pytorch/legacy.bin", "flax/checkpoint",
        ][..]),
        damage in damage(),
    ) {
        let directory = checkpoint(false);
        fs::remove_file(directory.path().join("model.safetensors")).unwrap();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name);
        let bytes = damage.apply(&fs::read(golden).unwrap());
        fs::write(directory.path().join("pytorch_model.bin"), bytes).unwrap();
        read_all(directory.path())?;
    }

    #[test]
    fn headers_of_weights(first in replacement(), second in prop::option::of(replacement())) {
        let directory = checkpoint(false);
        let path = directory.path().join("model.safetensors");
        let file = fs::read(&path).unwrap();
        let mut header = first.apply(&header(&file));
        if let Some(second) = second {
            header = second.apply(&header);
        }
        fs::write(&path, with_header(&file, &header)).unwrap();
        read_all(directory.path())?;
    }

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), name in prop::sample::select(&[
        "model.safetensors", "config.json", "lineage.json", "model.safetensors.index.json", "pytorch_model.bin",
    ][..])) {
        let directory = checkpoint(false);
        if name != "config.json" && name != "lineage.json" {
            fs::remove_file(directory.path().join("model.safetensors")).unwrap();
        }
        fs::write(directory.path().join(name), bytes).unwrap();
        read_all(directory.path())?;
    }

    #[test]
    fn indices(replacement in replacement(), damage in prop::option::of(damage())) {
        let directory = checkpoint(true);
        let path = directory.path().join("model.safetensors.index.json");
        let index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let mut bytes = replacement.apply(&index).to_string().into_bytes();
        if let Some(damage) = damage {
            bytes = damage.apply(&bytes);
        }
        fs::write(&path, bytes).unwrap();
        read_all(directory.path())?;
    }

    #[test]
    fn lineages(replacement in replacement(), damage in prop::option::of(damage())) {
        let directory = checkpoint(false);
        let lineage = serde_json::to_value(Lineage::of_fusion(&plan(), [Some(Lineage::default()), None])).unwrap();
        let mut bytes = replacement.apply(&lineage).to_string().into_bytes();
        if let Some(damage) = damage {
            bytes = damage.apply(&bytes);
        }
        fs::write(directory.path().join("lineage.json"), bytes).unwrap();
        read_all(directory.path())?;
    }

    /// A plan that is valid and fits its parents can be executed; every other is refused.
    #[test]
    fn plans(first in replacement(), second in replacement(), damage in prop::option::weighted(0.2, damage())) {
        let document = serde_json::to_value(plan()).unwrap();
        let mut bytes = second.apply(&first.apply(&document)).to_string().into_bytes();
        if let Some(damage) = damage {
            bytes = damage.apply(&bytes);
        }
        let Ok(plan) = serde_json::from_slice::<FusionPlan>(&bytes) else { return Ok(()) };
        let models = [model(), model()];
        let sources: Vec<&dyn TensorSource> = models.iter().map(|model| model as &dyn TensorSource).collect();
        within_memory(|| {
            let Ok(executor) = Executor::new(&plan, &sources) else { return };
            let (text, warnings) = (plan.to_string(), plan.warnings());
            assert!(!text.is_empty() && warnings.len() <= plan.params.len() + 3);
            if plan.parameter_count() < 1 << 16 {
                let _ = executor.in_memory();
            }
        });
    }
}

/// Nested deeper than any stack is deep.
#[test]
fn bottomless_documents() {
    let deep = "[".repeat(1 << 20);
    for name in ["config.json", "lineage.json", "model.safetensors.index.json"] {
        let directory = checkpoint(true);
        fs::write(directory.path().join(name), &deep).unwrap();
        let error = within_memory(|| Checkpoint::open(directory.path()).and_then(|opened| opened.lineage()));
        assert!(error.unwrap_err().to_string().contains(name));
    }
    assert!(serde_json::from_str::<FusionPlan>(&deep).is_err());
}

/// A header that is longer than its file.
#[test]
fn a_header_of_many_exabytes() {
    let directory = checkpoint(false);
    let path = directory.path().join("model.safetensors");
    fs::write(&path, [&u64::MAX.to_le_bytes()[..], b"{}"].concat()).unwrap();
    let error = within_memory(|| TensorFile::open(&path)).unwrap_err();
    assert!(error.to_string().contains("model.safetensors"), "{error}");
}
