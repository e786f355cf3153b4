//! Sources of models and data: directories, the Hugging Face Hub, the web, and built-in text.

mod content;
pub mod corpus;
pub(crate) mod digest;
pub mod glue;
pub mod hub;
mod model;
#[cfg(any(feature = "hub", feature = "object-store"))]
mod once;
#[cfg(feature = "webster")]
mod webster;

pub use content::content;
pub use model::{FILES, FileKind, GENERATION_CONFIG, ModelPlace, fetch_model, tokenizer_files};
