//! GLUE's files at a web address: a folder in either layout, fetched file by file.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fusion_core::Mistaken;
use glue_eval::Task;
use glue_eval::data::{Split, check_beginning};
use ureq::Agent;

use super::Checksums;
use super::download::{Download, Outcome, is_absent};
use super::remote::{Address, Fetched};
use crate::source::digest::sha256;
use crate::{Note, Watch};

/// A server that sends nothing for this long is considered gone.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder of GLUE's files on the web.
pub struct Website<'a> {
    address: Address,
    agent: Agent,
    watch: &'a dyn Watch,
    /// Present if it has a `SHA256SUMS`.
    sums: Option<Checksums>,
}

impl<'a> Website<'a> {
    pub fn open(address: &Address, watch: &'a dyn Watch) -> Result<Self> {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .accept_encoding("identity") // Lengths and ranges are those of the files.
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .timeout_per_read(Some(PATIENCE))
            .build()
            .new_agent();
        let mut website = Website { address: address.clone(), agent, watch, sums: None };
        website.sums = website.sums()?;
        Ok(website)
    }

    fn sums(&self) -> Result<Option<Checksums>> {
        let url = self.url(Checksums::NAME);
        let failed = || format!("cannot fetch {url}");
        let mut answer = self.agent.get(&url).call().with_context(failed)?;
        if is_absent(answer.status()) {
            return Ok(None);
        }
        ensure!(
            answer.status().is_success(),
            "{}: the server answered with status {}",
            failed(),
            answer.status()
        );
        let sums = answer.body_mut().read_to_string().with_context(failed)?;
        // Some servers answer with a page of their own where there is no file.
        if Mistaken::of(sums.as_bytes()) == Some(Mistaken::WebPage) {
            return Ok(None);
        }
        Checksums::parse(&sums, &url).map(Some)
    }

    fn url(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Fetches a split's files into a folder; `known` are the hashes that files there should have. `None` if
    /// the split does not exist.
    pub fn fetch(&self, task: Task, split: Split, output: &Path, known: &Checksums) -> Result<Vec<Fetched>> {
        let mut pages = Vec::new();
        for names in self.candidates(task, split) {
            let files: Result<Vec<_>> =
                names.iter().map(|name| self.file(name, (task, split), output, known)).collect();
            let mut found = Vec::new();
            for (name, file) in names.iter().zip(files?) {
                match file {
                    File::There(file) => found.push(file),
                    File::Absent => {}
                    File::Mistaken(what) => pages.push(format!("{} is {what}", self.url(name))),
                }
            }
            if found.len() == names.len() {
                return Ok(found);
            }
        }
        let (tsv, parquet) = (split.tsv(task), split.parquet(task));
        let missing = || {
            let missing = format!("{} has neither {} nor {}", self.address, tsv.display(), parquet.display());
            [&[missing], &pages[..]].concat().join("; ")
        };
        ensure!(!split.is_labelled(), missing());
        Ok(Vec::new())
    }

    /// The files that may make up a split: those in the checksums, or else those with the usual names.
    fn candidates(&self, task: Task, split: Split) -> Vec<Vec<String>> {
        let (tsv, parquet) = (split.tsv(task), split.parquet(task));
        let usual = [tsv, parquet].map(|path| vec![path.display().to_string()]);
        let Some(sums) = &self.sums else { return usual.into() };
        let shards = sums.0.keys().filter(|name| split.is_parquet(task, name)).cloned().collect();
        let [tsv, _] = usual;
        let listed =
            |names: &Vec<String>| !names.is_empty() && names.iter().all(|name| sums.0.contains_key(name));
        [tsv, shards].into_iter().filter(listed).collect()
    }

    /// Fetches a file unless it is already there with the right hash.
    fn file(
        &self,
        name: &str,
        (task, split): (Task, Split),
        output: &Path,
        known: &Checksums,
    ) -> Result<File> {
        let path = output.join(name);
        let announced = self.sums.as_ref().and_then(|sums| sums.0.get(name));
        if path.exists() {
            let (_, hash) = sha256(&path)?;
            if announced.or(known.0.get(name)).is_none_or(|expected| *expected == hash) {
                return Ok(File::There(Fetched { name: name.to_owned(), hash, anew: false }));
            }
            known.check_ours(name, &path)?;
            let checksums = Checksums::NAME;
            self.watch.note(&path.display().to_string(), &Note::FetchedAgain { checksums });
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let Website { agent, watch, .. } = self;
        let is_parquet = split.is_parquet(task, name);
        let check: &dyn Fn(&Path) -> _ = &|path| check_beginning(task, split, path, is_parquet);
        let download =
            Download { agent, watch: *watch, url: self.url(name), name, path: &path, hash: announced, check };
        Ok(match download.run()? {
            Outcome::Absent => File::Absent,
            Outcome::Mistaken(what) => File::Mistaken(what),
            Outcome::Fetched(hash) => File::There(Fetched { name: name.to_owned(), hash, anew: true }),
        })
    }
}

/// What there is of a file.
enum File {
    There(Fetched),
    Absent,
    /// The server sends something else.
    Mistaken(Mistaken),
}
