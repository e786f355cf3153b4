//! The sizes to which methods grow by copying features.

use super::FusionParent;
use crate::{Error, Result};

/// Sizes to grow to; `None` keeps the parent's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Widths {
    /// A multiple of the parent's.
    pub d_model: Option<usize>,
    /// At least the parent's.
    pub num_heads: Option<usize>,
    /// At least the parent's.
    pub d_ff: Option<usize>,
}

impl Widths {
    /// The sizes of d_model, num_heads and d_ff, each preceded by the parent's.
    pub(super) fn resolve(self, method: &str, parent: &FusionParent) -> Result<[(usize, usize); 3]> {
        let (config, label) = (&parent.config, &parent.label);
        let sizes = [
            ("d_model", config.d_model, self.d_model),
            ("num_heads", config.num_heads, self.num_heads),
            ("d_ff", config.d_ff, self.d_ff),
        ];
        for (key, own, wanted) in sizes {
            if let Some(wanted) = wanted.filter(|wanted| *wanted < own) {
                return Err(Error::Fusion(format!(
                    "{method} only adds features: {key} is {own} in {label}, more than {wanted}"
                )));
            }
        }
        let sizes = sizes.map(|(_, own, wanted)| (own, wanted.unwrap_or(own)));
        if sizes.iter().all(|(own, wanted)| own == wanted) {
            return Err(Error::Fusion(format!(
                "{method} would leave {label} as it is: give it a larger d_model, num_heads or d_ff"
            )));
        }
        Ok(sizes)
    }
}
