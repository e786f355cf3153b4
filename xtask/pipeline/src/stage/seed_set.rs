//! Sets of seeds: a recipe's stages, run several times with other seeds.

use serde::{Deserialize, Serialize};

/// Which of several sets of seeds a stage has. The stages of one set name each other.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct SeedSet {
    /// The stage's name in the recipe, which its fellows of other sets share.
    pub stage: String,
    /// Counts from 1, the set of the seeds that the recipe says.
    pub number: u64,
}

impl SeedSet {
    /// How far the seeds of a set are from those of the next. Fine-tunings count up from theirs.
    pub const APART: u64 = 1000;
    /// The largest number of sets.
    pub const MOST: u64 = 100;

    /// The name of a stage in a set: the recipe's in the first, `baseline.2` in the second.
    pub fn name(stage: &str, number: u64) -> String {
        if number == 1 { stage.to_owned() } else { format!("{stage}.{number}") }
    }

    /// A seed of the recipe in this set.
    pub fn seed(&self, first: u64) -> u64 {
        first.wrapping_add(SeedSet::APART.wrapping_mul(self.number - 1))
    }
}
