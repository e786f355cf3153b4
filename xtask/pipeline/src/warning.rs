//! Warnings.

use fusion_core::Dtype;
use serde::{Serialize, Serializer};
use serde_json::Value;
use t5_model::TrainingMemory;

use crate::numbers::{bytes, short, some, thousands};

/// What the user should know about a model. It states the fact; which flag or key would change it is up to
/// the caller.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum Warning {
    /// What the plan of a fusion warns of.
    #[error(transparent)]
    Fusion(fusion_core::plan::Warning),
    /// This model's lineage.json (or that of the only one) was written for other weights.
    #[error("{} was written for other weights and is left out", lineage_of(model.as_deref()))]
    OtherWeights { model: Option<String> },
    /// A parent of a fusion has no tokenizer.
    #[error("{model} comes without a tokenizer: whether its tokens are the other parents' was not checked")]
    NoTokenizer { model: String },
    /// A model is evaluated on text that it was trained on.
    #[error(
        "documents of {file} are held out, but its model is also trained on them: it will look better than it is"
    )]
    TrainedOnHeldOut { file: String },
    /// A model is measured on an objective that it was not trained on.
    #[error("{model} was trained on {trained}, and is measured on {measured}")]
    OtherObjective { model: String, trained: String, measured: String },
    /// Training will hardly fit in memory.
    #[error("it needs about {} on {device}, which has {}", bytes(*needed), bytes(*total))]
    Memory {
        device: String,
        /// Bytes.
        needed: f64,
        /// The device's memory in bytes.
        total: f64,
        /// The largest number of examples at a time that would fit, if any.
        fitting: Option<usize>,
    },
    /// Attention takes more memory and time than the device's kernels would.
    #[error(
        "attention stores its probabilities on {device}, which takes memory and time; kernels that do not are for {takes}"
    )]
    StoredAttention { device: String, takes: String },
    /// A model has another number of parameters than its recipe says.
    #[error("the model has {} parameters, not {} as its `parameters` say", thousands(*found), short(*said))]
    Parameters {
        /// To the digits that are given.
        said: f64,
        found: u64,
    },
    /// The configuration was inferred from the weights' shapes.
    #[error("the configuration is made up from the weights' shapes")]
    MadeUpConfiguration,
    /// Tensors that a conversion leaves out.
    #[error("left out, since no T5 of this configuration has it: {}", tensors.join(", "))]
    LeftOut { tensors: Vec<String> },
    /// Files and folders that were found among the text but are not read, each with the reason.
    #[error("left out of the text: {}", some(files))]
    LeftOutText { files: Vec<String> },
    /// Files beside the weights of this model (or of the only one) that do not go with what is made of it.
    #[error("left behind{}: {}", of(model.as_deref()), some(files))]
    LeftBehind { model: Option<String>, files: Vec<String> },
    /// Two models' generation_config.json differ in a key. Each has a name and a value, or none.
    #[error(
        "generation_config.json: {key} is {} in {} and {} in {}; the child has the former",
        said(kept.1.as_ref()), kept.0, said(left.1.as_ref()), left.0
    )]
    GenerationDiffers { key: String, kept: (String, Option<Value>), left: (String, Option<Value>) },
    /// The tokenizers of two parents have one vocabulary, and make other tokens of the same text.
    #[error(
        "the tokenizers of {first} and {second} have the same tokens but divide {text:?} differently; the          child has that of {first}"
    )]
    TextDividedDifferently { first: String, second: String, text: String },
    /// config.json says that the weights have another type than they have.
    #[error(
        "{}config.json says that the weights are {said}, but they are {found}: transformers would round or          convert them; here they are what they are", colon(model.as_deref())
    )]
    OtherType { model: Option<String>, said: String, found: String },
    /// Weights with values that are infinite or not a number, and how many.
    #[error("weights that are not finite (NaN or infinite): {}", counted(tensors))]
    NotFinite { tensors: Vec<(String, u64)> },
    /// Parents' weights have different types.
    #[error("the parents' weights differ in type ({}); the child's are {child}", types(parents))]
    DifferentTypes { parents: Vec<(String, String)>, child: String },
    /// A child's weights are rounded to this type.
    #[error(
        "the child's weights are rounded to {dtype}: its predictions are as close to its parents' as that          allows, and not the same"
    )]
    Rounded { dtype: Dtype },
    /// The file and the tokenizer name different end tokens.
    #[error("eos_token_id is {} in {file}, but {} in the tokenizer: answers end with either", ids(ends), eos)]
    OtherEnd { file: String, ends: Vec<i32>, eos: i32 },
    /// A tokenizer does not end texts with the end token by itself.
    #[error(
        "the tokenizer does not end a text with its end token by itself; here every input ends with it, as          T5's do"
    )]
    TextsWithoutEnd,
    /// Settings for generation that are not followed, with their values.
    #[error("{file} asks for {}, which is not followed", settings(keys))]
    NotFollowed { file: String, keys: Vec<(&'static str, Value)> },
    /// A child's lineage.json names other parents.
    #[error("{child} was not made from the weights of {parent}, says its lineage.json")]
    NotMadeFrom { child: String, parent: String },
}

impl Warning {
    /// Those of what training takes on a device: that it will hardly fit, or that attention takes more than it
    /// would in another precision, with other heads or with shorter texts.
    pub fn of_memory(memory: &TrainingMemory, device: &str) -> Vec<Warning> {
        let &TrainingMemory { peak: needed, total, fitting, ref stored_attention } = memory;
        let device = || device.to_owned();
        let stored = stored_attention.clone();
        let stored = stored.map(|takes| Warning::StoredAttention { device: device(), takes });
        let total = total.filter(|total| needed > *total);
        let full = total.map(|total| Warning::Memory { device: device(), needed, total, fitting });
        stored.into_iter().chain(full).collect()
    }
}

fn lineage_of(model: Option<&str>) -> String {
    model.map_or("lineage.json".to_owned(), |model| format!("the lineage.json of {model}"))
}

fn of(model: Option<&str>) -> String {
    model.map_or(String::new(), |model| format!(" of {model}"))
}

fn colon(model: Option<&str>) -> String {
    model.map_or(String::new(), |model| format!("{model}: "))
}

fn counted(tensors: &[(String, u64)]) -> String {
    some(&tensors.iter().map(|(name, count)| format!("{count} in {name}")).collect::<Vec<_>>())
}

fn said(value: Option<&Value>) -> String {
    value.map_or("not there".to_owned(), Value::to_string)
}

fn types(models: &[(String, String)]) -> String {
    models.iter().map(|(model, types)| format!("{model}: {types}")).collect::<Vec<_>>().join("; ")
}

fn ids(ids: &[i32]) -> String {
    match ids {
        [] => "not there".to_owned(),
        [id] => id.to_string(),
        ids => format!("{ids:?}"),
    }
}

fn settings(keys: &[(&'static str, Value)]) -> String {
    keys.iter().map(|(key, value)| format!("{key} = {value}")).collect::<Vec<_>>().join(", ")
}

/// Serialised as text.
impl Serialize for Warning {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
