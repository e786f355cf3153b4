//! Cases in which no child can be exact: why, and the closest alternative.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use super::FusionParent;
use crate::{Error, Result};

/// A key of `config.json` in which the parents differ, although the child has a single value for it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Refusal {
    /// The key.
    pub key: &'static str,
    /// Every parent's label and value.
    pub values: Vec<(String, Value)>,
    /// Why the child cannot have several values.
    pub reason: &'static str,
    /// What to do instead.
    pub advice: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is", self.key)?;
        for (index, (label, value)) in self.values.iter().enumerate() {
            let last = index + 1 == self.values.len();
            let separator = ["", ",", " and"][if index == 0 { 0 } else { 1 + usize::from(last) }];
            let value = value.as_str().map_or(value.to_string(), str::to_owned);
            write!(f, "{separator} {value} in {label}")?;
        }
        write!(f, ": {}; {}", self.reason, self.advice)
    }
}

/// Everything that prevents these parents from being fused, if anything.
pub(super) fn check_compatible(parents: &[FusionParent]) -> Result<()> {
    let refusals = refusals(parents);
    if refusals.is_empty() { Ok(()) } else { Err(Error::Incompatible(refusals)) }
}

fn refusals(parents: &[FusionParent]) -> Vec<Refusal> {
    let retrain = "pretrain one of them again with another's";
    let one_is_wrong = "if one config.json is wrong, correct it";
    let largest = parents.iter().map(|parent| parent.config.vocab_size).max().unwrap_or(0);
    let vocabulary = format!(
        "if they share a tokenizer and one has fewer rows of padding, give it the missing ones (in transformers: \
         `resize_token_embeddings({largest})`); otherwise pretrain both with one tokenizer"
    );
    let epsilon = "write the same into each config.json, and see with `verify` what that changes";
    let buckets = "all heads of a child sort distances into the same buckets";
    let checks = [
        ("feed_forward_proj", "no weights make one kind of MLP compute what another does", retrain),
        ("vocab_size", "only logits of the same tokens average", vocabulary.as_str()),
        ("relative_attention_num_buckets", buckets, retrain),
        ("relative_attention_max_distance", buckets, retrain),
        ("layer_norm_epsilon", "a child has one", epsilon),
        ("decoder_start_token_id", "a child's targets begin with one token", one_is_wrong),
        ("pad_token_id", "a child has one", one_is_wrong),
        ("eos_token_id", "a child has one", one_is_wrong),
    ];
    let configs: Vec<_> = parents.iter().map(|parent| (&parent.label, parent.config.to_json())).collect();
    let refusal = |(key, reason, advice): (&'static str, &'static str, &str)| {
        let value = |config: &Map<String, Value>| config.get(key).cloned().unwrap_or_default();
        let values: Vec<_> =
            configs.iter().map(|(label, config)| (label.to_string(), value(config))).collect();
        let differ = values.windows(2).any(|pair| pair[0].1 != pair[1].1);
        differ.then(|| Refusal { key, values, reason, advice: advice.to_owned() })
    };
    checks.into_iter().filter_map(refusal).collect()
}
