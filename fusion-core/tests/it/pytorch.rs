//! State dicts that PyTorch saved, against the same tensors as safetensors; and that nothing else is unpickled.

use std::fs;
use std::path::{Path, PathBuf};

use fusion_core::TensorSource;
use fusion_core::checkpoint::{Checkpoint, TensorFile};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/pytorch").join(name)
}

#[track_caller]
fn assert_same(found: &dyn TensorSource, expected: &dyn TensorSource) {
    assert_eq!(found.names(), expected.names());
    for name in expected.names() {
        let (found, expected) = (found.view(&name).unwrap(), expected.view(&name).unwrap());
        assert_eq!((found.dtype(), found.shape()), (expected.dtype(), expected.shape()), "{name}");
        assert_eq!(found.data(), expected.data(), "{name}");
    }
}

#[test]
fn all_formats_hold_the_same_tensors() {
    let expected = TensorFile::open(&golden("expected.safetensors")).unwrap();
    assert_eq!(expected.names().len(), 15);
    for name in ["archive.bin", "protocol4.bin", "legacy.bin", "parameters.bin"] {
        assert_same(&TensorFile::open(&golden(name)).unwrap(), &expected);
    }
}

#[test]
fn checkpoints_take_them_where_there_are_no_safetensors() {
    let directory = tempfile::tempdir().unwrap();
    let put = |name: &str, file: &str| fs::copy(golden(name), directory.path().join(file)).unwrap();
    fs::write(directory.path().join("config.json"), "{}").unwrap();
    put("archive.bin", "pytorch_model.bin");
    let whole = Checkpoint::open(directory.path()).unwrap();
    assert_same(&whole, &TensorFile::open(&golden("expected.safetensors")).unwrap());

    fs::rename(
        directory.path().join("pytorch_model.bin"),
        directory.path().join("pytorch_model-00001-of-00002.bin"),
    )
    .unwrap();
    put("legacy.bin", "pytorch_model-00002-of-00002.bin");
    let shard = |name: &str| {
        let half = if name < "i" { 1 } else { 2 };
        format!("{name:?}: \"pytorch_model-0000{half}-of-00002.bin\"")
    };
    let map: Vec<String> = whole.names().iter().map(|name| shard(name)).collect();
    let index = format!("{{\"metadata\": {{}}, \"weight_map\": {{{}}}}}", map.join(", "));
    fs::write(directory.path().join("pytorch_model.bin.index.json"), index).unwrap();
    let shards = Checkpoint::open(directory.path()).unwrap();
    assert_same(&shards, &whole);
    assert_eq!(shards.blake3().unwrap(), whole.blake3().unwrap());

    put("expected.safetensors", "model.safetensors");
    fs::remove_file(directory.path().join("pytorch_model.bin.index.json")).unwrap();
    assert_same(&Checkpoint::open(directory.path()).unwrap(), &whole);
}

/// What a pickle may ask for is a list; the rest is named and not run.
#[test]
fn everything_else_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hostile.bin");
    let marker = directory.path().join("executed");
    // The magic number, protocol 1001, and then: posix.system("touch …").
    let legacy = fs::read(golden("legacy.bin")).unwrap();
    let mut hostile = legacy[..15].to_vec();
    hostile.extend(b"\x80\x02M\xe9\x03.\x80\x02}.\x80\x02cposix\nsystem\n");
    let command = format!("touch {}", marker.display());
    hostile.extend([b'X', command.len() as u8, 0, 0, 0]);
    hostile.extend(command.as_bytes());
    hostile.extend(b"\x85R.");
    fs::write(&path, hostile).unwrap();
    let many = directory.path().join("many.bin");
    fs::write(&many, [&legacy[..14], &[b'N'; 1 << 20]].concat()).unwrap();

    let mut messages = Vec::new();
    let files = ["module.bin", "transposed.bin", "number.bin"].map(golden);
    for file in files.iter().chain([&path, &many]) {
        let message = TensorFile::open(file).unwrap_err().to_string();
        messages.push(message.replace(file.parent().unwrap().to_str().unwrap(), "DIR"));
    }
    // Cut short inside of the pickle, of a storage, and of an archive's directory.
    for (name, length) in [("legacy.bin", 40), ("legacy.bin", legacy.len() - 3), ("archive.bin", 900)] {
        fs::write(&path, &fs::read(golden(name)).unwrap()[..length]).unwrap();
        let message = TensorFile::open(&path).unwrap_err().to_string();
        messages.push(message.replace(directory.path().to_str().unwrap(), "DIR"));
    }
    insta::assert_snapshot!(messages.join("\n"));
    assert!(!marker.exists());
}
