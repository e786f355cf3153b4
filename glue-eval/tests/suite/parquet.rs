//! The Hugging Face Hub's layout, read from files written by pyarrow (`goldens/parquet.py`).

use std::fs;
use std::path::{Path, PathBuf};

use glue_eval::data::{BadRows, Example, Label, Split, read_labelled, read_split, read_task};
use glue_eval::task::Answer;
use glue_eval::{GlueError, Task};
use proptest::prelude::*;

fn goldens(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

/// Copies a folder and its subfolders of files.
fn copied(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for folder in fs::read_dir(from).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir()) {
        fs::create_dir(to.path().join(folder.file_name())).unwrap();
        for file in fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
            fs::copy(file.path(), to.path().join(folder.file_name()).join(file.file_name())).unwrap();
        }
    }
    to
}

/// The contents of a split according to pyarrow.
fn expected(task: Task, rows: &serde_json::Value, labelled: bool) -> Vec<Example> {
    let example = |row: &serde_json::Value| {
        let text = |column| row["texts"][column].as_str().unwrap().to_owned();
        let label = match task.spec().answer {
            Answer::Class { .. } => row["label"].as_u64().map(|class| Label::Class(class as usize)),
            Answer::Score { .. } => row["label"].as_f64().map(|score| Label::Score(score as f32)),
        };
        Example {
            index: row["index"].as_u64().unwrap(),
            texts: task.spec().fields.iter().map(|field| text(field.prompt)).collect(),
            label: label.filter(|_| labelled),
        }
    };
    rows.as_array().unwrap().iter().map(example).collect()
}

#[test]
fn every_task_reads_what_pyarrow_wrote() {
    let folder = goldens("parquet");
    let known = fs::read_to_string(folder.join("examples.json")).unwrap();
    let known: serde_json::Value = serde_json::from_str(&known).unwrap();
    let mut read = 0;
    for task in Task::ALL {
        for split in Split::all(task) {
            let name = format!("{}/{split}", task.spec().name);
            let Some(rows) = known.get(&name) else { continue };
            let found = read_split(task, split, &folder, BadRows::Refuse).unwrap().examples;
            assert_eq!(found, expected(task, rows, split.is_labelled()), "{name}");
            read += 1;
        }
        read_task(task, &folder, BadRows::Refuse).unwrap();
    }
    assert_eq!(read, known.as_object().unwrap().len());
}

#[test]
fn a_task_is_found_in_either_layout() {
    let folder = copied(&goldens("parquet"));
    let glue = folder.path();
    let texts = |task| {
        let examples = read_split(task, Split::Train, glue, BadRows::Refuse).unwrap().examples;
        examples.into_iter().flat_map(|example| example.texts).collect::<Vec<_>>()
    };
    assert_eq!(texts(Task::Cola).len(), 3);
    fs::create_dir_all(glue.join("CoLA")).unwrap();
    fs::write(glue.join("CoLA/train.tsv"), "gj04\t1\t\tOf the official file.\n").unwrap();
    assert_eq!(texts(Task::Cola), ["Of the official file."]);
    assert_eq!(texts(Task::Sst2).len(), 5);
}

#[test]
fn errors_name_file_row_and_column() {
    let folder = goldens("bad_parquet");
    let names = ["null", "utf8", "class", "unlabelled", "words", "lists", "columns", "index", "empty"];
    let mut messages = Vec::new();
    let mut note = |error: GlueError, root: &Path| {
        messages.push(error.to_string().replace(&format!("{}/", root.display()), ""));
    };
    for name in names {
        let path = folder.join(name).with_extension("parquet");
        note(read_labelled(Task::Cola, &path, BadRows::Refuse).unwrap_err(), &folder);
    }
    let sound = goldens("parquet/cola/train-00000-of-00001.parquet");
    note(read_labelled(Task::Stsb, &sound, BadRows::Refuse).unwrap_err(), sound.parent().unwrap());
    for (task, bad) in [(Task::Stsb, "mrpc"), (Task::Mrpc, "stsb")] {
        let path = goldens("parquet").join(bad).join("train-00000-of-00001.parquet");
        note(read_labelled(task, &path, BadRows::Refuse).unwrap_err(), &goldens("parquet"));
    }

    let broken = copied(&goldens("parquet"));
    let glue = broken.path();
    let whole = fs::read(&sound).unwrap();
    fs::write(glue.join("cola/train-00000-of-00001.parquet"), &whole[..whole.len() / 2]).unwrap();
    fs::write(glue.join("cola/validation-00000-of-00001.parquet"), "<html>Not found</html>").unwrap();
    let mrpc = glue.join("mrpc/train-00000-of-00001.parquet");
    let mut bytes = fs::read(&mrpc).unwrap();
    bytes[135] ^= 20; // the claimed length of a page's contents
    fs::write(&mrpc, bytes).unwrap();
    fs::remove_file(glue.join("sst2/train-00001-of-00003.parquet")).unwrap();
    fs::remove_file(glue.join("rte/train-00001-of-00002.parquet")).unwrap();
    fs::remove_dir_all(glue.join("qqp")).unwrap();
    for task in [Task::Cola, Task::Mrpc, Task::Sst2, Task::Rte, Task::Qqp] {
        note(read_task(task, glue, BadRows::Refuse).unwrap_err(), glue);
    }
    let dev = Split::Dev(&Task::Cola.spec().evaluation_sets[0]);
    note(read_split(Task::Cola, dev, glue, BadRows::Refuse).unwrap_err(), glue);
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn bad_rows_can_be_skipped_and_are_counted() {
    for (name, left) in [("null", [0, 2]), ("utf8", [0, 2]), ("class", [0, 1]), ("index", [0, 2])] {
        let path = goldens("bad_parquet").join(name).with_extension("parquet");
        let read = read_labelled(Task::Cola, &path, BadRows::Skip).unwrap();
        assert_eq!(read.skipped, 1, "{name}");
        let indices: Vec<u64> = read.examples.iter().map(|example| example.index).collect();
        assert_eq!(indices, left, "{name}");
    }
}

proptest! {
    /// A damaged file gives an error, or some rows; it never ends the process.
    #[test]
    fn damage_does_not_panic(
        name in prop::sample::select(vec!["cola/train", "cola/validation", "cola/test", "mrpc/train", "mrpc/validation"]),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..8),
        kept in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = fs::read(goldens("parquet").join(format!("{name}-00000-of-00001.parquet"))).unwrap();
        for (position, mask) in flips {
            let position = position.index(bytes.len());
            bytes[position] ^= mask;
        }
        if cut {
            bytes.truncate(kept.index(bytes.len()));
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("damaged.parquet");
        fs::write(&path, bytes).unwrap();
        let task = if name.starts_with("cola") { Task::Cola } else { Task::Mrpc };
        let _ = read_labelled(task, &path, BadRows::Skip);
    }
}
