//! Packs one archive with everything that a machine without Rust or a network needs, except libtorch.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::Serialize;
use t5_model::conformance;

use pipeline::report::figures::FONT_LICENSE;
use pipeline::report::page::UPLOT_LICENSE;

use crate::dev::resources::{BUNDLE, REFERENCES, SCRIPTS};

/// Finds libtorch and starts the program.
const LAUNCHER: &str = include_str!("deep-fusion");

/// How a bundle's program was built, as recorded in [`BUNDLE`].
#[derive(Serialize)]
pub struct Built {
    pub version: &'static str,
    pub cpu: String,
    pub features: Vec<String>,
}

/// The archive's bytes: the program and the files it reads, in the folder `deep-fusion`. The same sources and
/// program give the same bytes.
pub fn pack(sources: &Path, program: &Path, built: &Built) -> Result<Vec<u8>> {
    let mut archive = Archive(tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default())));
    archive.file("deep-fusion", LAUNCHER.as_bytes(), Mode::Executable)?;
    archive.file(BUNDLE, toml::to_string(built)?.as_bytes(), Mode::Plain)?;
    archive.copy("bin/deep-fusion", program, Mode::Executable)?;
    archive.copy("check-cuda", &sources.join(".ci/check-cuda"), Mode::Executable)?;
    for file in ["README.md", "LICENSE-APACHE", "LICENSE-MIT"] {
        archive.copy(file, &sources.join(file), Mode::Plain)?;
    }
    archive.file("LICENSE-uPlot", UPLOT_LICENSE.as_bytes(), Mode::Plain)?;
    archive.file("LICENSE-DejaVu", FONT_LICENSE.as_bytes(), Mode::Plain)?;
    for folder in ["docs", "recipes"] {
        archive.copy_all(folder, &sources.join(folder), |_| true)?;
    }
    archive.copy_all(SCRIPTS, &sources.join(SCRIPTS), |name| name.ends_with(".py"))?;
    for name in conformance::REFERENCES {
        let path = format!("{REFERENCES}/{name}");
        archive.copy_all(&path, &sources.join(&path), |_| true)?;
    }
    let compressed = archive.0.into_inner().and_then(GzEncoder::finish);
    compressed.context("cannot compress the bundle")
}

/// Whether a file is such an archive.
pub fn is_bundle(path: &Path) -> bool {
    let Ok(file) = fs::File::open(path) else { return false };
    let mut archive = tar::Archive::new(GzDecoder::new(file));
    let first = archive.entries().ok().and_then(|mut entries| entries.next()?.ok());
    first.is_some_and(|entry| entry.path().is_ok_and(|path| path.starts_with("deep-fusion")))
}

struct Archive(tar::Builder<GzEncoder<Vec<u8>>>);

/// Permissions.
#[derive(Clone, Copy)]
enum Mode {
    Plain = 0o644,
    Executable = 0o755,
}

impl Archive {
    fn file(&mut self, path: &str, bytes: &[u8], mode: Mode) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(mode as u32);
        header.set_mtime(DAY_ONE);
        let path = format!("deep-fusion/{path}");
        self.0.append_data(&mut header, &path, bytes).with_context(|| format!("cannot pack {path}"))
    }

    fn copy(&mut self, path: &str, source: &Path, mode: Mode) -> Result<()> {
        let bytes = fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
        self.file(path, &bytes, mode)
    }

    /// Adds a file, or those files below a folder whose names are wanted, in the order of their names.
    fn copy_all(&mut self, path: &str, source: &Path, wanted: impl Fn(&str) -> bool + Copy) -> Result<()> {
        if !source.is_dir() {
            let name = source.file_name().unwrap_or_default().to_string_lossy();
            return if wanted(&name) { self.copy(path, source, Mode::Plain) } else { Ok(()) };
        }
        let entries = fs::read_dir(source).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
        let mut entries = entries.with_context(|| format!("cannot list {}", source.display()))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            self.copy_all(&format!("{path}/{}", name.to_string_lossy()), &entry.path(), wanted)?;
        }
        Ok(())
    }
}

/// 2023-06-20, the day the paper appeared, in seconds. Tar warns about times near 0.
const DAY_ONE: u64 = 1_687_219_200;
