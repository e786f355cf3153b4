//! SHA-256 of files.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// A file's length and hash.
pub fn sha256(path: &Path) -> Result<(u64, String)> {
    let read = || -> io::Result<(u64, Sha256)> {
        let (mut found, mut digest, mut buffer) = (0, Sha256::new(), vec![0; 1 << 20]);
        let mut file = File::open(path)?;
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok((found, digest)),
                length => {
                    digest.update(&buffer[..length]);
                    found += length as u64;
                }
            }
        }
    };
    let (found, digest) = read().with_context(|| format!("cannot read {}", path.display()))?;
    Ok((found, digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
}

pub fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
