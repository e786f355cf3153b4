//! T5's configuration, as Hugging Face writes it to `config.json`.

mod from_shapes;
mod resolve;
mod token_ids;

use std::path::Path;

use fusion_core::checkpoint::{Checkpoint, LazyTensor, Writer, common_type};
use fusion_core::{Dtype, TensorSource};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::parameters::{EMBEDDING, HEAD, embedding_name, has_own_head};
use crate::{Error, Result};

pub use token_ids::TokenIds;

/// The MLP between attention blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum FeedForward {
    /// T5 1.0: `wo(relu(wi(x)))`.
    #[serde(rename = "relu")]
    #[cfg_attr(feature = "clap", value(help = "T5 1.0's"))]
    Relu,
    /// T5 1.1: `wo(gelu_new(wi_0(x)) * wi_1(x))`.
    #[serde(rename = "gated-gelu")]
    #[cfg_attr(feature = "clap", value(help = "T5 1.1's"))]
    GatedGelu,
}

/// The `model_type` of a stock T5.
const STOCK: &str = "t5";
/// The `model_type` of a T5 with groups in its normalisation. It differs from T5's because a program that
/// does not know the groups would read the model as a stock T5, whose logits are off by about 30 %.
const GROUPED: &str = "deep_fusion_t5";

/// A T5's dimensions and switches. Keys that this project does not use are kept in `other` and written back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct T5Config {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// The number of features per head.
    pub d_kv: usize,
    /// Hidden features of the MLP.
    pub d_ff: usize,
    /// Attention heads of each layer.
    pub num_heads: usize,
    /// Blocks of the encoder.
    pub num_layers: usize,
    #[serde(default)]
    num_decoder_layers: Option<usize>,
    /// Buckets that relative positions are sorted into.
    #[serde(default = "default_buckets")]
    pub relative_attention_num_buckets: usize,
    /// Distance from which on all positions share the last bucket.
    #[serde(default = "default_max_distance")]
    pub relative_attention_max_distance: usize,
    /// Dropout that transformers trains with; this project's trainings have a setting of their own.
    #[serde(default = "default_dropout")]
    pub dropout_rate: f64,
    /// Added to the mean square in the norms.
    #[serde(default = "default_epsilon")]
    pub layer_norm_epsilon: f64,
    /// The kind of MLP.
    #[serde(default = "default_feed_forward")]
    pub feed_forward_proj: FeedForward,
    /// Whether the embedding is the output head, and with it whether the decoder's output is scaled by
    /// `d_model^-1/2`.
    #[serde(default = "default_true")]
    pub tie_word_embeddings: bool,
    /// What transformers 5 writes about the scaling: there `tie_word_embeddings` is always true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scale_decoder_outputs: Option<bool>,
    /// The token that pads inputs.
    #[serde(default)]
    pub pad_token_id: i32,
    /// The tokens that end a text: one, in a usual T5.
    #[serde(default = "default_eos")]
    pub eos_token_id: TokenIds,
    /// The token that a decoder's input begins with.
    #[serde(default)]
    pub decoder_start_token_id: i32,
    /// Widths of the slices of `d_model` that are normalised separately (`fusion-prop`); empty for a stock
    /// T5.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rms_norm_groups: Vec<usize>,
    /// Keys that this project does not use.
    #[serde(flatten, skip_deserializing)]
    pub other: Map<String, Value>,
    /// Whether the weights hold no head of their own. `tie_word_embeddings` unless the weights say otherwise.
    #[serde(skip)]
    tied_head: Option<bool>,
}

fn default_buckets() -> usize {
    32
}
fn default_max_distance() -> usize {
    128
}
fn default_dropout() -> f64 {
    0.1
}
fn default_epsilon() -> f64 {
    1e-6
}
fn default_feed_forward() -> FeedForward {
    FeedForward::Relu
}
fn default_true() -> bool {
    true
}
fn default_eos() -> TokenIds {
    1.into()
}

/// transformers' name of a type.
pub fn type_name(dtype: Dtype) -> Option<&'static str> {
    match dtype {
        Dtype::F16 => Some("float16"),
        Dtype::BF16 => Some("bfloat16"),
        Dtype::F32 => Some("float32"),
        Dtype::F64 => Some("float64"),
        _ => None,
    }
}

/// Keys that are written only if they differ from the default.
const OPTIONAL: [&str; 2] = ["scale_decoder_outputs", "rms_norm_groups"];

/// Limits beyond any real T5. They keep products of sizes far from overflow and parameter tables small.
const MAX_VOCABULARY: usize = 1 << 24;
const MAX_SIZE: usize = 1 << 17;
const MAX_LAYERS: usize = 1 << 10;

impl T5Config {
    /// A stock T5 1.1: gated GELU, an untied head, and as many decoder as encoder layers.
    pub fn v1_1(
        vocab_size: usize,
        d_model: usize,
        num_heads: usize,
        d_kv: usize,
        d_ff: usize,
        num_layers: usize,
    ) -> Self {
        T5Config {
            vocab_size,
            d_model,
            d_kv,
            d_ff,
            num_heads,
            num_layers,
            num_decoder_layers: Some(num_layers),
            relative_attention_num_buckets: default_buckets(),
            relative_attention_max_distance: default_max_distance(),
            dropout_rate: default_dropout(),
            layer_norm_epsilon: default_epsilon(),
            feed_forward_proj: FeedForward::GatedGelu,
            tie_word_embeddings: false,
            scale_decoder_outputs: None,
            pad_token_id: 0,
            eos_token_id: 1.into(),
            decoder_start_token_id: 0,
            rms_norm_groups: Vec::new(),
            other: Map::from_iter([
                ("architectures".into(), Value::from(vec!["T5ForConditionalGeneration"])),
                ("model_type".into(), Value::from("t5")),
                ("is_encoder_decoder".into(), Value::from(true)),
            ]),
            tied_head: None,
        }
    }

    /// The configuration in a `config.json` that was parsed from `path`.
    pub fn from_json(config: &Map<String, Value>, path: &Path) -> Result<Self> {
        let fail = |problem: String| Error::Config { path: path.into(), problem };
        if let Some(kind) = config.get("model_type").and_then(Value::as_str)
            && ![STOCK, GROUPED].contains(&kind)
        {
            return Err(fail(format!("model_type is {kind:?}; only {STOCK:?} and {GROUPED:?} can be read")));
        }
        let config = resolve::resolve(config, path)?;
        let json = Value::Object(config.clone());
        let mut read: T5Config = serde_path_to_error::deserialize(&json).map_err(|error| {
            let key = Some(error.path().to_string()).filter(|path| path != ".");
            fail(key.map_or(String::new(), |key| format!("{key}: ")) + &error.inner().to_string())
        })?;
        let ours = read.fields();
        let unknown =
            config.iter().filter(|(key, _)| !ours.contains_key(*key) && !OPTIONAL.contains(&key.as_str()));
        read.other = unknown.map(|(key, value)| (key.clone(), value.clone())).collect();
        read.other.shift_remove("auto_map"); // names files beside this configuration, not beside a child's
        let config = read;
        config.validate().map_err(|error| fail(error.to_string()))?;
        Ok(config)
    }

    /// Opens a checkpoint, and reads its configuration. If its embedding goes by another name than
    /// `shared.weight`, it is renamed.
    pub fn open(directory: &Path) -> Result<(Checkpoint, Self)> {
        let mut checkpoint = Checkpoint::open(directory)?;
        let path = directory.join("config.json");
        let config = Self::from_json(checkpoint.config(), &path)?;
        let embedding = config.embedding_of(&checkpoint, &path)?;
        checkpoint.rename(embedding, EMBEDDING);
        let config = Self::of_checkpoint(&checkpoint)?;
        Ok((checkpoint, config))
    }

    /// The configuration of a checkpoint; its weights decide whether the head is tied.
    pub fn of_checkpoint(checkpoint: &Checkpoint) -> Result<Self> {
        let path = checkpoint.directory().join("config.json");
        let mut config = Self::from_json(checkpoint.config(), &path)?;
        config.embedding_of(checkpoint, &path)?;
        let own_head = has_own_head(checkpoint);
        if !config.tie_word_embeddings && checkpoint.view(HEAD).is_err() {
            let problem = "tie_word_embeddings is false, but the checkpoint has no lm_head.weight".into();
            return Err(Error::Config { path, problem });
        }
        config.tied_head = Some(config.tie_word_embeddings && !own_head);
        Ok(config)
    }

    fn embedding_of(&self, checkpoint: &Checkpoint, path: &Path) -> Result<&'static str> {
        embedding_name(checkpoint, self.tie_word_embeddings)
            .map_err(|error| Error::Config { path: path.into(), problem: error.to_string() })
    }

    /// `config.json`.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut map = self.fields();
        let was_grouped = map.get("model_type").and_then(Value::as_str) == Some(GROUPED);
        if !self.is_stock() || was_grouped {
            let (kind, class) = match self.is_stock() {
                true => (STOCK, "T5ForConditionalGeneration"),
                false => (GROUPED, "DeepFusionT5ForConditionalGeneration"),
            };
            map.insert("architectures".into(), vec![class].into());
            map.insert("model_type".into(), kind.into());
        }
        map
    }

    /// `config.json` beside weights of this type, by which transformers 5 loads them; `None` if the tensors
    /// have several, in which case nothing is said.
    pub fn to_json_beside(&self, dtype: Option<Dtype>) -> Map<String, Value> {
        // Every release reads this key.
        const KEY: &str = "torch_dtype";
        let mut map = self.to_json();
        map.shift_remove("dtype");
        match dtype.and_then(type_name) {
            Some(name) => map.insert(KEY.into(), name.into()),
            None => map.shift_remove(KEY),
        };
        map
    }

    /// Writes `config.json` and the weights into a directory. Returns the hash of the weights.
    pub fn write(
        &self,
        directory: &Path,
        tensors: Vec<LazyTensor<'_>>,
        writer: &Writer<'_>,
    ) -> Result<String> {
        let config = self.to_json_beside(common_type(&tensors));
        fusion_core::json::write(&directory.join("config.json"), &config)?;
        Ok(writer.weights(directory, tensors)?)
    }

    /// The type that the configuration says its weights have, in transformers' words.
    pub fn said_type(&self) -> Option<&str> {
        ["dtype", "torch_dtype"].iter().find_map(|key| self.other.get(*key)?.as_str())
    }

    fn fields(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            _ => Map::new(), // a struct of plain fields always becomes an object
        }
    }

    /// Whether norms cover the whole width, as in a stock T5.
    pub fn is_stock(&self) -> bool {
        self.rms_norm_groups.len() <= 1
    }

    /// With a head that is tied to the embedding and reads scaled outputs, or neither. All releases of
    /// transformers agree on these two.
    pub fn with_tied_and_scaled_head(self, tied: bool) -> Self {
        T5Config { tie_word_embeddings: tied, scale_decoder_outputs: None, tied_head: Some(tied), ..self }
    }

    /// Blocks of the decoder: as many as the encoder has, unless the configuration says otherwise.
    pub fn num_decoder_layers(&self) -> usize {
        self.num_decoder_layers.unwrap_or(self.num_layers)
    }

    /// Sets the number of blocks of the decoder.
    pub fn set_num_decoder_layers(&mut self, layers: usize) {
        self.num_decoder_layers = Some(layers);
    }

    /// Whether the embedding serves as the output head.
    pub fn tied_head(&self) -> bool {
        self.tied_head.unwrap_or(self.tie_word_embeddings)
    }

    /// Whether the decoder's output is scaled by `d_model^-1/2` before the head (T5 1.0).
    pub fn scale_logits(&self) -> bool {
        self.scale_decoder_outputs.unwrap_or(self.tie_word_embeddings)
    }

    /// The features of all heads together: the width of queries, keys and values.
    pub fn inner_dim(&self) -> usize {
        self.num_heads * self.d_kv
    }

    /// The widths of the groups that norms treat separately; a single group for a stock T5.
    pub fn norm_groups(&self) -> Vec<usize> {
        if self.rms_norm_groups.is_empty() { vec![self.d_model] } else { self.rms_norm_groups.clone() }
    }

    /// Checks that these are the dimensions of a T5.
    ///
    /// # Errors
    /// [`Error::Configuration`] names the first key that is out of range.
    pub fn validate(&self) -> Result<()> {
        let fail = |problem: String| Err(Error::Configuration(problem));
        let sizes = [
            ("vocab_size", self.vocab_size, MAX_VOCABULARY),
            ("d_model", self.d_model, MAX_SIZE),
            ("d_kv", self.d_kv, MAX_SIZE),
            ("d_ff", self.d_ff, MAX_SIZE),
            ("num_heads", self.num_heads, MAX_SIZE),
            ("num_layers", self.num_layers, MAX_LAYERS),
            ("num_decoder_layers", self.num_decoder_layers(), MAX_LAYERS),
            ("relative_attention_num_buckets", self.relative_attention_num_buckets, MAX_SIZE),
            ("relative_attention_max_distance", self.relative_attention_max_distance, MAX_VOCABULARY),
        ];
        for (key, size, most) in sizes {
            if size == 0 || size > most {
                return fail(format!("{key} is {size}; it must be between 1 and {most}"));
            }
        }
        let (buckets, distance) = (self.relative_attention_num_buckets, self.relative_attention_max_distance);
        if buckets < 4 || buckets % 2 == 1 {
            return fail(format!(
                "relative_attention_num_buckets is {buckets}; it must be even and at least 4"
            ));
        }
        if distance <= buckets / 2 {
            return fail(format!(
                "relative_attention_max_distance is {distance}; it must exceed half of the {buckets} buckets"
            ));
        }
        if !(0.0..1.0).contains(&self.dropout_rate) {
            return fail(format!("dropout_rate is {}; it must be at least 0 and below 1", self.dropout_rate));
        }
        if !(self.layer_norm_epsilon > 0.0 && self.layer_norm_epsilon.is_finite()) {
            return fail(format!("layer_norm_epsilon is {}; it must be positive", self.layer_norm_epsilon));
        }
        let groups = &self.rms_norm_groups;
        if !groups.is_empty()
            && (groups.contains(&0)
                || groups.iter().fold(0usize, |sum, g| sum.saturating_add(*g)) != self.d_model)
        {
            return fail(format!("rms_norm_groups {groups:?} do not add up to d_model {}", self.d_model));
        }
        let ends = self.eos_token_id.0.iter().map(|id| ("eos_token_id", *id));
        for (key, id) in
            [("pad_token_id", self.pad_token_id), ("decoder_start_token_id", self.decoder_start_token_id)]
                .into_iter()
                .chain(ends)
        {
            if usize::try_from(id).is_ok_and(|id| id < self.vocab_size) {
                continue;
            }
            return fail(format!("{key} is {id}; the vocabulary has ids 0 to {}", self.vocab_size - 1));
        }
        Ok(())
    }
}
