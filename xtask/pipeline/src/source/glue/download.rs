//! Fetches a file so that it is there whole or not at all, resuming interrupted downloads.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use fusion_core::Mistaken;
use glue_eval::GlueError;
use sha2::{Digest, Sha256};
use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::{Agent, Body};

use crate::Watch;
use crate::source::digest::sha256;

/// How often a broken connection is retried.
const RETRIES: u32 = 3;
/// The pause before the first retry; it doubles with each further one.
const PAUSE: Duration = Duration::from_millis(300);

const ADVICE: &str = "run the same command again to resume";

/// A file to fetch.
pub struct Download<'a> {
    pub agent: &'a Agent,
    pub watch: &'a dyn Watch,
    pub url: String,
    /// Its name in messages.
    pub name: &'a str,
    /// Where it will be stored. The folder exists.
    pub path: &'a Path,
    /// Its SHA-256, if known.
    pub hash: Option<&'a String>,
    /// Checks what came, before it gets its name.
    pub check: &'a dyn Fn(&Path) -> Result<(), GlueError>,
}

pub enum Outcome {
    /// The file is complete, and this is its hash.
    Fetched(String),
    /// The server has no such file.
    Absent,
    /// The server sent something else, with a status of success. It is thrown away.
    Mistaken(Mistaken),
}

/// The outcome of one connection.
enum Attempt {
    Whole(PathBuf),
    Absent,
    /// The partial file matches nothing that the server has.
    Stale,
    Broken(anyhow::Error),
}

/// Where an answer's bytes belong in the file.
struct Place {
    start: u64,
    /// Size of the whole file in bytes.
    total: u64,
    /// Distinguishes versions of the file.
    version: String,
}

impl Download<'_> {
    pub fn run(&self) -> Result<Outcome> {
        let mut pause = PAUSE;
        let mut retries = RETRIES;
        loop {
            match self.attempt(retries < RETRIES)? {
                Attempt::Absent => return Ok(Outcome::Absent),
                Attempt::Whole(part) => return self.accept(&part),
                Attempt::Broken(error) if retries == 0 => {
                    return Err(error.context(format!("cannot fetch {}; {ADVICE}", self.url)));
                }
                Attempt::Stale if retries == 0 => {
                    bail!("cannot fetch {}: the server's answers contradict each other", self.url)
                }
                Attempt::Stale => self.remove_parts()?,
                Attempt::Broken(_) => {
                    thread::sleep(pause);
                    pause *= 2;
                }
            }
            retries -= 1;
        }
    }

    /// Requests what is missing. A server that was reached before may come back.
    fn attempt(&self, was_reached: bool) -> Result<Attempt> {
        let part = self.parts()?.into_iter().next();
        let there = part.as_ref().map_or(Ok(0), |part| fs::metadata(part).map(|part| part.len()))?;
        let mut request = self.agent.get(&self.url);
        if there > 0 {
            request = request.header("Range", format!("bytes={there}-"));
        }
        let failed = || format!("cannot fetch {}", self.url);
        let answer = match request.call() {
            Err(error) if was_reached => return Ok(Attempt::Broken(error.into())),
            answer => answer.with_context(failed)?,
        };
        match answer.status() {
            status if is_absent(status) => return Ok(Attempt::Absent),
            StatusCode::RANGE_NOT_SATISFIABLE => return Ok(Attempt::Stale),
            status if !status.is_success() => bail!("{}: the server answered with status {status}", failed()),
            _ => {}
        }
        let place = Place::of(&answer).with_context(failed)?;
        let path = self.part(&place.version);
        if place.start > 0 && (place.start != there || part.as_ref() != Some(&path)) {
            return Ok(Attempt::Stale);
        }
        let received = self.receive(answer, &place, &path)?;
        Ok(received.map_or_else(|error| Attempt::Broken(error.into()), |()| Attempt::Whole(path)))
    }

    /// Appends what arrives to what is there. The inner error is that of a broken connection.
    fn receive(&self, answer: Response<Body>, place: &Place, path: &Path) -> Result<io::Result<()>> {
        let failed = || format!("cannot write {}", path.display());
        let mut file = File::options().append(true).create(true).open(path).with_context(failed)?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            bail!("another process is fetching it");
        }
        file.set_len(place.start).with_context(failed)?;
        let progress = self.watch.bytes(self.name, place.total);
        progress(place.start);
        let mut length = place.start;
        let mut body = answer.into_body().into_reader();
        let mut buffer = vec![0; 1 << 16];
        loop {
            match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    file.write_all(&buffer[..count]).with_context(failed)?;
                    length += count as u64;
                    progress(count as u64);
                }
                Err(error) => return Ok(Err(error)),
            }
        }
        file.sync_all().with_context(failed)?;
        if length != place.total {
            let problem = format!("{length} bytes arrived, but the server announced {}", place.total);
            return Ok(Err(io::Error::new(io::ErrorKind::UnexpectedEof, problem)));
        }
        Ok(Ok(()))
    }

    /// Renames a completed file to its final name, if its hash is right.
    fn accept(&self, part: &Path) -> Result<Outcome> {
        let (_, hash) = sha256(part)?;
        if let Some(expected) = self.hash.filter(|expected| **expected != hash) {
            self.remove_parts()?;
            bail!(
                "{} is thrown away: its hash is {hash}, but the server's SHA256SUMS says {expected}",
                self.url
            );
        }
        match (self.check)(part) {
            Ok(()) => {}
            Err(GlueError::Mistaken { what, .. }) => {
                self.remove_parts()?;
                return Ok(Outcome::Mistaken(what));
            }
            Err(problem) => {
                self.remove_parts()?;
                let problem = problem.to_string().replace(&part.display().to_string(), self.name);
                bail!("{} is thrown away: {problem}", self.url);
            }
        }
        fs::rename(part, self.path)
            .with_context(|| format!("cannot rename {} to {}", part.display(), self.path.display()))?;
        self.remove_parts()?;
        Ok(Outcome::Fetched(hash))
    }

    /// `train.tsv.0123456789abcdef.part`.
    fn part(&self, version: &str) -> PathBuf {
        let mut name = OsString::from(self.path);
        name.push(format!(".{version}.part"));
        name.into()
    }

    /// Partial files left by earlier attempts.
    fn parts(&self) -> Result<Vec<PathBuf>> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let whole = self.path.file_name().unwrap_or_default().to_string_lossy();
        let is_part = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let version = name.strip_prefix(&*whole).and_then(|rest| rest.strip_suffix(".part"));
            version.is_some_and(|version| version.len() == 17 && version.starts_with('.'))
        };
        let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
        Ok(entries.flatten().map(|entry| entry.path()).filter(is_part).collect())
    }

    fn remove_parts(&self) -> Result<()> {
        for part in self.parts()? {
            fs::remove_file(&part).with_context(|| format!("cannot remove {}", part.display()))?;
        }
        Ok(())
    }
}

/// Some servers answer "forbidden" for files they do not have.
pub fn is_absent(status: StatusCode) -> bool {
    [StatusCode::NOT_FOUND, StatusCode::GONE, StatusCode::FORBIDDEN].contains(&status)
}

impl Place {
    fn of(answer: &Response<Body>) -> Result<Self> {
        let headers = answer.headers();
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let range = || {
            let (range, total) = text("content-range")?.strip_prefix("bytes ")?.split_once('/')?;
            Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()?))
        };
        let whole = || Some((0, text("content-length")?.parse().ok()?));
        let is_part = answer.status() == StatusCode::PARTIAL_CONTENT;
        let place = if is_part { range() } else { whole() };
        let unknown =
            "the server does not say how long it is, so that nothing would show whether it came whole";
        let (start, total) = place.context(unknown)?;
        Ok(Place { start, total, version: version(headers, total) })
    }
}

/// Identifies the file's version from the server's headers, as 16 hexadecimal digits.
fn version(headers: &HeaderMap, total: u64) -> String {
    let mut digest = Sha256::new_with_prefix(total.to_le_bytes());
    for name in ["etag", "last-modified"] {
        digest.update(headers.get(name).map_or(&b""[..], |value| value.as_bytes()));
    }
    digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
