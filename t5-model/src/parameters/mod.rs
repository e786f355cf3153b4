//! T5's parameters: the modules that hold them, their axes and initial values, and the names that other
//! programs give them.

mod flops;
mod initialize;
mod module;
mod t5x;
mod table;
mod tied;
#[cfg(feature = "compute")]
mod weights;

pub use flops::training_flops_per_token;
pub use initialize::{Initialization, UnknownInitialization, initialize};
pub use module::{Linear, Module, Stack, Sublayer, SublayerKind};
pub use t5x::{StoredParameter, t5x_parameters};
pub use table::{Parameter, parameter_table, parameters};
pub use tied::{ALIASES, EMBEDDING, HEAD, embedding_name};

pub(crate) use table::{Block, table_with_blocks, with_plain_head};
pub(crate) use tied::has_own_head;
#[cfg(feature = "compute")]
pub(crate) use weights::Weights;
