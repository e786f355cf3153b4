//! Fetching a model into the hub's cache, which other programs share.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use fusion_core::ShardIndex;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};
use sha2::{Digest, Sha256};

use super::super::TOKENIZER_FILES;
use super::HubModel;

const CONFIG: &str = "config.json";
/// Weights, single and as an index of shards; earlier ones are preferred.
const WEIGHTS: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];
/// How often a broken connection is taken up again.
const RETRIES: usize = 3;

/// The directory of the model's files.
pub fn fetch(model: &HubModel) -> Result<PathBuf> {
    let cache = Cache::from_env();
    let cached = cached(&cache, model);
    let has_tokenizer =
        |directory: &PathBuf| TOKENIZER_FILES.iter().any(|name| directory.join(name).exists());
    match cached {
        Some(directory) if is_offline() || has_tokenizer(&directory) => Ok(directory),
        None if is_offline() => bail!(
            "{model} is not in the cache at {}, and HF_HUB_OFFLINE forbids to fetch it",
            cache.path().display()
        ),
        None => download(&cache, model),
        // Another program did not need the tokenizer, or there is none.
        Some(directory) => download(&cache, model).or_else(|error| {
            eprintln!("{model}: taken from the cache as it is, without a tokenizer: {error}");
            Ok(directory)
        }),
    }
}

/// As in Hugging Face's libraries.
fn is_offline() -> bool {
    let value = env::var("HF_HUB_OFFLINE").unwrap_or_default();
    ["1", "ON", "YES", "TRUE"].contains(&value.to_ascii_uppercase().as_str())
}

/// A revision's directory in the cache, if it holds a model.
fn cached(cache: &Cache, model: &HubModel) -> Option<PathBuf> {
    let asked = repo(model, model.revision());
    let config = cache.repo(asked.clone()).get(CONFIG);
    // Other programs keep no reference to a commit that was asked for by its hash.
    let commit = || cache.repo(asked.clone()).pointer_path(asked.revision()).join(CONFIG);
    let config = config.or_else(|| Some(commit()).filter(|path| path.exists()))?;
    let directory = config.parent()?;
    let weights = WEIGHTS.into_iter().find(|name| directory.join(name).exists())?;
    let is_whole = !is_index(weights) || {
        let index = ShardIndex::read(&directory.join(weights)).ok()?;
        index.files().iter().all(|shard| directory.join(shard).exists())
    };
    is_whole.then(|| directory.to_owned())
}

fn repo(model: &HubModel, revision: &str) -> Repo {
    Repo::with_revision(model.name.clone(), RepoType::Model, revision.to_owned())
}

fn is_index(name: &str) -> bool {
    name.ends_with(".index.json")
}

/// A model's files at one commit. The cache knows the revision only when all are there.
fn download(cache: &Cache, model: &HubModel) -> Result<PathBuf> {
    let hub = Hub::new(cache, model)?;
    let asked = repo(model, model.revision());
    let info = hub.api.repo(asked.clone()).info().map_err(|error| hub.explain(&error))?;
    let is_there = |name: &str| info.siblings.iter().any(|file| file.rfilename == name);
    ensure!(is_there(CONFIG), "{model} has no config.json, so it is no model that can be read");
    let weights = WEIGHTS.into_iter().find(|name| is_there(name));
    let weights =
        weights.with_context(|| format!("{model} has no weights: looked for {}", WEIGHTS.join(", ")))?;
    ensure!(is_commit(&info.sha), "{model}: the hub names its commit {:?}", info.sha);

    for name in TOKENIZER_FILES.into_iter().filter(|name| is_there(name)) {
        hub.file(&info.sha, name)?;
    }
    let first = hub.file(&info.sha, weights)?;
    if is_index(weights) {
        for shard in ShardIndex::read(&first)?.files() {
            hub.file(&info.sha, shard)?;
        }
    }
    let config = hub.file(&info.sha, CONFIG)?;
    cache.repo(asked).create_ref(&info.sha).context("cannot write into the hub's cache")?;
    Ok(config.parent().context("the cache has directories")?.to_owned())
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_hexadecimal(text)
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A connection to the hub on behalf of a model.
struct Hub<'a> {
    api: Api,
    cache: &'a Cache,
    model: &'a HubModel,
}

impl<'a> Hub<'a> {
    fn new(cache: &'a Cache, model: &'a HubModel) -> Result<Self> {
        let token = env::var("HF_TOKEN").ok().filter(|token| !token.is_empty()).or_else(|| cache.token());
        let builder = ApiBuilder::from_env().with_token(token).with_retries(RETRIES);
        Ok(Hub { api: builder.build().context("cannot speak with the Hugging Face Hub")?, cache, model })
    }

    /// A file, fetched if it is not there. What arrives otherwise than the hub announced it is thrown away.
    fn file(&self, commit: &str, name: &str) -> Result<PathBuf> {
        let repo = repo(self.model, commit);
        let path = self.cache.repo(repo.clone()).pointer_path(commit).join(name);
        if path.exists() {
            return Ok(path);
        }
        let failed = |error: ApiError| self.explain(&error).context(format!("cannot fetch {name}"));
        let remote = self.api.repo(repo.clone());
        let announced = self.api.metadata(&remote.url(name)).map_err(failed)?;
        let size = announced.size() as u64;
        // The client goes on with what a broken connection left, which has to be less than all.
        let part = self.cache.repo(repo).blob_path(announced.etag()).with_extension("part");
        if fs::metadata(&part).is_ok_and(|part| part.len() >= size) {
            fs::remove_file(&part).with_context(|| format!("cannot remove {}", part.display()))?;
        }
        let path = remote.download(name).map_err(failed)?;
        check(&path, size, announced.etag()).map_err(|problem| {
            remove(&path);
            problem.context(format!("{}: {name} did not arrive whole and is thrown away", self.model))
        })?;
        Ok(path)
    }

    fn explain(&self, error: &ApiError) -> Error {
        let model = self.model;
        let log_in = "a token in HF_TOKEN or from `huggingface-cli login` shows that you may read it";
        match status(error) {
            Some(401) => anyhow!("{model} does not exist, or is private or gated: {log_in}"),
            Some(403) => anyhow!("{model} is gated: accept its terms on its page on the hub; {log_in}"),
            Some(404) => anyhow!("{model}: the hub has no such model, revision or file"),
            Some(status) => anyhow!("{model}: the hub answered with status {status}"),
            None => anyhow!("{model} cannot be fetched from the Hugging Face Hub: {error}"),
        }
    }
}

/// The status of an answer that is an error.
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

/// Whether a file has the size that was announced, and, if it is a large one, whose tag is its SHA-256, that hash.
fn check(path: &Path, size: u64, tag: &str) -> Result<()> {
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
    ensure!(found == size, "{found} bytes arrived, but the hub announced {size}");
    let hash: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let is_hash = tag.len() == hash.len() && is_hexadecimal(tag);
    ensure!(!is_hash || hash == tag.to_ascii_lowercase(), "its hash is {hash}, but the hub announced {tag}");
    Ok(())
}

/// Removes a file of the cache together with what it points to.
fn remove(path: &Path) {
    let _ = fs::canonicalize(path).and_then(fs::remove_file);
    let _ = fs::remove_file(path);
}
