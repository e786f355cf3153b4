//! The terminal: results, messages and progress, and Ctrl-C.

mod advice;
pub mod interrupt;
pub mod output;
pub mod plot;
mod progress;
pub mod volume;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use pipeline::numbers::some;
use pipeline::{Note, Warning, Watch};
use t5_model::train::PretrainingEvent;

use crate::ranks;

pub use self::advice::{Asked, causes, with_advice};

/// Whether the work is in a recipe; set once, before any work.
static BY_RECIPE: AtomicBool = AtomicBool::new(false);

/// Says how the work was asked for.
pub fn set_asked(asked: Asked) {
    BY_RECIPE.store(matches!(asked, Asked::ByRecipe), Ordering::Relaxed);
}

/// How the work was asked for.
pub fn asked() -> Asked {
    if BY_RECIPE.load(Ordering::Relaxed) { Asked::ByRecipe } else { Asked::ByFlags }
}

/// Shows work in progress on standard error, and stops it on Ctrl-C once [`interrupt::listen`] has been
/// called.
pub struct Terminal;

impl Watch for Terminal {
    fn note(&self, subject: &str, note: &Note<'_>) {
        match note {
            Note::Warning(warning) => warn_of(&[(subject, None)], &with_advice(warning, asked())),
            _ if volume::is_quiet() => {}
            Note::WithoutGlue => progress::say(&format!("{subject}: {note} (--glue DIR)")),
            _ => progress::say(&format!("{subject}: {note}")),
        }
    }

    fn training(&self, name: &str, steps: u64) -> Box<dyn FnMut(&PretrainingEvent<'_>) + '_> {
        Box::new(progress::training(name, steps))
    }

    fn fine_tuning(&self, name: &str) -> Box<dyn FnMut(&glue_eval::Progress<'_>) + '_> {
        Box::new(progress::fine_tuning(name))
    }

    fn steps(&self, name: &str, doing: &'static str) -> Box<dyn Fn(usize, usize) + '_> {
        Box::new(progress::steps(name, doing))
    }

    fn bytes(&self, name: &str, total: u64) -> Box<dyn Fn(u64) + Sync + '_> {
        Box::new(progress::writing(name, total))
    }

    fn stop(&self) -> &AtomicBool {
        interrupt::flag()
    }

    fn stoppable(&self, whether: bool) {
        interrupt::set_finishing(whether);
    }
}

/// Warnings that were given, by what they are of. A plan gives those of all its stages beforehand.
static GIVEN: Mutex<BTreeSet<(String, String)>> = Mutex::new(BTreeSet::new());

/// A warning's subject, and the one whose same warning stands for it.
pub type Subject<'a> = (&'a str, Option<&'a str>);

/// Prints a warning of some subjects, once for each.
pub fn warn_of(subjects: &[Subject<'_>], warning: &str) {
    if !ranks::is_first() {
        return;
    }
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let of = |subject: &str| (subject.to_owned(), warning.to_owned());
    let mut news = vec![];
    for (subject, fellow) in subjects {
        let known = fellow.is_some_and(|fellow| given.contains(&of(fellow)));
        if given.insert(of(subject)) && !known {
            news.push((*subject).to_owned());
        }
    }
    if !news.is_empty() {
        progress::say(&format!("{}: warning: {warning}", some(&news)));
    }
}

/// Prints a warning about the command's subject.
pub fn warn(warning: &Warning) {
    eprintln!("warning: {}", with_advice(warning, Asked::ByFlags));
}
