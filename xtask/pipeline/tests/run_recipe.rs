//! A program that is not `cargo xtask` runs a recipe, hears what happens, and stops it.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use backend_burn as _;
use pipeline::recipe::Recipe;
use pipeline::report::Report;
use pipeline::run::{How, Run};
use pipeline::{Compute, Interrupted, Note, Silent, Watch};
use t5_model::train::Event;
use t5_model::train::PretrainingEvent;
use t5_model::{Computation, backend};

const RECIPE: &str = r#"
[data]
text = "text.txt"
held_out_text = "text.txt"
tokenizer = "words"
input_length = 16

[models.small]
d_model = 8
num_heads = 2
d_kv = 4
d_ff = 16
num_layers = 1

[pretraining]
steps = 4
batch_size = 2
evaluation_batches = 1
schedule = { peak = 0.01, decay = { kind = "constant" } }

[stages.words]
kind = "tokenizer"
vocabulary = 200

[stages.a]
kind = "pretrain"
model = "small"

[stages.b]
kind = "pretrain"
model = "small"
seed = 1

[stages.ab]
kind = "fuse"
parents = ["a", "b"]

[stages.measured]
kind = "evaluate"
model = "ab"
examples = 4
"#;

/// Writes down what it hears, and stops at a step of a training.
#[derive(Default)]
struct Recorder {
    notes: Mutex<Vec<String>>,
    /// The stage and its step.
    stop_at: Option<(&'static str, u64)>,
    stop: AtomicBool,
}

impl Watch for Recorder {
    fn note(&self, subject: &str, note: &Note<'_>) {
        if !matches!(note, Note::Finished { .. } | Note::Warning(_)) {
            self.notes.lock().expect("no panic").push(format!("{subject}: {note}"));
        }
    }

    fn training(&self, name: &str, _: u64) -> Box<dyn FnMut(&PretrainingEvent<'_>) + '_> {
        let stop_at = self.stop_at.filter(|(stage, _)| *stage == name);
        Box::new(move |event| {
            if let (Event::Step { step, .. }, Some((_, last))) = (event, stop_at) {
                self.stop.store(*step >= last, Ordering::Relaxed);
            }
        })
    }

    fn stop(&self) -> &AtomicBool {
        &self.stop
    }
}

impl Recorder {
    fn notes(self) -> Vec<String> {
        self.notes.into_inner().expect("no panic")
    }
}

fn run(folder: &Path, watch: &dyn Watch) -> anyhow::Result<String> {
    let (recipe, output) = (Recipe::read(&folder.join("recipe.toml"), &[])?, folder.join("run"));
    let compute = Compute::new(backend("burn")?, Computation::on("cpu"))?;
    let run = Run::new(&recipe, &output, None, watch);
    run.execute(&run.selected(&[])?, &How::on(&compute))?;
    Ok(Report::of(&[output], &Default::default())?.text())
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let word = |a: char, b: char| format!("{a} {b}{a}x {a}{b}{b}{a}\n");
    let text: String = ('a'..='z').flat_map(|a| ('a'..='z').map(move |b| word(a, b))).collect();
    fs::write(folder.path().join("text.txt"), text).expect("written");
    fs::write(folder.path().join("recipe.toml"), RECIPE).expect("written");
    folder
}

#[test]
fn a_run_is_watched_stopped_and_gone_on_with() {
    let (folder, straight) = (folder(), folder());
    let recorder = Recorder { stop_at: Some(("b", 2)), ..Recorder::default() };
    let stopped = run(folder.path(), &recorder).expect_err("stopped");
    let interrupted: &Interrupted = stopped.downcast_ref().unwrap_or_else(|| panic!("{stopped:?}"));
    assert!(
        interrupted.resumes && stopped.to_string().starts_with("interrupted: step 2 is saved"),
        "{stopped}"
    );
    assert_eq!(recorder.notes(), ["words: tokenizer", "a: pretrain", "b: pretrain"]);

    let recorder = Recorder::default();
    let report = run(folder.path(), &recorder).expect("finished");
    let expected =
        ["words: finished before", "a: finished before", "b: pretrain", "ab: fuse", "measured: evaluate"];
    assert_eq!(recorder.notes(), expected);
    assert!(report.contains("Evaluations\n-----------\n"), "{report}");

    run(straight.path(), &Silent).expect("finished");
    let model = |folder: &Path| fs::read(folder.join("run/ab/model/model.safetensors")).expect("a model");
    assert!(model(folder.path()) == model(straight.path()), "stopping changed the weights");
}
