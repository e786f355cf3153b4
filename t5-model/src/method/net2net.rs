//! `net2net`: Net2WiderNet (Chen, Goodfellow, Shlens, arXiv 1511.05641) for transformers, as bert2BERT's
//! function-preserving initialisation (Chen et al., arXiv 2110.07143). Heads and hidden features are copied up to any
//! number, those copied beyond whole copies chosen at random; d_model grows by whole copies, since the normalisation
//! takes a mean over it. Preserves the function, with noise too: it cancels between pairs of copies.

use fusion_core::grow::{Shares, Widen, copies_up_to, widen};
use fusion_core::plan::StandardDeviation;
use fusion_core::table::Axis;

use super::{FusionParent, Grown, Method, Widths, part};
use crate::{Result, parameter_table};

/// The method's options.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Net2Net {
    pub widths: Widths,
    /// Of the choice of features.
    pub seed: u64,
    pub noise: Option<(StandardDeviation, u64)>,
}

/// Widens a model by copies of its features.
pub fn net2net(parent: &FusionParent, options: &Net2Net) -> Result<Grown> {
    widened(parent, Method::Net2Net, options.widths, options.seed, Shares::Equal, options.noise)
}

pub(super) fn widened(
    parent: &FusionParent,
    method: Method,
    widths: Widths,
    seed: u64,
    shares: Shares,
    noise: Option<(StandardDeviation, u64)>,
) -> Result<Grown> {
    let sizes = widths.resolve(method, parent)?;
    let axes = [Axis::Embed, Axis::Heads, Axis::Mlp].into_iter().zip(sizes);
    let axes = axes.map(|(axis, (own, wanted))| copies_up_to(axis, own, wanted, seed)).collect();
    let [d_model, num_heads, d_ff] = sizes.map(|(_, wanted)| wanted);
    let mut child = parent.config.clone();
    (child.d_model, child.num_heads, child.d_ff) = (d_model, num_heads, d_ff);
    let table = parameter_table(&parent.config)?;
    let options = Widen { method: method.name().into(), axes, shares, noise };
    Grown::new(widen(&part(parent, &table), &options)?, child)
}
