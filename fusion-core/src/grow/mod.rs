//! The algebra of the methods: parameter tables in, a [`FusionPlan`](crate::plan::FusionPlan) out.

mod direct_sum;
mod widen;

pub use direct_sum::{DirectSum, direct_sum};
pub use widen::{Shares, Widen, Widening, copies_up_to, whole_copies, widen};

use crate::table::ParamTable;

/// A parent, as the methods see it.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// A name for messages and plans.
    pub label: &'a str,
    /// The hash of its weights, where known.
    pub blake3: Option<&'a str>,
    /// Its parameters.
    pub table: &'a ParamTable,
    /// The groups its own normalisation has; empty if it is not grouped.
    pub embed_groups: &'a [usize],
}
