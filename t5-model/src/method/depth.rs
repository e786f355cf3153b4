//! Parents with fewer blocks than their child.

use fusion_core::table::ParamTable;
use serde::{Deserialize, Serialize};

use crate::parameters::{Block, table_with_blocks};
use crate::{Result, T5Config};

/// Which of the child's blocks a parent with fewer blocks occupies. It passes through the others: its slice
/// of their output projections is zero, which leaves its slice of the residual stream unchanged. The child's
/// first predictions do not depend on the choice; what it learns later may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum DepthAlignment {
    /// The first blocks.
    ///
    /// They are next to the embedding.
    #[default]
    Bottom,
    /// The last blocks.
    ///
    /// They are next to the head.
    Top,
    /// The first, the last, and evenly spaced blocks in between.
    Spread,
}

impl DepthAlignment {
    /// For each of the child's blocks, the parent's block that occupies it.
    fn blocks(self, parent: usize, child: usize) -> Vec<Block> {
        let mut blocks = vec![Block::Absent; child];
        for own in 0..parent {
            let place = match self {
                DepthAlignment::Bottom => own,
                DepthAlignment::Top => child.saturating_sub(parent) + own,
                // Rounded to the nearest; consecutive blocks are at least 1 apart, so no two coincide.
                DepthAlignment::Spread => {
                    let gaps = parent.saturating_sub(1).max(1);
                    (2 * own * child.saturating_sub(1) + gaps) / (2 * gaps)
                }
            };
            if let Some(block) = blocks.get_mut(place) {
                *block = Block::Own(own);
            }
        }
        blocks
    }

    /// The parameters of a parent in a child with these numbers of encoder and decoder blocks.
    pub(crate) fn table(self, parent: &T5Config, [encoder, decoder]: [usize; 2]) -> Result<ParamTable> {
        parent.validate()?;
        let blocks =
            [self.blocks(parent.num_layers, encoder), self.blocks(parent.num_decoder_layers(), decoder)];
        table_with_blocks(parent, blocks)
    }
}

/// The child's numbers of encoder and decoder blocks: those of the deepest parent, for each stack separately.
pub(crate) fn child_layers<'a>(parents: impl Iterator<Item = &'a T5Config>) -> [usize; 2] {
    parents.fold([0, 0], |[encoder, decoder], parent| {
        [encoder.max(parent.num_layers), decoder.max(parent.num_decoder_layers())]
    })
}

#[cfg(test)]
mod tests {
    use super::Block;
    use super::DepthAlignment::{self, Bottom, Spread, Top};

    fn own(block: Block) -> Option<usize> {
        match block {
            Block::Own(own) => Some(own),
            Block::Silent(_) | Block::Absent => None,
        }
    }

    #[test]
    fn blocks_of_a_shallower_parent() {
        let blocks = |alignment: DepthAlignment, parent, child| {
            let blocks = alignment.blocks(parent, child).into_iter();
            blocks.map(|block| own(block).map_or("-".into(), |own| own.to_string())).collect::<String>()
        };
        assert_eq!([Bottom, Top, Spread].map(|a| blocks(a, 3, 6)), ["012---", "---012", "0--1-2"]);
        assert_eq!([Bottom, Top, Spread].map(|a| blocks(a, 1, 3)), ["0--", "--0", "0--"]);
        assert_eq!([Bottom, Top, Spread].map(|a| blocks(a, 3, 3)), ["012"; 3]);
        assert_eq!(blocks(Spread, 2, 5), "0---1");
        assert_eq!(blocks(Spread, 6, 8), "01-23-45");
    }

    /// No block is lost, and their order is kept.
    #[test]
    fn every_block_has_its_place() {
        for child in 1..25 {
            for parent in 1..=child {
                for alignment in [Bottom, Top, Spread] {
                    let own: Vec<_> = alignment.blocks(parent, child).into_iter().filter_map(own).collect();
                    assert!(own.into_iter().eq(0..parent), "{alignment:?} {parent} of {child}");
                }
            }
        }
    }
}
