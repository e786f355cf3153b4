//! Batches without their padding, so that only attention spends time on it.

use crate::Batch;
use crate::backend::Positions;
use crate::model::Layout;

/// A batch's tokens as one row, one after the other.
pub(crate) struct Packing {
    /// From the batch's places to tokens, `[1, tokens]`.
    pub packed: Positions,
    /// And back, `[batch, input]`; padding repeats some token, which the mask hides.
    pub padded: Positions,
}

impl Packing {
    /// `None` if nothing is padded.
    pub fn of(batch: &Batch) -> Option<Self> {
        let mask = batch.padding()?;
        let (mut tokens, mut places) = (Vec::new(), Vec::with_capacity(mask.len()));
        for (place, visible) in (0..).zip(mask) {
            if *visible != 0 {
                tokens.push(place);
            }
            places.push((tokens.len() as i32 - 1).max(0));
        }
        let length = tokens.len();
        Some(Packing {
            packed: Positions { ids: tokens, batch: 1, length },
            padded: Positions { ids: places, batch: batch.size, length: batch.input_length },
        })
    }

    /// The ids of its tokens.
    pub fn tokens(&self, batch: &Batch) -> Vec<i32> {
        self.packed.ids.iter().map(|place| batch.input_ids[*place as usize]).collect()
    }

    /// Attention of tokens to each other, example by example.
    pub fn layout(&self) -> Layout<'_> {
        Layout { queries: &self.padded, keys: Some(&self.padded), results: &self.packed }
    }
}
