//! `hyperclone`: HyperCloning (Samragh et al., arXiv 2409.12903). Every width is multiplied by the same number: a weight
//! is tiled in both of its directions and divided by the number of copies of its inputs. Preserves the function, with
//! noise too: it cancels between pairs of copies. Without noise nothing tells the copies apart in training.

use fusion_core::grow::{Shares, Widen, whole_copies, widen};
use fusion_core::plan::StandardDeviation;
use fusion_core::table::Axis;

use super::{FusionParent, Grown, Method, part};
use crate::{Result, parameter_table};

/// The method's options.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HyperClone {
    /// What every width is multiplied by.
    pub times: usize,
    /// With its seed.
    pub noise: Option<(StandardDeviation, u64)>,
}

/// Clones a model into one that is `times` as wide.
pub fn hyperclone(parent: &FusionParent, options: &HyperClone) -> Result<Grown> {
    let table = parameter_table(&parent.config)?;
    let mut child = parent.config.clone();
    let copies = |axis, size: &mut usize| {
        let widening = whole_copies(axis, *size, options.times);
        *size = size.saturating_mul(options.times);
        widening
    };
    let axes = vec![
        copies(Axis::Embed, &mut child.d_model),
        copies(Axis::Heads, &mut child.num_heads),
        copies(Axis::Mlp, &mut child.d_ff),
    ];
    let method = Method::HyperClone.name().to_owned();
    let options = Widen { method, axes, shares: Shares::Equal, noise: options.noise };
    Grown::new(widen(&part(parent, &table), &options)?, child)
}
