//! A deterministic gradient for embeddings.

use tch::{Kind, Tensor};

use super::{Kernel, Kernels, Source, Unit, at};

/// The number of positions that a block sums.
const PIECE: usize = 64;

/// Positions sorted by token and divided into pieces; see `embedding.cu`.
#[derive(Debug, Default, PartialEq)]
struct Pieces {
    order: Vec<i32>,
    /// `[first, end, row, is_partial]` for each.
    pieces: Vec<i32>,
    /// The same fields for tokens with several pieces; their partial sums are the rows `first..end`.
    tokens: Vec<i32>,
    partial: usize,
}

impl Pieces {
    /// `ids` are less than `rows`.
    fn of(ids: &[i32], rows: usize) -> Self {
        // A counting sort, which is stable.
        let mut ends = vec![0usize; rows + 1];
        ids.iter().for_each(|id| ends[*id as usize + 1] += 1);
        for row in 0..rows {
            ends[row + 1] += ends[row];
        }
        let mut next = ends.clone();
        let mut order = vec![0; ids.len()];
        for (position, id) in ids.iter().enumerate() {
            let place = &mut next[*id as usize];
            order[*place] = position as i32;
            *place += 1;
        }
        let mut sorted = Pieces { order, ..Pieces::default() };
        for (row, bounds) in ends.windows(2).enumerate() {
            let (start, end) = (bounds[0], bounds[1]);
            let several = end - start > PIECE;
            let first = sorted.partial;
            for piece in (start..end).step_by(PIECE) {
                let target = if several { sorted.partial } else { row };
                sorted.partial += usize::from(several);
                let fields = [piece, end.min(piece + PIECE), target, usize::from(several)];
                sorted.pieces.extend(fields.map(|field| field as i32));
            }
            if several {
                sorted.tokens.extend([first, sorted.partial, row, 0].map(|field| field as i32));
            }
        }
        sorted
    }
}

impl Kernels {
    /// Whether the kernels support a table of this width.
    pub fn can_embed(&self, features: i64) -> bool {
        features % 4 == 0
    }

    /// The gradient of a table `[rows, features]`, given the gradient of its rows at `ids`: `[ids,
    /// features]`, f32, contiguous.
    pub fn embedding_gradient(&self, dy: &Tensor, ids: &[i32], rows: i64, features: i64) -> Tensor {
        let Pieces { order, pieces, tokens, partial } = Pieces::of(ids, rows as usize);
        let [order, piece_list, token_list] = [&order, &pieces, &tokens].map(|list| self.upload(list));
        let partial = self.empty(&[partial.max(1) as i64, features], Kind::Float);
        let dtable = Tensor::zeros([rows, features], (Kind::Float, self.device));
        let kernel =
            |name| Kernel { unit: Unit { source: Source::Embedding, bf16: false, variant: 0 }, name };
        let width = features as i32;
        self.launch(
            kernel("sum_pieces"),
            [pieces.len() as i64 / 4, 1, 1],
            128,
            0,
            &[&at(dy), &at(&order), &at(&piece_list), &at(&partial), &at(&dtable), &width],
        );
        if !tokens.is_empty() {
            self.launch(
                kernel("sum_partial"),
                [tokens.len() as i64 / 4, 1, 1],
                128,
                0,
                &[&at(&partial), &at(&token_list), &at(&dtable), &width],
            );
        }
        dtable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_sorted_by_token_and_cut() {
        let sorted = Pieces::of(&[2, 0, 2, 2], 4);
        let expected = Pieces {
            order: vec![1, 0, 2, 3],
            pieces: vec![0, 1, 0, 0, 1, 4, 2, 0],
            tokens: vec![],
            partial: 0,
        };
        assert_eq!(sorted, expected);
        let many = Pieces::of(&[vec![1; 130], vec![3]].concat(), 5);
        assert_eq!(many.pieces, [0, 64, 0, 1, 64, 128, 1, 1, 128, 130, 2, 1, 130, 131, 3, 0]);
        assert_eq!((many.tokens, many.partial), (vec![0, 3, 1, 0], 3));
    }
}
