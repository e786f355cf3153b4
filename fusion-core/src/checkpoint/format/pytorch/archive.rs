//! Zip archives: `NAME/data.pkl`, `NAME/byteorder`, and the storage with key K in `NAME/data/K`.

use std::collections::BTreeMap;
use std::ops::Range;

use rawzip::{CompressionMethod, ZipArchive};

use super::super::Tensors;
use super::pickle::Pickle;
use super::state_dict;

const PICKLE: &str = "/data.pkl";

pub(in super::super) fn read(bytes: &[u8]) -> Result<Tensors, String> {
    let entries = entries(bytes).map_err(|error| format!("not a whole zip archive: {error}"))?;
    let pickle = entries.keys().find(|name| name.ends_with(PICKLE));
    let Some(root) = pickle.and_then(|name| name.strip_suffix(PICKLE)) else {
        return Err("a zip archive without PyTorch's data.pkl".into());
    };
    let entry = |name: &str| {
        let entry = entries.get(&format!("{root}/{name}")).cloned();
        entry.map(|entry| entry.map_err(|problem| format!("{root}/{name}: {problem}"))).transpose()
    };
    if let Some(order) = entry("byteorder")?.and_then(|range| bytes.get(range))
        && order.trim_ascii() != b"little"
    {
        return Err("its bytes are in big-endian order".into());
    }
    let data = entry("data.pkl")?.and_then(|range| bytes.get(range)).unwrap_or_default();
    let pickle = Pickle::read(data, 0).map_err(|problem| format!("data.pkl: {problem}"))?;
    let storage = |key: &str, size: usize| {
        let range =
            entry(&format!("data/{key}"))?.ok_or_else(|| format!("there is no storage {root}/data/{key}"))?;
        if range.len() < size {
            let found = range.len();
            return Err(format!("storage {root}/data/{key} should have {size} bytes, but has {found}"));
        }
        Ok(range)
    };
    state_dict::tensors(&pickle, storage)
}

/// Where the bytes of each entry lie in the file, or why they cannot be read there.
type Entries = BTreeMap<String, Result<Range<usize>, &'static str>>;

fn entries(bytes: &[u8]) -> Result<Entries, rawzip::Error> {
    let archive = ZipArchive::from_slice(bytes)?;
    let mut directory = archive.entries();
    let mut entries = BTreeMap::new();
    while let Some(entry) = directory.next_entry()? {
        let place = match archive.get_entry(entry.wayfinder()) {
            _ if entry.flags().is_encrypted() => Err("it is encrypted"),
            _ if entry.compression_method() != CompressionMethod::STORE => Err("it is compressed"),
            Err(_) => Err("it does not lie inside of the file"),
            Ok(content) => {
                let (start, end) = content.compressed_data_range();
                Ok(start as usize..end as usize)
            }
        };
        entries.insert(String::from_utf8_lossy(entry.file_path().as_ref()).into_owned(), place);
    }
    Ok(entries)
}
