//! `lemon`: LEMON's lossless expansion in width (Wang et al., arXiv 2310.07999). Features are copied as in `net2net`, but
//! the copies' shares in the sums over them are unequal, which tells them apart in training without any noise. Preserves
//! the function. LEMON's expansion in depth is `stack` with new blocks that begin silent.

use fusion_core::grow::Shares;

use super::net2net::widened;
use super::{FusionParent, Grown, Method, Widths};
use crate::Result;

/// The method's options.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lemon {
    pub widths: Widths,
    /// Of the choice of features, and of the shares.
    pub seed: u64,
}

/// Widens a model by copies of its features with unequal shares.
pub fn lemon(parent: &FusionParent, options: &Lemon) -> Result<Grown> {
    let shares = Shares::Unequal { seed: options.seed };
    widened(parent, Method::Lemon, options.widths, options.seed, shares, None)
}
