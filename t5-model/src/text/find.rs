//! Finds the files that inputs name: files, folders and glob patterns.
//!
//! Every file is found once, under whatever names, in an order that does not depend on the file system. What is left out
//! is told: hidden files and folders (those of editors, notebooks and operating systems begin with a dot), folders such
//! as `__MACOSX`, and files that are not text. What is named itself is read.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use fusion_core::atomic::RECORD;
use glob::{MatchOptions, Pattern};
use walkdir::{DirEntry, WalkDir};

use super::error::{Result, TextError};
use super::tokens::TOKENS_MANIFEST;

/// A file or folder that was found but is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Where it is.
    pub path: PathBuf,
    /// Why it is not read.
    pub reason: Reason,
}

/// Why a file or folder is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its name begins with a dot, as do copies and indexes of editors, notebooks and operating systems.
    Hidden,
    /// A folder whose name begins with `__`, as archivers leave, or a file whose name begins with `~$`, as office
    /// programs do.
    Special,
    /// Its name does not end as that of a text does.
    OtherKind,
    /// It is a table beside texts, or either beside files of tokens.
    Beside(&'static str),
    /// It is a pipe, a socket or a device.
    NotAFile,
    /// It is another name of a file or folder that is read.
    Same(PathBuf),
    /// It is a link to a folder that it lies in.
    Loop,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.path.display())?;
        match &self.reason {
            Reason::Hidden => f.write_str("(hidden)"),
            Reason::Special => f.write_str("(left by another program)"),
            Reason::OtherKind => f.write_str("(not a text)"),
            Reason::Beside(others) => write!(f, "(beside {others})"),
            Reason::NotAFile => f.write_str("(not a file)"),
            Reason::Same(path) => write!(f, "(the same as {})", path.display()),
            Reason::Loop => f.write_str("(a link to a folder above it)"),
        }
    }
}

/// The files of some inputs.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub files: Vec<PathBuf>,
    pub left_out: Vec<LeftOut>,
    /// How often a text was found, under whatever name.
    matches: usize,
    /// The files' identities: their device, and their number there.
    identities: HashMap<(u64, u64), PathBuf>,
}

/// Finds the files of inputs, in the order of the inputs; those of a folder or a pattern in the order of their paths.
pub(super) fn find<S: AsRef<str>>(inputs: &[S]) -> Result<Found> {
    let mut found = Found::default();
    for input in inputs {
        let path = Path::new(input.as_ref());
        let before = found.matches;
        if path.is_dir() {
            found.add_folder(path)?;
            if found.matches == before {
                return Err(TextError::EmptyFolder { path: path.into() });
            }
        } else if path.exists() {
            if kind(path).is_none() {
                return Err(TextError::Extension { path: path.into() });
            }
            found.add_file(path.into())?;
        } else {
            found.add_matches(input.as_ref())?;
        }
        if found.matches == before {
            return Err(TextError::NoMatch { input: input.as_ref().to_owned() });
        }
    }
    if found.files.is_empty() { Err(TextError::NoInputs) } else { Ok(found) }
}

impl Found {
    /// All files of tokens below a folder, or if there are none, all texts, or if there are none either, all tables.
    fn add_folder(&mut self, folder: &Path) -> Result<()> {
        let mut files = Vec::new();
        for path in self.walk(folder)? {
            if kind(&path).is_some() {
                files.push(path);
            } else {
                self.leave(path, Reason::OtherKind);
            }
        }
        let files = files.into_iter().filter(|path| !is_beside_tokens(path));
        let is_tokens = |path: &PathBuf| kind(path) == Some("tokens");
        let (tokens, others): (Vec<_>, Vec<_>) = files.partition(is_tokens);
        let (tables, texts): (Vec<_>, Vec<_>) = others.into_iter().partition(|path| is_table(path));
        let (read, left) = match (tokens.is_empty(), texts.is_empty()) {
            (false, _) => (tokens, (tables.into_iter().chain(texts).collect(), "tokens")),
            (true, false) => (texts, (tables, "texts")),
            (true, true) => (tables, (Vec::new(), "")),
        };
        let (left, beside): (Vec<_>, _) = left;
        left.into_iter().for_each(|path| self.leave(path, Reason::Beside(beside)));
        read.into_iter().try_for_each(|path| self.add_file(path))
    }

    /// What matches a pattern: files, and folders with all texts below them.
    fn add_matches(&mut self, input: &str) -> Result<()> {
        let failed = |error: glob::PatternError| TextError::Glob {
            input: input.to_owned(),
            reason: error.to_string(),
        };
        let pattern = Pattern::new(input).map_err(failed)?;
        for path in self.matching(input, &pattern)? {
            if path.is_dir() {
                self.add_folder(&path)?;
            } else if kind(&path).is_some() {
                self.add_file(path)?;
            } else {
                return Err(TextError::Extension { path });
            }
        }
        Ok(())
    }

    fn add_file(&mut self, path: PathBuf) -> Result<()> {
        self.matches += 1;
        let metadata = path.metadata().map_err(|source| TextError::Read { path: path.clone(), source })?;
        if !metadata.is_file() {
            self.leave(path, Reason::NotAFile);
        } else if let Some(other) = self.identities.get(&(metadata.dev(), metadata.ino())) {
            if *other != path {
                let other = other.clone();
                self.leave(path, Reason::Same(other));
            }
        } else {
            self.identities.insert((metadata.dev(), metadata.ino()), path.clone());
            self.files.push(path);
        }
        Ok(())
    }

    fn leave(&mut self, path: PathBuf, reason: Reason) {
        self.left_out.push(LeftOut { path, reason });
    }

    /// What is below a folder and not hidden, except for folders, sorted by path. Links are followed.
    fn walk(&mut self, folder: &Path) -> Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        // Folders that link to each other would otherwise be entered over and over.
        let mut folders = HashMap::new();
        let mut entries = walker(folder, usize::MAX).into_iter();
        while let Some(entry) = entries.next() {
            let Some(entry) = self.readable(entry)? else { continue };
            let reason = reason_to_leave(&entry);
            let is_folder = entry.file_type().is_dir();
            if let Some(reason) = reason.filter(|_| entry.depth() > 0) {
                if is_folder {
                    entries.skip_current_dir();
                }
                if entry.file_name() != RECORD {
                    self.leave(entry.into_path(), reason);
                }
            } else if !is_folder {
                paths.push(entry.into_path());
            } else {
                let path = entry.into_path();
                let first = folders.entry(identity(&path)?).or_insert_with(|| path.clone());
                if *first != path {
                    entries.skip_current_dir();
                    self.leave(path, Reason::Same(first.clone()));
                }
            }
        }
        paths.sort();
        Ok(paths)
    }

    /// What matches a pattern, sorted by path. As in a shell, `*` matches no dot at the beginning of a name.
    fn matching(&mut self, input: &str, pattern: &Pattern) -> Result<Vec<PathBuf>> {
        let mut components: Vec<Component<'_>> = Path::new(input).components().collect();
        components.retain(|component| *component != Component::CurDir);
        let plain: PathBuf = components.iter().collect();
        let pattern = plain.to_str().and_then(|plain| Pattern::new(plain).ok()).unwrap_or(pattern.clone());
        let has = |component: &Component<'_>, what: &[u8]| {
            component.as_os_str().as_encoded_bytes().windows(what.len()).any(|part| part == what)
        };
        let is_literal =
            |component: &&Component<'_>| ![b"*", b"?", b"["].iter().any(|meta| has(component, *meta));
        let literal =
            components.iter().take_while(is_literal).count().min(components.len().saturating_sub(1));
        let (above, below) = components.split_at(literal);
        let base: PathBuf = above.iter().collect();
        let base = if above.is_empty() { PathBuf::from(".") } else { base };
        let depth =
            if below.iter().any(|component| has(component, b"**")) { usize::MAX } else { below.len() };
        // Hidden and special folders are entered where the pattern names one.
        let asks = |begin: &[u8]| {
            below.iter().any(|component| component.as_os_str().as_encoded_bytes().starts_with(begin))
        };
        let (asks_for_hidden, asks_for_special) = (asks(b"."), asks(b"__"));

        let mut found = Vec::new();
        if !base.is_dir() {
            return Ok(found);
        }
        // Names that are not UTF-8 match where their replacement characters do.
        let matches = |path: &Path, dot| {
            let options = MatchOptions {
                case_sensitive: true,
                require_literal_separator: true,
                require_literal_leading_dot: dot,
            };
            pattern.matches_with(&path.to_string_lossy(), options)
        };
        let plain = |path: &Path| path.strip_prefix("./").unwrap_or(path).to_owned();
        let mut entries = walker(&base, depth).into_iter();
        while let Some(entry) = entries.next() {
            let broken = entry.as_ref().err().and_then(walkdir::Error::path).filter(|path| path.is_symlink());
            if broken.is_some_and(|link| !matches(&plain(link), false)) {
                continue;
            }
            let Some(entry) = self.readable(entry)?.filter(|entry| entry.depth() > 0) else { continue };
            let path = plain(entry.path());
            let reason = match reason_to_leave(&entry) {
                Some(Reason::Hidden) if asks_for_hidden => None,
                Some(Reason::Special) if asks_for_special => None,
                reason => reason,
            };
            if let Some(reason) = reason {
                let is_folder = entry.file_type().is_dir();
                if is_folder {
                    entries.skip_current_dir();
                }
                if matches(&path, false) || is_folder && depth == usize::MAX {
                    self.leave(path, reason);
                }
            } else if matches(&path, true) {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }

    /// An entry, unless it is a link to a folder above it. A broken link is an error if it names a text.
    fn readable(&mut self, entry: walkdir::Result<DirEntry>) -> Result<Option<DirEntry>> {
        let error = match entry {
            Ok(entry) => return Ok(Some(entry)),
            Err(error) => error,
        };
        let path = error.path().unwrap_or(Path::new("")).to_owned();
        let is_link = path.is_symlink();
        if error.loop_ancestor().is_some() {
            self.leave(path, Reason::Loop);
        } else if is_link && is_hidden(path.file_name().unwrap_or_default()) {
            self.leave(path, Reason::Hidden);
        } else if is_link && kind(&path).is_none() {
            self.leave(path, Reason::OtherKind);
        } else if is_link {
            return Err(TextError::BrokenLink { path });
        } else {
            return Err(TextError::Read { path, source: error.into() });
        }
        Ok(None)
    }
}

/// What tells a file or folder from all others: its device, and its number there.
fn identity(path: &Path) -> Result<(u64, u64)> {
    let found = path.metadata().map_err(|source| TextError::Read { path: path.to_owned(), source })?;
    Ok((found.dev(), found.ino()))
}

fn walker(folder: &Path, depth: usize) -> WalkDir {
    WalkDir::new(folder).follow_links(true).max_depth(depth).sort_by_file_name()
}

fn reason_to_leave(entry: &DirEntry) -> Option<Reason> {
    let name = entry.file_name();
    let special: &[u8] = if entry.file_type().is_dir() { b"__" } else { b"~$" };
    let is_special = name.as_encoded_bytes().starts_with(special);
    if is_hidden(name) { Some(Reason::Hidden) } else { is_special.then_some(Reason::Special) }
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// The kind of a text file, ignoring the compression: the end of its name. `None` if no text has such a name.
pub fn kind(path: &Path) -> Option<&'static str> {
    let whole = path.file_name()?.as_encoded_bytes();
    let name = whole.strip_suffix(b".gz").or_else(|| whole.strip_suffix(b".zst")).unwrap_or(whole);
    let ends = |kind: &&str| name.strip_suffix(kind.as_bytes()).is_some_and(|name| name.ends_with(b"."));
    let known = ["json", "jsonl", "txt", "csv", "tsv", "parquet", "tokens"].into_iter().find(ends);
    known.filter(|kind| !matches!(*kind, "parquet" | "tokens") || name == whole)
}

/// Whether a file is what `data tokenize` writes beside its tokens: no text, and nothing to tell of.
fn is_beside_tokens(path: &Path) -> bool {
    let folder = path.parent().unwrap_or(Path::new(""));
    let is_tokenizer = folder.file_name() == Some(OsStr::new("tokenizer"));
    let folder = if is_tokenizer { folder.parent().unwrap_or(folder) } else { folder };
    (is_tokenizer || path.file_name() == Some(OsStr::new(TOKENS_MANIFEST)))
        && folder.join(TOKENS_MANIFEST).exists()
}

fn is_table(path: &Path) -> bool {
    matches!(kind(path), Some("csv" | "tsv" | "parquet"))
}
