//! `texts.json`: what the texts were that a training read, so that another can tell whether it reads the same.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::Result;
use fusion_core::atomic::write_own_file;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use t5_model::text::Content;

use super::text::OpenText;
use crate::source::digest::{add, hexadecimal};

/// Beside a training's metrics.
pub const FILE: &str = "texts.json";

/// A file of text.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct TextFile {
    /// As the training calls it.
    pub name: String,
    /// Its size; of a text in memory, that of its documents.
    pub bytes: u64,
    /// Of the whole file, as `sha256sum` shows it, or of parts of it. Of a text in memory, that of its documents, each
    /// with a line break behind it. Of a text elsewhere, that of its size and of what its server says of its version.
    pub sha256: String,
    /// Whether the hash is not of the whole file: of its size and of [`PART`] bytes at its beginning, in its middle and
    /// at its end, or, elsewhere, of its version.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sampled: bool,
}

/// Of a sampled file, so many bytes are read in each of three places.
pub const PART: u64 = 256 << 10;
/// If all files together are larger, those larger than [`SMALL`] are sampled: a training must not wait for it.
const MUCH: u64 = 256 << 20;
const SMALL: u64 = 1 << 20;

/// What there is to tell of a text. A file that cannot be read is left out; the training will say why.
pub fn describe(text: &OpenText) -> Vec<TextFile> {
    let size = |content: Content<'_>| match content {
        Content::File(path) => fs::metadata(path).map_or(0, |metadata| metadata.len()),
        Content::Remote(_) | Content::Memory { .. } => 0,
    };
    let is_much = text.contents().map(size).sum::<u64>() > MUCH;
    let file = |content: Content<'_>| match content {
        Content::File(path) => of_file(path, is_much).ok(),
        Content::Remote(file) => {
            let bytes = file.size().unwrap_or(0);
            let hash = Sha256::new_with_prefix(bytes.to_le_bytes()).chain_update(file.version());
            Some(TextFile { name: file.name().to_owned(), bytes, sha256: hexadecimal(hash), sampled: true })
        }
        Content::Memory { name, documents } => {
            let mut hash = Sha256::new();
            for document in documents {
                hash.update(document);
                hash.update("\n");
            }
            let bytes = documents.iter().map(|document| document.len() as u64 + 1).sum();
            Some(TextFile { name: name.to_owned(), bytes, sha256: hexadecimal(hash), sampled: false })
        }
    };
    text.contents().filter_map(file).collect()
}

fn of_file(path: &Path, is_much: bool) -> io::Result<TextFile> {
    let mut file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let sampled = is_much && bytes > SMALL;
    let mut hash = Sha256::new();
    if sampled {
        hash.update(bytes.to_le_bytes());
        for start in [0, bytes / 2 - PART / 2, bytes - PART] {
            file.seek(SeekFrom::Start(start))?;
            add(Read::by_ref(&mut file).take(PART), &mut hash)?;
        }
    } else {
        add(file, &mut hash)?;
    }
    Ok(TextFile { name: path.display().to_string(), bytes, sha256: hexadecimal(hash), sampled })
}

/// Writes them into a training's directory.
///
/// # Errors
/// If the file cannot be written.
pub fn write(texts: &[TextFile], directory: &Path) -> Result<()> {
    Ok(write_own_file(directory, FILE, &serde_json::to_vec_pretty(texts)?)?)
}

/// Those of a training; none if it was not recorded.
pub fn read(directory: &Path) -> Vec<TextFile> {
    let text = fs::read(directory.join(FILE)).ok();
    text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{PART, of_file};

    #[test]
    fn hashes_of_files() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("a.txt");
        fs::write(&path, "abc").expect("a file");
        let small = of_file(&path, true).expect("a description");
        // FIPS 180-2's example.
        assert_eq!(small.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!((small.bytes, small.sampled), (3, false));
        // What lies between the samples of a large file does not count, all else does.
        let mut bytes = vec![7; 3 << 20];
        let mut sampled = |at: Option<usize>| {
            if let Some(at) = at {
                bytes[at] ^= 1;
            }
            fs::write(&path, &bytes).expect("a file");
            let own = of_file(&path, true).expect("a description");
            assert!(own.sampled && !of_file(&path, false).expect("a description").sampled);
            own.sha256
        };
        let first = sampled(None);
        assert_eq!(sampled(Some(PART as usize + 1)), first);
        for at in [0, (3 << 19) + 5, (3 << 20) - 1] {
            assert_ne!(sampled(Some(at)), first, "{at}");
            assert_eq!(sampled(Some(at)), first, "{at}");
        }
    }
}
