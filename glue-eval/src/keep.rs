//! What a fine-tuning leaves in its directory:
//!
//! - `checkpoint/`: a Hugging Face checkpoint with the optimiser's moments and the state, while it is under way;
//! - `predictions/cola-best.jsonl`, `cola-last.jsonl`: an example a line, at the best and at the newest evaluation;
//! - `tensorboard/`: curves;
//! - `result.json`: written last, its reports;
//! - `model/`: the model of the last step, if it shall be kept.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use fusion_core::HostTensors;
use fusion_core::atomic::write_file_atomically;
use fusion_core::lineage::{Lineage, Training};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use t5_model::text::Tokenizer;
use t5_model::train::{Saved, Snapshot};
use t5_model::{Optimizer, Session, TensorBoard};

use crate::error::GlueError;
use crate::evaluate::Prompts;
use crate::fine_tune::FineTuning;
use crate::predictions;
use crate::report::TaskReport;
use crate::score::Prediction;
use crate::settings::AtStep;
use crate::state::State;
use crate::submission;

/// Where a fine-tuning keeps what it makes.
#[derive(Clone, Copy, Debug)]
pub struct Keep<'a> {
    pub directory: &'a Path,
    /// For the files of GLUE's server, those of one seed's tasks together.
    pub submission: &'a Path,
    /// Of the model that is fine-tuned.
    pub lineage: &'a Lineage,
    /// What decides the result besides settings, tasks and seed: the model's and the data's names or hashes. What was
    /// begun with other values is not continued; errors call them by these keys.
    pub identity: &'a BTreeMap<String, Value>,
}

/// Settings that change nothing that is kept.
const FREE: [&str; 4] = ["checkpoint_every", "log_every", "seed", "seeds"];

/// A directory in use.
pub(crate) struct Kept<'a> {
    keep: Keep<'a>,
    tokenizer: &'a Tokenizer,
    optimizer: Optimizer,
    save_model: bool,
    tasks: Vec<Value>,
    identity: BTreeMap<String, Value>,
    finished: Option<Vec<TaskReport>>,
    saved: Option<Saved<Checkpoint>>,
    checkpoint: PathBuf,
    curves: Option<TensorBoard>,
}

#[derive(Serialize, Deserialize)]
struct Checkpoint {
    #[serde(flatten)]
    state: State,
    identity: BTreeMap<String, Value>,
}

/// `result.json`.
#[derive(Serialize, Deserialize)]
struct Finished {
    identity: BTreeMap<String, Value>,
    tasks: Vec<TaskReport>,
}

impl<'a> Kept<'a> {
    /// Looks what an earlier call has left.
    pub fn open(keep: &Keep<'a>, tuning: &FineTuning<'a>) -> Result<Self, GlueError> {
        let io = |source| GlueError::Io { path: keep.directory.to_owned(), source };
        fs::create_dir_all(keep.directory).map_err(io)?;
        let tasks: Vec<Value> = tuning.tasks.iter().map(|data| json!(data.task)).collect();
        let mut kept = Kept {
            keep: *keep,
            tokenizer: tuning.tokenizer,
            optimizer: tuning.settings.optimizer,
            save_model: tuning.settings.save_models,
            identity: identity(keep, tuning, &tasks),
            tasks,
            finished: None,
            saved: None,
            checkpoint: keep.directory.join("checkpoint"),
            curves: None,
        };
        let result = kept.result();
        if result.exists() {
            let bytes = fs::read(&result).map_err(|source| GlueError::Io { path: result.clone(), source })?;
            let Finished { identity, tasks } = serde_json::from_slice(&bytes)
                .map_err(|error| GlueError::Damaged { path: result.clone(), problem: error.to_string() })?;
            kept.check(&identity, &result)?;
            kept.finished = Some(tasks);
        } else if kept.checkpoint.exists() {
            let saved = Saved::<Checkpoint>::read(&kept.checkpoint).map_err(|error| kept.damaged(error))?;
            kept.check(&saved.state.identity, &kept.checkpoint)?;
            kept.saved = Some(saved);
        }
        Ok(kept)
    }

    fn result(&self) -> PathBuf {
        self.keep.directory.join("result.json")
    }

    fn damaged(&self, error: impl ToString) -> GlueError {
        GlueError::Damaged { path: self.checkpoint.clone(), problem: error.to_string() }
    }

    fn check(&self, earlier: &BTreeMap<String, Value>, path: &Path) -> Result<(), GlueError> {
        let described = |value: Option<&Value>| value.map_or("absent".to_owned(), Value::to_string);
        for key in earlier.keys().chain(self.identity.keys()) {
            let (was, now) = (earlier.get(key), self.identity.get(key));
            if was != now {
                return Err(GlueError::Changed {
                    path: path.to_owned(),
                    key: key.clone(),
                    was: described(was),
                    now: described(now),
                });
            }
        }
        Ok(())
    }

    /// The reports of a fine-tuning that has finished.
    pub fn take_finished(&mut self) -> Option<Vec<TaskReport>> {
        self.finished.take()
    }

    /// What a fine-tuning that was interrupted goes on from.
    pub fn checkpoint_to_open(&self) -> Option<&Path> {
        self.saved.as_ref().map(|_| self.checkpoint.as_path())
    }

    /// Gives a session opened from the checkpoint its moments, and says where it stands. Begins the curves.
    pub fn restore(&mut self, session: &mut dyn Session) -> Result<State, GlueError> {
        let state = match self.saved.take() {
            None => State::default(),
            Some(saved) => {
                let moments: HostTensors =
                    saved.verify(&self.checkpoint).map_err(|error| self.damaged(error))?;
                session.load_optimizer_state(moments).map_err(|error| self.damaged(error))?;
                saved.state.state
            }
        };
        self.curves = Some(TensorBoard::open(self.keep.directory, state.step).map_err(GlueError::keep)?);
        Ok(state)
    }

    pub fn curve(&mut self, step: u64, scalars: &[(String, f64)]) -> Result<(), GlueError> {
        let Some(curves) = &mut self.curves else { return Ok(()) };
        let scalars = scalars.iter().map(|(name, value)| (name.as_str(), *value));
        curves.append(step, scalars).map_err(GlueError::keep)
    }

    pub fn predictions(
        &self,
        at: AtStep,
        prompts: &[Prompts<'_>],
        sets: &[Vec<Prediction>],
    ) -> Result<(), GlueError> {
        let Some(task) = prompts.first().map(|prompts| prompts.task) else { return Ok(()) };
        let name = format!("{}-{}.jsonl", task.spec().name, at.name());
        self.write("predictions", &name, &predictions::lines(prompts, sets))
    }

    pub fn submission(&self, prompts: &[Prompts<'_>], sets: &[Vec<Prediction>]) -> Result<(), GlueError> {
        let io = |source| GlueError::Io { path: self.keep.submission.to_owned(), source };
        fs::create_dir_all(self.keep.submission).map_err(io)?;
        for (number, (prompts, predictions)) in prompts.iter().zip(sets).enumerate() {
            let set = &prompts.task.spec().evaluation_sets[number];
            let path = self.keep.submission.join(submission::name(prompts.task, set));
            let text = submission::file(prompts, predictions);
            write_file_atomically(&path, text.as_bytes()).map_err(GlueError::keep)?;
        }
        Ok(())
    }

    fn write(&self, folder: &str, name: &str, text: &str) -> Result<(), GlueError> {
        let folder = self.keep.directory.join(folder);
        fs::create_dir_all(&folder).map_err(|source| GlueError::Io { path: folder.clone(), source })?;
        write_file_atomically(&folder.join(name), text.as_bytes()).map_err(GlueError::keep)
    }

    pub fn checkpoint(&self, session: &dyn Session, state: &State) -> Result<(), GlueError> {
        let checkpoint = Checkpoint { state: state.clone(), identity: self.identity.clone() };
        let optimizer = Some((self.optimizer, state.step));
        let snapshot = Snapshot {
            state: &checkpoint,
            lineage: self.lineage(state),
            tokenizer: self.tokenizer,
            optimizer,
        };
        snapshot.write(session, &self.checkpoint).map_err(GlueError::keep)
    }

    /// Writes the reports, and the model if it shall be kept, in place of the checkpoint.
    pub fn finish(
        &self,
        session: &dyn Session,
        state: &State,
        reports: &[TaskReport],
    ) -> Result<(), GlueError> {
        if self.save_model {
            let snapshot = Snapshot {
                state: &json!({ "step": state.step, "identity": self.identity }),
                lineage: self.lineage(state),
                tokenizer: self.tokenizer,
                optimizer: None,
            };
            snapshot.write(session, &self.keep.directory.join("model")).map_err(GlueError::keep)?;
        }
        let finished = Finished { identity: self.identity.clone(), tasks: reports.to_vec() };
        let text = serde_json::to_string_pretty(&finished).map_err(GlueError::keep)?;
        write_file_atomically(&self.result(), text.as_bytes()).map_err(GlueError::keep)?;
        if self.checkpoint.exists() {
            let io = |source| GlueError::Io { path: self.checkpoint.clone(), source };
            fs::remove_dir_all(&self.checkpoint).map_err(io)?;
        }
        Ok(())
    }

    fn lineage(&self, state: &State) -> Lineage {
        let mut lineage = self.keep.lineage.clone();
        if state.step > 0 {
            let other = [("glue".to_owned(), json!(self.tasks))].into_iter().collect();
            let State { step: steps, tokens, flops, .. } = *state;
            lineage.training.push(Training { steps, tokens, flops, other });
        }
        lineage
    }
}

fn identity(keep: &Keep<'_>, tuning: &FineTuning<'_>, tasks: &[Value]) -> BTreeMap<String, Value> {
    let mut identity = keep.identity.clone();
    if let Ok(Value::Object(settings)) = serde_json::to_value(tuning.settings) {
        identity.extend(settings.into_iter().filter(|(key, _)| !FREE.contains(&key.as_str())));
    }
    identity.insert("seed".into(), json!(tuning.seed));
    identity.insert("tasks".into(), json!(tasks));
    identity.insert("tokenizer".into(), json!(tuning.tokenizer.fingerprint()));
    identity
}
