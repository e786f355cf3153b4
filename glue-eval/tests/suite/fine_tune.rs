//! Fine-tuning with a session that memorises: it answers a prompt that it was trained on with its target, and
//! any other with babble.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use fusion_core::lineage::Lineage;
use glue_eval::data::{BadRows, Example, Label, TaskData, read_task};
use glue_eval::{
    AtStep, FineTuneSettings, FineTuning, Glue, GlueError, GlueReport, Place, Progress, Scoring, Task,
    TaskReport,
};

use t5_model::train::{Control, Event, OpenSession, TrainError};

use crate::session::{Memory, Shared, tokenizer};

const SENTENCES: [(&str, usize); 6] = [
    ("a gripping film", 1),
    ("a film", 1),
    ("dull", 0),
    ("dull and long and dull and long", 0),
    ("never boring", 1),
    ("boring", 0),
];

fn sst2() -> TaskData {
    let examples: Vec<Example> = SENTENCES
        .iter()
        .map(|&(text, class)| Example {
            index: 0,
            texts: vec![text.to_owned()],
            label: Some(Label::Class(class)),
        })
        .collect();
    TaskData { task: Task::Sst2, train: examples.clone(), dev: vec![examples], test: Vec::new(), skipped: 0 }
}

fn settings() -> FineTuneSettings {
    FineTuneSettings { steps: 3, batch_size: 4, micro_batch_size: 3, evaluate_every: 1, ..Default::default() }
}

fn run(session: &mut Memory, settings: &FineTuneSettings) -> Result<TaskReport, GlueError> {
    run_on(session, sst2(), settings)
}

fn run_on(
    session: &mut Memory,
    data: TaskData,
    settings: &FineTuneSettings,
) -> Result<TaskReport, GlueError> {
    let shared = Shared::new(std::mem::take(session));
    let tokenizer = tokenizer();
    let tuning = FineTuning {
        tasks: &[data],
        tokenizer: &tokenizer,
        beside: &BTreeMap::new(),
        settings,
        seed: settings.seed,
        lineage: &Lineage::default(),
        keep: None,
    };
    let never = AtomicBool::new(false);
    let reports = tuning.run(&mut |_| Ok(shared.opened()), &Control::alone(&never), &mut |_| {});
    *session = shared.take();
    Ok(reports?.expect("nobody stops it").remove(0))
}

#[test]
fn what_is_learned_is_scored() {
    let mut session = Memory::default();
    let report = run(&mut session, &settings()).unwrap();
    // Three steps of four examples are two passes over the six; after one step, four of them are known.
    let scores: Vec<_> = report
        .evaluations
        .iter()
        .map(|at| (at.step, at.score.metrics[0].percent.map(f64::round), at.score.invalid))
        .collect();
    assert_eq!(scores, [(1, Some(67.0), 2), (2, Some(100.0), 0), (3, Some(100.0), 0)]);
    assert_eq!((report.best.step, report.last.step), (2, 3));
    assert_eq!(
        report.evaluations.iter().map(|at| at.train_loss).collect::<Vec<_>>(),
        [Some(1.0), Some(0.5), Some(1.0 / 3.0)]
    );
}

#[test]
fn without_steps_the_model_is_evaluated_as_it_is() {
    let mut session = Memory::default();
    let report = run(&mut session, &FineTuneSettings { steps: 0, ..settings() }).unwrap();
    assert_eq!((report.last.step, report.last.train_loss, report.last.score.invalid), (0, None, 6));
    assert!(session.updates.is_empty());
}

/// The decoded text does not show the sentinel, so the answers look correct.
#[test]
fn an_answer_with_a_sentinel_is_invalid() {
    let mut session = Memory { begins_with_sentinel: true, ..Memory::default() };
    let report = run(&mut session, &settings()).unwrap();
    assert_eq!((report.last.score.mean(), report.last.score.invalid), (0.0, 6));
}

/// Rows that have not been learned give babble, and are stopped at once.
#[test]
fn babble_is_cut_short() {
    let mut session = Memory::default();
    let report = run(&mut session, &FineTuneSettings { steps: 1, ..settings() }).unwrap();
    assert_eq!(report.last.score.invalid, 2);
    let words = SENTENCES.len() - 2;
    assert_eq!(session.said, words + 2, "a word for each prompt");
}

#[test]
fn best_and_last_step_differ_when_the_model_gets_worse() {
    let mut session = Memory { forgets_at: Some(3), ..Memory::default() };
    let report = run(&mut session, &settings()).unwrap();
    assert_eq!((report.best.step, report.best.score.mean()), (2, 100.0));
    assert_eq!((report.last.step, report.last.score.mean()), (3, 0.0));
}

#[test]
fn every_pass_sees_every_example_once_in_its_own_order() {
    let orders: Vec<Vec<Vec<i32>>> = [7, 7, 8]
        .map(|seed| {
            let mut session = Memory::default();
            run(&mut session, &FineTuneSettings { steps: 12, seed, batch_size: 2, ..settings() }).unwrap();
            session.seen
        })
        .to_vec();
    for pass in orders[0].chunks(SENTENCES.len()) {
        let distinct: HashSet<_> = pass.iter().collect();
        assert_eq!(distinct.len(), SENTENCES.len());
    }
    assert_eq!(orders[0], orders[1]);
    assert_ne!(orders[0], orders[2]);
    assert_ne!(orders[0][..12], orders[0][12..], "each pass has its own order");
}

#[test]
fn batches_are_split_padded_and_updated_as_set() {
    let mut session = Memory::default();
    run(&mut session, &settings()).unwrap();
    assert_eq!(session.micro_batch_sizes, [[3, 1], [3, 1], [3, 1]]);
    assert_eq!(session.updates.iter().map(|update| update.step).collect::<Vec<_>>(), [1, 2, 3]);
    let update = &session.updates[0];
    assert_eq!((update.learning_rate, update.dropout.rate, update.clip_norm), (1e-3, 0.1, None));
}

#[test]
fn long_inputs_are_cut_before_the_end_token() {
    let mut session = Memory::default();
    run(&mut session, &FineTuneSettings { input_length: 4, ..settings() }).unwrap();
    let tokenizer = tokenizer();
    let longest = session.seen.iter().max_by_key(|prompt| prompt.len()).unwrap();
    assert_eq!(longest.len(), 4);
    assert!(session.seen.iter().all(|prompt| prompt.last() == Some(&tokenizer.eos_id())));
}

#[test]
fn errors_name_task_step_and_setting() {
    let failing = |steps| FineTuneSettings { steps, ..settings() };
    let mut messages = Vec::new();
    for mut session in [
        Memory { fails_at: Some(3), ..Memory::default() },
        Memory { answers_too_few: true, ..Memory::default() },
    ] {
        messages.push(run(&mut session, &failing(3)).unwrap_err());
    }
    for settings in [
        FineTuneSettings { micro_batch_size: 0, ..settings() },
        FineTuneSettings { max_eval_examples: Some(0), ..settings() },
        FineTuneSettings { learning_rate: f64::NAN, ..settings() },
        FineTuneSettings { dropout: 1.0, ..settings() },
    ] {
        messages.push(run(&mut Memory::default(), &settings).unwrap_err());
    }
    let untaught = TaskData { train: Vec::new(), ..sst2() };
    let failed = run_on(&mut Memory::default(), untaught, &settings());
    messages.push(failed.unwrap_err());
    let texts: Vec<String> = messages
        .iter()
        .map(|error| match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        })
        .collect();
    insta::assert_snapshot!("fine_tune_errors", texts.join("\n"));

    let short =
        run(&mut Memory::default(), &FineTuneSettings { target_length: 1, ..settings() }).unwrap_err();
    assert!(short.to_string().starts_with("setting target_length: 1, but the target "), "{short}");
}

#[test]
fn settings_read_from_a_few_keys_and_refuse_unknown_ones() {
    let settings: FineTuneSettings =
        serde_json::from_str(r#"{ "steps": 10, "max_eval_examples": 50 }"#).unwrap();
    let expected = FineTuneSettings { steps: 10, max_eval_examples: Some(50), ..Default::default() };
    assert_eq!(settings, expected);
    assert!(serde_json::from_str::<FineTuneSettings>(r#"{ "step": 10 }"#).is_err());
}

fn write_glue(folder: &Path) {
    let files = [
        ("SST-2/train.tsv", "sentence\tlabel\na gripping film\t1\ndull\t0\nboring\t0\n"),
        ("SST-2/dev.tsv", "sentence\tlabel\ndull\t0\na gripping film\t1\nboring\t0\n"),
        ("STS-B/train.tsv", "sentence1\tsentence2\tscore\nA.\tB.\t1.0\nA.\tC.\t2.0\nA.\tD.\t5.0\nA.\tE.\n"),
        ("STS-B/dev.tsv", "sentence1\tsentence2\tscore\nA.\tB.\t1.0\nA.\tC.\t2.0\nA.\tD.\t5.0\n"),
    ];
    for (path, content) in files {
        fs::create_dir_all(folder.join(path).parent().unwrap()).unwrap();
        fs::write(folder.join(path), content).unwrap();
    }
}

/// Fine-tunes on all of the settings' tasks, as `cargo xtask glue` does. `observe` may stop it.
fn glue(
    folder: &Path,
    directory: Option<&Path>,
    settings: &FineTuneSettings,
    open: &mut OpenSession<'_>,
    observe: &mut dyn FnMut(Progress<'_>, &AtomicBool),
) -> Result<Option<GlueReport>, GlueError> {
    let stop = AtomicBool::new(false);
    let glue = Glue {
        tasks: &[Task::Sst2, Task::Stsb],
        files: folder,
        tokenizer: &tokenizer(),
        beside: &BTreeMap::new(),
        settings,
        directory,
        lineage: &Lineage::default(),
        identity: &BTreeMap::from([("model".to_owned(), "a memory".into())]),
    };
    glue.run(open, &Control::alone(&stop), &mut |event| observe(event, &stop))
}

#[test]
fn every_task_starts_from_a_session_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    write_glue(folder.path());
    let settings = FineTuneSettings { max_train_examples: Some(2), skip_bad_rows: true, ..settings() };
    let (mut opened, mut evaluated) = (0, 0);
    let mut open = |_: Option<&Path>| {
        opened += 1;
        Ok(Shared::new(Memory::default()).opened())
    };
    let mut observe = |event: Progress<'_>, _: &_| {
        evaluated += usize::from(matches!(event, Progress::Training(Event::Evaluated { .. })));
    };
    let report = glue(folder.path(), None, &settings, &mut open, &mut observe).unwrap().unwrap();
    assert_eq!((opened, evaluated), (2, 6));
    insta::assert_snapshot!("report", report.table("memory").text());
    insta::assert_snapshot!("details", report.details());
    let json = serde_json::to_string(&report).unwrap();
    let read: GlueReport = serde_json::from_str(&json).unwrap();
    assert_eq!(read, report);
}

#[test]
fn a_bad_row_of_the_last_task_is_found_before_the_first_step() {
    let folder = tempfile::tempdir().unwrap();
    write_glue(folder.path());
    let mut opened = 0;
    let mut open = |_: Option<&Path>| {
        opened += 1;
        Ok(Shared::new(Memory::default()).opened())
    };
    let error = glue(folder.path(), None, &settings(), &mut open, &mut |_, _| {}).unwrap_err();
    assert!(matches!(&error, GlueError::Row { place: Place::Line(5), .. }), "{error}");
    assert_eq!(opened, 0);
    assert!(read_task(Task::Stsb, folder.path(), BadRows::Skip).is_ok_and(|data| data.skipped == 1));
}

#[test]
fn a_mixture_is_one_model_that_sees_every_example() {
    let folder = tempfile::tempdir().unwrap();
    write_glue(folder.path());
    let settings = FineTuneSettings { mixture: true, skip_bad_rows: true, batch_size: 6, ..settings() };
    let shared = Shared::new(Memory::default());
    let mut open = |_: Option<&Path>| Ok(shared.opened());
    let report = glue(folder.path(), None, &settings, &mut open, &mut |_, _| {}).unwrap().unwrap();
    let memory = shared.take();
    // Three examples of each task make one pass.
    for pass in memory.seen.chunks(6) {
        assert_eq!(pass.iter().collect::<HashSet<_>>().len(), 6);
    }
    assert_eq!(memory.updates.len(), 3);
    let tasks: Vec<_> =
        report.seeds[0].tasks.iter().map(|task| (task.task, task.last.score.mean().round())).collect();
    assert_eq!(tasks, [(Task::Sst2, 100.0), (Task::Stsb, 100.0)]);
}

#[test]
fn seeds_are_summed_up_as_mean_and_deviation() {
    let folder = tempfile::tempdir().unwrap();
    write_glue(folder.path());
    // With one step of two examples, what is known depends on the seed.
    let settings =
        FineTuneSettings { seeds: 3, seed: 4, steps: 1, batch_size: 2, skip_bad_rows: true, ..settings() };
    let mut open = |_: Option<&Path>| Ok(Shared::new(Memory::default()).opened());
    let report = glue(folder.path(), None, &settings, &mut open, &mut |_, _| {}).unwrap().unwrap();
    assert_eq!(report.seeds.iter().map(|seed| seed.seed).collect::<Vec<_>>(), [4, 5, 6]);
    let table = report.table("");
    let glue_eval::Cell::Value { summary, .. } = table.rows[1].cells[1] else { panic!("{table:?}") };
    let scores = report.scores(AtStep::Last);
    let values: Vec<f64> = scores.iter().map(|score| score.task(Task::Sst2).unwrap().mean()).collect();
    assert_eq!(summary, glue_eval::Summary::of(&values).unwrap());
    assert!(table.text().contains("Mean ± standard deviation over 3 seeds."), "{}", table.text());
}

#[test]
fn ranking_never_gives_an_invalid_answer() {
    let settings = FineTuneSettings { steps: 1, score: Scoring::Rank, ..settings() };
    let report = run(&mut Memory::default(), &settings).unwrap();
    // Four of six examples are known; the others get the first answer, which is right for one of two.
    assert_eq!(report.last.score.invalid, 0);
    let confusion = &report.last.score.confusion[0].counts;
    assert_eq!(confusion.iter().map(|row| row.iter().sum::<usize>()).collect::<Vec<_>>(), [3, 3]);
    assert_eq!(confusion[0][1], 0, "the first word is never missed");
    assert!(confusion.iter().all(|row| row[2] == 0));
}

#[test]
fn early_stopping_ends_after_so_many_evaluations_without_a_better_one() {
    let settings = FineTuneSettings { steps: 20, early_stopping: Some(3), ..settings() };
    let mut session = Memory::default();
    let report = run(&mut session, &settings).unwrap();
    assert_eq!((report.best.step, report.last.step, session.updates.len()), (2, 5, 5));
}

/// Fine-tuning that is stopped repeatedly, at whatever point, does and reports the same as an uninterrupted
/// run.
#[test]
fn an_interrupted_fine_tuning_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    write_glue(folder.path());
    fs::write(folder.path().join("SST-2/test.tsv"), "index\tsentence\n7\tdull\n8\ta film\n").unwrap();
    fs::write(folder.path().join("STS-B/test.tsv"), "index\tsentence1\tsentence2\n0\tA.\tB.\n").unwrap();
    let settings = FineTuneSettings {
        steps: 5,
        evaluate_every: 2,
        checkpoint_every: 2,
        mixture: true,
        skip_bad_rows: true,
        submission: Some(AtStep::Best),
        save_models: true,
        ..settings()
    };
    // Each attempt may do a little more than the last, because interrupted work is not always saved.
    let finish = |directory: &Path, mut patience: usize| {
        let shared = Shared::new(Memory::default());
        let mut resumed = Vec::new();
        loop {
            let mut events = 0;
            let mut observe = |event: Progress<'_>, stop: &AtomicBool| {
                events += 1;
                if events > patience && !matches!(event, Progress::Started { .. }) {
                    stop.store(true, Ordering::Relaxed);
                }
            };
            let mut open = |checkpoint: Option<&Path>| {
                resumed.extend(checkpoint.map(Path::to_owned));
                Ok(shared.opened())
            };
            let report = glue(folder.path(), Some(directory), &settings, &mut open, &mut observe).unwrap();
            if let Some(report) = report {
                return (report, shared.take().seen, resumed);
            }
            patience += 1;
        }
    };
    let files = |directory: &Path| {
        let mut files = BTreeMap::new();
        for name in
            ["seed-0/mixture/result.json", "seed-0/submission/SST-2.tsv", "seed-0/submission/STS-B.tsv"]
                .into_iter()
                .map(str::to_owned)
                .chain(
                    ["sst2-best", "sst2-last", "stsb-best", "stsb-last"]
                        .map(|name| format!("seed-0/mixture/predictions/{name}.jsonl")),
                )
        {
            files.insert(name.clone(), fs::read_to_string(directory.join(name)).unwrap());
        }
        files
    };
    let whole = tempfile::tempdir().unwrap();
    let (report, seen, _) = finish(whole.path(), usize::MAX);
    assert!(whole.path().join("seed-0/mixture/model/model.safetensors").exists());
    assert!(!whole.path().join("seed-0/mixture/checkpoint").exists());
    for patience in 2..9 {
        let directory = tempfile::tempdir().unwrap();
        let (again, seen_again, resumed) = finish(directory.path(), patience);
        assert_eq!((&again, &seen_again), (&report, &seen), "{patience}");
        assert!(!resumed.is_empty(), "{patience}");
        assert_eq!(files(directory.path()), files(whole.path()), "{patience}");
    }
    let mut files = files(whole.path());
    files.retain(|name, _| !name.ends_with("result.json"));
    let text: String = files.iter().map(|(name, text)| format!("{name}\n{text}")).collect();
    insta::assert_snapshot!("kept_files", text);

    // Once finished, it opens no session, and is not mistaken for another fine-tuning run.
    let mut open = |_: Option<&Path>| panic!("there is nothing to do");
    let again =
        glue(folder.path(), Some(whole.path()), &settings, &mut open, &mut |_, _| {}).unwrap().unwrap();
    assert_eq!(again, report);
    let other = FineTuneSettings { learning_rate: 0.5, ..settings };
    let error = glue(folder.path(), Some(whole.path()), &other, &mut open, &mut |_, _| {}).unwrap_err();
    let GlueError::Training { error, .. } = error else { panic!("{error}") };
    let TrainError::Changed(changed) = *error else { panic!("{error}") };
    assert_eq!(changed.difference.key, "learning_rate");
    fs::write(whole.path().join("seed-0/mixture/result.json"), "{").unwrap();
    let error = glue(folder.path(), Some(whole.path()), &settings, &mut open, &mut |_, _| {}).unwrap_err();
    assert!(matches!(&error, GlueError::Damaged { .. }), "{error}");
}

/// A model that forgets everything in its last step: the predictions kept of the best step differ from those
/// of the last.
#[test]
fn best_and_last_predictions_and_submissions_are_those_of_their_steps() {
    let folder = tempfile::tempdir().unwrap();
    write_glue(folder.path());
    // Known sentences: a model that remembers answers "positive", and a forgetful one's babble becomes class 0.
    fs::write(folder.path().join("SST-2/test.tsv"), "index\tsentence\n0\ta gripping film\n").unwrap();
    fs::write(folder.path().join("STS-B/test.tsv"), "index\tsentence1\tsentence2\n0\tA.\tD.\n").unwrap();
    for (at, positive, score) in [(AtStep::Best, "0\t1", "0\t5.000"), (AtStep::Last, "0\t0", "0\t0.000")] {
        let settings = FineTuneSettings { submission: Some(at), skip_bad_rows: true, ..settings() };
        let kept = tempfile::tempdir().unwrap();
        let mut open =
            |_: Option<&Path>| Ok(Shared::new(Memory { forgets_at: Some(3), ..Memory::default() }).opened());
        let report = glue(folder.path(), Some(kept.path()), &settings, &mut open, &mut |_, _| {}).unwrap();
        let scores = report.unwrap().seeds.remove(0).tasks;
        assert!(scores.iter().all(|task| task.best.step < 3 && task.last.step == 3));

        let read = |name: &str| fs::read_to_string(kept.path().join("seed-0").join(name)).unwrap();
        let valid = |name: &str| read(name).matches("\"valid\":true").count();
        assert_eq!(valid("sst2/predictions/sst2-best.jsonl"), 3);
        assert_eq!(valid("sst2/predictions/sst2-last.jsonl"), 0);
        assert_eq!(read("submission/SST-2.tsv").lines().nth(1), Some(positive));
        assert_eq!(read("submission/STS-B.tsv").lines().nth(1), Some(score));
    }
}
