use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{ArgGroup, Args};
use fusion_core::execute::PlanDevice;
use pipeline::Compute;
use pipeline::checkpoint::{check_replaceable, has_tokenizer};
use pipeline::source::{ModelPlace, corpus};
use pipeline::stage::Input;
use pipeline::stage::fuse::{Calibrate, NamedModel, PlannedFusion};
use pipeline::stage::text::{Data, HeldOut};
use serde_json::json;
use t5_model::method::MethodSettings;
use t5_model::text::{ObjectiveOptions, TEXT_FIELD};
use t5_model::{Backend, Computation};

use crate::cli::text::only_with;
use crate::dev::build;
use crate::terminal::output::{print, print_json};
use crate::terminal::{Asked, Terminal, interrupt, warn, with_advice};

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask fuse small-a small-b --output fused\n",
    "  cargo xtask fuse small-a --method self --norm rule --cross relative:0.01 --output grown\n",
    "  cargo xtask fuse small-a --method hyperclone --cross db:40 --output cloned\n",
    "  cargo xtask fuse small-a --method lemon --num-heads 9 --d-ff 1536 --output wider\n",
    "  cargo xtask fuse small-a --method stack --new-blocks silent --output deeper",
);

/// One in this many documents of the calibration text is held out for measuring.
const HELD_OUT_EVERY: NonZeroU64 = NonZeroU64::new(10).unwrap();

/// Fuse checkpoints into one larger model, or grow a single one
///
/// The paper's method, `fuse`, places every parent's weights block-diagonally into a model as wide as all
/// parents together, whose logits are the average of theirs. `--cross` fills the connections between the
/// blocks. The parents must have the same tokenizer and kind of MLP; their widths, heads, d_ff and numbers of
/// layers may differ. The other methods grow a single model. Prints the plan, and writes a checkpoint in the
/// Hugging Face layout with a lineage.json, the tokenizer and generation settings of the first parent that has
/// any, and all licences; a warning names other files that are left behind. Parents of different types give
/// the narrowest type that holds both; parents with NaN or infinite weights are refused.
#[derive(Args, Debug)]
#[command(
    after_help = EXAMPLES,
    group = ArgGroup::new("Result").required(true).multiple(true).args(["output", "plan_only"]),
    mut_args = only_with("calibrate"),
)]
pub struct Arguments {
    /// The checkpoints to fuse: directories, or `hf:ORG/NAME[@REVISION]`
    #[arg(required = true, value_name = "PARENT")]
    parents: Vec<ModelPlace>,
    /// Where to write the fused checkpoint
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    #[command(flatten)]
    settings: MethodSettings,
    /// Print the plan and write nothing
    #[arg(long)]
    plan_only: bool,
    /// Replace the checkpoint that an earlier command wrote into DIR; other files in DIR are kept
    #[arg(long)]
    overwrite: bool,
    /// Print the plan as JSON
    #[arg(long)]
    json: bool,
    /// Fit a child under the fusion rule to the ensemble on this text, named as for
    /// `pretrain`; the child remains a stock T5
    #[arg(long, value_name = "PATH", num_args = 1.., conflicts_with = "plan_only")]
    calibrate: Vec<String>,
    /// The field of JSON, or column of a table, that holds the text to calibrate on
    #[arg(long, value_name = "NAME", default_value = TEXT_FIELD, requires = "calibrate")]
    calibrate_text_field: String,
    /// Examples to calibrate on
    #[arg(long, value_name = "N", default_value_t = 256, requires = "calibrate")]
    calibrate_examples: usize,
    /// Tokens per input when calibrating
    #[arg(long, value_name = "N", default_value_t = 128, requires = "calibrate")]
    calibrate_input_length: usize,
    /// Execute the plan and calibrate with this tensor framework, in f32; the result is the same to within
    /// rounding [default: execute the plan in pieces on the host, calibrate with burn]
    #[arg(long, value_name = "NAME", conflicts_with = "plan_only")]
    backend: Option<String>,
    /// The backend's device [default: its first]
    #[arg(long, value_name = "DEVICE", requires = "backend")]
    device: Option<String>,
    #[command(flatten)]
    objective: ObjectiveOptions,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        let output = self.output.as_deref().filter(|_| !self.plan_only);
        if let Some(output) = output {
            let parents: Vec<&Path> = self.parents.iter().filter_map(ModelPlace::path).collect();
            check_replaceable(output, self.overwrite, &parents)?;
        }
        let device = self.plan_device()?;
        if output.is_some() {
            interrupt::listen()?;
        }
        let calibrate = self.calibration()?;
        let fusion = PlannedFusion::new(&named(&self.parents)?, &self.settings)?;
        let fusion = self.calibrated(fusion, calibrate)?;
        fusion.warnings.iter().for_each(warn);
        if let Some(output) = output {
            fusion.write(output, "fuse", device.as_deref(), &Terminal)?;
        }
        if self.json {
            let warnings: Vec<String> =
                fusion.warnings.iter().map(|warning| with_advice(warning, Asked::ByFlags)).collect();
            return print_json(
                &json!({ "plan": fusion.plan, "config": fusion.child.to_json(), "warnings": warnings }),
            );
        }
        print(&fusion.plan.to_string())?;
        output.map_or(Ok(()), |output| print(&format!("\nwritten to {}\n", output.display())))
    }

    /// Fits the child, if requested.
    fn calibrated(&self, fusion: PlannedFusion, calibrate: Option<Calibrate>) -> Result<PlannedFusion> {
        let Some(calibrate) = calibrate else { return Ok(fusion) };
        let backend = build::backend(self.backend.as_deref().unwrap_or("burn"), self.device.as_deref())?;
        let compute = Compute::new(backend, Computation::on(self.device_of(backend)))?;
        let Input::Path(tokenizer) = &calibrate.data.tokenizer else { return Ok(fusion) };
        let (weights, outcome) =
            calibrate.run(&fusion, &self.settings, tokenizer, &compute, "fuse", &Terminal)?;
        eprintln!("{}", outcome.note());
        fusion.calibrated(weights, &outcome)
    }

    fn calibration(&self) -> Result<Option<Calibrate>> {
        if self.calibrate.is_empty() {
            return Ok(None);
        }
        let parents = self.parents.iter().map(|parent| parent.directory(&Terminal));
        let parents = parents.collect::<Result<Vec<_>>>()?;
        let with_tokenizer = parents.iter().find(|parent| has_tokenizer(parent));
        let Some(tokenizer) = with_tokenizer.or(parents.first()).cloned() else { return Ok(None) };
        let data = Data {
            text: corpus::from_here(&self.calibrate)?,
            text_field: self.calibrate_text_field.clone(),
            held_out: HeldOut::Every(HELD_OUT_EVERY),
            tokenizer: Input::Path(tokenizer),
            input_length: self.calibrate_input_length,
            objective: self.objective.objective()?,
            max_documents: None,
        };
        let calibrate = Calibrate { data, examples: self.calibrate_examples };
        calibrate.check(&self.settings)?;
        Ok(Some(calibrate))
    }

    fn plan_device(&self) -> Result<Option<Box<dyn PlanDevice>>> {
        let Some(backend) = &self.backend else { return Ok(None) };
        let backend = build::backend(backend, self.device.as_deref())?;
        Ok(Some(backend.plan_device(&self.device_of(backend))?))
    }

    /// The requested device, or else the backend's first.
    fn device_of(&self, backend: &dyn Backend) -> String {
        let first = || backend.devices().into_iter().next().map(|device| device.name);
        self.device.clone().or_else(first).unwrap_or_default()
    }
}

/// Fetches the parents and names them after their directories, or by their paths where two directories have
/// the same name.
pub fn named(parents: &[ModelPlace]) -> Result<Vec<NamedModel>> {
    let unique =
        |place: &ModelPlace| !parents.iter().any(|other| other != place && other.name() == place.name());
    let label = |place: &ModelPlace| if unique(place) { place.name() } else { place.to_string() };
    let model =
        |place: &ModelPlace| Ok(NamedModel { label: label(place), directory: place.directory(&Terminal)? });
    parents.iter().map(model).collect()
}
