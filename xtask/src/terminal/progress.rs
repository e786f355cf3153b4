//! Progress for waiting users: a bar on a terminal, lines elsewhere.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::Instant;

use glue_eval::Progress;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use pipeline::numbers::{bytes, count, duration};
use t5_model::train::{Event, PretrainingEvent};

use super::{asked, interrupt, volume};

/// The number of updates that rates are averaged over.
const RECENT: usize = 50;

/// The bars of all the work in progress, one below the other.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Prints a line on standard error, above the bars.
pub fn say(line: &str) {
    BARS.suspend(|| eprintln!("{line}"));
}

/// A bar or lines, on standard error; nothing if the user wants quiet.
struct Display {
    bar: Option<ProgressBar>,
    /// The directory with the checkpoints that an interruption would leave.
    kept: Option<PathBuf>,
    name: String,
    total: u64,
    /// How positions are formatted.
    number: fn(u64) -> String,
    last_line: Option<Instant>,
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            BARS.remove(bar);
        }
        self.kept.iter().for_each(|directory| interrupt::forget(directory));
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
        let bar = (std::io::stderr().is_terminal() && !volume::is_quiet()).then(|| {
            let style = ProgressStyle::with_template(&format!("{{prefix}} {{wide_bar}} {position} {{msg}}"));
            let bar = BARS.add(ProgressBar::new(total).with_prefix(name.to_owned()));
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Display { bar, kept: None, name: name.to_owned(), total, number, last_line: None }
    }

    fn at(&mut self, position: u64, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
            bar.set_message(message.to_owned());
        } else if !volume::is_quiet()
            && self.last_line.is_none_or(|last| last.elapsed() >= volume::line_every())
        {
            self.last_line = Some(Instant::now());
            let (position, total) = ((self.number)(position), (self.number)(self.total));
            say(&format!("{} {position}/{total} {message}", self.name));
        }
    }

    /// Prints a message that stays visible.
    fn note(&self, message: &str) {
        if !volume::is_quiet() {
            say(&format!("{}: {message}", self.name));
        }
    }

    /// A checkpoint is there, from which the work can be resumed.
    fn kept(&mut self, step: u64, checkpoint: &Path) {
        let directory = checkpoint.parent().unwrap_or(checkpoint);
        interrupt::set_kept(directory, step, checkpoint);
        self.kept = Some(directory.to_owned());
    }
}

/// Time left, judging by what was done since some point.
struct Left {
    since: Option<(Instant, u64)>,
}

impl Left {
    fn new() -> Self {
        Left { since: None }
    }

    /// `, 3 min 20 s left`; empty at the first position, which tells nothing.
    fn at(&mut self, position: u64, total: u64) -> String {
        let (start, first) = *self.since.get_or_insert_with(|| (Instant::now(), position));
        match position.saturating_sub(first) {
            0 => String::new(),
            done => {
                let each = start.elapsed().as_secs_f64() / done as f64;
                format!(", {} left", duration(each * total.saturating_sub(position) as f64))
            }
        }
    }
}

/// Tells what checkpoints there are to those who want to know, and to those who interrupt.
fn checkpoint<E>(display: &mut Display, event: &Event<'_, E>) {
    match event {
        Event::Resumed { checkpoint, step, .. } => display.kept(*step, checkpoint),
        Event::CheckpointWritten { path, step, seconds } => {
            display.kept(*step, path);
            if volume::is_verbose() {
                display.note(&format!("step {step} saved in {} ({})", path.display(), duration(*seconds)));
            }
        }
        _ => {}
    }
}

/// Shows a pretraining's progress.
pub fn training(name: &str, steps: u64) -> impl FnMut(&PretrainingEvent<'_>) + use<> {
    let mut display = Display::new(name, steps);
    // Loss, tokens and seconds of the last updates.
    let mut recent: VecDeque<(f64, u64, f64)> = VecDeque::new();
    move |event| {
        checkpoint(&mut display, event);
        match event {
            Event::Step { step, loss, tokens, seconds, .. } => {
                if recent.len() == RECENT {
                    recent.pop_front();
                }
                recent.push_back((*loss, *tokens, *seconds));
                display.at(*step, &rates(&recent, steps.saturating_sub(*step)));
            }
            Event::Resumed { checkpoint, step, .. } => {
                display.note(&format!("resuming from step {step} ({})", checkpoint.display()));
            }
            Event::Evaluated { evaluation: point, .. } => {
                display.note(&format!("step {}: held-out {}", point.step, point.quality));
            }
            _ => {}
        }
    }
}

/// Mean loss, tokens per second and time left, from the last updates and the number still to come.
fn rates(recent: &VecDeque<(f64, u64, f64)>, more: u64) -> String {
    let updates = recent.len().max(1) as f64;
    let loss: f64 = recent.iter().map(|(loss, ..)| loss).sum::<f64>() / updates;
    let tokens: u64 = recent.iter().map(|(_, tokens, _)| tokens).sum();
    let seconds: f64 = recent.iter().map(|(.., seconds)| seconds).sum();
    let (rate, left) = (count(tokens as f64 / seconds.max(1e-9)), duration(seconds / updates * more as f64));
    format!("loss {loss:.3}, {rate} tokens/s, {left} left")
}

/// Shows the progress of what goes step by step and may tell of it from anywhere.
pub fn steps(name: &str, message: &'static str) -> impl Fn(usize, usize) + use<> {
    let display = Mutex::new((Display::new(name, 1), Left::new()));
    move |done, steps| {
        let (display, left) = &mut *display.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        display.total = steps as u64;
        if let Some(bar) = &display.bar {
            bar.set_length(steps as u64);
        }
        display.at(done as u64, &format!("{message}{}", left.at(done as u64, steps as u64)));
    }
}

/// Shows the progress of fine-tunings.
pub fn fine_tuning(name: &str) -> impl FnMut(&Progress<'_>) + use<> {
    let work = name.to_owned();
    let mut current: Option<Display> = None;
    let (mut training, mut answering) = (Left::new(), Left::new());
    let mut hinted = false;
    move |event| {
        let event = match event {
            Progress::Started { name, seed, steps, train_examples, dev_examples } => {
                // The last one's bar goes first.
                current = None;
                training = Left::new();
                let display = current.insert(Display::new(&format!("{work}: {name}, seed {seed}"), *steps));
                display.note(&format!("{train_examples} examples to train on, {dev_examples} to answer"));
                return;
            }
            Progress::Training(event) => event,
        };
        let Some(display) = &mut current else { return };
        checkpoint(display, event);
        match event {
            Event::Resumed { step, .. } => display.note(&format!("resuming from step {step}")),
            Event::Step { step, loss, .. } => {
                let left = training.at(*step, display.total);
                display.at(*step, &format!("loss {loss:.3}{left}"));
            }
            Event::Evaluating { step, done, of } => {
                if *done == 0 {
                    answering = Left::new();
                }
                let left = answering.at(*done as u64, *of as u64);
                display.at(*step, &format!("answered {done} of {of}{left}"));
            }
            Event::Evaluated { step, evaluation: score, .. } => {
                let invalid = match score.invalid {
                    0 => String::new(),
                    invalid => format!(", {invalid} of {} outputs invalid", score.examples),
                };
                display.note(&format!("step {step}: {} {:.2}{invalid}", score.task, score.mean()));
                if score.invalid > 0 && score.invalid == score.examples && !hinted {
                    hinted = true;
                    display.note(&all_invalid());
                }
            }
            _ => {}
        }
    }
}

/// What to do about a model that never answers in a task's words.
fn all_invalid() -> String {
    let rank = asked().setting("score", "rank");
    format!(
        "no output is one of the answers' words, so this score says nothing: the model has not learned to answer yet. {rank} \
         compares the likelihoods of the valid answers instead"
    )
}

/// Shows the progress of writing bytes, of which any thread may tell.
pub fn writing(name: &str, total: u64) -> impl Fn(u64) + Sync + use<> {
    let (display, written) = (Mutex::new(Display::of_bytes(name, total)), AtomicU64::new(0));
    let start = Instant::now();
    move |count| {
        let written = written.fetch_add(count, Ordering::Relaxed) + count;
        // If another thread is updating the display, this one has better things to do than wait.
        if let Ok(mut display) = display.try_lock() {
            let rate = written as f64 / start.elapsed().as_secs_f64().max(1e-9);
            display.at(written, &format!("{}/s", bytes(rate)));
        }
    }
}
