//! `tokenizer_config.json` and `special_tokens_map.json`.

use serde_json::Value;

use super::{Key, honoured, immaterial, is_true, refused};

const CALLS: &str = "it is about calls of transformers' tokenizer that this project does not make";
const FILES: &str = "it names files";
const CARRIED: &str = "T5 has no chats, and it is carried on";
const INTERNAL: &str = "transformers sets it itself from the other files";
const RELEASES: &str = "transformers 5 does not read it";

/// The keys of `tokenizer_config.json`. Where that file has no `added_tokens_decoder`, those of
/// `special_tokens_map.json` are read over them, as in transformers.
pub const TOKENIZER: &[Key] = &[
    refused("tokenizer_class", is_t5s, "only T5's, ByT5's, and `tokenizer.json` read as it is, can be used"),
    // The tokens, by name and all.
    honoured("eos_token"),
    honoured("unk_token"),
    honoured("pad_token"),
    honoured("bos_token"),
    honoured("sep_token"),
    honoured("cls_token"),
    honoured("mask_token"),
    honoured("additional_special_tokens"),
    honoured("extra_special_tokens"),
    honoured("added_tokens_decoder"),
    // For `spiece.model` and bytes; `tokenizer.json` has its sentinels.
    honoured("extra_ids"),
    // Text to tokens and back.
    honoured("split_special_tokens"),
    honoured("clean_up_tokenization_spaces"),
    refused("add_prefix_space", is_true, "transformers 4 would begin a text without a space"),
    immaterial("add_bos_token", "T5's tokenizer ends a text with its end token, and begins it with nothing"),
    immaterial("add_eos_token", "T5's tokenizer ends a text with its end token, and begins it with nothing"),
    immaterial("legacy", RELEASES),
    immaterial("sp_model_kwargs", RELEASES),
    immaterial("from_slow", RELEASES),
    immaterial("use_fast", RELEASES),
    immaterial("do_lower_case", RELEASES),
    immaterial("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", "T5's is no BPE"),
    immaterial("fix_mistral_regex", "T5's is not Mistral's"),
    immaterial("model_max_length", CALLS),
    immaterial("max_length", CALLS),
    immaterial("max_len", CALLS),
    immaterial("padding_side", CALLS),
    immaterial("truncation_side", CALLS),
    immaterial("truncation_strategy", CALLS),
    immaterial("stride", CALLS),
    immaterial("pad_to_multiple_of", CALLS),
    immaterial("pad_token_type_id", CALLS),
    immaterial("token_type_ids_pattern", CALLS),
    immaterial("token_type_ids_include_special_tokens", CALLS),
    immaterial("return_token_type_ids", CALLS),
    immaterial("model_input_names", CALLS),
    immaterial("verbose", CALLS),
    immaterial("backend", CALLS),
    immaterial("init_inputs", CALLS),
    immaterial("processor_class", CALLS),
    immaterial("response_schema", CARRIED),
    immaterial("response_template", CARRIED),
    immaterial("chat_control_tokens", CARRIED),
    immaterial("chat_template", CARRIED),
    immaterial("auto_map", "it names files with Python code, which are not run"),
    immaterial("vocab", INTERNAL),
    immaterial("merges", INTERNAL),
    immaterial("unk_id", INTERNAL),
    immaterial("post_processor", INTERNAL),
    immaterial("tokenizer", INTERNAL),
    immaterial("tokenizer_object", INTERNAL),
    immaterial("tokenizer_padding", INTERNAL),
    immaterial("tokenizer_truncation", INTERNAL),
    immaterial("model_specific_special_tokens", INTERNAL),
    immaterial("_json_padding", INTERNAL),
    immaterial("_json_truncation", INTERNAL),
    immaterial("_spm_precompiled_charsmap", INTERNAL),
    immaterial("__slow_tokenizer", INTERNAL),
    immaterial("files_loaded", INTERNAL),
    immaterial("gguf_file", INTERNAL),
    immaterial("vocab_file", FILES),
    immaterial("merges_file", FILES),
    immaterial("tokenizer_file", FILES),
    immaterial("special_tokens_map_file", FILES),
    immaterial("name_or_path", FILES),
    immaterial("is_local", FILES),
    immaterial("local_files_only", FILES),
];

/// Classes that read a `tokenizer.json` as it is, a `spiece.model` as T5's, or bytes.
fn is_t5s(class: &Value) -> bool {
    const CLASSES: [&str; 9] = [
        "T5Tokenizer",
        "T5TokenizerFast",
        "MT5Tokenizer",
        "MT5TokenizerFast",
        "ByT5Tokenizer",
        "PreTrainedTokenizerFast",
        "PreTrainedTokenizer",
        "PythonBackend",
        "TokenizersBackend",
    ];
    class.is_null() || class.as_str().is_some_and(|class| CLASSES.contains(&class))
}
