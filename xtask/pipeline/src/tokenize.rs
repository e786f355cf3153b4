//! Text as tokens, for trainings that read it again and again: a folder with a `.tokens` file for each file of the text,
//! the tokenizer, and `tokens.json`, which says what they were made of.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use fusion_core::atomic::{claim, remove_written, write_directory_atomically, write_own_file};
use serde::{Deserialize, Serialize};
use t5_model::text::{Content, Corpus, TOKENS_MANIFEST, TokenCount, Tokenizer, count_tokens, write_tokens};

use crate::problems::{Remedy, mendable};
use crate::source::corpus;
use crate::watch::{Interrupted, Note, Stoppable, Watch};

/// Where the tokenizer is in the folder.
const TOKENIZER: &str = "tokenizer";

/// What is tokenised.
#[derive(Clone, Debug)]
pub struct Tokenize<'a> {
    /// Files, folders, globs, datasets, addresses, or `builtin:…`.
    pub text: &'a [String],
    /// The field or column that holds the text.
    pub field: &'a str,
    /// What divides it into tokens.
    pub tokenizer: &'a Tokenizer,
    /// Which of several processes this is, and how many there are: each does its share of the files.
    pub share: (usize, usize),
    /// Whether what was made of another text, or with another tokenizer, is replaced.
    pub overwrite: bool,
}

/// What there is now.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Tokenized {
    /// The number of files that this process was to write.
    pub files: usize,
    /// How many of them were there already.
    pub found: usize,
    /// Documents in them.
    pub documents: u64,
    /// Tokens of these documents.
    pub tokens: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// `tokens.json`.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Manifest {
    /// Of the tokenizer's vocabulary.
    fingerprint: String,
    /// The field of the text.
    field: String,
    files: Vec<Source>,
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Source {
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
}

impl Tokenize<'_> {
    /// Writes files of tokens into `output`. Those of an earlier call that was interrupted are kept.
    ///
    /// # Errors
    /// If the text cannot be read, the folder cannot be written, or holds the tokens of something else.
    pub fn run(&self, output: &Path, watch: &dyn Watch) -> Result<Tokenized> {
        let corpus = corpus::open(self.text, self.field)?;
        if let Some(warning) = corpus::left_out([&corpus]) {
            watch.note("text", &Note::Warning(&warning));
        }
        ensure!(corpus.file_count() < 100_000, "{} files are too many: join them", corpus.file_count());
        let (rank, world_size) = self.share;
        self.begin(&corpus, output)?;
        let mine: Vec<usize> = (rank..corpus.file_count()).step_by(world_size).collect();
        let names: Vec<String> = mine.iter().map(|file| format!("{file:05}.tokens")).collect();
        claim(output, &names.iter().map(String::as_str).collect::<Vec<_>>())?;

        let mut made = Tokenized { files: mine.len(), ..Tokenized::default() };
        let sources = corpus.names();
        let name = output.display().to_string();
        let _stoppable = Stoppable::new(watch);
        let progress = watch.steps(&name, "files tokenised");
        for ((done, file), name) in (0..).zip(mine).zip(names) {
            progress(done, made.files);
            let path = output.join(name);
            let count = if path.exists() {
                made.found += 1;
                count_tokens(&path, self.tokenizer)?
            } else {
                let written = write_tokens(&corpus, file, self.tokenizer, &path, |_| !watch.wants_stop());
                let left = || format!("{done} of {} files are there", made.files);
                written
                    .with_context(|| sources.get(file).cloned().unwrap_or_default())?
                    .ok_or_else(|| Interrupted { left: Some(left()), resumes: true })?
            };
            let TokenCount { documents, tokens } = count;
            made.documents += documents;
            made.tokens += tokens;
            made.bytes += fs::metadata(&path).map_or(0, |found| found.len());
        }
        progress(made.files, made.files);
        Ok(made)
    }

    /// Makes sure that what is in the folder is of this text and this tokenizer.
    fn begin(&self, corpus: &Corpus, output: &Path) -> Result<()> {
        let source = |content: Content<'_>, text: String| match content {
            Content::File(path) => {
                Source { text, bytes: fs::metadata(path).ok().map(|found| found.len()), version: None }
            }
            Content::Remote(file) => {
                Source { text, bytes: file.size(), version: Some(file.version().to_owned()) }
            }
            Content::Memory { .. } => Source { text, bytes: None, version: None },
        };
        let files = corpus.contents().zip(corpus.names()).map(|(content, name)| source(content, name));
        let manifest = Manifest {
            fingerprint: self.tokenizer.fingerprint().to_owned(),
            field: self.field.to_owned(),
            files: files.collect(),
        };
        let path = output.join(TOKENS_MANIFEST);
        if path.exists() {
            let earlier = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let earlier: Option<Manifest> = serde_json::from_slice(&earlier).ok();
            if earlier.as_ref() == Some(&manifest) {
                return Ok(());
            }
            let place = output.display();
            let what = match earlier {
                Some(earlier) if earlier.fingerprint != manifest.fingerprint => "with another tokenizer",
                Some(_) => "from other text",
                None => "by another version of this program",
            };
            if !self.overwrite {
                return Err(mendable(format!("the tokens in {place} were made {what}"), Remedy::Overwrite));
            }
            ensure!(
                self.share.1 == 1,
                "several processes cannot replace the tokens in {place}: remove them first"
            );
            if remove_written(output)? {
                bail!("{place} also holds what this program did not write, or what was changed since");
            }
        }
        if self.share.0 == 0 {
            claim(output, &[TOKENIZER])?;
            let save = |folder: &Path| Ok(self.tokenizer.save(folder)?);
            write_directory_atomically::<anyhow::Error>(&output.join(TOKENIZER), save)?;
            write_own_file(output, TOKENS_MANIFEST, &serde_json::to_vec_pretty(&manifest)?)?;
        }
        Ok(())
    }
}
