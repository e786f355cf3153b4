use anyhow::Result;
use glue_eval::Questions;
use pipeline::numbers::{bytes, count};
use pipeline::report::table::Table;
use serde::Serialize;

use super::SetAnswers;
use super::model::Model;
use super::protocol::Summary;
use super::questions::Sample;
use crate::dev::bench::contestant::Contestant;
use crate::dev::bench::median;

/// What became of a contestant.
pub struct Measured {
    pub contestant: Contestant,
    /// Of each round, by set.
    pub rounds: Vec<Vec<SetAnswers>>,
    /// Or why it did not come to its end.
    pub summary: Result<Summary, String>,
}

impl Measured {
    /// Seconds of each round.
    fn seconds(&self) -> impl Iterator<Item = f64> {
        self.rounds.iter().map(|sets| sets.iter().map(|set| set.seconds).sum())
    }

    /// Of the first round, set after set.
    fn answers(&self) -> impl Iterator<Item = &Option<String>> {
        self.rounds.iter().take(1).flatten().flat_map(|set| &set.answers)
    }
}

/// Everything that was measured.
#[derive(Serialize)]
pub struct Report {
    model: String,
    parameters: u64,
    threads: usize,
    batch_size: u64,
    sets: Vec<Set>,
    /// Whom the others are compared with.
    reference: Option<String>,
    contestants: Vec<Entry>,
}

#[derive(Serialize)]
struct Set {
    name: String,
    examples: usize,
    /// Tokens of all prompts.
    tokens: usize,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    /// Seconds of each set in each round.
    rounds: Vec<Vec<f64>>,
    #[serde(flatten)]
    figures: Option<Figures>,
    error: Option<String>,
}

/// Of a contestant that came to its end.
#[derive(Serialize)]
struct Figures {
    examples_per_second: f64,
    /// How many times as fast as the reference it is: the median over the rounds.
    speed: f64,
    peak_memory: Option<u64>,
    /// Outputs that are no valid answers.
    invalid: usize,
    /// Answers that are not the reference's.
    different: usize,
}

impl Report {
    pub fn new(
        model: &Model,
        parameters: u64,
        sample: &Sample,
        questions: &[Questions<'_>],
        measured: Vec<Measured>,
    ) -> Self {
        let examples: usize = questions.iter().map(|set| set.prompts().len()).sum();
        let ended = || measured.iter().filter(|one| one.summary.is_ok());
        let reference = ended().find(|one| one.contestant.needs_python()).or_else(|| ended().next());
        let figures = |one: &Measured| {
            let (Ok(summary), Some(reference)) = (&one.summary, reference) else { return None };
            Some(Figures {
                examples_per_second: examples as f64 / median(one.seconds()),
                speed: median(one.seconds().zip(reference.seconds()).map(|(own, other)| other / own)),
                peak_memory: summary.peak_rss_bytes,
                invalid: one.answers().filter(|answer| answer.is_none()).count(),
                different: one.answers().zip(reference.answers()).filter(|(own, other)| own != other).count(),
            })
        };
        let entry = |one: &Measured| Entry {
            name: one.contestant.to_string(),
            rounds: one.rounds.iter().map(|sets| sets.iter().map(|set| set.seconds).collect()).collect(),
            figures: figures(one),
            error: one.summary.as_ref().err().cloned(),
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

    pub fn failures(&self) -> usize {
        self.contestants.iter().filter(|one| one.error.is_some()).count()
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
        let mut table = Table::new(["", "examples/s", "speed", "peak memory", "invalid", "different"]);
        for Entry { name, figures, .. } in &self.contestants {
            table.rows.extend(figures.as_ref().map(|figures| figures.row(name)));
        }
        if !table.rows.is_empty() {
            text += &table.text();
        }
        for Entry { name, error, .. } in &self.contestants {
            text.extend(error.as_ref().map(|error| format!("{name}  failed: {error}\n")));
        }
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
    fn row(&self, name: &str) -> Vec<String> {
        vec![
            name.to_owned(),
            format!("{:.1}", self.examples_per_second),
            format!("{:.2}", self.speed),
            self.peak_memory.map(|peak| bytes(peak as f64)).unwrap_or_default(),
            self.invalid.to_string(),
            self.different.to_string(),
        ]
    }
}
