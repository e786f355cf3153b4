//! The hash of weights. BLAKE3 is a tree, so the pieces of a tensor can be hashed in any order as they are produced.

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};
use serde_json::Value;

use crate::{Dtype, Result, TensorSource};

/// The number of bytes of a tensor that are produced, hashed and written at a time: a whole subtree of BLAKE3, and so a
/// power of two.
pub(crate) const PIECE: usize = 1 << 20;

/// The hash of a source's tensors.
pub(super) fn hash_source(source: &impl TensorSource) -> Result<String> {
    let mut hash = blake3::Hasher::new();
    for name in source.names() {
        let view = source.view(&name)?;
        let whole = blake3::Hasher::new().update_rayon(view.data()).finalize();
        add(&mut hash, &name, view.dtype(), view.shape(), whole.as_bytes());
    }
    Ok(hash.finalize().to_hex().to_string())
}

/// The chaining value of the piece of a tensor that begins at `start`. If the piece is the whole tensor, this is the
/// tensor's hash.
pub(super) fn hash_piece(start: usize, piece: &[u8], is_whole: bool) -> ChainingValue {
    if is_whole {
        return blake3::hash(piece).into();
    }
    blake3::Hasher::new().set_input_offset(start as u64).update(piece).finalize_non_root()
}

/// A tensor's BLAKE3 hash from the values of its pieces, in order.
pub(super) fn join_pieces(values: &[ChainingValue]) -> [u8; 32] {
    match split(values) {
        Err(whole) => whole,
        Ok((left, right)) => merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash).into(),
    }
}

fn subtree(values: &[ChainingValue]) -> ChainingValue {
    match split(values) {
        Err(piece) => piece,
        Ok((left, right)) => merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash),
    }
}

/// The children of the node over these pieces, or the value of the only piece.
fn split(values: &[ChainingValue]) -> Result<(&[ChainingValue], &[ChainingValue]), ChainingValue> {
    match values {
        [] => Err(blake3::hash(&[]).into()),
        [piece] => Err(*piece),
        _ => Ok(values.split_at(left_subtree_len((values.len() * PIECE) as u64) as usize / PIECE)),
    }
}

/// What a tensor contributes to the hash of the weights.
pub(super) struct HashedTensor<'a> {
    pub name: &'a str,
    pub dtype: Dtype,
    pub shape: &'a [usize],
    pub hash: [u8; 32],
}

/// The same hash as [`hash_source`], from the tensors' own.
pub(super) fn hash_weights(mut tensors: Vec<HashedTensor<'_>>) -> String {
    tensors.sort_unstable_by_key(|tensor| tensor.name);
    let mut hash = blake3::Hasher::new();
    for HashedTensor { name, dtype, shape, hash: tensor } in tensors {
        add(&mut hash, name, dtype, shape, &tensor);
    }
    hash.finalize().to_hex().to_string()
}

fn add(hash: &mut blake3::Hasher, name: &str, dtype: Dtype, shape: &[usize], tensor: &[u8; 32]) {
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    // A name can hold any character, but its JSON holds no control characters.
    hash.update(format!("{}\n{dtype}\n{}\n", Value::from(name), sizes.join(",")).as_bytes());
    hash.update(tensor);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the library's own hash of all bytes.
    #[test]
    fn pieces_join_to_the_hash_of_the_whole() {
        let bytes: Vec<u8> = (0..9 * PIECE + 5).map(|i| ((i * i) >> 7) as u8).collect();
        for length in
            [0, 1, 1024, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 5 * PIECE, 7 * PIECE + 3, bytes.len()]
        {
            let bytes = &bytes[..length];
            let pieces = bytes.chunks(PIECE).enumerate();
            let values: Vec<ChainingValue> = pieces
                .map(|(index, piece)| hash_piece(index * PIECE, piece, piece.len() == length))
                .collect();
            assert_eq!(join_pieces(&values), *blake3::hash(bytes).as_bytes(), "{length} bytes");
        }
    }
}
