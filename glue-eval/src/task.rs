//! The eight GLUE tasks as data: where the published files keep their texts and labels, how T5 spells them
//! (Raffel et al. 2020, appendix D), and which metrics they are measured with.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::metrics::{ClassMetric, ScoreMetric};

/// A GLUE task, in the column order of the paper's Table 5. WNLI is left out, as in T5 and the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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

const SENTENCE: &[Field] = &[Field { prompt: "sentence", column: "sentence" }];
const SENTENCE_PAIR: &[Field] =
    &[Field { prompt: "sentence1", column: "sentence1" }, Field { prompt: "sentence2", column: "sentence2" }];
const ENTAILMENT: &[&str] = &["entailment", "not_entailment"];
const ACCURACY: &[ClassMetric] = &[ClassMetric::Accuracy];

const fn one_set(dev_rows: usize, test_rows: usize) -> EvaluationSet {
    EvaluationSet { name: "", dev: "dev.tsv", test: "test.tsv", dev_rows, test_rows }
}

static COLA: TaskSpec = TaskSpec {
    name: "cola",
    title: "CoLA",
    fields: SENTENCE,
    answer: Answer::Class {
        column: "label",
        values: &["0", "1"],
        words: &["unacceptable", "acceptable"],
        metrics: &[ClassMetric::Matthews],
    },
    headerless: Some(&["source", "label", "mark", "sentence"]),
    train_rows: 8_551,
    evaluation_sets: &[one_set(1_043, 1_063)],
};

static SST2: TaskSpec = TaskSpec {
    name: "sst2",
    title: "SST-2",
    fields: SENTENCE,
    answer: Answer::Class {
        column: "label",
        values: &["0", "1"],
        words: &["negative", "positive"],
        metrics: ACCURACY,
    },
    headerless: None,
    train_rows: 67_349,
    evaluation_sets: &[one_set(872, 1_821)],
};

static MRPC: TaskSpec = TaskSpec {
    name: "mrpc",
    title: "MRPC",
    fields: &[
        Field { prompt: "sentence1", column: "#1 String" },
        Field { prompt: "sentence2", column: "#2 String" },
    ],
    answer: Answer::Class {
        column: "Quality",
        values: &["0", "1"],
        words: &["not_equivalent", "equivalent"],
        metrics: &[ClassMetric::F1, ClassMetric::Accuracy],
    },
    headerless: None,
    train_rows: 3_668,
    evaluation_sets: &[one_set(408, 1_725)],
};

static STSB: TaskSpec = TaskSpec {
    name: "stsb",
    title: "STS-B",
    fields: SENTENCE_PAIR,
    answer: Answer::Score { column: "score", metrics: &[ScoreMetric::Pearson, ScoreMetric::Spearman] },
    headerless: None,
    train_rows: 5_749,
    evaluation_sets: &[one_set(1_500, 1_379)],
};

static QQP: TaskSpec = TaskSpec {
    name: "qqp",
    title: "QQP",
    fields: &[
        Field { prompt: "question1", column: "question1" },
        Field { prompt: "question2", column: "question2" },
    ],
    answer: Answer::Class {
        column: "is_duplicate",
        values: &["0", "1"],
        words: &["not_duplicate", "duplicate"],
        metrics: &[ClassMetric::Accuracy, ClassMetric::F1],
    },
    headerless: None,
    train_rows: 363_846,
    evaluation_sets: &[one_set(40_430, 390_965)],
};

static MNLI: TaskSpec = TaskSpec {
    name: "mnli",
    title: "MNLI",
    fields: &[
        Field { prompt: "hypothesis", column: "sentence2" },
        Field { prompt: "premise", column: "sentence1" },
    ],
    answer: Answer::Class {
        column: "gold_label",
        values: &["entailment", "neutral", "contradiction"],
        words: &["entailment", "neutral", "contradiction"],
        metrics: ACCURACY,
    },
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
};

static QNLI: TaskSpec = TaskSpec {
    name: "qnli",
    title: "QNLI",
    fields: &[
        Field { prompt: "question", column: "question" },
        Field { prompt: "sentence", column: "sentence" },
    ],
    answer: Answer::Class { column: "label", values: ENTAILMENT, words: ENTAILMENT, metrics: ACCURACY },
    headerless: None,
    train_rows: 104_743,
    evaluation_sets: &[one_set(5_463, 5_463)],
};

static RTE: TaskSpec = TaskSpec {
    name: "rte",
    title: "RTE",
    fields: SENTENCE_PAIR,
    answer: Answer::Class { column: "label", values: ENTAILMENT, words: ENTAILMENT, metrics: ACCURACY },
    headerless: None,
    train_rows: 2_490,
    evaluation_sets: &[one_set(277, 3_000)],
};

impl Task {
    /// All tasks, in the column order of the paper's Table 5.
    pub const ALL: [Task; 8] =
        [Task::Cola, Task::Sst2, Task::Mrpc, Task::Stsb, Task::Qqp, Task::Mnli, Task::Qnli, Task::Rte];

    /// What is fixed about the task.
    pub fn spec(self) -> &'static TaskSpec {
        match self {
            Task::Cola => &COLA,
            Task::Sst2 => &SST2,
            Task::Mrpc => &MRPC,
            Task::Stsb => &STSB,
            Task::Qqp => &QQP,
            Task::Mnli => &MNLI,
            Task::Qnli => &QNLI,
            Task::Rte => &RTE,
        }
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
