//! SHA-256 of files.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// A file's length and hash.
pub fn sha256(path: &Path) -> Result<(u64, String)> {
    let mut digest = Sha256::new();
    let found = File::open(path).and_then(|file| add(file, &mut digest));
    let found = found.with_context(|| format!("cannot read {}", path.display()))?;
    Ok((found, hexadecimal(digest)))
}

/// Adds all that a reader gives; how much that was.
pub fn add(mut reader: impl Read, digest: &mut Sha256) -> io::Result<u64> {
    let (mut found, mut buffer) = (0, vec![0; 1 << 20]);
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(found),
            length => {
                digest.update(&buffer[..length]);
                found += length as u64;
            }
        }
    }
}

/// A hash as it is written.
pub fn hexadecimal(digest: Sha256) -> String {
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
