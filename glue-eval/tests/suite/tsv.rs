//! The published layouts, byte for byte where it matters: no header (CoLA), byte-order mark and literal quotes
//! (MRPC), many columns (MNLI, STS-B), CR LF.

use std::fs;
use std::path::{Path, PathBuf};

use glue_eval::data::{BadRows, Example, Label, read_labelled, read_task, read_test};
use glue_eval::{GlueError, Task};

const MNLI_HEADER: &str = "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t\
    sentence1_parse\tsentence2_parse\tsentence1\tsentence2\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label";

fn file(content: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dev.tsv");
    fs::write(&path, content).unwrap();
    (folder, path)
}

fn examples(task: Task, content: &str) -> Vec<Example> {
    let (_folder, path) = file(content);
    read_labelled(task, &path, BadRows::Refuse).unwrap().examples
}

fn example(texts: &[&str], label: Label) -> Example {
    Example { index: 0, texts: texts.iter().map(|&text| text.to_owned()).collect(), label: Some(label) }
}

#[test]
fn every_task_reads_its_layout() {
    let mnli = format!(
        "{MNLI_HEADER}\n0\t1n\t1e\tslate\t( p )\t( h )\t\t\tPremise.\tHypothesis.\tneutral\tneutral\tcontradiction\tneutral\tneutral\tneutral\n"
    );
    let expected: [(Task, &str, &[&str], Label); 8] = [
        (Task::Cola, "gj04\t0\t*\tThey drank the pub.\n", &["They drank the pub."], Label::Class(0)),
        (
            Task::Sst2,
            "sentence\tlabel\nhide new secretions \t0\n",
            &["hide new secretions "],
            Label::Class(0),
        ),
        (
            Task::Mrpc,
            "\u{feff}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tHe said \" no .\t\" No \" , he said .\n",
            &["He said \" no .", "\" No \" , he said ."],
            Label::Class(1),
        ),
        (
            Task::Stsb,
            "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n\
             0\tmain-news\tMSRpar\t2012\t1\tnone\tnone\tA plane.\tAn air plane.\t4.250\n",
            &["A plane.", "An air plane."],
            Label::Score(4.25),
        ),
        (
            Task::Qqp,
            "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n5\t1\t2\tWhy?\tHow?\t1\n",
            &["Why?", "How?"],
            Label::Class(1),
        ),
        (Task::Mnli, &mnli, &["Hypothesis.", "Premise."], Label::Class(1)),
        (
            Task::Qnli,
            "index\tquestion\tsentence\tlabel\n0\tWhen?\tIn 1066.\tnot_entailment\n",
            &["When?", "In 1066."],
            Label::Class(1),
        ),
        (
            Task::Rte,
            "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tentailment\n",
            &["A.", "B."],
            Label::Class(0),
        ),
    ];
    for (task, content, texts, label) in expected {
        assert_eq!(examples(task, content), [example(texts, label)], "{task}");
        assert_eq!(
            examples(task, &content.replace('\n', "\r\n")),
            [example(texts, label)],
            "{task} with CR LF"
        );
        assert_eq!(
            examples(task, content.trim_end_matches('\n')),
            [example(texts, label)],
            "{task} cut short"
        );
    }
}

#[test]
fn columns_are_found_by_name_and_the_test_split_has_no_label() {
    let swapped = examples(Task::Rte, "label\tsentence2\tindex\tsentence1\nentailment\tB.\t0\tA.\n");
    assert_eq!(swapped, [example(&["A.", "B."], Label::Class(0))]);

    let (_folder, path) = file("index\tsentence\n7\tBill whistled past the house.\n");
    let test = read_test(Task::Cola, &path, BadRows::Refuse).unwrap().examples;
    let texts = vec!["Bill whistled past the house.".to_owned()];
    assert_eq!(test, [Example { index: 7, texts, label: None }]);
}

/// All rows are counted, whether they are valid examples or not; in QQP's labelled files, `id` is not a row
/// number.
#[test]
fn examples_are_known_by_their_index() {
    let indices = |examples: Vec<Example>| examples.iter().map(|example| example.index).collect::<Vec<_>>();
    let (_folder, path) = file(
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n91\t2\t3\tA?\tB?\t0\n92\t2\t3\tA?\n93\t2\t3\tA?\tC?\t0\n",
    );
    assert_eq!(indices(read_labelled(Task::Qqp, &path, BadRows::Skip).unwrap().examples), [0, 2]);
    let (_folder, path) = file("id\tquestion1\tquestion2\n3\tA?\tB?\n1\tA?\tC?\n");
    assert_eq!(indices(read_test(Task::Qqp, &path, BadRows::Refuse).unwrap().examples), [3, 1]);
    let (_folder, path) = file("sentence\nA.\nB.\n");
    assert_eq!(indices(read_test(Task::Sst2, &path, BadRows::Refuse).unwrap().examples), [0, 1]);
    let (_folder, path) = file("index\tsentence\n1st\tA.\n");
    let error = read_test(Task::Sst2, &path, BadRows::Refuse).unwrap_err().to_string();
    assert!(
        error.ends_with(":2: column \"index\" has \"1st\" where an example's number is expected"),
        "{error}"
    );
}

#[test]
fn errors_name_file_line_and_column() {
    let long = "not a label but a whole paragraph that somebody put where the label belongs";
    let cases: &[(Task, Vec<u8>)] = &[
        (Task::Rte, b"index\tsentence1\tsentence2\nx\ty\tz\n".to_vec()),
        (Task::Rte, b"index\tsentence1\tsentence2\tlabel\n0\tA.\n".to_vec()),
        (Task::Rte, b"index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tstray\tentailment\n".to_vec()),
        (
            Task::Rte,
            b"index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tentailment\n\n0\tA.\tB.\tentailment\n".to_vec(),
        ),
        (Task::Rte, format!("index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\t{long}\n").into_bytes()),
        (Task::Cola, b"gj04\t1\t\tFine.\ngj04\t1\t\tLatin-1: caf\xe9.\n".to_vec()),
        (Task::Cola, b"gj04\t2\t\tFine.\n".to_vec()),
        (Task::Stsb, b"sentence1\tsentence2\tscore\nA.\tB.\t5.1\n".to_vec()),
        (Task::Stsb, b"sentence1\tsentence2\tscore\nA.\tB.\tnan\n".to_vec()),
        (Task::Mnli, format!("{MNLI_HEADER}\n0\t\t\t\t\t\t\t\tP\tH\t\t\t\t\t\t-\n").into_bytes()),
        (Task::Qnli, b"index\tquestion\tsentence\tlabel\n".to_vec()),
        (Task::Qnli, Vec::new()),
    ];
    let messages: Vec<String> = cases
        .iter()
        .map(|(task, content)| {
            let (folder, path) = file(content);
            let error = read_labelled(*task, &path, BadRows::Refuse).unwrap_err().to_string();
            error.replace(&format!("{}/", folder.path().display()), "")
        })
        .collect();
    insta::assert_snapshot!("errors", messages.join("\n"));

    let missing = read_labelled(Task::Rte, Path::new("absent/dev.tsv"), BadRows::Refuse).unwrap_err();
    assert!(
        matches!(&missing, GlueError::Io { path, .. } if path == Path::new("absent/dev.tsv")),
        "{missing}"
    );
}

#[test]
fn bad_rows_can_be_skipped_and_are_counted() {
    let (_folder, path) = file(
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\tWhy?\n1\t2\t3\tWhy?\tHow?\t0\n1\t2\t3\tWhy?\tHow?\t\n",
    );
    let read = read_labelled(Task::Qqp, &path, BadRows::Skip).unwrap();
    assert_eq!((read.examples.len(), read.skipped), (1, 2));
}

/// The folder of real files is not in the repository; where it is absent, the layouts above must do.
#[test]
fn real_files_have_their_row_counts() {
    let glue = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/glue");
    if !glue.is_dir() {
        return;
    }
    let expected: [(Task, usize, &[usize]); 8] = [
        (Task::Cola, 8_551, &[1_043]),
        (Task::Sst2, 67_349, &[872]),
        (Task::Mrpc, 3_668, &[408]),
        (Task::Stsb, 5_749, &[1_500]),
        (Task::Qqp, 19_714, &[9_917]),
        (Task::Mnli, 25_829, &[9_815, 1_000]),
        (Task::Qnli, 14_747, &[5_463]),
        (Task::Rte, 2_490, &[277]),
    ];
    for (task, train, dev) in expected {
        let data = read_task(task, &glue, BadRows::Refuse).unwrap();
        assert_eq!(data.train.len(), train, "{task}");
        assert_eq!(data.dev.iter().map(Vec::len).collect::<Vec<_>>(), dev, "{task}");
        for set in task.spec().evaluation_sets {
            let path = glue.join(task.spec().title).join(set.test);
            if path.is_file() {
                let test = read_test(task, &path, BadRows::Refuse).unwrap();
                assert!(test.examples.iter().all(|example| example.label.is_none()));
            }
        }
    }
}
