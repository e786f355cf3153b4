//! The model card: `README.md`, which the Hugging Face Hub shows for a model.

use std::fmt;

use fusion_core::lineage::Lineage;
use t5_model::method::{Fuse, GrowthMethod, Method, Paper};
use t5_model::{FeedForward, T5Config};

use super::ExportSettings;
use super::history::{commands, tree};
use crate::numbers::{count, thousands};

/// What a card is made from.
pub struct Card<'a> {
    pub settings: &'a ExportSettings,
    pub config: &'a T5Config,
    pub lineage: Option<&'a Lineage>,
    pub parameters: u64,
    /// The hash of the weights.
    pub hash: &'a str,
    pub has_tokenizer: bool,
    pub has_plan: bool,
}

const CITATION: &str = "\
@article{mazzawi2023deep,
  title         = {Deep Fusion: Efficient Network Training via Pre-trained Initializations},
  author        = {Mazzawi, Hanna and Gonzalvo, Xavi and Wunder, Michael},
  journal       = {arXiv preprint arXiv:2306.11903},
  year          = {2023},
  eprint        = {2306.11903},
  archivePrefix = {arXiv}
}
";

const GROUPS: &str = "\
The parents' slices of the residual stream are normalised each by itself (`rms_norm_groups` in `config.json`), which
stock T5 does not do: the code beside the weights does it, on top of transformers' T5, and `trust_remote_code=True` allows
it to run. It works with transformers 4 and 5.
";

impl fmt::Display for Card<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.front_matter(f)?;
        let name = &self.settings.name;
        writeln!(f, "\n# {name}\n\n{}", self.summary())?;
        self.dimensions(f)?;
        self.usage(f)?;
        writeln!(f, "\n## What it was made from\n")?;
        match self.lineage {
            None => writeln!(f, "Its history is not known.")?,
            Some(lineage) => {
                writeln!(f, "{}", tree(lineage))?;
                match lineage.total_flops() {
                    0.0 => writeln!(f, "Training behind it is not known.")?,
                    flops => {
                        writeln!(f, "All training behind it: {}FLOP, forward and backward.", count(flops))?
                    }
                }
                writeln!(f, "\n## Make it again\n\n```sh\n{}```", commands(lineage, name))?;
            }
        }
        writeln!(f, "\nThe hash of the weights is `{}`.", self.hash)?;
        if self.has_plan {
            writeln!(f, "The fusion's plan, parameter by parameter, lies beside this card.")?;
        }
        writeln!(f, "\n## Citation\n\n```bibtex\n{CITATION}```")
    }
}

impl Card<'_> {
    fn front_matter(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = self.settings;
        writeln!(f, "---\nlibrary_name: transformers\npipeline_tag: text2text-generation")?;
        if let Some(license) = &settings.license {
            writeln!(f, "license: {}", yaml(license))?;
        }
        list(f, "language", &settings.languages)?;
        list(f, "base_model", &settings.base_models)?;
        if self.is_fused() && settings.base_models.len() > 1 {
            writeln!(f, "base_model_relation: merge")?;
        }
        writeln!(
            f,
            "tags:\n- t5{}\n---",
            if self.is_fused() { "\n- deep-fusion\n- arxiv:2306.11903" } else { "" }
        )
    }

    fn is_fused(&self) -> bool {
        let fusion = self.lineage.and_then(|lineage| lineage.fusion.as_ref());
        let method = fusion.and_then(|fusion| Method::named(&fusion.method));
        method.is_some_and(|method| method.paper() == Fuse::PAPER) || !self.config.is_stock()
    }

    fn summary(&self) -> String {
        let parameters = thousands(self.parameters);
        let made = match self.lineage.and_then(|lineage| lineage.fusion.as_ref()) {
            Some(fusion) => {
                let method = Method::named(&fusion.method);
                let parents = match fusion.parents.len() {
                    parents @ 2.. if method.is_some_and(Method::joins) => format!("{parents} smaller ones"),
                    _ => "a smaller one".to_owned(),
                };
                let Paper { name, url } = method.unwrap_or_default().paper();
                format!(", made from {parents} by [{name}]({url})")
            }
            None if self.is_fused() => ", made by [Deep Fusion](https://arxiv.org/abs/2306.11903)".into(),
            None => String::new(),
        };
        format!("A T5 of {parameters} parameters{made}.")
    }

    fn dimensions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.config;
        let mlp = match config.feed_forward_proj {
            FeedForward::Relu => "ReLU",
            FeedForward::GatedGelu => "gated GELU",
        };
        let groups: Vec<String> = config.norm_groups().iter().map(usize::to_string).collect();
        let rows = [
            ("vocabulary", config.vocab_size.to_string()),
            ("d_model", config.d_model.to_string()),
            ("heads", format!("{} × {}", config.num_heads, config.d_kv)),
            ("d_ff", format!("{} ({mlp})", config.d_ff)),
            ("layers, encoder + decoder", format!("{} + {}", config.num_layers, config.num_decoder_layers())),
            ("output head", if config.tied_head() { "tied to the embedding" } else { "its own" }.into()),
            ("normalised slices", groups.join(" + ")),
        ];
        writeln!(f, "\n| | |\n|---|---|")?;
        rows.iter().try_for_each(|(what, value)| writeln!(f, "| {what} | {value} |"))
    }

    fn usage(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = serde_json::Value::from(self.settings.name.as_str());
        let trust = if self.config.is_stock() { "" } else { ", trust_remote_code=True" };
        let (import, example) = match self.has_tokenizer {
            true => (
                ", AutoTokenizer",
                format!("tokenizer = AutoTokenizer.from_pretrained({name}{trust})\n{EXAMPLE}"),
            ),
            false => ("", String::new()),
        };
        writeln!(
            f,
            "\n## Use it\n\n```python\nfrom transformers import AutoModelForSeq2SeqLM{import}\n\n\
             model = AutoModelForSeq2SeqLM.from_pretrained({name}{trust})\n{example}```"
        )?;
        if !self.config.is_stock() {
            write!(f, "\n{GROUPS}")?;
        }
        Ok(())
    }
}

const EXAMPLE: &str = "\
inputs = tokenizer(\"The <extra_id_0> walks in <extra_id_1> park\", return_tensors=\"pt\")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=20)[0]))
";

fn list(f: &mut fmt::Formatter<'_>, key: &str, values: &[String]) -> fmt::Result {
    if values.is_empty() {
        return Ok(());
    }
    writeln!(f, "{key}:")?;
    values.iter().try_for_each(|value| writeln!(f, "- {}", yaml(value)))
}

/// Quotes a string for YAML, which accepts JSON strings: unquoted, `no` would be a Boolean rather than
/// Norwegian.
fn yaml(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}
