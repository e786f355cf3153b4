//! How well a model predicts held-out text, and how much of that it owes to its input.

use std::fmt;
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

use crate::Session;
use crate::backend::TokenLoss;
use crate::text::{ExampleStream, StreamedBatch, TargetToken};
use crate::train::control::Control;
use crate::train::error::{Result, TrainError};
use crate::{Batch, IGNORED_LABEL};

/// How well a model predicts the target tokens of held-out text. Losses are mean cross-entropies in nats,
/// without z-loss; accuracies are shares of tokens whose most likely prediction is right. A value without
/// tokens is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quality {
    /// Of all target tokens.
    pub loss: f64,
    /// The standard error of the loss, over the examples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_error: Option<f64>,
    /// Of all target tokens.
    pub accuracy: f64,
    /// The loss with the inputs exchanged between examples, less the loss with their own. Zero for a model whose
    /// decoder ignores the encoder, as T5's does at first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_gain: Option<f64>,
    /// Of sentinels and end tokens: where a span ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentinel_loss: Option<f64>,
    /// Of sentinels and end tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentinel_accuracy: Option<f64>,
    /// Of each span's first token, which only the input can tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_loss: Option<f64>,
    /// Of each span's first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_accuracy: Option<f64>,
    /// Of the tokens that continue a span.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rest_loss: Option<f64>,
    /// Of the tokens that continue a span.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rest_accuracy: Option<f64>,
}

impl Quality {
    /// The values by name, without those that no token gives.
    pub fn values(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let values = [
            ("loss", Some(self.loss)),
            ("accuracy", Some(self.accuracy)),
            ("context_gain", self.context_gain),
            ("sentinel_loss", self.sentinel_loss),
            ("sentinel_accuracy", self.sentinel_accuracy),
            ("first_loss", self.first_loss),
            ("first_accuracy", self.first_accuracy),
            ("rest_loss", self.rest_loss),
            ("rest_accuracy", self.rest_accuracy),
        ];
        values.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}

impl fmt::Display for Quality {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "loss {:.4}, accuracy {:.2} %", self.loss, 100.0 * self.accuracy)?;
        self.context_gain.map_or(Ok(()), |gain| write!(formatter, ", context gain {gain:.3}"))
    }
}

/// The result of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Over the target tokens.
    #[serde(flatten)]
    pub quality: Quality,
    /// The number of target tokens.
    pub tokens: u64,
}

/// A model's quality at a step, and the cost of getting there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationPoint {
    /// Updates of the weights.
    pub step: u64,
    /// Input and target tokens trained on in this run.
    pub tokens: u64,
    /// Floating-point operations spent in this run.
    pub flops: f64,
    /// On the held-out text.
    #[serde(flatten)]
    pub quality: Quality,
}

/// How much text a model is evaluated on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvaluationSize {
    /// The maximum number of examples, from the start of the text.
    pub examples: u64,
    /// How many of them are on the device at once, which changes the result by rounding at most.
    pub examples_at_once: usize,
}

/// Evaluates a model on the first examples of a text. `progress` receives how many are done, and the maximum.
///
/// The context gain exchanges inputs within each of the text's batches: an example gets the input of the one
/// half a batch further on. Of a mixture, only examples of one denoiser are exchanged.
///
/// # Errors
/// If the text is empty or cannot be read, or a loss is not finite.
pub fn evaluate(
    session: &mut dyn Session,
    text: ExampleStream,
    size: EvaluationSize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Evaluation, TrainError> {
    let never = AtomicBool::new(false);
    let complete = evaluate_unless(session, text, size, &Control::alone(&never), progress)?;
    complete.ok_or(TrainError::NoEvaluationText)
}

/// Like [`evaluate`]; `None` if it was stopped.
pub(super) fn evaluate_unless(
    session: &mut dyn Session,
    text: ExampleStream,
    size: EvaluationSize,
    control: &Control<'_>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Option<Evaluation>> {
    let kinds = text.denoisers().clone();
    let mut totals = Totals::default();
    let limit = usize::try_from(size.examples).unwrap_or(usize::MAX);
    let mut done = 0;
    for next in text {
        let StreamedBatch { batch, mut denoisers, .. } = next?;
        let batch = batch.rows(0..batch.size.min(limit - done));
        denoisers.truncate(batch.size);
        let partners = partners(&denoisers, kinds.count());
        let has_partner = |row: usize| partners[row] != row;
        let exchanged = (0..batch.size).any(has_partner).then(|| batch.with_inputs_of(&partners));
        let at_once = size.examples_at_once.max(1);
        for first in (0..batch.size).step_by(at_once) {
            if control.stopped()? {
                return Ok(None);
            }
            let rows = first..batch.size.min(first + at_once);
            let piece = batch.rows(rows.clone());
            let losses = session.evaluate(&piece)?;
            let mut tokens = losses.iter();
            for row in piece.labels.chunks(piece.target_length) {
                let own = kinds.target_tokens(row).zip(&mut tokens);
                totals.add_example(own);
            }
            if let Some(exchanged) = &exchanged {
                let others = session.evaluate(&exchanged.rows(rows.clone()))?;
                totals.compare(&piece, &losses, &others, |row| has_partner(rows.start + row));
            }
            progress(done + rows.end, limit);
        }
        done += batch.size;
        if done == limit {
            break;
        }
    }
    totals.evaluation().map(Some)
}

/// For each example the one that it exchanges inputs with: of the same denoiser, half of them further on. One that is
/// alone keeps its own.
fn partners(denoisers: &[usize], kinds: usize) -> Vec<usize> {
    let mut partners: Vec<usize> = (0..denoisers.len()).collect();
    for kind in 0..kinds {
        let rows: Vec<usize> = (0..denoisers.len()).filter(|row| denoisers[*row] == kind).collect();
        let others = rows.iter().cycle().skip(rows.len() / 2);
        rows.iter().zip(others).for_each(|(row, other)| partners[*row] = *other);
    }
    partners
}

/// Sums over target tokens, added one after the other, so that they do not depend on how examples are cut into
/// pieces.
#[derive(Default)]
struct Totals {
    sentinels: Sums,
    first: Sums,
    rest: Sums,
    all: Sums,
    examples: Examples,
    /// Of the examples that were exchanged: with the others' inputs, and with their own.
    exchanged_loss: f64,
    own_loss: f64,
    exchanged_tokens: u64,
}

#[derive(Clone, Copy, Default)]
struct Sums {
    loss: f64,
    correct: u64,
    tokens: u64,
}

/// Sums over examples, of their losses and tokens: squares and products.
#[derive(Default)]
struct Examples {
    number: u64,
    loss_squares: f64,
    token_squares: f64,
    products: f64,
}

impl Examples {
    fn add(&mut self, Sums { loss, tokens, .. }: Sums) {
        let tokens = tokens as f64;
        self.number += 1;
        self.loss_squares += loss * loss;
        self.token_squares += tokens * tokens;
        self.products += loss * tokens;
    }

    /// The standard error of the ratio of the losses' sum to that of the tokens (Cochran, *Sampling
    /// Techniques*, section 2.11).
    fn error(&self, all: &Sums) -> Option<f64> {
        let loss = all.loss().filter(|_| self.number > 1)?;
        let squares = self.loss_squares - 2.0 * loss * self.products + loss * loss * self.token_squares;
        let number = self.number as f64;
        Some((squares.max(0.0) * number / (number - 1.0)).sqrt() / all.tokens as f64)
    }
}

impl Totals {
    fn add_example<'a>(&mut self, tokens: impl Iterator<Item = (Option<TargetToken>, &'a TokenLoss)>) {
        let mut own = Sums::default();
        for (kind, token) in tokens {
            self.add(kind, token);
            if kind.is_some() {
                own.add(token);
            }
        }
        self.examples.add(own);
    }

    fn add(&mut self, kind: Option<TargetToken>, token: &TokenLoss) {
        let of_kind = match kind {
            None => return,
            Some(TargetToken::Sentinel) => &mut self.sentinels,
            Some(TargetToken::First) => &mut self.first,
            Some(TargetToken::Rest) => &mut self.rest,
        };
        of_kind.add(token);
        self.all.add(token);
    }

    /// Adds the rows of a batch that have partners: losses with their own inputs, and with those of others.
    fn compare(
        &mut self,
        batch: &Batch,
        own: &[TokenLoss],
        exchanged: &[TokenLoss],
        has_partner: impl Fn(usize) -> bool,
    ) {
        let labels = batch.labels.iter().enumerate();
        for ((at, label), (own, exchanged)) in labels.zip(own.iter().zip(exchanged)) {
            if *label != IGNORED_LABEL && has_partner(at / batch.target_length) {
                self.own_loss += own.loss;
                self.exchanged_loss += exchanged.loss;
                self.exchanged_tokens += 1;
            }
        }
    }

    fn evaluation(&self) -> Result<Evaluation> {
        let (Some(loss), Some(accuracy)) = (self.all.loss(), self.all.accuracy()) else {
            return Err(TrainError::NoEvaluationText);
        };
        if !(self.all.loss.is_finite() && self.exchanged_loss.is_finite()) {
            return Err(TrainError::NonFiniteEvaluation);
        }
        let gain = (self.exchanged_loss - self.own_loss) / self.exchanged_tokens as f64;
        let quality = Quality {
            loss,
            loss_error: self.examples.error(&self.all),
            accuracy,
            context_gain: (self.exchanged_tokens > 0).then_some(gain),
            sentinel_loss: self.sentinels.loss(),
            sentinel_accuracy: self.sentinels.accuracy(),
            first_loss: self.first.loss(),
            first_accuracy: self.first.accuracy(),
            rest_loss: self.rest.loss(),
            rest_accuracy: self.rest.accuracy(),
        };
        Ok(Evaluation { quality, tokens: self.all.tokens })
    }
}

impl Sums {
    fn add(&mut self, token: &TokenLoss) {
        self.loss += token.loss;
        self.correct += u64::from(token.correct);
        self.tokens += 1;
    }

    fn loss(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.loss / self.tokens as f64)
    }

    fn accuracy(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.correct as f64 / self.tokens as f64)
    }
}
