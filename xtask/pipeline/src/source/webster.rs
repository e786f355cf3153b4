//! `builtin:webster`: Webster's dictionary, 9 MB of English from the crate of the same name.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// The crate's own interface only looks up single words, so the text is read from its source.
const DICTIONARY: &str = include_str!(env!("WEBSTER_DICTIONARY"));

/// One document per entry, `word: definition`, in a fixed pseudo-random order: adjacent entries in a
/// dictionary begin alike.
pub fn documents() -> Result<Vec<String>> {
    let entries: BTreeMap<String, String> =
        serde_json::from_str(DICTIONARY).context("the text of the crate `webster`")?;
    let documents: Vec<String> = entries
        .iter()
        .map(|(word, definition)| format!("{}: {}", word.trim().to_lowercase(), definition.trim()))
        .collect();
    let order = fusion_core::random::permutation(0, documents.len());
    Ok(order.into_iter().filter_map(|index| documents.get(index).cloned()).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn entries_are_documents() {
        let documents = super::documents().expect("the dictionary");
        assert!(documents.len() > 50_000, "{} documents", documents.len());
        assert!(documents.iter().any(|document| document.starts_with("rust: The reddish yellow coating")));
        assert_eq!(documents, super::documents().expect("the dictionary"));
    }
}
