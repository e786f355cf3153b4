//! Turns text into batches as in T5's pretraining: documents are tokenised, joined, cut into chunks of equal
//! length, shuffled within blocks, and corrupted span by span.
//!
//! [`Corpus`] reads documents, [`Tokenizer`] turns them into tokens, [`SpanCorruption`] turns a chunk of
//! tokens into an input and a target, and [`SpanCorruptionStream`] combines the three on a background thread.
//! All randomness is a pure function of a seed and a position, so a stream resumes exactly where it stopped.

mod blocks;
mod documents;
mod draws;
mod epoch;
mod error;
mod find;
mod holes;
mod lines;
#[cfg(feature = "parquet")]
mod parquet;
mod sentencepiece;
mod span_corruption;
mod special;
mod stream;
mod table;
mod tokenizer;
mod train_unigram;

pub use documents::{Corpus, Documents, TEXT_FIELD};
pub use epoch::{HoldOut, Split};
pub use error::{Result, TextError};
pub use find::{LeftOut, Reason};
pub use lines::lines;
pub use span_corruption::{ChunkKey, SpanCorruption, SpanLengths, TargetToken, random_spans_noise_mask};
pub use stream::{DataPosition, Order, SpanCorruptionStream, StreamOptions, StreamedBatch};
pub use tokenizer::Tokenizer;
