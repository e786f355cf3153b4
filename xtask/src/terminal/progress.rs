//! What people see while they wait: a bar on a terminal, lines elsewhere.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use glue_eval::Progress;
use indicatif::{ProgressBar, ProgressStyle};
use pipeline::numbers::{bytes, count, duration};
use t5_model::train::{Event, PretrainingEvent};

/// How far apart plain lines are.
const LINE_EVERY: Duration = Duration::from_secs(15);
/// Updates that rates are taken over.
const RECENT: usize = 50;

/// A bar or lines, on standard error.
struct Display {
    bar: Option<ProgressBar>,
    name: String,
    total: u64,
    /// How positions are written.
    number: fn(u64) -> String,
    last_line: Option<Instant>,
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Display {
    fn new(name: &str, total: u64) -> Self {
        Display::with(name, total, "{pos}/{len}", |position| position.to_string())
    }

    fn of_bytes(name: &str, total: u64) -> Self {
        Display::with(name, total, "{decimal_bytes}/{decimal_total_bytes}", |position| bytes(position as f64))
    }

    fn with(name: &str, total: u64, position: &str, number: fn(u64) -> String) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(&format!("{{prefix}} {{wide_bar}} {position} {{msg}}"));
            let bar = ProgressBar::new(total).with_prefix(name.to_owned());
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Display { bar, name: name.to_owned(), total, number, last_line: None }
    }

    fn at(&mut self, position: u64, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
            bar.set_message(message.to_owned());
        } else if self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
            self.last_line = Some(Instant::now());
            let (position, total) = ((self.number)(position), (self.number)(self.total));
            eprintln!("{} {position}/{total} {message}", self.name);
        }
    }

    /// Something that should stay to be seen.
    fn note(&self, message: &str) {
        let line = format!("{}: {message}", self.name);
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }
}

/// A pretraining's progress.
pub struct TrainingProgress {
    display: Display,
    steps: u64,
    /// Loss, tokens and seconds of the last updates.
    recent: VecDeque<(f64, u64, f64)>,
}

impl TrainingProgress {
    pub fn new(name: &str, steps: u64) -> Self {
        TrainingProgress { display: Display::new(name, steps), steps, recent: VecDeque::new() }
    }

    pub fn observe(&mut self, event: &PretrainingEvent<'_>) {
        match event {
            Event::Step { step, loss, tokens, seconds, .. } => {
                if self.recent.len() == RECENT {
                    self.recent.pop_front();
                }
                self.recent.push_back((*loss, *tokens, *seconds));
                let message = self.message(*step);
                self.display.at(*step, &message);
            }
            Event::Resumed { checkpoint, step, .. } => {
                self.display.note(&format!("resuming from step {step} ({})", checkpoint.display()));
            }
            Event::Evaluated { evaluation: point, .. } => {
                let accuracy = 100.0 * point.accuracy;
                self.display.note(&format!(
                    "step {}: held-out loss {:.4}, accuracy {accuracy:.2} %",
                    point.step, point.loss
                ));
            }
            _ => {}
        }
    }

    fn message(&self, step: u64) -> String {
        let updates = self.recent.len().max(1) as f64;
        let loss: f64 = self.recent.iter().map(|(loss, ..)| loss).sum::<f64>() / updates;
        let tokens: u64 = self.recent.iter().map(|(_, tokens, _)| tokens).sum();
        let seconds: f64 = self.recent.iter().map(|(.., seconds)| seconds).sum();
        let left = seconds / updates * self.steps.saturating_sub(step) as f64;
        format!(
            "loss {loss:.3}, {} tokens/s, {} left",
            count(tokens as f64 / seconds.max(1e-9)),
            duration(left)
        )
    }
}

/// The progress of what goes step by step and may tell of it from anywhere.
pub struct StepProgress(Mutex<Display>);

impl StepProgress {
    pub fn new(name: &str) -> Self {
        StepProgress(Mutex::new(Display::new(name, 1)))
    }

    pub fn at(&self, done: usize, steps: usize, message: &str) {
        let mut display = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        display.total = steps as u64;
        if let Some(bar) = &display.bar {
            bar.set_length(steps as u64);
        }
        display.at(done as u64, message);
    }
}

/// A fine-tuning's progress.
#[derive(Default)]
pub struct FineTuningProgress {
    display: Option<Display>,
}

impl FineTuningProgress {
    pub fn observe(&mut self, event: &Progress<'_>) {
        let event = match event {
            Progress::Started { name, seed, steps, train_examples, dev_examples } => {
                self.display = None;
                let display = Display::new(&format!("{name}, seed {seed}"), *steps);
                display.note(&format!("{train_examples} examples to train on, {dev_examples} to answer"));
                self.display = Some(display);
                return;
            }
            Progress::Training(event) => event,
        };
        let Some(display) = &mut self.display else { return };
        match event {
            Event::Resumed { step, .. } => display.note(&format!("resuming from step {step}")),
            Event::Step { step, loss, .. } => display.at(*step, &format!("loss {loss:.3}")),
            Event::Evaluating { step, done, of } => display.at(*step, &format!("answered {done} of {of}")),
            Event::Evaluated { step, evaluation: score, .. } => {
                let invalid = match score.invalid {
                    0 => String::new(),
                    invalid => format!(", {invalid} of {} outputs invalid", score.examples),
                };
                display.note(&format!("step {step}: {} {:.2}{invalid}", score.task, score.mean()));
            }
            _ => {}
        }
    }
}

/// The progress of writing weights; told by any thread.
pub struct WritingProgress {
    display: Mutex<Display>,
    /// In bytes.
    written: AtomicU64,
    start: Instant,
}

impl WritingProgress {
    pub fn new(name: &str, total: u64) -> Self {
        let display = Mutex::new(Display::of_bytes(name, total));
        WritingProgress { display, written: AtomicU64::new(0), start: Instant::now() }
    }

    pub fn wrote(&self, count: u64) {
        let written = self.written.fetch_add(count, Ordering::Relaxed) + count;
        // Who finds the display in use has something better to do than to wait for it.
        if let Ok(mut display) = self.display.try_lock() {
            let rate = written as f64 / self.start.elapsed().as_secs_f64().max(1e-9);
            display.at(written, &format!("{}/s", bytes(rate)));
        }
    }
}
