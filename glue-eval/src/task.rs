//! The eight GLUE tasks as data: where the published files keep their texts and labels, how T5 spells them
//! (Raffel et al. 2020, appendix D), and which metrics they are measured with.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::metrics::{ClassMetric, ScoreMetric};

/// A GLUE task, in the column order of the paper's Table 5. WNLI is left out, as in T5 and the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Task {
    /// The Corpus of Linguistic Acceptability.
    Cola,
    /// The Stanford Sentiment Treebank.
    Sst2,
    /// The Microsoft Research Paraphrase Corpus.
    Mrpc,
    /// The Semantic Textual Similarity Benchmark.
    Stsb,
    /// Quora Question Pairs.
    Qqp,
    /// Multi-Genre Natural Language Inference.
    Mnli,
    /// Question-answering Natural Language Inference.
    Qnli,
    /// Recognizing Textual Entailment.
    Rte,
}

/// What is fixed about a task.
#[derive(Debug)]
pub struct TaskSpec {
    /// T5's name for the task: it opens every prompt, and names the task on the command line, in recipes and on the
    /// Hugging Face Hub.
    pub name: &'static str,
    /// GLUE's spelling, which is also the name of the folder with the task's TSV files.
    pub title: &'static str,
    /// The texts, in the order of the prompt.
    pub fields: &'static [Field],
    /// What is asked for.
    pub answer: Answer,
    /// The columns of the labelled files, if these have no header row.
    pub headerless: Option<&'static [&'static str]>,
    /// Rows of the official training file.
    pub train_rows: usize,
    /// The sets a model is evaluated on: one, or two for MNLI.
    pub evaluation_sets: &'static [EvaluationSet],
}

/// One text of an example.
#[derive(Debug)]
pub struct Field {
    /// T5's name for the field in the prompt, which is also the column's name on the Hugging Face Hub.
    pub prompt: &'static str,
    /// The column's name in the header of the TSV files.
    pub column: &'static str,
}

/// What a task asks for.
#[derive(Debug)]
pub enum Answer {
    /// One of several classes.
    Class {
        /// The column of the label in the TSV files.
        column: &'static str,
        /// The labels in the TSV files, in index order.
        values: &'static [&'static str],
        /// The label words that T5 reads and writes, in index order.
        words: &'static [&'static str],
        /// What the answers are measured with.
        metrics: &'static [ClassMetric],
    },
    /// A number from 0 to 5.
    Score {
        /// The column of the score in the TSV files.
        column: &'static str,
        /// What the answers are measured with.
        metrics: &'static [ScoreMetric],
    },
}

/// A development set and a test set, drawn from one distribution.
#[derive(Debug)]
pub struct EvaluationSet {
    /// Tells the sets of a task apart; empty if there is only one.
    pub name: &'static str,
    /// The TSV file of the development set.
    pub dev: &'static str,
    /// The TSV file of the test set.
    pub test: &'static str,
    /// Rows of the official development file.
    pub dev_rows: usize,
    /// Rows of the official test file.
    pub test_rows: usize,
}

const SENTENCE: &[Field] = &[field("sentence", "sentence")];
const SENTENCE_PAIR: &[Field] = &[field("sentence1", "sentence1"), field("sentence2", "sentence2")];
const ENTAILMENT: &[&str] = &["entailment", "not_entailment"];
const ACCURACY: &[ClassMetric] = &[ClassMetric::Accuracy];

const fn field(prompt: &'static str, column: &'static str) -> Field {
    Field { prompt, column }
}

/// Two classes that the TSV files number.
const fn binary(
    column: &'static str,
    words: &'static [&'static str; 2],
    metrics: &'static [ClassMetric],
) -> Answer {
    Answer::Class { column, values: &["0", "1"], words, metrics }
}

/// Classes that the TSV files spell as T5 does.
const fn spelled(column: &'static str, words: &'static [&'static str]) -> Answer {
    Answer::Class { column, values: words, words, metrics: ACCURACY }
}

const fn one_set(dev_rows: usize, test_rows: usize) -> EvaluationSet {
    EvaluationSet { name: "", dev: "dev.tsv", test: "test.tsv", dev_rows, test_rows }
}

/// In the order of [`Task`].
static SPECS: [TaskSpec; 8] = [
    TaskSpec {
        name: "cola",
        title: "CoLA",
        fields: SENTENCE,
        answer: binary("label", &["unacceptable", "acceptable"], &[ClassMetric::Matthews]),
        headerless: Some(&["source", "label", "mark", "sentence"]),
        train_rows: 8_551,
        evaluation_sets: &[one_set(1_043, 1_063)],
    },
    TaskSpec {
        name: "sst2",
        title: "SST-2",
        fields: SENTENCE,
        answer: binary("label", &["negative", "positive"], ACCURACY),
        headerless: None,
        train_rows: 67_349,
        evaluation_sets: &[one_set(872, 1_821)],
    },
    TaskSpec {
        name: "mrpc",
        title: "MRPC",
        fields: &[field("sentence1", "#1 String"), field("sentence2", "#2 String")],
        answer: binary(
            "Quality",
            &["not_equivalent", "equivalent"],
            &[ClassMetric::F1, ClassMetric::Accuracy],
        ),
        headerless: None,
        train_rows: 3_668,
        evaluation_sets: &[one_set(408, 1_725)],
    },
    TaskSpec {
        name: "stsb",
        title: "STS-B",
        fields: SENTENCE_PAIR,
        answer: Answer::Score { column: "score", metrics: &[ScoreMetric::Pearson, ScoreMetric::Spearman] },
        headerless: None,
        train_rows: 5_749,
        evaluation_sets: &[one_set(1_500, 1_379)],
    },
    TaskSpec {
        name: "qqp",
        title: "QQP",
        fields: &[field("question1", "question1"), field("question2", "question2")],
        answer: binary(
            "is_duplicate",
            &["not_duplicate", "duplicate"],
            &[ClassMetric::Accuracy, ClassMetric::F1],
        ),
        headerless: None,
        train_rows: 363_846,
        evaluation_sets: &[one_set(40_430, 390_965)],
    },
    TaskSpec {
        name: "mnli",
        title: "MNLI",
        fields: &[field("hypothesis", "sentence2"), field("premise", "sentence1")],
        answer: spelled("gold_label", &["entailment", "neutral", "contradiction"]),
        headerless: None,
        train_rows: 392_702,
        evaluation_sets: &[
            EvaluationSet {
                name: "matched",
                dev: "dev_matched.tsv",
                test: "test_matched.tsv",
                dev_rows: 9_815,
                test_rows: 9_796,
            },
            EvaluationSet {
                name: "mismatched",
                dev: "dev_mismatched.tsv",
                test: "test_mismatched.tsv",
                dev_rows: 9_832,
                test_rows: 9_847,
            },
        ],
    },
    TaskSpec {
        name: "qnli",
        title: "QNLI",
        fields: &[field("question", "question"), field("sentence", "sentence")],
        answer: spelled("label", ENTAILMENT),
        headerless: None,
        train_rows: 104_743,
        evaluation_sets: &[one_set(5_463, 5_463)],
    },
    TaskSpec {
        name: "rte",
        title: "RTE",
        fields: SENTENCE_PAIR,
        answer: spelled("label", ENTAILMENT),
        headerless: None,
        train_rows: 2_490,
        evaluation_sets: &[one_set(277, 3_000)],
    },
];

impl Task {
    /// All tasks, in the column order of the paper's Table 5.
    pub const ALL: [Task; 8] =
        [Task::Cola, Task::Sst2, Task::Mrpc, Task::Stsb, Task::Qqp, Task::Mnli, Task::Qnli, Task::Rte];

    /// What is fixed about the task.
    pub fn spec(self) -> &'static TaskSpec {
        &SPECS[self as usize]
    }

    /// The names of the task's columns in a table of results: its metrics, preceded by the evaluation set's name if
    /// there are several.
    pub fn metric_names(self) -> Vec<String> {
        let spec = self.spec();
        let metrics: Vec<&str> = match &spec.answer {
            Answer::Class { metrics, .. } => metrics.iter().map(|metric| metric.name()).collect(),
            Answer::Score { metrics, .. } => metrics.iter().map(|metric| metric.name()).collect(),
        };
        let sets = spec.evaluation_sets.iter();
        sets.flat_map(|set| metrics.iter().map(move |metric| metric_name(set, metric))).collect()
    }
}

/// `accuracy`, or `matched accuracy` if the set has a name.
pub(crate) fn metric_name(set: &EvaluationSet, metric: &str) -> String {
    if set.name.is_empty() { metric.to_owned() } else { format!("{} {metric}", set.name) }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.spec().title)
    }
}

impl FromStr for Task {
    type Err = UnknownTask;

    /// Accepts T5's name and GLUE's title in any case: `sst2`, `SST-2`.
    fn from_str(name: &str) -> Result<Self, UnknownTask> {
        let matches = |task: &Task| {
            let spec = task.spec();
            name.eq_ignore_ascii_case(spec.name) || name.eq_ignore_ascii_case(spec.title)
        };
        Task::ALL.into_iter().find(matches).ok_or_else(|| UnknownTask { name: name.to_owned() })
    }
}

/// A name that no task has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown GLUE task {name:?}; the tasks are {}", Task::ALL.map(|task| task.spec().name).join(", "))]
pub struct UnknownTask {
    /// The name as it was given.
    pub name: String,
}
