//! `SHA256SUMS`, in the format that `sha256sum` writes and checks.

use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::{fs, io};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::problems::Problems;
use crate::source::digest::{is_hexadecimal, sha256};

/// SHA-256 hashes of files, keyed by path relative to the folder that contains the sums.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checksums(pub BTreeMap<String, String>);

impl Checksums {
    /// The name of the file with the sums.
    pub const NAME: &str = "SHA256SUMS";

    /// The sums in a folder, if there are any.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(Checksums::NAME);
        match fs::read_to_string(&path) {
            Ok(text) => Checksums::parse(&text, &path.display().to_string()).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// `origin` names the text in messages.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let mut sums = BTreeMap::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
            // An asterisk marks binary mode.
            let parts = line.split_once(' ').map(|(hash, name)| (hash, name.trim_start_matches([' ', '*'])));
            let sound =
                parts.filter(|(hash, name)| hash.len() == 64 && is_hexadecimal(hash) && is_inside(name));
            let Some((hash, name)) = sound else {
                bail!("{origin}:{}: not of the form `HASH  FILE`: {line:?}", number + 1);
            };
            let name = name.trim_start_matches("./");
            sums.insert(name.to_owned(), hash.to_ascii_lowercase());
        }
        Ok(Checksums(sums))
    }

    /// Fails if a file is not listed: this program did not fetch it, so it is not replaced.
    #[cfg(feature = "hub")]
    pub fn check_ours(&self, name: &str, path: &Path) -> Result<()> {
        let shown = path.display();
        ensure!(
            self.0.contains_key(name),
            "{shown} is another file than the server's, and was not fetched by this program"
        );
        Ok(())
    }

    /// Writes `SHA256SUMS` into a folder, one line per file.
    #[cfg(feature = "hub")]
    pub fn write(&self, folder: &Path) -> Result<()> {
        let lines: String = self.0.iter().map(|(name, hash)| format!("{hash}  {name}\n")).collect();
        Ok(fusion_core::atomic::write_file_atomically(&folder.join(Checksums::NAME), lines.as_bytes())?)
    }

    /// Fails with a list of all files that are missing or have another hash.
    pub fn verify(&self, folder: &Path) -> Result<()> {
        let mut problems = Problems::default();
        for (name, expected) in &self.0 {
            let path = folder.join(name);
            problems.keep(sha256(&path).and_then(|(_, hash)| {
                let message = || {
                    anyhow!("{}: its hash is {hash}, but {} says {expected}", path.display(), Checksums::NAME)
                };
                ensure!(hash == *expected, message());
                Ok(())
            }));
        }
        problems.result()
    }
}

fn is_inside(name: &str) -> bool {
    let mut components = Path::new(name).components().peekable();
    components.peek().is_some()
        && components.all(|component| matches!(component, Component::Normal(_) | Component::CurDir))
}

#[cfg(test)]
mod tests {
    use super::Checksums;

    #[test]
    fn sums_are_read_as_sha256sum_writes_them() {
        let hash = "0a".repeat(32);
        let text =
            format!("{hash}  cola/train.parquet\n{}  *RTE/dev.tsv\n\n{hash}  ./a b\n", hash.to_uppercase());
        let sums = Checksums::parse(&text, "x").expect("sound");
        let expected =
            ["RTE/dev.tsv", "a b", "cola/train.parquet"].map(|name| (name.to_owned(), hash.clone()));
        assert_eq!(sums.0, expected.into());
        for (line, number) in
            [("no hash", 1), (&format!("{hash}  ../up") as &str, 1), (&format!("{hash}  /root"), 1)]
        {
            let error = Checksums::parse(&format!("{line}\n"), "x").expect_err("unsound").to_string();
            assert!(error.starts_with(&format!("x:{number}: ")), "{error}");
        }
    }
}
