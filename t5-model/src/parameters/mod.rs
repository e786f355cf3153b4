//! T5's parameters: their names and axes, their initial values, and the names that other programs give them.

mod initialize;
mod t5x;
mod table;

pub use initialize::initialize;
pub use t5x::{StoredParameter, t5x_parameters};
pub use table::{parameter_table, training_flops_per_token};

pub(crate) use table::{Block, EMBEDDING, table_with_blocks, with_plain_head};
