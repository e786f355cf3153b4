//! Batches of examples, starting at any position.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};

use super::blocks::{Block, BlockReader};
use super::denoisers::Denoisers;
use super::documents::Corpus;
use super::draws::{Draw, permutation};
use super::epoch::HoldOut;
use super::error::{Result, TextError};
use super::span_corruption::ChunkKey;
use super::tokenizer::Tokenizer;
use crate::Batch;

/// The default number of chunks shuffled together.
const SHUFFLE_BUFFER: usize = 4096;
/// The number of examples in a batch of [`StreamOptions::evaluation`].
const EVALUATION_BATCH: usize = 128;
/// The number of chunks that an evaluation holds in memory at a time.
const EVALUATION_BLOCK: usize = 256;
/// All models are evaluated on the same corruption of the text.
const EVALUATION_SEED: u64 = 0;

/// What a stream reads and in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// Examples in a batch.
    pub batch_size: usize,
    /// Determines the order of files and chunks, and the corruption.
    pub seed: u64,
    /// How often and in which order the text is read.
    pub order: Order,
    /// The part of the documents to read; all of them if `None`.
    pub hold_out: Option<HoldOut>,
    /// The number of documents to read, from the start of the corpus; all of them if `None`.
    pub max_documents: Option<u64>,
}

/// How often and in which order text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Endless epochs of full batches. In each epoch, files are permuted anew (unless `max_documents` is
    /// set), and chunks are shuffled within blocks of `shuffle_buffer`.
    Training {
        /// Chunks that are shuffled together.
        shuffle_buffer: usize,
    },
    /// Once, in order; the last batch may be smaller.
    Evaluation,
}

impl StreamOptions {
    /// Endless shuffled epochs of all documents.
    pub fn training(batch_size: usize, seed: u64) -> Self {
        let order = Order::Training { shuffle_buffer: SHUFFLE_BUFFER };
        Self { batch_size, seed, order, hold_out: None, max_documents: None }
    }

    /// One pass in order; every call corrupts the same text in the same way. The size of the batches is part of
    /// what an evaluation measures, so it is always the same: see [`evaluate`](crate::train::evaluate).
    pub fn evaluation() -> Self {
        let order = Order::Evaluation;
        Self {
            batch_size: EVALUATION_BATCH,
            seed: EVALUATION_SEED,
            order,
            hold_out: None,
            max_documents: None,
        }
    }
}

impl StreamOptions {
    /// What a chunk of the block that starts here is corrupted by.
    pub(super) fn key(&self, block: DataPosition, chunk: usize) -> ChunkKey {
        let before = block.block.wrapping_mul(self.order.block_chunks() as u64);
        ChunkKey { seed: self.seed, epoch: block.epoch, chunk: before.wrapping_add(chunk as u64) }
    }
}

impl Order {
    pub(super) fn repeats(self) -> bool {
        matches!(self, Self::Training { .. })
    }

    pub(super) fn block_chunks(self) -> usize {
        match self {
            Self::Training { shuffle_buffer } => shuffle_buffer,
            Self::Evaluation => EVALUATION_BLOCK,
        }
    }
}

/// The position of a stream: the start of the current block of chunks, and how many of its examples have been
/// returned. It is valid only for the same corpus, tokenizer, objective, lengths and options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataPosition {
    /// Passes over the corpus before the current one.
    pub epoch: u64,
    /// Number of the block in its epoch.
    pub block: u64,
    /// Examples of the block returned so far.
    pub index: usize,
    /// Index, in the epoch's order of files, of the file with the block's first token.
    pub file: usize,
    /// Index in the file of the document with that token.
    pub document: u64,
    /// Index of that token in the document.
    pub token: usize,
    /// Documents of the epoch before that document.
    pub documents: u64,
}

impl DataPosition {
    /// The start of an epoch.
    pub(super) fn epoch(epoch: u64) -> Self {
        Self { epoch, ..Self::default() }
    }
}

impl fmt::Display for DataPosition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, block, index, file, document, token, .. } = self;
        write!(
            formatter,
            "epoch {epoch}, block {block}, example {index} (file {file}, document {document}, token {token})"
        )
    }
}

/// A batch, and the stream's position after it.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamedBatch {
    /// The batch, padded if its examples differ in length.
    pub batch: Batch,
    /// Which of the objective's denoisers each example was made by.
    pub denoisers: Vec<usize>,
    /// The stream's position after the batch.
    pub position: DataPosition,
}

/// Iterator over batches. Text is tokenised on a background thread, one block ahead; dropping the stream ends
/// that thread. The first error ends the stream.
pub struct ExampleStream {
    denoisers: Denoisers,
    options: StreamOptions,
    position: DataPosition,
    current: Option<ShuffledBlock>,
    /// `None` once the stream has ended.
    worker: Option<Worker>,
}

struct ShuffledBlock {
    block: Block,
    /// Chunks in the order in which they are returned.
    order: Vec<usize>,
}

struct Worker {
    blocks: Receiver<Result<Block>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl ExampleStream {
    /// Opens a stream at `position`: [`DataPosition::default`] is the beginning, and a batch's position gives
    /// exactly the batches that followed it.
    ///
    /// # Errors
    /// If an option is zero. Errors in the text or the position are reported by the first batch.
    pub fn new(
        corpus: Corpus,
        tokenizer: Arc<Tokenizer>,
        denoisers: Denoisers,
        options: StreamOptions,
        position: DataPosition,
    ) -> Result<Self> {
        if options.batch_size == 0 {
            return Err(TextError::Zero { option: "batch_size" });
        }
        if options.order.block_chunks() == 0 {
            return Err(TextError::Zero { option: "shuffle_buffer" });
        }
        let corpus = corpus.with_vocabulary(&tokenizer);
        let reader = BlockReader { corpus, tokenizer, options, denoisers: denoisers.clone() };
        let (sender, blocks) = sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || reader.run(DataPosition { index: 0, ..position }, &sender, &stop)
        });
        let worker = Some(Worker { blocks, stop, thread });
        Ok(Self { denoisers, options, position, current: None, worker })
    }

    /// How chunks become inputs and targets.
    pub fn denoisers(&self) -> &Denoisers {
        &self.denoisers
    }

    fn next_batch(&mut self) -> Result<Option<StreamedBatch>> {
        let (mut examples, mut denoisers) = (Vec::new(), Vec::new());
        while examples.len() < self.options.batch_size && self.fill_block()? {
            let Some(ShuffledBlock { block, order }) = &self.current else { break };
            let Some(&chunk) = order.get(self.position.index) else { break };
            let key = self.options.key(block.start, chunk);
            let denoiser = self.denoisers.draw(key);
            let (mut input, mut target) = (Vec::new(), Vec::new());
            self.denoisers.apply(denoiser, block.chunk(chunk), key, &mut input, &mut target)?;
            examples.push((input, target));
            denoisers.push(denoiser);
            self.position.index += 1;
            if self.position.index == order.len() {
                self.position = block.next;
            }
        }
        if examples.is_empty() {
            return Ok(None);
        }
        let examples = examples.iter().map(|(input, target)| (input.as_slice(), target.as_slice()));
        let batch = Batch::padded(examples, self.denoisers.pad_id());
        Ok(Some(StreamedBatch { batch, denoisers, position: self.position }))
    }

    /// Makes sure that the block at the position is loaded; returns false at the end of the text.
    fn fill_block(&mut self) -> Result<bool> {
        let here = DataPosition { index: 0, ..self.position };
        if self.current.as_ref().is_some_and(|current| current.block.start == here) {
            return Ok(true);
        }
        self.current = None;
        let Some(worker) = &self.worker else { return Ok(false) };
        let Ok(block) = worker.blocks.recv() else {
            // The sender is gone, because the text has ended or because of a panic.
            let ended = self.worker.take().map(|worker| worker.thread.join());
            return if let Some(Err(_)) = ended { Err(TextError::ThreadEnded) } else { Ok(false) };
        };
        let block = block?;
        let chunks = block.ends.len();
        // Only the position at the very end of an epoch continues with another block: the next epoch's first.
        let elsewhere = block.start != here && self.position.index > 0;
        if elsewhere || self.position.index >= chunks {
            let reason = format!("the block has {} examples", if elsewhere { 0 } else { chunks });
            return Err(TextError::Position { position: self.position.to_string(), reason });
        }
        let order = match self.options.order {
            Order::Training { .. } => {
                permutation(chunks, Draw::Chunks, self.options.seed, block.start.epoch, block.start.block)
            }
            Order::Evaluation => (0..chunks).collect(),
        };
        self.position = DataPosition { index: self.position.index, ..block.start };
        self.current = Some(ShuffledBlock { block, order });
        Ok(true)
    }

    fn end(&mut self) {
        self.current = None;
        if let Some(Worker { blocks, stop, thread }) = self.worker.take() {
            stop.store(true, Ordering::Relaxed);
            drop(blocks);
            // Whether it panicked no longer matters.
            let _ = thread.join();
        }
    }
}

impl Iterator for ExampleStream {
    type Item = Result<StreamedBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.next_batch().transpose();
        if !matches!(batch, Some(Ok(_))) {
            self.end();
        }
        batch
    }
}

impl Drop for ExampleStream {
    fn drop(&mut self) {
        self.end();
    }
}
