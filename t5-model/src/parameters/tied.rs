//! The names that PyTorch gives one embedding, which the encoder, the decoder and a tied head share.

use fusion_core::{TensorSource, TensorView};

use crate::{Error, Result};

/// The embedding's name.
pub const EMBEDDING: &str = "shared.weight";
/// The head's name.
pub const HEAD: &str = "lm_head.weight";
/// Names of the embedding in PyTorch's state dicts, which name a shared tensor several times.
pub const ALIASES: [&str; 2] = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"];

/// The tensor that holds the embedding. Programs that write a shared tensor once do so under any of its
/// names; without the others, transformers 5 takes the first that is there. A head counts if it is tied.
///
/// # Errors
/// [`Error::Untied`] if the encoder or the decoder has an embedding of its own, which no T5 here does. If
/// there is none at all, the name is the usual one.
pub fn embedding_name(weights: &dyn TensorSource, tied: bool) -> Result<&'static str> {
    let names = [Some(EMBEDDING), Some(ALIASES[0]), Some(ALIASES[1]), tied.then_some(HEAD)];
    let mut there = names.into_iter().flatten().filter_map(|name| Some((name, weights.view(name).ok()?)));
    let Some((name, embedding)) = there.next() else { return Ok(EMBEDDING) };
    for (other, view) in there {
        if other != HEAD && !are_equal(&embedding, &view) {
            return Err(Error::Untied { embedding: name, other });
        }
    }
    Ok(name)
}

/// Whether a head is there that is not the embedding. transformers 5 compares values, whatever the
/// configuration says.
pub(crate) fn has_own_head(weights: &dyn TensorSource) -> bool {
    match (weights.view(HEAD), weights.view(EMBEDDING)) {
        (Ok(head), Ok(embedding)) => !are_equal(&head, &embedding),
        (head, _) => head.is_ok(),
    }
}

/// Whether two tensors hold the same values, perhaps in different types.
fn are_equal(a: &TensorView<'_>, b: &TensorView<'_>) -> bool {
    if a.shape() != b.shape() {
        return false;
    }
    if a.dtype() == b.dtype() {
        return a.data() == b.data();
    }
    let values = |view: &TensorView<'_>| fusion_core::convert_tensor("", view, fusion_core::Dtype::F64, 1.0);
    matches!((values(a), values(b)), (Ok(a), Ok(b)) if a == b)
}
