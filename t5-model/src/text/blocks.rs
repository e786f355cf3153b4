//! The background half of a stream: tokenises documents, joins them and cuts them into blocks of chunks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;

use super::denoisers::Denoisers;
use super::documents::{Corpus, Document};
use super::draws::{Draw, permutation};
use super::epoch::{EpochDocuments, Place};
use super::error::{Result, TextError};
use super::stream::{DataPosition, Order, StreamOptions};
use super::tokenizer::Tokenizer;
use super::tokens::{GROUP_BYTES, encode_group};

/// Consecutive chunks of one epoch.
pub(super) struct Block {
    /// Where the block's first token is; `index` is 0.
    pub start: DataPosition,
    /// Where the following block starts.
    pub next: DataPosition,
    /// One chunk after the other.
    pub tokens: Vec<i32>,
    /// Where each chunk ends in `tokens`.
    pub ends: Vec<usize>,
}

impl Block {
    /// A chunk of the block.
    pub fn chunk(&self, index: usize) -> &[i32] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.tokens[start..self.ends[index]]
    }
}

pub(super) struct BlockReader {
    pub corpus: Corpus,
    pub tokenizer: Arc<Tokenizer>,
    pub options: StreamOptions,
    pub denoisers: Denoisers,
}

/// The receiver is gone or has asked to stop.
struct Stopped;

impl BlockReader {
    /// Sends blocks from `start` on until the text ends, the receiver is dropped, or an error occurs.
    pub fn run(&self, mut start: DataPosition, blocks: &SyncSender<Result<Block>>, stop: &AtomicBool) {
        // The position after the last block of a single pass.
        if start.epoch > 0 && !self.options.order.repeats() {
            return;
        }
        loop {
            match self.read_epoch(start, blocks, stop) {
                Ok(Ok(())) if self.options.order.repeats() => {
                    start = DataPosition::epoch(start.epoch.saturating_add(1))
                }
                Ok(Ok(()) | Err(Stopped)) => return,
                Err(error) => {
                    // If this fails, there is no receiver left to tell.
                    let _ = blocks.send(Err(error));
                    return;
                }
            }
        }
    }

    fn read_epoch(
        &self,
        mut start: DataPosition,
        blocks: &SyncSender<Result<Block>>,
        stop: &AtomicBool,
    ) -> Result<std::result::Result<(), Stopped>> {
        let whole_epoch = start == DataPosition::epoch(start.epoch);
        let first = Place { file: start.file, document: start.document, used: start.documents };
        let mut first_token = start.token;
        let mut documents = EpochDocuments::new(
            &self.corpus,
            self.file_order(start.epoch),
            self.options.hold_out,
            self.options.max_documents,
            first,
        )?;
        let mut tokens: Vec<i32> = Vec::new();
        let chunks = self.options.order.block_chunks();
        // Where the block's chunks end, up to the one that is being filled.
        let mut ends = vec![self.chunk_length(start, 0)];
        loop {
            let group = next_group(&mut documents)?;
            if group.is_empty() {
                break;
            }
            for (place, document) in encode_group(&self.tokenizer, group)? {
                let mut offset = if place == first { std::mem::take(&mut first_token) } else { 0 };
                if offset > document.len() {
                    return Err(TextError::Position {
                        position: start.to_string(),
                        reason: format!("the document has {} tokens", document.len()),
                    });
                }
                while let Some(rest) = document.get(offset..).filter(|rest| !rest.is_empty()) {
                    let full = ends.last().copied().unwrap_or(0);
                    let taken = rest.len().min(full - tokens.len());
                    tokens.extend(rest.iter().take(taken));
                    offset += taken;
                    if tokens.len() == full && ends.len() < chunks {
                        ends.push(full + self.chunk_length(start, ends.len()));
                    } else if tokens.len() == full {
                        let next = DataPosition {
                            epoch: start.epoch,
                            block: start.block.saturating_add(1),
                            index: 0,
                            file: place.file,
                            document: place.document,
                            documents: place.used,
                            token: offset,
                        };
                        let ends = std::mem::replace(&mut ends, vec![self.chunk_length(next, 0)]);
                        let block = Block { start, next, tokens: std::mem::take(&mut tokens), ends };
                        if blocks.send(Ok(block)).is_err() {
                            return Ok(Err(Stopped));
                        }
                        start = next;
                    }
                }
            }
            if stop.load(Ordering::Relaxed) {
                return Ok(Err(Stopped));
            }
        }
        // Tokens that do not fill a chunk are dropped: less than one chunk per epoch.
        let read = tokens.len();
        let needed = ends.first().copied().unwrap_or(0);
        ends.truncate(ends.partition_point(|end| *end <= read));
        if let Some(end) = ends.last() {
            tokens.truncate(*end);
            let block =
                Block { start, next: DataPosition::epoch(start.epoch.saturating_add(1)), tokens, ends };
            if blocks.send(Ok(block)).is_err() {
                return Ok(Err(Stopped));
            }
        } else if whole_epoch && start.block == 0 {
            return Err(TextError::CorpusTooSmall { tokens: read, needed });
        }
        Ok(Ok(()))
    }

    /// Tokens of a chunk, by its number in the block that starts here.
    fn chunk_length(&self, start: DataPosition, chunk: usize) -> usize {
        self.denoisers.chunk_length(self.denoisers.draw(self.options.key(start, chunk)))
    }

    fn file_order(&self, epoch: u64) -> Vec<usize> {
        let files = self.corpus.file_count();
        match self.options.order {
            // A limit selects the same documents in every epoch.
            Order::Training { .. } if self.options.max_documents.is_none() => {
                permutation(files, Draw::Files, self.options.seed, epoch, 0)
            }
            _ => (0..files).collect(),
        }
    }
}

fn next_group(documents: &mut EpochDocuments) -> Result<Vec<(Place, Document)>> {
    let mut group = Vec::new();
    let mut bytes = 0;
    while bytes < GROUP_BYTES {
        let Some(document) = documents.next().transpose()? else { break };
        bytes += 1 + match &document.1 {
            Document::Text(text) => text.len(),
            Document::Tokens(tokens) => std::mem::size_of_val(&**tokens),
        };
        group.push(document);
    }
    Ok(group)
}
