//! Flax's MessagePack, as far as T5X's checkpoints go.

use std::fs;
use std::path::{Path, PathBuf};

use fusion_core::checkpoint::TensorFile;
use fusion_core::{Dtype, TensorSource};
use rmp::encode::{write_array_len, write_bin, write_ext_meta, write_map_len, write_str, write_uint};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/flax/checkpoint")
}

/// A map of entries that are written already.
fn map(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_map_len(&mut bytes, entries.len() as u32).unwrap();
    for (key, value) in entries {
        write_str(&mut bytes, key).unwrap();
        bytes.extend(value);
    }
    bytes
}

fn array(shape: &[u64], dtype: &str, values: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    write_array_len(&mut content, 3).unwrap();
    write_array_len(&mut content, shape.len() as u32).unwrap();
    for size in shape {
        write_uint(&mut content, *size).unwrap();
    }
    write_str(&mut content, dtype).unwrap();
    write_bin(&mut content, values).unwrap();
    let mut bytes = Vec::new();
    write_ext_meta(&mut bytes, content.len() as u32, 1).unwrap();
    bytes.extend(content);
    bytes
}

/// With these parameters and nothing else.
fn checkpoint(target: Vec<u8>) -> Vec<u8> {
    map(&[("target", target)])
}

fn open(directory: &Path, bytes: &[u8]) -> Result<TensorFile, String> {
    let path = directory.join("checkpoint");
    fs::write(&path, bytes).unwrap();
    let message = |error: fusion_core::Error| error.to_string();
    TensorFile::open(&path).map_err(message).map_err(|text| text.replace(directory.to_str().unwrap(), "DIR"))
}

#[test]
fn arrays_are_named_by_their_path() {
    let file = TensorFile::open(&golden()).unwrap();
    let names = ["optimizer/state/step", "optimizer/target/kernel", "optimizer/target/norm/scale"];
    assert_eq!(file.names(), names);
    let views = names.map(|name| file.view(name).unwrap());
    let shapes: [&[usize]; 3] = [&[], &[2, 3], &[2]];
    assert_eq!(views.each_ref().map(|view| view.shape()), shapes);
    assert_eq!(views.each_ref().map(|view| view.dtype()), [Dtype::I32, Dtype::F32, Dtype::BF16]);
    assert_eq!(views[0].data(), [7, 0, 0, 0]);
    assert_eq!(views[1].data(), (0..24).collect::<Vec<u8>>());
    assert_eq!(views[2].data(), [0, 1, 2, 3]);
}

#[test]
fn everything_else_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let one = || array(&[1], "float32", &[0; 4]);
    let deep = (0..40).fold(one(), |inner, _| map(&[("a", inner)]));
    let long = (0..8).fold(one(), |inner, _| map(&[(&"a".repeat(100), inner)]));
    let whole = fs::read(golden()).unwrap();
    let bytes = [
        checkpoint(map(&[("a", array(&[2], "float32", &[0; 4]))])),
        checkpoint(map(&[("a", array(&[u64::MAX, 2], "float32", &[0; 4]))])),
        checkpoint(map(&[("a", array(&[1; 17], "float32", &[0; 4]))])),
        checkpoint(map(&[("a", array(&[1], "complex64", &[0; 8]))])),
        checkpoint(map(&[("a", one()), ("a", one())])),
        checkpoint(map(&[("a", vec![0x91, 1])])),
        checkpoint(map(&[(&"a".repeat(300), one())])),
        checkpoint(deep),
        checkpoint(long),
        [&whole[..], &[0]].concat(),
        whole[..whole.len() - 1].to_vec(),
    ];
    let messages = bytes.map(|bytes| open(directory.path(), &bytes).unwrap_err());
    insta::assert_snapshot!(messages.join("\n"));
}
