//! `config.json`.

use serde_json::Value;

use super::{Key, honoured, immaterial, is_falsy, is_true, refused, told};

const OUTPUTS: &str = "it decides what transformers returns, not what it computes";
const LABELS: &str = "T5's language model has no classifier";
const SPEED: &str = "it decides how transformers computes, not what";
const HISTORY: &str = "it says where the file comes from";
const INITIAL: &str = "it is about new weights, and these are read";
const ROLES: &str = "T5's encoder and decoder set it themselves";
const PIPELINES: &str = "only transformers' pipelines read it, and it is carried on";
const LAYERS: &str = "a T5's layers are all alike here";

/// The keys of `config.json`. Without `generation_config.json`, transformers also takes those of
/// [`GENERATION`](super::GENERATION) from here.
pub const CONFIG: &[Key] = &[
    // Sizes, and transformers' general names for four of them, which win over T5's.
    honoured("vocab_size"),
    honoured("d_model"),
    honoured("hidden_size"),
    honoured("d_kv"),
    honoured("head_dim"),
    honoured("d_ff"),
    honoured("num_heads"),
    honoured("num_attention_heads"),
    honoured("num_layers"),
    honoured("num_hidden_layers"),
    honoured("num_decoder_layers"),
    honoured("relative_attention_num_buckets"),
    honoured("relative_attention_max_distance"),
    honoured("layer_norm_epsilon"),
    // The MLP: the last two are derived from the first, and win over it where they are there.
    honoured("feed_forward_proj"),
    honoured("dense_act_fn"),
    honoured("is_gated_act"),
    // The head.
    honoured("tie_word_embeddings"),
    honoured("scale_decoder_outputs"),
    // Ids.
    honoured("pad_token_id"),
    honoured("eos_token_id"),
    honoured("decoder_start_token_id"),
    honoured("bos_token_id"),
    // The kind of model.
    honoured("model_type"),
    refused("is_encoder_decoder", is_true, "a T5 without a decoder cannot be read"),
    refused("tie_encoder_decoder", is_falsy, "transformers 4 would use the encoder's weights in the decoder"),
    refused("pruned_heads", is_falsy, "transformers 4 would remove heads"),
    refused("per_layer_config", is_falsy, LAYERS),
    refused("quantization_config", is_falsy, "quantised weights cannot be read; save the model without it"),
    refused("configuration_files", is_falsy, "transformers would read another file in this one's place"),
    immaterial("architectures", "the weights say what they are"),
    immaterial("auto_map", "it names files with Python code, which are not run"),
    immaterial("is_decoder", ROLES),
    immaterial("add_cross_attention", ROLES),
    immaterial("cross_attention_hidden_size", ROLES),
    // The weights are computed with as they are.
    told("dtype", is_type_name),
    told("torch_dtype", is_type_name),
    // Training.
    immaterial("dropout_rate", "evaluation drops nothing, and trainings here have a setting of their own"),
    immaterial("initializer_factor", INITIAL),
    immaterial("classifier_dropout", LABELS),
    immaterial("gradient_checkpointing", SPEED),
    immaterial("num_labels", LABELS),
    immaterial("id2label", LABELS),
    immaterial("label2id", LABELS),
    immaterial("problem_type", LABELS),
    immaterial("finetuning_task", LABELS),
    // The rest.
    immaterial("use_cache", SPEED),
    immaterial("chunk_size_feed_forward", "T5 does not read it"),
    immaterial("attn_implementation", SPEED),
    immaterial("experts_implementation", "T5 has no experts"),
    immaterial("layer_types", "T5 does not read it"),
    immaterial("mlp_layer_types", "T5 does not read it"),
    immaterial("rope_scaling", "T5 has no rotary embedding"),
    immaterial("rope_theta", "T5 has no rotary embedding"),
    immaterial("tie_last_hidden_states", OUTPUTS),
    immaterial("tf_legacy_loss", OUTPUTS),
    immaterial("use_bfloat16", "only TensorFlow's models read it"),
    immaterial("torchscript", OUTPUTS),
    immaterial("return_dict", OUTPUTS),
    immaterial("output_hidden_states", OUTPUTS),
    immaterial("output_attentions", OUTPUTS),
    immaterial("task_specific_params", PIPELINES),
    immaterial("prefix", PIPELINES),
    immaterial("sep_token_id", "T5 does not read it"),
    honoured("tokenizer_class"),
    immaterial("_name_or_path", HISTORY),
    immaterial("name_or_path", HISTORY),
    immaterial("_commit_hash", HISTORY),
    immaterial("transformers_version", HISTORY),
    // This project's own.
    honoured("rms_norm_groups"),
];

/// What a type is compared with is the tensors', which only who opens them knows.
fn is_type_name(value: &Value) -> bool {
    value.is_null() || value.is_string()
}
