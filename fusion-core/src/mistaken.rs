//! What is often found in place of a file of data.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Enough of a file to recognise what it is.
const START: usize = 512;

/// What lies where a file of data is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistaken {
    /// A web page: servers send one, often with status 200, where they refuse or fail.
    WebPage,
    /// A pointer of Git LFS, as in a repository that was cloned without it.
    GitLfs,
    /// A pointer of git-annex.
    GitAnnex,
}

impl Mistaken {
    /// Recognises a file by its first bytes.
    pub fn of(start: &[u8]) -> Option<Self> {
        let start = start.get(..START).unwrap_or(start);
        let start = start.strip_prefix("\u{feff}".as_bytes()).unwrap_or(start).trim_ascii_start();
        let lower = start.to_ascii_lowercase();
        let begins = |text: &str| lower.starts_with(text.as_bytes());
        let contains = |text: &[u8]| lower.windows(text.len()).any(|part| part == text);
        if begins("<!doctype html") || begins("<html") || begins("<head>") {
            Some(Mistaken::WebPage)
        } else if begins("<?xml") && (contains(b"<html") || contains(b"<error>")) {
            // Also what object stores answer.
            Some(Mistaken::WebPage)
        } else if start.starts_with(b"version https://git-lfs.github.com/spec/") {
            Some(Mistaken::GitLfs)
        } else if start.starts_with(b"/annex/objects/") {
            Some(Mistaken::GitAnnex)
        } else {
            None
        }
    }

    /// Recognises a file. One that cannot be read is none of these.
    pub fn of_file(path: &Path) -> Option<Self> {
        let mut start = Vec::new();
        File::open(path).ok()?.take(START as u64).read_to_end(&mut start).ok()?;
        Mistaken::of(&start)
    }
}

impl fmt::Display for Mistaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mistaken::WebPage => "a web page, as servers send where they refuse or fail, not the file itself",
            Mistaken::GitLfs => "a Git LFS pointer, not the file itself; `git lfs pull` fetches that",
            Mistaken::GitAnnex => "a git-annex pointer, not the file itself; `git annex get` fetches that",
        })
    }
}
