//! T5's operations on f32 slices, forward and backward, for backends whose tensors are in host memory.
//!
//! Rows are divided among threads in pieces of fixed size, and partial sums are added in order, so results do
//! not depend on the number of threads.

pub mod activation;
mod allocator;
pub mod attention;
pub mod cross_entropy;
pub mod elementwise;
pub mod embedding;
pub mod logits;
pub mod matmul;
mod memory;
pub mod norm;
mod vector;

pub use allocator::keep_freed_memory;
pub use memory::training_memory;

/// A buffer that must be written in full before it is read.
///
/// Zeroing it first would take another pass over memory.
#[allow(
    clippy::uninit_vec,
    reason = "every kernel writes each element of its output before anything reads it"
)]
pub fn buffer(len: usize) -> Vec<f32> {
    let mut buffer = Vec::with_capacity(len);
    // SAFETY: the capacity is reserved, f32 needs no drop, and kernels only store to the buffer before
    // passing it on.
    unsafe { buffer.set_len(len) };
    buffer
}

/// The number of elements per thread's piece of element-wise work.
const PIECE: usize = 1 << 14;

/// The number of rows per thread's piece of row-wise work, given the rows' length.
fn rows_per_piece(row: usize) -> usize {
    (PIECE / row.max(1)).max(1)
}
