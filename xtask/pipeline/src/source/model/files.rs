//! The files of a model, and what becomes of each when another model is made from it. This one list decides
//! for every command that writes a model, and for what is fetched from the Hub.

use fusion_core::atomic::RECORD;

/// What a file beside the weights is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A tokenizer's, its chat template included. Carried on, from the first parent that has a tokenizer.
    Tokenizer,
    /// Settings for generation. Carried on; several parents' are merged.
    Generation,
    /// A licence or notice. Carried on, from every parent.
    Legal,
    /// The plan of the fusion that made the model. Carried on as long as the weights are the same.
    Plan,
    /// A model card. It describes one model: carried on by `convert`, replaced by `export`, and left behind by
    /// whatever makes another model.
    Card,
    /// Made anew with every model: weights in any format, configuration, lineage, and what this project's
    /// trainings leave.
    Made,
}

/// Names, or patterns with a `*` at the end or the beginning. What matches none is left behind.
pub const FILES: &[(&str, Kind)] = &[
    ("tokenizer.json", Kind::Tokenizer),
    ("spiece.model", Kind::Tokenizer),
    ("tokenizer_config.json", Kind::Tokenizer),
    ("special_tokens_map.json", Kind::Tokenizer),
    ("added_tokens.json", Kind::Tokenizer),
    ("chat_template.jinja", Kind::Tokenizer),
    ("chat_template.json", Kind::Tokenizer),
    ("generation_config.json", Kind::Generation),
    ("LICENSE", Kind::Legal),
    ("LICENSE.txt", Kind::Legal),
    ("LICENSE.md", Kind::Legal),
    ("LICENCE", Kind::Legal),
    ("LICENSE*", Kind::Legal),
    ("LICENCE*", Kind::Legal),
    ("COPYING*", Kind::Legal),
    ("COPYRIGHT*", Kind::Legal),
    ("NOTICE", Kind::Legal),
    ("NOTICE.txt", Kind::Legal),
    ("NOTICE*", Kind::Legal),
    ("PATENTS*", Kind::Legal),
    ("AUTHORS*", Kind::Legal),
    ("CITATION*", Kind::Legal),
    ("USE_POLICY*", Kind::Legal),
    ("README*", Kind::Card),
    ("MODEL_CARD*", Kind::Card),
    ("plan.json", Kind::Plan),
    ("plan.txt", Kind::Plan),
    ("config.json", Kind::Made),
    ("*.safetensors", Kind::Made),
    ("*.index.json", Kind::Made),
    ("pytorch_model*", Kind::Made),
    ("tf_model*", Kind::Made),
    ("flax_model*", Kind::Made),
    ("rust_model*", Kind::Made),
    ("*.gguf", Kind::Made),
    ("*.onnx", Kind::Made),
    ("lineage.json", Kind::Made),
    (RECORD, Kind::Made),
    ("optimizer.json", Kind::Made),
    ("training_state.json", Kind::Made),
    ("configuration_deep_fusion_t5.py", Kind::Made),
    ("modeling_deep_fusion_t5.py", Kind::Made),
];

impl Kind {
    /// What a file of this name is, in capitals or not; `None` for one that this project knows nothing of.
    pub fn of(name: &str) -> Option<Self> {
        let lower = name.to_lowercase();
        let matches = |pattern: &str| {
            let pattern = pattern.to_lowercase();
            match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
                (Some(end), _) => lower.ends_with(end),
                (_, Some(start)) => lower.starts_with(start),
                _ => lower == pattern,
            }
        };
        FILES.iter().find(|(pattern, _)| matches(pattern)).map(|(_, kind)| *kind)
    }

    /// Whether it is fetched from the Hub with a model.
    pub fn is_fetched(self) -> bool {
        matches!(self, Kind::Tokenizer | Kind::Generation | Kind::Legal)
    }
}

/// The names of the files that are fetched from the Hub with a model, if it has them.
#[cfg(any(feature = "hub", test))]
pub fn fetched() -> impl Iterator<Item = &'static str> {
    let names = FILES.iter().filter(|(name, kind)| kind.is_fetched() && !name.contains('*'));
    names.map(|(name, _)| *name)
}

/// The names of a tokenizer's files.
pub fn tokenizer_files() -> impl Iterator<Item = &'static str> {
    FILES.iter().filter(|(_, kind)| *kind == Kind::Tokenizer).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_people_write_them() {
        let cases = [
            ("License.txt", Some(Kind::Legal)),
            ("LICENSE-APACHE", Some(Kind::Legal)),
            ("readme.md", Some(Kind::Card)),
            ("model-00001-of-00002.safetensors", Some(Kind::Made)),
            ("pytorch_model.bin", Some(Kind::Made)),
            ("training_args.bin", None),
            ("generation_config.json", Some(Kind::Generation)),
            ("eval_results.json", None),
        ];
        for (name, kind) in cases {
            assert_eq!(Kind::of(name), kind, "{name}");
        }
        assert!(fetched().any(|name| name == "generation_config.json"));
        assert!(fetched().all(|name| !name.contains('*')));
    }
}
