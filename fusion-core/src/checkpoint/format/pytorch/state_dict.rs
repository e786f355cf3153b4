//! From an unpickled state dict to a table of tensors.

use std::ops::Range;

use super::super::{Extent, Tensors};
use super::pickle::{Pickle, StridedTensor, Value};

/// `storage` finds the place of the storage with a key, which must have so many bytes. Tied parameters share one.
pub(super) fn tensors(
    pickle: &Pickle<'_>,
    storage: impl Fn(&str, usize) -> Result<Range<usize>, String>,
) -> Result<Tensors, String> {
    let Value::Dict(items) = pickle.root() else {
        return Err(format!("a state dict is a dict of tensors, this is {}", pickle.root().kind()));
    };
    let mut tensors = Tensors::new();
    for (key, value) in items {
        let Value::Text(name) = pickle.value(*key) else {
            return Err(format!("a key of the state dict is {}, not a text", pickle.value(*key).kind()));
        };
        let Value::Tensor(tensor) = pickle.value(*value) else {
            return Err(format!("`{name}` is {}, not a tensor", pickle.value(*value).kind()));
        };
        let extent = extent(tensor, &storage).map_err(|problem| format!("tensor `{name}`: {problem}"))?;
        if tensors.insert((*name).to_string(), extent).is_some() {
            return Err(format!("tensor `{name}` occurs twice"));
        }
    }
    Ok(tensors)
}

fn extent(
    tensor: &StridedTensor<'_>,
    storage: impl Fn(&str, usize) -> Result<Range<usize>, String>,
) -> Result<Extent, String> {
    let StridedTensor { storage: place, offset, shape, strides } = tensor;
    let size = place.dtype.bitsize() / 8;
    if !is_contiguous(shape, strides) {
        return Err(format!(
            "its elements do not lie in a row (shape {shape:?}, strides {strides:?}); save it as contiguous"
        ));
    }
    let elements = shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    let end = elements.and_then(|elements| offset.checked_add(elements));
    let (Some(end), Some(bytes)) =
        (end.filter(|end| *end <= place.elements), place.elements.checked_mul(size))
    else {
        return Err(format!(
            "shape {shape:?} from element {offset} on does not fit its storage of {} elements",
            place.elements
        ));
    };
    let range = storage(place.key, bytes)?;
    let (start, end) = (range.start + offset * size, range.start + end * size);
    Ok(Extent { dtype: place.dtype, shape: shape.clone(), start, end })
}

/// Row-major without gaps; the strides of dimensions of size 1, and those of an empty tensor, do not matter.
fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1usize;
    let matches = shape.iter().zip(strides).rev().all(|(&size, &stride)| {
        let matches = size == 1 || stride == expected;
        expected = expected.saturating_mul(size);
        matches
    });
    shape.len() == strides.len() && (matches || shape.contains(&0))
}
