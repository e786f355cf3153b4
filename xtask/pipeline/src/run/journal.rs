//! `stage.json`: written last, so that it marks a stage as finished; it records what the result was made
//! from.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use t5_model::train::{Difference, Identity};

use super::{Machine, VERSION, check_version};
use crate::stage::Effects;
use crate::write_json;

pub(super) const FILE: &str = "stage.json";
/// The identity alone, written at the start.
pub(super) const BEGUN: &str = "begun.json";
/// What each process spent.
pub(super) const TIME: &str = "time.json";

const SETTINGS: &str = "settings";
const INPUTS: &str = "inputs";

/// A finished stage.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Record {
    /// The version of the file's format; a newer one than this program's is refused.
    pub version: u32,
    /// What the result was made from.
    #[serde(flatten)]
    pub identity: Identity,
    /// What the stage's work returned.
    pub result: Value,
    /// Wall-clock time of all processes that worked on the stage.
    pub seconds: f64,
}

/// What determines a stage's result: the settings of its work and the fingerprint of each input, by stage or
/// path.
pub fn identity(settings: Identity, inputs: BTreeMap<String, String>) -> Identity {
    let mut identity = Identity::default();
    identity.insert(SETTINGS, settings);
    identity.insert(INPUTS, json!(inputs));
    identity
}

/// An identity's hash in hexadecimal.
pub fn fingerprint(identity: &Identity) -> Result<String> {
    let digest = Sha256::digest(serde_json::to_vec(identity)?);
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The settings in a stage's identity.
pub fn settings(identity: &Identity) -> Value {
    Value::from(identity.clone()).get(SETTINGS).cloned().unwrap_or_default()
}

/// How a stage's identity differs from an earlier one.
#[derive(Debug, Default, PartialEq)]
pub struct Changes {
    /// What makes its result another.
    pub settings: Vec<Difference>,
    /// The inputs that are others, and what their fingerprints were.
    pub inputs: Vec<(String, String)>,
    /// What changes only what is measured on the way.
    pub measured: Vec<Difference>,
    /// Whether there should be more of the result, or less.
    pub extends: bool,
}

impl Changes {
    /// Compares a stage's identity with an earlier one.
    pub fn new(effects: &Effects, identity: &Identity, earlier: &Identity) -> Self {
        let mut changes = Changes::default();
        for difference in identity.differences(earlier) {
            let Some((part, key)) = difference.key.split_once('.') else {
                changes.settings.push(difference);
                continue;
            };
            if part == INPUTS {
                let was = difference.was.trim_matches('"').to_owned();
                changes.inputs.push((key.to_owned(), was));
                continue;
            }
            let root = key.split('.').next().unwrap_or(key);
            let is_in = |keys: &[&str]| keys.contains(&root) || keys.contains(&key);
            let loses_nothing = is_in(effects.keeping) && difference.now == "false";
            let own = Difference { key: key.to_owned(), ..difference.clone() };
            match () {
                () if is_in(effects.neutral) || loses_nothing => {}
                () if is_in(effects.extending) => changes.extends = true,
                () if is_in(effects.measuring) => changes.measured.push(own),
                () => changes.settings.push(own),
            }
        }
        changes
    }

    /// Why the result is out of date; empty if it is not.
    pub fn outdating(&self) -> Vec<String> {
        let inputs = self.inputs.iter().map(|(name, _)| format!("its input {name:?} is another"));
        self.settings.iter().map(ToString::to_string).chain(inputs).collect()
    }
}

/// What decides the result of stages that take this one's: its identity without what is only measured.
pub fn deciding(effects: &Effects, identity: &Identity) -> Identity {
    let mut identity = identity.clone();
    for key in [effects.neutral, effects.measuring, effects.keeping, effects.extending].concat() {
        identity.remove(&format!("{SETTINGS}.{key}"));
    }
    identity
}

/// The identity with which an unfinished stage in `directory` was started.
pub fn begun(directory: &Path) -> Result<Option<Identity>> {
    read(&directory.join(BEGUN))
}

/// Records that a stage starts with this identity.
pub fn begin(identity: &Identity, directory: &Path) -> Result<()> {
    write_json(&directory.join(BEGUN), identity)
}

/// A process's work on a stage.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Session {
    /// Seconds since 1970.
    pub began: u64,
    /// Wall-clock time; `None` for a process that was killed, or still works.
    pub seconds: Option<f64>,
    /// What it ran on; `None` in files of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
    /// The most memory that it took meanwhile, in bytes, where the system tells it. Stages that one process runs
    /// at the same time count together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The processes that have worked on the stage in `directory`; none if no file tells.
pub fn sessions(directory: &Path) -> Result<Vec<Session>> {
    Ok(read(&directory.join(TIME))?.unwrap_or_default())
}

/// The time that all processes have spent on a stage: `time.json`.
pub struct Clock {
    path: PathBuf,
    earlier: Vec<Session>,
    own: Session,
    start: Instant,
}

impl Clock {
    /// Starts to measure. Without `resumes`, what was spent on earlier attempts is forgotten.
    pub fn start(directory: &Path, resumes: bool, machine: Machine) -> Result<Self> {
        let path = directory.join(TIME);
        let earlier: Option<Vec<Session>> = if resumes { read(&path)? } else { None };
        let mut earlier = earlier.unwrap_or_default();
        for session in earlier.iter_mut().filter(|session| session.seconds.is_none()) {
            // It lasted at least until it last wrote anything.
            let last = last_written(directory).unwrap_or(session.began);
            session.seconds = Some(last.saturating_sub(session.began) as f64);
        }
        let began = seconds_since_1970(SystemTime::now());
        Machine::forget_peak_memory();
        let own = Session { began, seconds: None, machine: Some(machine), peak_memory: None, error: None };
        let clock = Clock { path, earlier, own, start: Instant::now() };
        clock.write()?;
        Ok(clock)
    }

    /// Stops, and returns the seconds of all processes together. `error` says why the work failed, if it did.
    pub fn stop(mut self, error: Option<String>) -> Result<f64> {
        let seconds = self.start.elapsed().as_secs_f64();
        self.own.seconds = Some(seconds);
        self.own.peak_memory = Machine::peak_memory();
        self.own.error = error;
        self.write()?;
        Ok(self.earlier.iter().filter_map(|session| session.seconds).sum::<f64>() + seconds)
    }

    fn write(&self) -> Result<()> {
        write_json(&self.path, &self.earlier.iter().chain([&self.own]).collect::<Vec<_>>())
    }
}

fn seconds_since_1970(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// When a file in a directory was last changed.
fn last_written(directory: &Path) -> Option<u64> {
    let entries = fs::read_dir(directory).ok()?.flatten();
    let times = entries.filter(|entry| entry.file_name() != TIME).filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        let own = metadata.modified().ok().map(seconds_since_1970);
        if metadata.is_dir() { own.max(last_written(&entry.path())) } else { own }
    });
    times.max()
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let value = serde_json::from_slice(&text);
    value
        .map(Some)
        .with_context(|| format!("{} is damaged; delete it to run the stage again", path.display()))
}

impl Record {
    /// A record in the current version of the format.
    pub fn new(identity: Identity, result: Value, seconds: f64) -> Self {
        Record { version: VERSION, identity, result, seconds }
    }

    /// The record of the stage in `directory`, if it has finished.
    pub fn read(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(FILE);
        let record: Option<Record> = read(&path)?;
        record.iter().try_for_each(|record| check_version(record.version, &path))?;
        Ok(record)
    }

    /// The settings of the stage's work.
    pub fn settings(&self) -> Value {
        settings(&self.identity)
    }

    /// Writes `stage.json`, which marks the stage in `directory` as finished.
    pub fn write(&self, directory: &Path) -> Result<()> {
        write_json(&directory.join(FILE), self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use t5_model::train::{Identity, Settings};

    use super::{Changes, deciding, fingerprint, identity};
    use crate::stage::Effects;

    const EFFECTS: Effects = Effects {
        neutral: Settings::NEUTRAL,
        measuring: Settings::MEASURING,
        keeping: &["keep_optimizer"],
        extending: &["seeds"],
    };

    fn changes(now: &Identity, earlier: &Identity) -> Vec<String> {
        Changes::new(&EFFECTS, now, earlier).outdating()
    }

    #[test]
    fn changes_are_named_and_neutral_settings_are_not_compared() {
        let identity = |settings: serde_json::Value, input: &str| {
            let settings = Identity::of_settings(&settings, Settings::NEUTRAL);
            identity(settings, BTreeMap::from([("small".to_owned(), input.to_owned())]))
        };
        let print = |identity: &Identity| fingerprint(&deciding(&EFFECTS, identity)).expect("a fingerprint");
        let old = identity(json!({ "steps": 600, "log_every": 10, "data": { "text": ["a"] } }), "1");
        let new = identity(json!({ "steps": 800, "log_every": 99, "data": { "text": ["b"] } }), "2");
        let expected = [
            "`data.text` was [\"a\"], is [\"b\"]",
            "`steps` was 600, is 800",
            "its input \"small\" is another",
        ];
        assert_eq!(changes(&new, &old), expected);
        let same = identity(json!({ "steps": 600, "log_every": 99, "data": { "text": ["a"] } }), "1");
        assert_eq!(changes(&same, &old), Vec::<String>::new());
        assert_eq!(print(&same), print(&old));
        assert_ne!(print(&new), print(&old));
    }

    #[test]
    fn what_is_measured_or_kept_decides_no_weights() {
        let identity =
            |settings: serde_json::Value| identity(Identity::of_settings(&settings, &[]), BTreeMap::new());
        let old = identity(json!({ "steps": 600, "evaluate_every": 100, "keep_optimizer": true }));
        let new = identity(json!({ "steps": 600, "evaluate_every": 50, "keep_optimizer": false }));
        let there = Changes::new(&EFFECTS, &new, &old);
        assert_eq!(there.outdating(), Vec::<String>::new());
        assert_eq!(there.measured.len(), 1);
        let back = Changes::new(&EFFECTS, &old, &new);
        assert_eq!(back.outdating(), ["`keep_optimizer` was false, is true"]);
        let print = |identity: &Identity| fingerprint(&deciding(&EFFECTS, identity)).expect("a fingerprint");
        assert_eq!(print(&old), print(&new));
    }

    #[test]
    fn more_seeds_extend_a_result() {
        let identity = |seeds: u64| {
            identity(Identity::of_settings(&json!({ "steps": 9, "seeds": seeds }), &[]), BTreeMap::new())
        };
        let changes = Changes::new(&EFFECTS, &identity(5), &identity(3));
        assert!(changes.extends && changes.outdating().is_empty());
        assert!(!Changes::new(&EFFECTS, &identity(3), &identity(3)).extends);
    }

    /// What follows from a setting is not said of the setting's change, and earlier names are known.
    #[test]
    fn settings_are_named_as_users_set_them() {
        let identity =
            |settings: serde_json::Value| identity(Identity::of_settings(&settings, &[]), BTreeMap::new());
        let old = identity(json!({ "steps": 600, "schedule": {
            "peak": 0.02, "warm_up": 60, "decay": { "kind": "inverse_square_root", "offset": 9 }, "offset": 0,
        } }));
        let same = json!({
            "steps": 600, "learning_rate": 0.02, "warm_up": 60,
            "schedule": { "kind": "inverse_square_root", "timescale": 9 }, "schedule_offset": 0,
        });
        assert_eq!(changes(&identity(same.clone()), &old), Vec::<String>::new());
        let with = |key: &str, value: serde_json::Value| {
            let mut settings = same.clone();
            settings[key] = value;
            settings
        };
        let longer = {
            let mut settings = with("steps", json!(800));
            settings["warm_up"] = json!(80);
            identity(settings)
        };
        assert_eq!(changes(&longer, &old), ["`steps` was 600, is 800"]);
        let other = identity(with("warm_up", json!(80)));
        assert_eq!(changes(&other, &old), ["`warm_up` was 60, is 80"]);
    }
}
