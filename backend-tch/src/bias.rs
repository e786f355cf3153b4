//! T5's position bias, per distance (for our CUDA kernels) or per pair of positions (for libtorch
//! operations).

use std::cell::OnceCell;

use t5_model::backend::{Buckets, Place};
use tch::{Device, Kind, Tensor};

use crate::node::Node;
use crate::operations::TchOps;

/// A position bias. Both forms are computed on demand.
pub struct Bias {
    /// `[buckets, heads]`.
    table: Tensor,
    place: Option<Place>,
    buckets: Buckets,
    of_distances: OnceCell<Option<Node>>,
    of_pairs: OnceCell<Node>,
}

impl Bias {
    pub fn new(table: Tensor, place: Option<Place>, buckets: &Buckets) -> Self {
        let (of_distances, of_pairs) = Default::default();
        Bias { table, place, buckets: buckets.clone(), of_distances, of_pairs }
    }

    /// `[heads, query, key]`.
    pub fn of_pairs(&self, ops: &TchOps) -> &Node {
        let Buckets { ids, query, key } = &self.buckets;
        self.of_pairs.get_or_init(|| self.look_up(ops, ids, &[*query as i64, *key as i64]))
    }

    /// `[heads, query + key - 1]`, indexed by `key - query + queries - 1`. None if the bias is not a function
    /// of the distance.
    pub fn of_distances(&self, ops: &TchOps) -> Option<&Node> {
        let of_distances = self.of_distances.get_or_init(|| {
            let ids = self.buckets_of_distances()?;
            Some(self.look_up(ops, &ids, &[ids.len() as i64]))
        });
        of_distances.as_ref()
    }

    fn buckets_of_distances(&self) -> Option<Vec<u32>> {
        let Buckets { ids, query, key } = &self.buckets;
        let mut rows = ids.chunks(*key).rev();
        let mut of_distances = rows.next()?.to_vec();
        of_distances.extend(ids.chunks(*key).rev().skip(1).filter_map(|row| row.last()));
        let mut rows = ids.chunks(*key).rev().enumerate();
        let alike = rows.all(|(start, row)| of_distances.get(start..start + key) == Some(row));
        (alike && of_distances.len() + 1 == query + key).then_some(of_distances)
    }

    /// Looks up rows of the table, as `[heads, …shape]`.
    fn look_up(&self, ops: &TchOps, ids: &[u32], shape: &[i64]) -> Node {
        let size = self.table.size();
        let (rows, heads) = (size[0], size[1]);
        let ids = ops.integers(&ids.iter().map(|id| *id as i32).collect::<Vec<_>>());
        let selected = self.table.index_select(0, &ids); // [ids, heads]
        let shape: Vec<i64> = [&[heads], shape].concat();
        let bias = selected.tr().contiguous().view(shape.as_slice());
        ops.node(bias, [(self.place, Kind::Float)], move |dbias, _| {
            let dbias = dbias.view([heads, -1]).tr().contiguous(); // [ids, heads]
            [Some(match ids.device() {
                Device::Cpu => Tensor::embedding_dense_backward(&dbias, &ids, rows, -1, false),
                // On a GPU, that would sum in a different order on every run.
                device => {
                    let buckets = Tensor::arange(rows, (Kind::Int, device)).unsqueeze(1);
                    buckets.eq_tensor(&ids).to_kind(Kind::Float).mm(&dbias) // [buckets, ids] · [ids, heads]
                }
            })]
        })
    }
}
