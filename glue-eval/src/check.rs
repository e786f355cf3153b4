//! What is in a task's files and what is odd about them, to be seen before anything is trained on them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use t5_model::text::Tokenizer;

use crate::answer::Encoder;
use crate::data::{Example, Label, Split, read_rows};
use crate::error::{GlueError, Place};
use crate::task::{Answer, Task, TaskSpec};

/// How many of a split's bad rows are listed; all are counted.
pub const LISTED_BAD_ROWS: usize = 100;
/// How many examples are tokenised at a time.
const CHUNK: usize = 4096;

/// What is in a split.
#[derive(Debug, Serialize)]
pub struct SplitCheck {
    /// The hub's name: `train`, `validation`, `test_matched`.
    pub split: String,
    /// The files that hold the split.
    pub files: Vec<PathBuf>,
    /// Rows, bad ones included.
    pub rows: usize,
    /// Rows of the official file. If there are more of these than of `rows`, the file is only a part of it.
    pub official_rows: usize,
    /// Rows that are no examples.
    pub bad_rows: usize,
    /// The first [`LISTED_BAD_ROWS`] of them.
    pub bad: Vec<BadRow>,
    /// How often each label occurs; empty for test sets.
    pub labels: Vec<LabelCount>,
    /// Rows that repeat the texts and the label of an earlier row.
    pub duplicates: usize,
    /// Distinct texts that occur with more than one label.
    pub conflicts: usize,
    /// Rows whose texts are in the training set, too; for the other sets, and if the training set was checked before.
    pub in_train: Option<usize>,
    /// The lengths of the prompts, if there is a tokenizer.
    pub lengths: Option<Lengths>,
}

/// A row that is no example.
#[derive(Debug, Serialize)]
pub struct BadRow {
    /// The file.
    pub path: PathBuf,
    /// Where in the file.
    #[serde(flatten)]
    pub place: Place,
    /// Why it is no example.
    pub problem: String,
}

/// How often a label occurs.
#[derive(Debug, PartialEq, Serialize)]
pub struct LabelCount {
    /// The label's word, or a range of scores: `1–2` holds 1 and not 2, `4–5` both.
    pub label: String,
    /// Rows with this label.
    pub rows: usize,
}

/// Lengths of the prompts in tokens, end tokens included. The median is the smallest length that at least half of the
/// prompts do not exceed; likewise for 95 %.
#[derive(Debug, PartialEq, Serialize)]
pub struct Lengths {
    /// The length that half of the prompts do not exceed.
    pub median: usize,
    /// The length that 95 % of the prompts do not exceed.
    pub percentile_95: usize,
    /// The longest prompt.
    pub max: usize,
    /// Prompts longer than the limit, which are cut.
    pub truncated: usize,
}

/// Checks a task's splits one after another; the training set comes first, so that the others can be compared with it.
pub struct Checker<'a> {
    task: Task,
    /// With the tokens of an input.
    tokenizer: Option<(&'a Tokenizer, usize)>,
    train: Option<Texts>,
}

/// The distinct texts of a split, and how often each occurs with which label.
type Texts = HashMap<Vec<String>, HashMap<LabelKey, usize>>;

/// A label that can be compared bit by bit.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum LabelKey {
    Absent,
    Class(usize),
    Score(u32),
}

impl<'a> Checker<'a> {
    /// With a tokenizer, prompts are measured in its tokens; those of more than `input_length` count as truncated.
    pub fn new(task: Task, tokenizer: Option<&'a Tokenizer>, input_length: usize) -> Self {
        let tokenizer = tokenizer.map(|tokenizer| (tokenizer, input_length));
        Checker { task, tokenizer, train: None }
    }

    /// Checks a split in a folder of GLUE's files.
    ///
    /// # Errors
    /// Files that are missing, unreadable or of the wrong kind; bad rows are not an error.
    pub fn check(&mut self, split: Split, glue: &Path) -> Result<SplitCheck, GlueError> {
        let files = split.find(self.task, glue)?;
        let (mut examples, mut bad, mut bad_rows) = (Vec::new(), Vec::new(), 0);
        read_rows(self.task, split.is_labelled(), &files, &mut |path, place, example| {
            match example {
                Ok(example) => examples.push(example),
                Err(problem) => {
                    bad_rows += 1;
                    if bad.len() < LISTED_BAD_ROWS {
                        bad.push(BadRow { path: path.to_owned(), place, problem: problem.to_string() });
                    }
                }
            }
            Ok(())
        })?;
        let labels = if split.is_labelled() { label_counts(self.task.spec(), &examples) } else { Vec::new() };
        let lengths = self.lengths(&examples)?;
        let rows = examples.len();
        let texts = by_texts(examples);
        let check = SplitCheck {
            split: split.to_string(),
            files,
            rows: rows + bad_rows,
            official_rows: split.official_rows(self.task),
            bad_rows,
            bad,
            labels,
            duplicates: rows - texts.values().map(HashMap::len).sum::<usize>(),
            conflicts: texts.values().filter(|labels| labels.len() > 1).count(),
            in_train: self.in_train(split, &texts),
            lengths,
        };
        if matches!(split, Split::Train) {
            self.train = Some(texts);
        }
        Ok(check)
    }

    fn in_train(&self, split: Split, texts: &Texts) -> Option<usize> {
        let train = self.train.as_ref().filter(|_| !matches!(split, Split::Train))?;
        let shared = texts.iter().filter(|(texts, _)| train.contains_key(*texts));
        Some(shared.flat_map(|(_, labels)| labels.values()).sum())
    }

    fn lengths(&self, examples: &[Example]) -> Result<Option<Lengths>, GlueError> {
        let Some((tokenizer, input_length)) = self.tokenizer else { return Ok(None) };
        let encoder = Encoder { tokenizer, input_length, target_length: 0 };
        let mut lengths = Vec::with_capacity(examples.len());
        for chunk in examples.chunks(CHUNK) {
            lengths.extend(encoder.lengths(self.task, chunk)?);
        }
        lengths.sort_unstable();
        let at = |percent: usize| lengths.get((lengths.len() * percent).div_ceil(100).saturating_sub(1));
        let (Some(&median), Some(&percentile_95), Some(&max)) = (at(50), at(95), at(100)) else {
            return Ok(None);
        };
        let truncated = lengths.iter().filter(|&&length| length > input_length).count();
        Ok(Some(Lengths { median, percentile_95, max, truncated }))
    }
}

fn by_texts(examples: Vec<Example>) -> Texts {
    let mut texts = Texts::new();
    for example in examples {
        let label = match example.label {
            None => LabelKey::Absent,
            Some(Label::Class(class)) => LabelKey::Class(class),
            Some(Label::Score(score)) => LabelKey::Score(score.to_bits()),
        };
        *texts.entry(example.texts).or_default().entry(label).or_default() += 1;
    }
    texts
}

/// How often each class or range of scores occurs.
fn label_counts(spec: &TaskSpec, examples: &[Example]) -> Vec<LabelCount> {
    let names: Vec<String> = match &spec.answer {
        Answer::Class { words, .. } => words.iter().map(|&word| word.to_owned()).collect(),
        Answer::Score { .. } => (0..5).map(|score| format!("{score}–{}", score + 1)).collect(),
    };
    let mut counts: Vec<LabelCount> = names.into_iter().map(|label| LabelCount { label, rows: 0 }).collect();
    for example in examples {
        let position = match example.label {
            None => continue,
            Some(Label::Class(class)) => class,
            Some(Label::Score(score)) => (score as usize).min(4),
        };
        if let Some(count) = counts.get_mut(position) {
            count.rows += 1;
        }
    }
    counts
}
