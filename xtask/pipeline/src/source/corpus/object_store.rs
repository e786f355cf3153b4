//! Text in object stores (`s3://`, `gs://`, `az://`) and on the web (`https://`).
//!
//! What is read is fetched as a whole into a cache first: shards are read from the beginning each epoch, by every process
//! of a machine, and a training that resumes begins in the middle of one.

use std::error::Error;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};
use std::{env, fmt};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytesize::ByteSize;
use fusion_core::atomic::free_space;
use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::{
    ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, ObjectStoreScheme,
    RetryConfig, path,
};
use sha2::{Digest, Sha256};
use t5_model::text::{Corpus, RemoteFile};
use tokio::runtime::Runtime;
use url::Url;
use walkdir::WalkDir;

use super::choose::{is_pattern, matching};
use crate::source::digest::is_hexadecimal;
use crate::source::once::once;

/// Where the cache is.
const CACHE: &str = "DEEP_FUSION_CACHE";
/// How large it may become.
const CACHE_SIZE: &str = "DEEP_FUSION_CACHE_SIZE";
/// How often a download that gets no further is tried again, after waiting longer each time.
const RETRIES: &str = "DEEP_FUSION_RETRIES";
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// What gives clients of a cloud credentials, or says that there are none on purpose.
const AWS_CREDENTIALS: [&str; 6] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_METADATA_ENDPOINT",
    "AWS_SKIP_SIGNATURE",
];
const GOOGLE_CREDENTIALS: [&str; 6] = [
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_BEARER_TOKEN",
    "GOOGLE_SKIP_SIGNATURE",
];
/// Where `gcloud auth application-default login` leaves them, below the home directory.
const GCLOUD_CREDENTIALS: &str = ".config/gcloud/application_default_credentials.json";
const AZURE_CREDENTIALS: [&str; 13] = [
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_MASTER_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_TOKEN",
    "AZURE_STORAGE_CLIENT_ID",
    "AZURE_STORAGE_USE_EMULATOR",
    "AZURE_CLIENT_ID",
    "AZURE_MSI_ENDPOINT",
    "AZURE_IDENTITY_ENDPOINT",
    "AZURE_USE_AZURE_CLI",
    "AZURE_SKIP_SIGNATURE",
];

/// The texts at an address: of an object, or of those that match a pattern or lie below a folder. On the web, where
/// nothing can be listed, of a file.
pub fn open(address: &str) -> Result<Corpus> {
    let (base, path) = split(address)?;
    let store = store(&base).with_context(|| format!("cannot use {address}"))?;
    let cache = cache()?;
    let failed = || format!("cannot look at {address}");
    let on_web = base.starts_with("http");
    let objects = if on_web {
        ensure!(!is_pattern(&path), "{address}: nothing can be listed on the web; name every file");
        vec![runtime()?.block_on(store.head(&path::Path::from_url_path(&path)?)).with_context(failed)?]
    } else {
        runtime()?.block_on(find(&*store, &path)).with_context(failed)?
    };
    let names: Vec<&str> = objects.iter().map(|object| object.location.as_ref()).collect();
    let chosen =
        matching(names.iter().copied(), path.trim_end_matches('/')).with_context(|| address.to_owned())?;
    if chosen.is_empty() {
        ensure!(!names.is_empty(), "there is nothing at {address}");
        let first = names.iter().take(5).copied().collect::<Vec<_>>().join(", ");
        bail!("{address} holds no text; of {} objects, the first are: {first}", names.len());
    }
    let object = |name: &str| objects.iter().find(|object| object.location.as_ref() == name);
    let objects = chosen.into_iter().filter_map(object).map(|meta| -> Arc<dyn RemoteFile> {
        let name = format!("{base}/{}", meta.location);
        Arc::new(Object {
            store: Arc::clone(&store),
            version: version(meta),
            meta: meta.clone(),
            name,
            cache: cache.clone(),
        })
    });
    Ok(Corpus::from_remote(objects.collect()))
}

/// The object at a path, or else all below it, or below what of it has no wildcards.
async fn find(store: &dyn ObjectStore, path: &str) -> object_store::Result<Vec<ObjectMeta>> {
    let prefix = path::Path::parse(literal(path).trim_end_matches('/'))?;
    if !is_pattern(path) && !prefix.as_ref().is_empty() {
        match store.head(&prefix).await {
            Err(object_store::Error::NotFound { .. }) => {}
            found => return found.map(|object| vec![object]),
        }
    }
    store.list(Some(&prefix).filter(|prefix| !prefix.as_ref().is_empty())).try_collect().await
}

/// What of a path has no wildcards, up to a slash.
fn literal(path: &str) -> &str {
    let end = path.find(['*', '?', '[']).and_then(|at| path[..at].rfind('/')).map_or(0, |slash| slash + 1);
    if is_pattern(path) { &path[..end] } else { path }
}

/// An address's store and its path there: `s3://bucket` and `c4/*.json.gz`.
fn split(address: &str) -> Result<(String, String)> {
    let (scheme, rest) = address.split_once("://").with_context(|| format!("{address:?} is no address"))?;
    let known = ["s3", "s3a", "gs", "az", "abfs", "abfss", "https", "http"];
    ensure!(
        known.contains(&scheme),
        "{address}: texts are read from {}",
        known.map(|it| format!("{it}://")).join(", ")
    );
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    ensure!(
        !host.is_empty(),
        "{address} names no {}",
        if scheme.starts_with("http") { "host" } else { "bucket" }
    );
    ensure!(
        !path.contains(['#']) && (!scheme.starts_with("http") || !path.contains('?')),
        "{address}: an address with a query or a fragment cannot be read"
    );
    Ok((format!("{scheme}://{host}"), path.to_owned()))
}

/// The store at an address, as the environment says: the variables that the clouds' own tools read.
fn store(base: &str) -> Result<Arc<dyn ObjectStore>> {
    // This program brings one provider of cryptography; if it was set before, it was set to the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let retry =
        RetryConfig { max_retries: 3, retry_timeout: Duration::from_secs(30), ..RetryConfig::default() };
    let url = Url::parse(base)?;
    let (scheme, _) = ObjectStoreScheme::parse(&url)?;
    // A public bucket needs no credentials, and asking the machine for its own takes long where it has none.
    let is_public = |credentials: &[&str]| !credentials.iter().any(|name| env::var_os(name).is_some());
    Ok(match scheme {
        ObjectStoreScheme::AmazonS3 => {
            let mut builder = AmazonS3Builder::from_env().with_url(base).with_retry(retry);
            if is_public(&AWS_CREDENTIALS) {
                builder = builder.with_skip_signature(true);
            }
            Arc::new(builder.build()?)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            let mut builder = GoogleCloudStorageBuilder::from_env().with_url(base).with_retry(retry);
            let is_logged_in = || env::home_dir().is_some_and(|home| home.join(GCLOUD_CREDENTIALS).exists());
            if is_public(&GOOGLE_CREDENTIALS) && !is_logged_in() {
                builder = builder.with_skip_signature(true);
            }
            Arc::new(builder.build()?)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            let mut builder = MicrosoftAzureBuilder::from_env().with_url(base).with_retry(retry);
            if is_public(&AZURE_CREDENTIALS) {
                builder = builder.with_skip_signature(true);
            }
            Arc::new(builder.build()?)
        }
        _ => {
            let options = ClientOptions::default().with_allow_http(true);
            let builder = HttpBuilder::new().with_url(base).with_client_options(options).with_retry(retry);
            Arc::new(builder.build()?)
        }
    })
}

/// How often a download that gets no further is tried again.
fn retries() -> u32 {
    env::var(RETRIES).ok().and_then(|retries| retries.trim().parse().ok()).unwrap_or(8)
}

/// What runs the stores' asynchronous calls.
fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    Ok(RUNTIME.get_or_init(|| runtime))
}

/// What changes when an object's content does, as 16 hexadecimal digits.
fn version(meta: &ObjectMeta) -> String {
    let mut digest = Sha256::new_with_prefix(meta.size.to_le_bytes());
    match &meta.e_tag {
        Some(tag) => digest.update(tag),
        None => digest.update(meta.last_modified.timestamp_millis().to_le_bytes()),
    }
    digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// A tag without what marks it as one; Azure lists tags without their quotation marks.
fn opaque(tag: &str) -> &str {
    tag.trim_start_matches("W/").trim_matches('"')
}

fn is_version(text: &str) -> bool {
    text.len() == 16 && is_hexadecimal(text)
}

/// Where fetched texts are, and how many bytes of them are kept.
#[derive(Clone)]
struct Cache {
    folder: PathBuf,
    most: Option<u64>,
}

fn cache() -> Result<Cache> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let home = || {
        env::home_dir()
            .context("there is no home directory; DEEP_FUSION_CACHE can name a folder for fetched texts")
    };
    let folder = match (set(CACHE), set("XDG_CACHE_HOME")) {
        (Some(own), _) => PathBuf::from(own),
        (None, Some(caches)) => PathBuf::from(caches).join("deep-fusion"),
        (None, None) => home()?.join(".cache/deep-fusion"),
    };
    let most = set(CACHE_SIZE).map(|size| {
        let size = size.to_string_lossy().into_owned();
        let parsed =
            size.parse::<ByteSize>().map_err(|_| anyhow!("{CACHE_SIZE}={size} is no size such as 200GB"));
        parsed.map(|size| size.as_u64())
    });
    Ok(Cache { folder: folder.join("text"), most: most.transpose()? })
}

impl Cache {
    /// Removes what was used longest ago, until the rest and `needed` more bytes fit. What was used in the last minutes
    /// stays: others may be about to open it.
    fn make_room(&self, needed: u64) {
        let Some(most) = self.most else { return };
        let recent = SystemTime::now() - Duration::from_secs(300);
        // Nobody else's files: whoever names a folder for the cache may have others there.
        let is_ours = |name: &str| name.split_once('-').is_some_and(|(version, _)| is_version(version));
        let entries = WalkDir::new(&self.folder).into_iter().flatten();
        let entries = entries
            .filter(|entry| entry.file_type().is_file() && entry.file_name().to_str().is_some_and(is_ours));
        let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
            .filter_map(|entry| {
                let metadata = entry.metadata().ok()?;
                Some((metadata.modified().ok()?, metadata.len(), entry.into_path()))
            })
            .collect();
        files.sort();
        let mut size = files.iter().map(|(_, size, _)| size).sum::<u64>().saturating_add(needed);
        for (used, bytes, path) in files {
            if size <= most || used > recent {
                return;
            }
            if fs::remove_file(path).is_ok() {
                size -= bytes;
            }
        }
    }
}

/// An object in a store, or a file on the web.
struct Object {
    store: Arc<dyn ObjectStore>,
    meta: ObjectMeta,
    version: String,
    name: String,
    cache: Cache,
}

impl RemoteFile for Object {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> Option<u64> {
        Some(self.meta.size)
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn fetch(&self) -> Result<PathBuf, Box<dyn Error + Send + Sync>> {
        let path = self.path();
        let is_there = || fs::metadata(&path).is_ok_and(|found| found.len() == self.meta.size);
        if !is_there() {
            let lock = path.with_added_extension("lock");
            once(&lock, || if is_there() { Ok(()) } else { self.download(&path) })?;
        }
        // Tells that it is in use; where that cannot be noted, it may have to be fetched again.
        let _ = File::open(&path)
            .and_then(|file| file.set_times(FileTimes::new().set_modified(SystemTime::now())));
        Ok(path)
    }
}

impl Object {
    /// `CACHE/s3/bucket/c4/0123456789abcdef-shard.json.gz`.
    fn path(&self) -> PathBuf {
        let place = self.name.replacen("://", "/", 1);
        let (folder, name) = place.rsplit_once('/').unwrap_or(("", &place));
        self.cache.folder.join(folder).join(format!("{}-{name}", self.version))
    }

    /// Fetches the object into a file beside its place, going on where an earlier attempt stopped, and renames it.
    fn download(&self, path: &Path) -> Result<()> {
        self.cache.make_room(self.meta.size);
        let part = path.with_added_extension("part");
        let failed = || format!("cannot write {}", part.display());
        let mut file = OpenOptions::new().append(true).create(true).open(&part).with_context(failed)?;
        let mut there = file.metadata().with_context(failed)?.len();
        if there > self.meta.size {
            file.set_len(0).with_context(failed)?;
            there = 0;
        }
        let missing = self.meta.size - there;
        if let Some(free) = path.parent().and_then(free_space).filter(|free| *free < missing) {
            bail!(
                "{} needs {} of space, but there are {}",
                path.display(),
                ByteSize(missing),
                ByteSize(free)
            );
        }
        let (mut tries, retries) = (0, retries());
        let mut most = there;
        while there < self.meta.size {
            let received = runtime()?.block_on(self.receive(&mut file, &mut there));
            tries = if there > most { 0 } else { tries };
            most = most.max(there);
            let broken = match received {
                Ok(()) if there == self.meta.size => break,
                Ok(()) => anyhow!("the connection ended early"),
                Err(Interrupted::Broken(error)) => error,
                Err(Interrupted::Final(error)) => return Err(error),
                Err(Interrupted::Again) => {
                    file.set_len(0).with_context(failed)?;
                    there = 0;
                    continue;
                }
            };
            if tries == retries {
                let size = self.meta.size;
                return Err(broken.context(format!(
                    "{there} of {size} bytes have arrived, and {} tries brought no more",
                    tries + 1
                )));
            }
            std::thread::sleep((FIRST_WAIT * 2u32.pow(tries.min(16))).min(LONGEST_WAIT));
            tries += 1;
        }
        file.sync_all().and_then(|()| fs::rename(&part, path)).with_context(failed)
    }

    /// Appends what comes, of the version that was listed.
    async fn receive(&self, file: &mut File, there: &mut u64) -> Result<(), Interrupted> {
        let range = (*there > 0).then_some(GetRange::Offset(*there));
        // A weak tag matches nothing (RFC 9110); whether it is the same is seen in the answer.
        let listed = self.meta.e_tag.as_deref();
        let strong = listed.filter(|tag| !tag.starts_with("W/")).map(|tag| format!("\"{}\"", opaque(tag)));
        let options = GetOptions { range, if_match: strong, ..GetOptions::default() };
        let answer = match self.store.get_opts(&self.meta.location, options).await {
            Err(object_store::Error::NotSupported { .. }) if *there > 0 => return Err(Interrupted::Again),
            answer => answer,
        };
        let answer = answer.map_err(|error| match error {
            object_store::Error::Precondition { .. } => {
                Interrupted::Final(anyhow!("it was changed while it was being read"))
            }
            error @ (object_store::Error::NotFound { .. }
            | object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. }) => Interrupted::Final(error.into()),
            error => Interrupted::Broken(error.into()),
        })?;
        let other_tag =
            answer.meta.e_tag.as_deref().is_some_and(|tag| listed.map(opaque) != Some(opaque(tag)));
        if other_tag || answer.meta.size != self.meta.size || answer.range.start != *there {
            return Err(Interrupted::Final(anyhow!("it was changed while it was being read")));
        }
        let mut pieces = answer.into_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| Interrupted::Broken(error.into()))?;
            let cannot = |error: std::io::Error| Interrupted::Final(anyhow!(error).context("cannot write"));
            file.write_all(&piece).map_err(cannot)?;
            *there += piece.len() as u64;
        }
        Ok(())
    }
}

/// Why a download stopped.
enum Interrupted {
    /// It may go on.
    Broken(anyhow::Error),
    /// It will not.
    Final(anyhow::Error),
    /// It has to begin again: a web server that knows no ranges.
    Again,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::literal;

    #[test]
    fn prefixes_of_patterns() {
        assert_eq!([literal("a/b/c-*.json"), literal("a/b"), literal("*.txt")], ["a/b/", "a/b", ""]);
    }
}
