//! The loop around a session, with a session that learns by heart: it answers a prompt it was trained on with the
//! target of then, and any other with babble.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use glue_eval::files::{BadRows, Example, Label, TaskData, read_task};
use glue_eval::{FineTuneSettings, GlueError, Place, Progress, Task, fine_tune, fine_tune_tasks};

use crate::session::{Memory, tokenizer};

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
    TaskData { task: Task::Sst2, train: examples.clone(), dev: vec![examples], skipped: 0 }
}

fn settings() -> FineTuneSettings {
    FineTuneSettings { steps: 3, batch_size: 4, micro_batch_size: 3, evaluate_every: 1, ..Default::default() }
}

fn run(session: &mut Memory, settings: &FineTuneSettings) -> Result<glue_eval::TaskReport, GlueError> {
    fine_tune(session, &tokenizer(), &sst2(), settings, &mut |_| {})
}

#[test]
fn what_is_learned_is_scored() {
    let mut session = Memory::default();
    let report = run(&mut session, &settings()).unwrap();
    // Three steps of four are two passes over the six examples; after one step, four of them are known.
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

/// The decoded text does not show the sentinel, so that the answers read as if they were right.
#[test]
fn an_answer_with_a_sentinel_is_invalid() {
    let mut session = Memory { begins_with_sentinel: true, ..Memory::default() };
    let report = run(&mut session, &settings()).unwrap();
    assert_eq!((report.last.score.mean(), report.last.score.invalid), (0.0, 6));
}

/// Rows that nobody has learned babble, and are stopped at once.
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
    let failed = fine_tune(&mut Memory::default(), &tokenizer(), &untaught, &settings(), &mut |_| {});
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

#[test]
fn every_task_starts_from_a_session_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    write_glue(folder.path());
    let tasks = [Task::Sst2, Task::Stsb];
    let settings = FineTuneSettings { max_train_examples: Some(2), skip_bad_rows: true, ..settings() };
    let (mut opened, mut evaluated) = (Vec::new(), 0);
    let report = fine_tune_tasks(
        &tasks,
        folder.path(),
        &tokenizer(),
        &settings,
        &mut |task| {
            opened.push(task);
            Ok(Box::new(Memory::default()))
        },
        &mut |progress| evaluated += usize::from(matches!(progress, Progress::Evaluated { .. })),
    )
    .unwrap();
    assert_eq!((opened.as_slice(), evaluated), (&tasks[..], 6));
    insta::assert_snapshot!("report", report.table("memory").text());
    let json = serde_json::to_string(&report).unwrap();
    let read: glue_eval::GlueReport = serde_json::from_str(&json).unwrap();
    assert_eq!(read.table("memory").text(), report.table("memory").text());
    assert_eq!(read.settings, report.settings);
}

#[test]
fn a_bad_row_of_the_last_task_is_found_before_the_first_step() {
    let folder = tempfile::tempdir().unwrap();
    write_glue(folder.path());
    let mut opened = 0;
    let error = fine_tune_tasks(
        &[Task::Sst2, Task::Stsb],
        folder.path(),
        &tokenizer(),
        &settings(),
        &mut |_| {
            opened += 1;
            Ok(Box::new(Memory::default()))
        },
        &mut |_| {},
    )
    .unwrap_err();
    assert!(matches!(&error, GlueError::Row { place: Place::Line(5), .. }), "{error}");
    assert_eq!(opened, 0);
    assert!(read_task(Task::Stsb, folder.path(), BadRows::Skip).is_ok_and(|data| data.skipped == 1));
}
