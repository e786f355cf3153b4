//! The axes of a parameter, and what a fusion does along each.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A named axis of a parameter. The first six carry T5X's names; the last three belong to dense networks (Eq. 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// Tokens of the vocabulary.
    Vocab,
    /// Buckets of T5's relative positions.
    RelposBuckets,
    /// The model dimension (`d_model`).
    Embed,
    /// Attention heads.
    Heads,
    /// Features of one head (`d_kv`).
    Kv,
    /// Hidden features of the MLP (`d_ff`).
    Mlp,
    /// Input features of a dense network.
    Input,
    /// Hidden features of a dense network.
    Hidden,
    /// Logits of a dense network.
    Output,
}

/// What a fusion does along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AxisRule {
    /// The same size in every parent and in the child.
    Shared,
    /// A direct sum: the parents follow one another, and the child's size is the sum of theirs.
    Fused,
    /// Every parent starts at 0, the child has the size of the largest parent, and the rest is zero. Exact for `Kv`,
    /// since T5 does not scale attention by `d_kv^-1/2` and zero features add nothing to a dot product.
    Padded,
}

impl Axis {
    /// What a fusion does along this axis.
    pub fn rule(self) -> AxisRule {
        match self {
            Axis::Vocab | Axis::RelposBuckets | Axis::Input | Axis::Output => AxisRule::Shared,
            Axis::Embed | Axis::Heads | Axis::Mlp | Axis::Hidden => AxisRule::Fused,
            Axis::Kv => AxisRule::Padded,
        }
    }

    /// The name in messages and in serialised plans.
    pub fn name(self) -> &'static str {
        match self {
            Axis::Vocab => "vocab",
            Axis::RelposBuckets => "relpos_buckets",
            Axis::Embed => "embed",
            Axis::Heads => "heads",
            Axis::Kv => "kv",
            Axis::Mlp => "mlp",
            Axis::Input => "input",
            Axis::Hidden => "hidden",
            Axis::Output => "output",
        }
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
