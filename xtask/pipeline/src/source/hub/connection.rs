//! Talks to the Hugging Face Hub and its cache, which other programs share.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use hf_hub::Repo;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
pub use hf_hub::{Cache, RepoType};

use super::HubName;
use super::environment::{Environment, commit_of};
use crate::source::digest::{is_hexadecimal, sha256};
use crate::source::once::once;

/// How often a broken connection is retried.
const RETRIES: usize = 3;

/// A repository on the hub.
#[derive(Clone)]
pub struct HubRepo {
    /// Where it is, and at which revision.
    pub name: HubName,
    /// Whether it holds a model or a dataset.
    pub kind: RepoType,
}

impl HubRepo {
    fn at(&self, revision: &str) -> Repo {
        Repo::with_revision(self.name.name.clone(), self.kind, revision.to_owned())
    }

    fn asked(&self) -> Repo {
        self.at(self.name.revision())
    }

    /// The cache directory with the revision's files, or some of them, if the revision is known.
    pub fn cached(&self, cache: &Cache) -> Option<PathBuf> {
        let asked = self.name.revision();
        let reference = self.directory(cache).join("refs").join(asked);
        // Other programs record no reference to a commit requested by its hash.
        let commit =
            commit_of(&reference).or_else(|| Some(asked.to_owned()).filter(|asked| is_commit(asked)))?;
        Some(cache.repo(self.asked()).pointer_path(&commit)).filter(|path| path.exists())
    }

    /// Whether another program found that the hub has no such file at the commit of a directory in the cache.
    pub fn is_known_to_lack(&self, cache: &Cache, snapshot: &Path, file: &str) -> bool {
        let commit = snapshot.file_name().unwrap_or_default();
        self.directory(cache).join(".no_exist").join(commit).join(file).exists()
    }

    fn directory(&self, cache: &Cache) -> PathBuf {
        cache.path().join(self.asked().folder_name())
    }

    /// The error for a repository that is not cached while offline.
    pub fn refuse_offline<T>(&self, cache: &Cache) -> Result<T> {
        let (name, place) = (&self.name, cache.path().display());
        bail!(
            "{name} is not in the cache at {place}, and HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) forbids to fetch it"
        )
    }

    /// Connects to the hub and looks up the revision's commit and files.
    pub fn connect(self, environment: &Environment, cache: &Cache) -> Result<Hub> {
        let builder = ApiBuilder::from_cache(cache.clone()).with_endpoint(environment.endpoint()?.to_owned());
        let builder = builder.with_token(environment.token()?).with_retries(RETRIES);
        let api = builder.build().context("cannot speak with the Hugging Face Hub")?;
        let mut hub = Hub { api, cache: cache.clone(), repo: self, commit: String::new(), files: Vec::new() };
        let info = hub.api.repo(hub.repo.asked()).info().map_err(|error| hub.explain(&error))?;
        ensure!(is_commit(&info.sha), "{}: the hub names its commit {:?}", hub.repo.name, info.sha);
        hub.commit = info.sha;
        hub.files = info.siblings.into_iter().map(|file| file.rfilename).collect();
        Ok(hub)
    }
}

/// A connection to the hub for one repository at one commit.
pub struct Hub {
    api: Api,
    cache: Cache,
    repo: HubRepo,
    commit: String,
    files: Vec<String>,
}

impl Hub {
    /// The files in the repository.
    pub fn files(&self) -> &[String] {
        &self.files
    }

    /// Whether the repository contains a file of this name.
    pub fn has(&self, name: &str) -> bool {
        self.files.iter().any(|file| file == name)
    }

    /// The commit that the revision stands for.
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// A file, fetched if it is not cached. A download that does not match the hub's announcement is
    /// discarded.
    pub fn file(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory().join(name);
        if path.exists() {
            return Ok(path);
        }
        // Several processes may want it at once; the client waits for others no longer than five seconds.
        let lock = self.repo.directory(&self.cache).join(format!(".{}.lock", name.replace('/', "--")));
        once(&lock, || if path.exists() { Ok(path.clone()) } else { self.download(name, &path) })
    }

    fn download(&self, name: &str, path: &Path) -> Result<PathBuf> {
        let repo = self.repo.at(&self.commit);
        let failed = |error: ApiError| self.explain(&error).context(format!("cannot fetch {name}"));
        let remote = self.api.repo(repo.clone());
        let announced = self.api.metadata(&remote.url(name)).map_err(failed)?;
        let size = announced.size() as u64;
        // The client resumes from what a broken connection left, which has to be less than the whole file.
        let part = self.cache.repo(repo).blob_path(announced.etag()).with_extension("part");
        if fs::metadata(&part).is_ok_and(|part| part.len() >= size) {
            fs::remove_file(&part).with_context(|| format!("cannot remove {}", part.display()))?;
        }
        remote.download(name).map_err(failed)?;
        check(path, size, announced.etag()).map_err(|problem| {
            remove(path);
            problem.context(format!("{}: {name} did not arrive whole and is thrown away", self.repo.name))
        })?;
        Ok(path.to_owned())
    }

    /// The directory of the files. From now on the cache knows the revision: everything needed from it is
    /// there.
    pub fn remember(&self) -> Result<PathBuf> {
        let asked = self.cache.repo(self.repo.asked());
        asked.create_ref(&self.commit).context("cannot write into the hub's cache")?;
        Ok(self.directory())
    }

    fn directory(&self) -> PathBuf {
        self.cache.repo(self.repo.at(&self.commit)).pointer_path(&self.commit)
    }

    fn explain(&self, error: &ApiError) -> Error {
        let name = &self.repo.name;
        let kind = if let RepoType::Dataset = self.repo.kind { "dataset" } else { "model" };
        let log_in = "a token in HF_TOKEN or from `huggingface-cli login` shows that you may read it";
        match status(error) {
            Some(401) => anyhow!("{name} does not exist, or is private or gated: {log_in}"),
            Some(403) => anyhow!("{name} is gated: accept its terms on its page on the hub; {log_in}"),
            Some(404) => anyhow!("{name}: the hub has no such {kind}, revision or file"),
            Some(status) => anyhow!("{name}: the hub answered with status {status}"),
            None => anyhow!("{name} cannot be fetched from the Hugging Face Hub: {error}"),
        }
    }
}

pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_hexadecimal(text)
}

/// The HTTP status of an error response.
fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        ApiError::TooManyRetries(error) => status(error),
        _ => None,
    }
}

/// Checks that a file has the announced size and, if it is a large file, whose tag is its SHA-256, that hash.
fn check(path: &Path, size: u64, tag: &str) -> Result<()> {
    let (found, hash) = sha256(path)?;
    ensure!(found == size, "{found} bytes arrived, but the hub announced {size}");
    let is_hash = tag.len() == hash.len() && is_hexadecimal(tag);
    ensure!(!is_hash || hash == tag.to_ascii_lowercase(), "its hash is {hash}, but the hub announced {tag}");
    Ok(())
}

/// Removes a file from the cache together with what it links to.
fn remove(path: &Path) {
    let _ = fs::canonicalize(path).and_then(fs::remove_file);
    let _ = fs::remove_file(path);
}
