//! Files of tokens: text that was tokenised once, for runs that read it again and again.
//!
//! A `.tokens` file is a safetensors file, which is mapped into memory: `tokens` (`[n]`, U16, or U32 where a
//! vocabulary needs it) has all documents one after the other, and zeros up to a multiple of eight bytes; `ends`
//! (`[documents]`, U64) is where each of them ends; `vocabulary` (`[32]`, U8) is the tokenizer's fingerprint.

use std::path::{Path, PathBuf};

use fusion_core::atomic::PartialFile;
use fusion_core::checkpoint::TensorFile;
use fusion_core::{Dtype, TensorSource};
use serde_json::json;

use super::documents::{Corpus, Document};
use super::error::{Result, TextError};
use super::tokenizer::Tokenizer;

/// What a folder of such files was made of, for whoever wrote it.
pub const TOKENS_MANIFEST: &str = "tokens.json";

const TOKENS: &str = "tokens";
const ENDS: &str = "ends";
const VOCABULARY: &str = "vocabulary";
/// Bytes before the tokens: room for a header that is known only when all are written.
const HEADER: usize = 512;
/// Tokens and their ends begin at multiples of this many bytes.
const ALIGNMENT: usize = 8;
/// Bytes written at a time.
const BUFFER: usize = 1 << 20;
/// Documents are tokenised in groups of about this much text: enough to occupy every core, little enough to
/// stop quickly.
pub(super) const GROUP_BYTES: usize = 1 << 19;

/// An open file of tokens.
#[derive(Debug)]
pub(super) struct TokenFile {
    file: TensorFile,
    path: PathBuf,
    width: usize,
    documents: u64,
}

impl TokenFile {
    /// Maps a file into memory, and checks that it is what it should be.
    ///
    /// # Errors
    /// If the file cannot be read, or is not a file of tokens.
    pub fn open(path: &Path) -> Result<Self> {
        let file = TensorFile::open(path)?;
        let damaged = |reason: &str| TextError::Tokens { path: path.to_owned(), reason: reason.to_owned() };
        let view = |name| file.view(name).map_err(|_| damaged(&format!("it has no tensor {name:?}")));
        let (tokens, ends) = (view(TOKENS)?, view(ENDS)?);
        let width = match tokens.dtype() {
            Dtype::U16 => 2,
            Dtype::U32 => 4,
            _ => return Err(damaged("its tokens are neither U16 nor U32")),
        };
        if ends.dtype() != Dtype::U64 {
            return Err(damaged("the ends of its documents are not U64"));
        }
        let (ends, tokens) = (ends.data(), tokens.data().len() / width);
        let mut before = 0;
        for end in ends.chunks_exact(8).map(number) {
            if end < before || end > tokens as u64 {
                return Err(damaged("its documents do not end one after the other"));
            }
            before = end;
        }
        let documents = (ends.len() / 8) as u64;
        Ok(TokenFile { file, path: path.to_owned(), width, documents })
    }

    /// Whether the file was written with the vocabulary of that fingerprint.
    ///
    /// # Errors
    /// If it was not.
    pub fn check_vocabulary(&self, fingerprint: &str) -> Result<()> {
        let own = self.bytes(VOCABULARY).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        match own == fingerprint {
            true => Ok(()),
            false => Err(TextError::OtherVocabulary { path: self.path.clone() }),
        }
    }

    /// The number of documents.
    pub fn documents(&self) -> u64 {
        self.documents
    }

    /// The tokens of a document; `None` behind the last.
    pub fn document(&self, index: u64) -> Option<Vec<i32>> {
        let index = usize::try_from(index).ok().filter(|index| (*index as u64) < self.documents)?;
        let ends = self.bytes(ENDS);
        let end = |index: usize| number(&ends[8 * index..8 * (index + 1)]) as usize;
        let start = index.checked_sub(1).map_or(0, end);
        let bytes = &self.bytes(TOKENS)[self.width * start..self.width * end(index)];
        Some(bytes.chunks_exact(self.width).map(|token| number(token) as i32).collect())
    }

    /// The bytes of a tensor that opening has seen.
    fn bytes(&self, name: &str) -> &[u8] {
        self.file.view(name).map_or(&[], |view| view.data())
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// What a file of tokens holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenCount {
    /// The number of documents.
    pub documents: u64,
    /// The number of their tokens.
    pub tokens: u64,
}

/// Tokenises one file of a corpus, and writes its tokens into `output`, which appears when it is whole. `goes_on` hears
/// how much there is so far, and ends the work by returning false; then `None` is returned.
///
/// # Errors
/// If the text cannot be read, or the file cannot be written.
pub fn write_tokens(
    corpus: &Corpus,
    file: usize,
    tokenizer: &Tokenizer,
    output: &Path,
    mut goes_on: impl FnMut(TokenCount) -> bool,
) -> Result<Option<TokenCount>> {
    let mut writer = Writer::create(output, tokenizer)?;
    let mut documents = corpus.documents(file, 0)?.into_iter().flatten();
    loop {
        let (mut texts, mut bytes) = (Vec::new(), 0);
        while bytes < GROUP_BYTES {
            let Some(document) = documents.next().transpose()? else { break };
            let text = document.into_text()?;
            bytes += text.len() + 1;
            texts.push(text);
        }
        if texts.is_empty() {
            return writer.finish(tokenizer).map(Some);
        }
        for tokens in encode(tokenizer, &texts)? {
            writer.push(&tokens)?;
        }
        if !goes_on(writer.count()) {
            return Ok(None);
        }
    }
}

/// What a file of tokens holds, if it is one of this vocabulary.
///
/// # Errors
/// If it cannot be read, is no file of tokens, or one of another vocabulary.
pub fn count_tokens(path: &Path, tokenizer: &Tokenizer) -> Result<TokenCount> {
    let file = TokenFile::open(path)?;
    file.check_vocabulary(tokenizer.fingerprint())?;
    let tokens = file.bytes(ENDS).chunks_exact(8).next_back().map_or(0, number);
    Ok(TokenCount { documents: file.documents, tokens })
}

/// The tokens of documents that stand for text. Text may contain `</s>` or a sentinel verbatim. In a target, those mean
/// something else.
pub(super) fn encode(tokenizer: &Tokenizer, texts: &[String]) -> Result<Vec<Vec<i32>>> {
    let mut documents = tokenizer.encode_batch(texts)?;
    for tokens in &mut documents {
        tokens.retain(|&token| !tokenizer.is_control(token));
    }
    Ok(documents)
}

/// The documents of a group, tokenised.
pub(super) fn encode_group<P>(
    tokenizer: &Tokenizer,
    group: Vec<(P, Document)>,
) -> Result<Vec<(P, Vec<i32>)>> {
    let (mut texts, mut tokens) = (Vec::new(), Vec::new());
    for (place, document) in group {
        match document {
            Document::Text(text) => {
                texts.push(text);
                tokens.push((place, None));
            }
            Document::Tokens(own) => {
                let size = tokenizer.vocab_size();
                if let Some(token) = own.iter().find(|token| !(0..size as i64).contains(&i64::from(**token)))
                {
                    let reason =
                        format!("a file of tokens holds {token}, where the vocabulary has {size} tokens");
                    return Err(TextError::Encode { reason });
                }
                tokens.push((place, Some(own)));
            }
        }
    }
    let mut encoded = encode(tokenizer, &texts)?.into_iter();
    let group = tokens.into_iter().map(|(place, own)| (place, own.or_else(|| encoded.next())));
    Ok(group.map(|(place, tokens)| (place, tokens.unwrap_or_default())).collect())
}

/// Writes a file of tokens as they come.
struct Writer {
    file: PartialFile,
    /// Where the next bytes go.
    at: u64,
    buffer: Vec<u8>,
    width: usize,
    ends: Vec<u64>,
}

impl Writer {
    fn create(path: &Path, tokenizer: &Tokenizer) -> Result<Self> {
        let width = if tokenizer.vocab_size() <= 1 << 16 { 2 } else { 4 };
        let file = PartialFile::create(path)?;
        Ok(Writer { file, at: HEADER as u64, buffer: Vec::with_capacity(BUFFER), width, ends: Vec::new() })
    }

    fn count(&self) -> TokenCount {
        let tokens = self.ends.last().copied().unwrap_or(0);
        TokenCount { documents: self.ends.len() as u64, tokens }
    }

    fn push(&mut self, tokens: &[i32]) -> Result<()> {
        for token in tokens {
            self.buffer.extend(&token.to_le_bytes()[..self.width]);
        }
        self.ends.push(self.count().tokens + tokens.len() as u64);
        if self.buffer.len() < BUFFER { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<()> {
        self.file.write_at(&self.buffer, self.at)?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self, tokenizer: &Tokenizer) -> Result<TokenCount> {
        self.flush()?;
        let tokens = (self.at as usize - HEADER).next_multiple_of(ALIGNMENT);
        self.buffer.resize(tokens + HEADER - self.at as usize, 0);
        self.buffer.extend(self.ends.iter().flat_map(|end| end.to_le_bytes()));
        let digits = tokenizer.fingerprint().as_bytes().chunks_exact(2);
        let fingerprint = digits.map(|pair| {
            let pair = std::str::from_utf8(pair).unwrap_or_default();
            u8::from_str_radix(pair, 16).unwrap_or(0)
        });
        let (before, ends) = (self.buffer.len(), tokens + 8 * self.ends.len());
        self.buffer.extend(fingerprint);
        let end = ends + self.buffer.len() - before;
        let tensor = |dtype: &str, length: usize, from: usize, to: usize| json!({ "dtype": dtype, "shape": [length], "data_offsets": [from, to] });
        let header = json!({
            "__metadata__": { "format": "pt" },
            TOKENS: tensor(if self.width == 2 { "U16" } else { "U32" }, tokens / self.width, 0, tokens),
            ENDS: tensor("U64", self.ends.len(), tokens, ends),
            VOCABULARY: tensor("U8", end - ends, ends, end),
        });
        let mut header = header.to_string().into_bytes();
        header.resize(HEADER - 8, b' ');
        self.flush()?;
        self.file.write_at(&[&((HEADER - 8) as u64).to_le_bytes(), &*header].concat(), 0)?;
        let count = self.count();
        self.file.commit()?;
        Ok(count)
    }
}
