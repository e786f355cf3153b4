use glue_eval::Questions;
use pipeline::numbers::{bytes, count};
use serde::Serialize;

use super::SetAnswers;
use super::model::Model;
use super::protocol::Summary;
use super::questions::Sample;
use crate::dev::bench::report::{Entry, reference, table};
use crate::dev::bench::{median, turns};

/// A contestant's outcome.
pub type Measured = turns::Measured<SetAnswers, Summary>;

/// The seconds of each round.
fn seconds(of: &Measured) -> impl Iterator<Item = f64> {
    of.rounds.iter().map(|sets| sets.iter().map(|set| set.seconds).sum())
}

/// The answers of the first round, set after set.
fn answers(of: &Measured) -> impl Iterator<Item = &Option<String>> {
    of.rounds.iter().take(1).flatten().flat_map(|set| &set.answers)
}

/// Everything that was measured.
#[derive(Serialize)]
pub struct Report {
    model: String,
    parameters: u64,
    threads: usize,
    batch_size: u64,
    sets: Vec<Set>,
    /// The contestant that the others are compared with.
    reference: Option<String>,
    /// With the seconds of each set.
    pub contestants: Vec<Entry<Figures>>,
}

#[derive(Serialize)]
struct Set {
    name: String,
    examples: usize,
    /// The number of tokens in all prompts.
    tokens: usize,
}

/// The figures of a contestant that finished.
#[derive(Serialize)]
pub struct Figures {
    examples_per_second: f64,
    /// Speed relative to the reference: the median over the rounds.
    speed: f64,
    peak_memory: Option<u64>,
    /// The number of outputs that are not valid answers.
    invalid: usize,
    /// The number of answers that differ from the reference's.
    different: usize,
}

impl Report {
    pub fn new(
        model: &Model,
        parameters: u64,
        sample: &Sample,
        questions: &[Questions<'_>],
        measured: &[Measured],
    ) -> Self {
        let examples: usize = questions.iter().map(|set| set.prompts().len()).sum();
        let reference = reference(measured, None);
        let figures = |one: &Measured| {
            let (Ok(summary), Some(reference)) = (&one.summary, reference) else { return None };
            Some(Figures {
                examples_per_second: examples as f64 / median(seconds(one)),
                speed: median(seconds(one).zip(seconds(reference)).map(|(own, other)| other / own)),
                peak_memory: summary.peak_rss_bytes,
                invalid: answers(one).filter(|answer| answer.is_none()).count(),
                different: answers(one).zip(answers(reference)).filter(|(own, other)| own != other).count(),
            })
        };
        let entry = |one: &Measured| {
            let rounds = one.rounds.iter().map(|sets| sets.iter().map(|set| set.seconds).collect());
            Entry::new(one, None, rounds, figures(one))
        };
        let set = |questions: &Questions<'_>| Set {
            name: questions.name.clone(),
            examples: questions.prompts().len(),
            tokens: questions.prompts().iter().map(Vec::len).sum(),
        };
        Report {
            model: model.to_string(),
            parameters,
            threads: rayon::current_num_threads(),
            batch_size: sample.batch_size,
            sets: questions.iter().map(set).collect(),
            reference: reference.map(|one| one.contestant.to_string()),
            contestants: measured.iter().map(entry).collect(),
        }
    }

    pub fn text(&self) -> String {
        let total = |of: fn(&Set) -> usize| self.sets.iter().map(of).sum::<usize>();
        let (examples, tokens) = (total(|set| set.examples), total(|set| set.tokens));
        let mut text = format!(
            "{}, {} weights; {examples} prompts of {} tokens on average; batches of {}, {} threads\n\n",
            self.model,
            count(self.parameters as f64),
            tokens / examples.max(1),
            self.batch_size,
            self.threads
        );
        let header = ["", "examples/s", "speed", "peak memory", "invalid", "different"];
        text += &table(header, &self.contestants, Figures::row);
        if let Some(reference) = &self.reference {
            text += &format!(
                "\nspeed: as a multiple of that of {reference}, median of the rounds\n\
                 invalid: answers that are none of the task's; different: from those of {reference}\n"
            );
        }
        text
    }
}

impl Figures {
    fn row(&self, name: &str) -> [String; 6] {
        [
            name.to_owned(),
            format!("{:.1}", self.examples_per_second),
            format!("{:.2}", self.speed),
            self.peak_memory.map(|peak| bytes(peak as f64)).unwrap_or_default(),
            self.invalid.to_string(),
            self.different.to_string(),
        ]
    }
}
