//! Turns text into batches as in T5's pretraining: documents are tokenised, joined, cut into chunks, shuffled
//! within blocks, and corrupted span by span, or as another objective asks.
//!
//! [`Corpus`] reads documents, [`Tokenizer`] turns them into tokens, [`Denoisers`] turns a chunk of tokens into
//! an input and a target as the [`Objective`] says, and [`ExampleStream`] combines the three on a background
//! thread. All randomness is a pure function of a seed and a position, so a stream resumes exactly where it stopped.

mod blocks;
mod bytes;
mod denoisers;
mod documents;
mod draws;
mod epoch;
mod error;
mod find;
mod holes;
mod lines;
mod objective;
#[cfg(feature = "parquet")]
mod parquet;
mod prefix_lm;
mod sentencepiece;
mod span_corruption;
mod special;
mod stream;
mod table;
mod tokenizer;
mod tokens;
mod train_unigram;

pub use denoisers::{Denoisers, ExampleLengths, TargetToken};
pub use documents::{Content, Corpus, Document, Documents, RemoteFile, TEXT_FIELD};
pub use epoch::{HoldOut, Split};
pub use error::{Result, TextError};
pub use find::{LeftOut, Reason, kind as file_kind};
pub use lines::lines;
pub use objective::{Denoiser, Objective, ObjectiveKind, ObjectiveOptions};
pub use prefix_lm::PrefixLm;
pub use span_corruption::{ChunkKey, SpanCorruption, SpanLengths, random_spans_noise_mask};
pub use stream::{DataPosition, ExampleStream, Order, StreamOptions, StreamedBatch};
pub use tokenizer::Tokenizer;
pub use tokens::{TOKENS_MANIFEST, TokenCount, count_tokens, write_tokens};
