//! Checkpoints: what is wrong with bad ones, and that no damage makes a panic.

use std::fs;
use std::path::Path;

use fusion_core::checkpoint::{Checkpoint, LazyTensor, TensorFile, Writer};
use fusion_core::lineage::{History, Lineage};
use fusion_core::{Dtype, Error, HostTensor, HostTensors, TensorSource};

fn tensors() -> HostTensors {
    let tensor = |name: &str, shape: &[usize], start: f32| {
        let data = (0..shape.iter().product::<usize>()).map(|i| start + i as f32).collect();
        (name.to_string(), HostTensor { shape: shape.to_vec(), data })
    };
    [tensor("b", &[2, 3], 0.5), tensor("a", &[4], -1.0), tensor("c", &[], 7.0)].into_iter().collect()
}

fn checkpoint(shard_size: u64) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let tensors = tensors();
    Writer::default()
        .shard_size(shard_size)
        .weights(directory.path(), LazyTensor::all(&tensors).unwrap())
        .unwrap();
    fs::write(directory.path().join("config.json"), r#"{"z": 1, "d_model": 2, "a": {"x": null}}"#).unwrap();
    directory
}

fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn whole_and_in_shards() {
    let whole = checkpoint(u64::MAX);
    assert_eq!(files(whole.path()), ["config.json", "model.safetensors"]);
    let shards = checkpoint(24);
    assert_eq!(
        files(shards.path()),
        [
            "config.json",
            "model-00001-of-00003.safetensors",
            "model-00002-of-00003.safetensors",
            "model-00003-of-00003.safetensors",
            "model.safetensors.index.json"
        ]
    );
    insta::assert_snapshot!(fs::read_to_string(shards.path().join("model.safetensors.index.json")).unwrap());
    let opened = [&whole, &shards].map(|directory| Checkpoint::open(directory.path()).unwrap());
    for checkpoint in &opened {
        assert_eq!(checkpoint.names(), ["a", "b", "c"]);
        for (name, tensor) in tensors() {
            assert_eq!(checkpoint.load_f32(&name).unwrap(), tensor);
        }
        // Unknown keys and their order are kept.
        assert_eq!(
            serde_json::to_string(checkpoint.config()).unwrap(),
            r#"{"z":1,"d_model":2,"a":{"x":null}}"#
        );
        assert_eq!(checkpoint.lineage().unwrap(), None);
    }
    let hash = opened[0].blake3().unwrap();
    assert_eq!(hash, opened[1].blake3().unwrap());
    for (written_for, is_known) in [(None, true), (Some(hash), true), (Some("12".into()), false)] {
        let lineage = Lineage { blake3: written_for, ..Lineage::default() };
        lineage.write(whole.path()).unwrap();
        let history = opened[0].history().unwrap();
        assert_eq!(
            history,
            if is_known { History::Known(Box::new(lineage)) } else { History::OfOtherWeights }
        );
    }
    assert_eq!(opened[1].history().unwrap(), History::Unknown);
    // As tests/python/checkpoint_hash.py computes it from the definition.
    insta::assert_snapshot!(opened[0].blake3().unwrap());
}

#[test]
fn the_hash_depends_on_names_shapes_and_values() {
    let hash = |tensors: &HostTensors| {
        let directory = tempfile::tempdir().unwrap();
        Writer::default().weights(directory.path(), LazyTensor::all(tensors).unwrap()).unwrap();
        fs::write(directory.path().join("config.json"), "{}").unwrap();
        Checkpoint::open(directory.path()).unwrap().blake3().unwrap()
    };
    let mut other = [tensors(), tensors(), tensors()];
    other[0].get_mut("b").unwrap().shape = vec![3, 2];
    other[1].get_mut("b").unwrap().data[5] = 0.0;
    let moved = other[2].remove("a").unwrap();
    other[2].insert("aa".into(), moved);
    let mut hashes = vec![hash(&tensors())];
    hashes.extend(other.iter().map(hash));
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), 4);
}

/// The safetensors library reads what is written, with the metadata that Hugging Face's libraries insist on.
#[test]
fn files_are_what_others_expect() {
    let directory = checkpoint(u64::MAX);
    let path = directory.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
    assert_eq!(metadata.offset_keys(), ["a", "b", "c"]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions();
    assert_eq!(mode(&path), mode(&directory.path().join("config.json")));
}

#[test]
fn truncated_at_every_byte() {
    let directory = checkpoint(u64::MAX);
    let path = directory.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    TensorFile::open(&path).unwrap();
    for length in 0..bytes.len() {
        fs::write(&path, &bytes[..length]).unwrap();
        let message = Checkpoint::open(directory.path()).unwrap_err().to_string();
        assert!(message.contains("truncated"), "{length}: {message}");
    }
    fs::write(&path, [bytes.as_slice(), &[0]].concat()).unwrap();
    assert!(TensorFile::open(&path).unwrap_err().to_string().ends_with("1 bytes follow the last tensor"));
}

#[test]
fn flipped_bits_never_panic() {
    let directory = checkpoint(u64::MAX);
    let path = directory.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let header = 8 + bytes[0] as usize + 256 * bytes[1] as usize;
    let mut refused = 0;
    for at in 0..header {
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            fs::write(&path, bytes).unwrap();
            match TensorFile::open(&path) {
                // A bit of a name or of the metadata.
                Ok(file) => file.names().iter().for_each(|name| drop(file.load_f32(name))),
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > header * 4, "{refused} of {}", header * 8);
}

#[test]
fn hostile_headers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.safetensors");
    let end = u64::MAX - 7;
    let half = 1u64 << 63;
    let headers = [
        "".to_string(),
        "[]".into(),
        "{".into(),
        "[".repeat(100_000),
        r#"{"a":{"dtype":"F32","shape":[1]}}"#.into(),
        r#"{"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}}"#.into(),
        r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#.into(),
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#.into(),
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#.into(),
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#.into(),
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}"#
            .into(),
        r#"{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}"#.into(),
        r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}"#.into(),
        format!(r#"{{"a":{{"dtype":"U8","shape":[{end}],"data_offsets":[0,{end}]}}}}"#),
        format!(
            r#"{{"a":{{"dtype":"F32","shape":[{half},0],"data_offsets":[0,0]}},"b":{{"dtype":"F32","shape":[{half}],"data_offsets":[0,4]}}}}"#
        ),
    ];
    let mut messages = Vec::new();
    for header in headers {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([0; 4]);
        fs::write(&path, bytes).unwrap();
        messages.push(TensorFile::open(&path).unwrap_err().to_string());
    }
    fs::write(&path, u64::MAX.to_le_bytes()).unwrap();
    messages.push(TensorFile::open(&path).unwrap_err().to_string());
    insta::assert_snapshot!(messages.join("\n").replace(directory.path().to_str().unwrap(), "DIR"));
}

#[test]
fn error_messages() {
    let mut messages = Vec::new();
    let mut open = |directory: &tempfile::TempDir, damage: &dyn Fn(&Path)| {
        damage(directory.path());
        let message = match Checkpoint::open(directory.path()) {
            Err(error) => error.to_string(),
            Ok(checkpoint) => checkpoint.lineage().unwrap_err().to_string(),
        };
        messages.push(message.replace(directory.path().to_str().unwrap(), "DIR"));
    };
    let whole = checkpoint(u64::MAX);
    open(&whole, &|dir| fs::write(dir.join("lineage.json"), r#"{"version": 2}"#).unwrap());
    open(&whole, &|dir| fs::write(dir.join("lineage.json"), r#"{"training": []}"#).unwrap());
    open(&whole, &|dir| fs::write(dir.join("lineage.json"), "{\"version\": 1,\n").unwrap());
    open(&whole, &|dir| fs::write(dir.join("config.json"), "{\n  \"d_model\": 512,\n  d_ff: 7\n}").unwrap());
    open(&whole, &|dir| fs::write(dir.join("config.json"), "[1]").unwrap());
    open(&whole, &|dir| fs::write(dir.join("config.json"), b"{\"\xff\": 1}").unwrap());
    open(&whole, &|dir| fs::remove_file(dir.join("config.json")).unwrap());
    open(&whole, &|dir| fs::remove_dir_all(dir).unwrap());
    open(&whole, &|dir| fs::write(dir, "").unwrap());
    fs::remove_file(whole.path()).unwrap();
    let shards = checkpoint(24);
    let index = |text: &'static str| {
        move |dir: &Path| fs::write(dir.join("model.safetensors.index.json"), text).unwrap()
    };
    open(&shards, &|dir| fs::remove_file(dir.join("model-00002-of-00003.safetensors")).unwrap());
    open(&shards, &index(r#"{"weight_map": {"b": "model-00001-of-00003.safetensors"}}"#));
    open(&shards, &index(r#"{"weight_map": {"a": "../model.safetensors"}}"#));
    open(&shards, &index(r#"{"weight_map": {"a": "/etc/passwd"}}"#));
    open(&shards, &index(r#"{"weight_map": {"a": ".."}}"#));
    open(&shards, &index(r#"{"weight_map": {"a": ""}}"#));
    open(&shards, &index(r#"{"weight_map": {"a": 1}}"#));
    open(&shards, &index(r#"{"weight_map": []}"#));
    open(&shards, &index("null"));
    open(&shards, &|dir| fs::remove_file(dir.join("model.safetensors.index.json")).unwrap());

    let whole = checkpoint(u64::MAX);
    let opened = Checkpoint::open(whole.path()).unwrap();
    let message = opened.view("d").unwrap_err().to_string();
    messages.push(message.replace(whole.path().to_str().unwrap(), "DIR"));
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn writers_report_errors_of_tensors() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.safetensors");
    fs::write(&path, "as before").unwrap();
    let lazy = |data: &'static [u8]| LazyTensor::of_bytes("a", Dtype::F32, [2], data);
    let fails = LazyTensor::new("b", Dtype::F32, [2], || {
        Err(Error::NoSuchTensor { origin: "the model".into(), tensor: "b".into() })
    });
    let messages = [
        Writer::default().file(&path, vec![lazy(&[0; 4])]).unwrap_err(),
        Writer::default().file(&path, vec![lazy(&[0; 8]), lazy(&[0; 8])]).unwrap_err(),
        Writer::default().file(&path, vec![lazy(&[0; 8]), fails]).unwrap_err(),
    ];
    assert_eq!(fs::read(&path).unwrap(), b"as before");
    assert_eq!(files(directory.path()), ["x.safetensors"]);
    insta::assert_snapshot!(messages.map(|error| error.to_string()).join("\n"));
}
