use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use pipeline::numbers::thousands;
use pipeline::report::table::Table;
use pipeline::source::ModelPlace;
use pipeline::stage::Input;
use pipeline::stage::evaluate::Evaluate;
use pipeline::stage::text::Data;
use t5_model::text::{ObjectiveOptions, TEXT_FIELD};
use t5_model::train::Evaluation;

use crate::cli::compute::{ComputeArguments, GroupArguments};
use crate::cli::text::PLACES;
use crate::terminal::Terminal;
use crate::terminal::output::{print, print_json};

const EXAMPLES: &str =
    concat!("Example:\n", "  cargo xtask evaluate --model fused --text validation.json.gz",);

/// Measure a model's loss and token accuracy on text
///
/// The text is span-corrupted, or cut as another objective asks, with a fixed seed, as in pretraining, so all models
/// with the same tokenizer see the same targets. The loss is the mean cross-entropy per target token, in nats. It is
/// also given for sentinels (and the end), for each span's first token, and for the tokens that continue a span; a
/// prefix language model has one span, and no sentinel but the end. The context gain is what the loss rises by if
/// every example gets another's input: a model with a gain of 0 does not read its input.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The checkpoint: a directory in the Hugging Face layout, or `hf:ORG/NAME[@REVISION]`
    #[arg(long, value_name = "MODEL")]
    model: ModelPlace,
    #[arg(long, value_name = "PATH", required = true, num_args = 1.., help = PLACES)]
    text: Vec<String>,
    /// The field of JSON, or column of a table, that holds the text
    #[arg(long, value_name = "NAME", default_value = TEXT_FIELD)]
    text_field: String,
    /// A tokenizer.json, spiece.model or folder, or bytes [default: the model's]
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// Tokens per input
    #[arg(long, value_name = "N", default_value_t = 512)]
    input_length: usize,
    /// The maximum number of examples
    #[arg(long, value_name = "N", default_value_t = 16_000, value_parser = clap::value_parser!(u64).range(1..))]
    examples: u64,
    /// Examples on the device at once; changes results by rounding at most
    #[arg(long, value_name = "N", default_value = "32")]
    batch_size: NonZeroUsize,
    /// Print JSON: losses in nats, accuracies as fractions, target tokens
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    objective: ObjectiveOptions,
    #[command(flatten)]
    compute: ComputeArguments,
    #[command(flatten)]
    group: GroupArguments,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        let input = Input::from(self.model.clone());
        let tokenizer = self.tokenizer.clone().map_or_else(|| input.clone(), Input::tokenizer);
        let objective = self.objective.objective()?;
        let data = Data::to_evaluate(&self.text, &self.text_field, tokenizer, self.input_length, objective)?;
        let model = self.model.directory(&Terminal)?;
        let tokenizer = self.tokenizer.as_deref().unwrap_or(&model);
        let work = Evaluate { model: input, data, examples: self.examples, batch_size: self.batch_size };
        let score = self.compute.run_together(&self.group, |compute| {
            work.score(&model, tokenizer, compute, "evaluate", &Terminal)
        })?;
        if self.json {
            return print_json(&score);
        }
        print(&table(&score))
    }
}

fn table(Evaluation { quality, tokens }: &Evaluation) -> String {
    let mut table = Table::new(["target tokens", "loss", "accuracy, %"]);
    let rows = [
        ("all", Some(quality.loss), Some(quality.accuracy)),
        ("sentinels and end", quality.sentinel_loss, quality.sentinel_accuracy),
        ("first of a span", quality.first_loss, quality.first_accuracy),
        ("others", quality.rest_loss, quality.rest_accuracy),
    ];
    for (name, loss, accuracy) in rows {
        if let (Some(loss), Some(accuracy)) = (loss, accuracy) {
            table.rows.push(vec![name.into(), format!("{loss:.4}"), format!("{:.2}", 100.0 * accuracy)]);
        }
    }
    let gain = quality.context_gain.map_or(String::new(), |gain| format!("context gain {gain:.4}; "));
    format!("{}\n{gain}{} target tokens\n", table.text(), thousands(*tokens))
}
