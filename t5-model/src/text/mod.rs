//! Text to batches, as T5 was pretrained: documents are tokenised, joined, cut into chunks of equal length,
//! shuffled within blocks and corrupted span by span.
//!
//! [`Corpus`] reads documents, [`Tokenizer`] turns them into tokens, [`SpanCorruption`] turns a chunk of
//! tokens into an input and a target, and [`SpanCorruptionStream`] puts the three together on a background
//! thread. Everything random is a pure function of a seed and a position, so a stream resumes exactly where
//! it stopped.

mod blocks;
mod documents;
mod draws;
mod epoch;
mod error;
mod lines;
mod sentencepiece;
mod span_corruption;
mod stream;
mod tokenizer;
mod train_unigram;

pub use documents::{Corpus, Documents};
pub use epoch::{HoldOut, Split};
pub use error::{Result, TextError};
pub use span_corruption::{ChunkKey, SpanCorruption, SpanLengths, random_spans_noise_mask};
pub use stream::{DataPosition, Order, SpanCorruptionStream, StreamOptions, StreamedBatch};
pub use tokenizer::Tokenizer;
