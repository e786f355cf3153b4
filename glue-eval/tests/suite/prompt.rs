//! Prompts and targets of every task. The expected texts are the examples in T5's appendix D and in its
//! preprocessors' doc comments, where available.

use std::path::Path;

use glue_eval::Task;
use glue_eval::data::{Example, Label};
use glue_eval::prompt::{input_text, may_become_answer, parse_class, parse_score, score_text, target_text};
use glue_eval::task::Answer;
use proptest::prelude::*;
use t5_model::text::Tokenizer;

fn example(texts: &[&str]) -> Example {
    Example { index: 0, texts: texts.iter().map(|&text| text.to_owned()).collect(), label: None }
}

#[test]
fn every_task_is_prompted_as_t5_does() {
    let pair = example(&["A first one.", "A second one."]);
    let single = example(&["It 's \"charming\" ."]);
    let expected = [
        (Task::Cola, &single, "cola sentence: It 's \"charming\" ."),
        (Task::Sst2, &single, "sst2 sentence: It 's \"charming\" ."),
        (Task::Mrpc, &pair, "mrpc sentence1: A first one. sentence2: A second one."),
        (Task::Stsb, &pair, "stsb sentence1: A first one. sentence2: A second one."),
        (Task::Qqp, &pair, "qqp question1: A first one. question2: A second one."),
        (Task::Mnli, &pair, "mnli hypothesis: A first one. premise: A second one."),
        (Task::Qnli, &pair, "qnli question: A first one. sentence: A second one."),
        (Task::Rte, &pair, "rte sentence1: A first one. sentence2: A second one."),
    ];
    for (task, example, text) in expected {
        assert_eq!(input_text(task, example), text);
    }
}

#[test]
fn every_class_has_its_word_in_index_order() {
    let expected: [(Task, &[&str]); 7] = [
        (Task::Cola, &["unacceptable", "acceptable"]),
        (Task::Sst2, &["negative", "positive"]),
        (Task::Mrpc, &["not_equivalent", "equivalent"]),
        (Task::Qqp, &["not_duplicate", "duplicate"]),
        (Task::Mnli, &["entailment", "neutral", "contradiction"]),
        (Task::Qnli, &["entailment", "not_entailment"]),
        (Task::Rte, &["entailment", "not_entailment"]),
    ];
    for (task, words) in expected {
        for (class, &word) in words.iter().enumerate() {
            assert_eq!(target_text(task, Label::Class(class)).as_deref(), Some(word));
            assert_eq!(parse_class(words, word), class as i32);
        }
        assert_eq!(target_text(task, Label::Class(words.len())), None);
        assert_eq!(target_text(task, Label::Score(1.0)), None);
        let Answer::Class { values, .. } = &task.spec().answer else { panic!("{task} has classes") };
        assert_eq!(values.len(), words.len());
    }
    assert_eq!(target_text(Task::Stsb, Label::Score(3.8)).as_deref(), Some("3.8"));
}

/// TensorFlow rounds halves to even, in single precision: 2.5 × 5 = 12.5 becomes 12, and 1.5 × 5 = 7.5 becomes 8.
#[test]
fn scores_round_to_fifths() {
    let expected = [
        (0.0, "0.0"),
        (5.0, "5.0"),
        (2.57, "2.6"),
        (3.25, "3.2"),
        (2.5, "2.4"),
        (0.5, "0.4"),
        (1.5, "1.6"),
        (3.5, "3.6"),
        (4.5, "4.4"),
        (0.0999, "0.0"),
        (0.1001, "0.2"),
    ];
    for (score, text) in expected {
        assert_eq!(score_text(score), text, "{score}");
    }
}

#[test]
fn outputs_match_exactly_or_are_invalid() {
    let words = ["entailment", "not_entailment"];
    for output in ["", "Entailment", "entailment ", "entail", "entailment entailment", "0"] {
        assert_eq!(parse_class(&words, output), -1, "{output:?}");
    }
    for (output, score) in
        [("3.8", 3.8), (" 3.8 ", 3.8), ("4", 4.0), ("-2.5", -2.5), ("7.0", 7.0), ("1e0", 1.0)]
    {
        assert_eq!(parse_score(output), score, "{output:?}");
    }
    for output in ["", "three", "3,8", "3.8 4.0", "nan", "inf", "-infinity", "0x3"] {
        assert_eq!(parse_score(output), -1.0, "{output:?}");
    }
}

proptest! {
    #[test]
    fn a_beginning_of_an_answer_may_become_one(
        text in "[ ]?[+-]?[0-9]{0,3}[.]?[0-9]{0,3}(e[+-]?[0-9]{1,2})?[ ]?", cut in any::<prop::sample::Index>(),
    ) {
        let answers = if parse_score(&text) == -1.0 { vec![] } else { vec![(Task::Stsb, text.as_str())] };
        for (task, answer) in answers.into_iter().chain([(Task::Cola, "acceptable"), (Task::Rte, "not_entailment")]) {
            let beginning = &answer[..cut.index(answer.len() + 1)];
            prop_assert!(may_become_answer(task, beginning), "{}: {:?}", task, beginning);
        }
    }
}

#[test]
fn what_can_become_no_answer() {
    let hopeless =
        [(Task::Cola, "acceptables"), (Task::Cola, "entail"), (Task::Rte, "Not"), (Task::Rte, " entail")];
    let numbers = ["3..", "3.8.", "three", "3,", "3 8", "e", "--"].map(|text| (Task::Stsb, text));
    for (task, text) in hopeless.into_iter().chain(numbers) {
        assert!(!may_become_answer(task, text), "{task}: {text:?}");
    }
}

#[test]
fn tasks_parse_from_both_of_their_names() {
    for task in Task::ALL {
        assert_eq!(task.spec().name.parse::<Task>().unwrap(), task);
        assert_eq!(task.to_string().parse::<Task>().unwrap(), task);
        assert_eq!(serde_json::to_string(&task).unwrap(), format!("{:?}", task.spec().name));
    }
    insta::assert_snapshot!(
        "wnli".parse::<Task>().unwrap_err(),
        @r#"unknown GLUE task "wnli"; the tasks are cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte"#
    );
}

/// T5's targets must survive a round trip through its vocabulary, or no answer could ever be right. The
/// vocabulary is not in the repository; the test does nothing where it is absent.
#[test]
fn targets_survive_the_vocabulary_of_t5() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/tokenizer");
    if !folder.is_dir() {
        return;
    }
    let tokenizer = Tokenizer::load(&folder).unwrap();
    let scores = (0..=25).map(|fifths| Label::Score(fifths as f32 / 5.0));
    let labels: Vec<Label> = (0..3).map(Label::Class).chain(scores).collect();
    let targets =
        Task::ALL.iter().flat_map(|&task| labels.iter().filter_map(move |&label| target_text(task, label)));
    let targets: Vec<String> = targets.collect();
    assert_eq!(targets.len(), 6 * 2 + 3 + 26);
    for target in targets {
        let tokens = tokenizer.encode(&target).unwrap();
        assert_eq!(tokenizer.decode(&tokens).unwrap(), target);
        assert!(
            tokens.len() <= target.len() + 1 && !tokens.contains(&tokenizer.unk_id()),
            "{target}: {tokens:?}"
        );
    }
}
