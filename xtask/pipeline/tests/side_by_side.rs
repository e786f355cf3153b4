//! Stages that run side by side come to what they come to one after the other.

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use backend_burn as _;
use fusion_core::execute::PlanDevice;
use pipeline::problems::causes;
use pipeline::recipe::Recipe;
use pipeline::run::{How, Run, StageLock};
use pipeline::{Compute, Interrupted, Note, Watch};
use t5_model::backend::AnyOps;
use t5_model::train::{Event, PretrainingEvent};
use t5_model::{Backend, Computation, DeviceInfo, backend};

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
steps = 6
batch_size = 2
dropout = 0.1
evaluation_batches = 1
log_every = 1
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

[stages.c]
kind = "pretrain"
model = "small"
seed = 2

[stages.ab]
kind = "fuse"
parents = ["a", "b"]

[stages.trained]
kind = "pretrain"
from = "ab"

[stages.measured]
kind = "evaluate"
model = "trained"
examples = 4
"#;

const MODELS: [&str; 5] = ["a", "b", "c", "ab", "trained"];

/// Long enough for a step of a small model on any machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Holds stages at their second step until all of them are there.
#[derive(Default)]
struct Meeting {
    stages: &'static [&'static str],
    there: Mutex<BTreeSet<&'static str>>,
    complete: Condvar,
    /// What happens once they are.
    then: Then,
    stop: AtomicBool,
    /// Stages that train, and the most that did so at a time.
    training: Mutex<(usize, usize)>,
    notes: Mutex<Vec<String>>,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Then {
    #[default]
    GoOn,
    Stop,
    /// The first stage panics.
    Panic,
}

/// A training that the meeting counts until it ends.
struct Counted<'a>(&'a Meeting);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.training.lock().expect("no panic").0 -= 1;
    }
}

impl Meeting {
    fn of(stages: &'static [&'static str], then: Then) -> Self {
        Meeting { stages, then, ..Meeting::default() }
    }

    fn arrive(&self, stage: &'static str) {
        let mut there = self.there.lock().expect("no panic");
        there.insert(stage);
        if there.len() == self.stages.len() {
            self.stop.store(self.then == Then::Stop, Ordering::Relaxed);
            self.complete.notify_all();
        }
        let missing = |there: &mut BTreeSet<_>| there.len() < self.stages.len();
        let (there, waited) = self.complete.wait_timeout_while(there, PATIENCE, missing).expect("no panic");
        assert!(!waited.timed_out(), "only {there:?} of {:?} run side by side", self.stages);
        drop(there);
        assert!(self.then != Then::Panic || self.stages.first() != Some(&stage), "as asked");
    }
}

impl Watch for Meeting {
    fn note(&self, subject: &str, note: &Note<'_>) {
        if !matches!(note, Note::Finished { .. } | Note::Warning(_)) {
            self.notes.lock().expect("no panic").push(format!("{subject}: {note}"));
        }
    }

    fn training(&self, name: &str, _: u64) -> Box<dyn FnMut(&PretrainingEvent<'_>) + '_> {
        let meets = self.stages.iter().find(|stage| **stage == name);
        {
            let (now, most) = &mut *self.training.lock().expect("no panic");
            *now += 1;
            *most = (*now).max(*most);
        }
        let counted = Counted(self);
        Box::new(move |event| {
            let Counted(meeting) = &counted;
            if let (Event::Step { step: 2, .. }, Some(stage)) = (event, meets) {
                meeting.arrive(stage);
            }
        })
    }

    fn stop(&self) -> &AtomicBool {
        &self.stop
    }
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let word = |a: char, b: char| format!("{a} {b}{a}x {a}{b}{b}{a}\n");
    let text: String = ('a'..='z').flat_map(|a| ('a'..='z').map(move |b| word(a, b))).collect();
    fs::write(folder.path().join("text.txt"), text).expect("written");
    fs::write(folder.path().join("recipe.toml"), RECIPE).expect("written");
    folder
}

fn run(folder: &Path, jobs: usize, watch: &dyn Watch) -> anyhow::Result<()> {
    let compute = Compute::new(backend("burn")?, Computation::on("cpu"))?;
    run_on(folder, jobs, &compute, watch)
}

fn run_on(folder: &Path, jobs: usize, compute: &Compute, watch: &dyn Watch) -> anyhow::Result<()> {
    let (recipe, output) = (Recipe::read(&folder.join("recipe.toml"), &[])?, folder.join("run"));
    let jobs = NonZeroUsize::new(jobs).expect("a job");
    let run = Run::new(&recipe, &output, None, watch);
    run.execute(&run.selected(&[])?, &How { jobs, ..How::on(compute) })
}

/// Everything in a run that does not depend on the clock.
fn without_run(lineage: &[u8]) -> Vec<u8> {
    fn strip(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(object) => {
                object.remove("run");
                object.values_mut().for_each(strip);
            }
            serde_json::Value::Array(values) => values.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut lineage = serde_json::from_slice(lineage).expect("JSON");
    strip(&mut lineage);
    lineage.to_string().into_bytes()
}

fn results(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let read = |path: String| {
        let bytes = fs::read(folder.join("run").join(&path)).expect("a file");
        // Where the text is tells runs apart, and it is elsewhere in each folder.
        let bytes = if path.ends_with("lineage.json") { without_run(&bytes) } else { bytes };
        (path, bytes)
    };
    let files = |model: &str| {
        ["model.safetensors", "lineage.json", "config.json"].map(|file| format!("{model}/model/{file}"))
    };
    let models = MODELS.iter().flat_map(|model| files(model)).map(read);
    let metrics = MODELS.iter().filter(|model| **model != "ab").map(|model| {
        let (path, text) = read(format!("{model}/metrics.jsonl"));
        let line = |line: &str| {
            let mut line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            line.as_object_mut().expect("an object").remove("tokens_per_second");
            line.to_string()
        };
        let lines = String::from_utf8(text).expect("text").lines().map(line).collect::<Vec<_>>();
        (path, lines.join("\n").into_bytes())
    });
    models.chain(metrics).chain([read("measured/evaluation.json".into())]).collect()
}

fn one_after_the_other() -> Vec<(String, Vec<u8>)> {
    let folder = folder();
    let meeting = Meeting::default();
    run(folder.path(), 1, &meeting).expect("finished");
    assert_eq!(meeting.training.into_inner().expect("no panic").1, 1);
    results(folder.path())
}

fn assert_same(one: &[(String, Vec<u8>)], other: &[(String, Vec<u8>)]) {
    for ((path, own), (_, others)) in one.iter().zip(other) {
        assert!(own == others, "{path} differs");
    }
}

#[test]
fn any_number_of_jobs_comes_to_the_same() {
    let expected = one_after_the_other();
    for (jobs, stages) in [(2, ["a", "b"].as_slice()), (3, &["a", "b", "c"]), (100, &["a", "b", "c"])] {
        let folder = folder();
        let meeting = Meeting::of(stages, Then::GoOn);
        run(folder.path(), jobs, &meeting).expect("finished");
        assert_same(&results(folder.path()), &expected);
        let most = meeting.training.into_inner().expect("no panic").1;
        assert!(most >= stages.len() && most <= jobs, "{most} trained at a time");
        let notes = meeting.notes.into_inner().expect("no panic");
        let at = |note: &str| notes.iter().position(|other| other == note).expect(note);
        for (input, stage) in [
            ("words: tokenizer", "a: pretrain"),
            ("a: pretrain", "ab: fuse"),
            ("ab: fuse", "trained: pretrain"),
            ("trained: pretrain", "measured: evaluate"),
        ] {
            assert!(at(input) < at(stage), "{stage} before {input}");
        }
    }
}

#[test]
fn all_stop_and_go_on() {
    let folder = folder();
    let stopped = run(folder.path(), 2, &Meeting::of(&["a", "b"], Then::Stop)).expect_err("stopped");
    let interrupted: &Interrupted = stopped.downcast_ref().unwrap_or_else(|| panic!("{stopped:?}"));
    let left = interrupted.left.as_deref().unwrap_or_default();
    for stage in ["a", "b"] {
        assert!(left.contains(&format!("run/{stage}/checkpoints/step-0000")), "{stopped}");
    }
    assert!(interrupted.resumes);
    assert!(!folder.path().join("run/c").exists(), "nothing begins after that");
    run(folder.path(), 2, &Meeting::default()).expect("finished");
    assert_same(&results(folder.path()), &one_after_the_other());
    let time = fs::read_to_string(folder.path().join("run/a/time.json")).expect("a file");
    let time: serde_json::Value = serde_json::from_str(&time).expect("JSON");
    assert_eq!(time.as_array().map(Vec::len), Some(2), "{time}");
}

#[test]
fn those_that_run_finish_when_one_fails() {
    let folder = folder();
    let meeting = Meeting::of(&["b", "c"], Then::GoOn);
    let in_the_way = folder.path().join("run/.a.lock");
    fs::create_dir_all(&in_the_way).expect("a folder");
    // `b` and `c` cannot meet unless one of them begins after `a` has failed.
    let failed = run(folder.path(), 3, &meeting).expect_err("failed");
    assert!(causes(&failed).contains("cannot open") && causes(&failed).contains(".a.lock"), "{failed:?}");
    let finished = |stage: &str| folder.path().join("run").join(stage).join("stage.json").exists();
    assert!(finished("b") && finished("c") && !finished("ab"));
    fs::remove_dir(in_the_way).expect("removed");
    run(folder.path(), 3, &Meeting::default()).expect("finished");
    assert_same(&results(folder.path()), &one_after_the_other());
}

/// Two processes on one directory, each of which may be on a machine of its own.
#[test]
fn what_another_process_works_on_is_waited_for() {
    let folder = folder();
    let lock = StageLock::take(&folder.path().join("run"), "a").expect("a lock");
    let other = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(1500));
        drop(lock); // with nothing done
    });
    run(folder.path(), 1, &Meeting::default()).expect("finished");
    other.join().expect("it ends");
    assert_same(&results(folder.path()), &one_after_the_other());
}

#[test]
fn a_panic_waits_for_the_others() {
    let folder = folder();
    let meeting = Meeting::of(&["a", "b"], Then::Panic);
    let panicked = catch_unwind(AssertUnwindSafe(|| run(folder.path(), 2, &meeting)));
    let message = panicked.expect_err("a panic");
    assert_eq!(message.downcast_ref::<&str>(), Some(&"as asked"));
    assert!(folder.path().join("run/b/stage.json").exists());
    run(folder.path(), 2, &Meeting::default()).expect("finished");
    assert_same(&results(folder.path()), &one_after_the_other());
}

/// burn on the CPU, by the name of a GPU.
struct Gpu;

impl Gpu {
    fn burn(&self) -> t5_model::Result<&'static dyn Backend> {
        backend("burn")
    }
}

impl Backend for Gpu {
    fn name(&self) -> &'static str {
        "pretended"
    }

    fn description(&self) -> &'static str {
        "burn by another name"
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        let devices = self.burn().map(Backend::devices).unwrap_or_default();
        devices.into_iter().take(1).map(|device| DeviceInfo { name: "gpu:0".into(), ..device }).collect()
    }

    fn operations(&self, how: &Computation) -> t5_model::Result<Box<dyn AnyOps>> {
        self.burn()?.operations(&Computation { device: "cpu".into(), ..how.clone() })
    }

    fn plan_device(&self, _: &str) -> t5_model::Result<Box<dyn PlanDevice>> {
        self.burn()?.plan_device("cpu")
    }
}

#[test]
fn stages_on_one_gpu_take_turns() {
    let folder = folder();
    let compute = Compute::new(&Gpu, Computation::on("gpu:0")).expect("a device");
    let meeting = Meeting::default();
    run_on(folder.path(), 3, &compute, &meeting).expect("finished");
    assert_eq!(meeting.training.into_inner().expect("no panic").1, 1);
    assert_same(&results(folder.path()), &one_after_the_other());
}
