//! Updates of whole models.

use std::sync::Arc;

use fusion_core::{HostTensor, TensorSource};

use super::references::{self, batch, deviation, deviations};
use super::{Check, Suite, ThreadGroup, random_weights};
use crate::backend::ProcessGroup;
use crate::{
    Batch, Computation, Decoding, Dropout, Error, Optimizer, Precision, Session, SessionError, T5Config,
    TrainStep, Update,
};

impl Suite<'_> {
    pub(super) fn training(&self) -> Result<Vec<Check>, SessionError> {
        let check = |what: &str, allowed, run: fn(&Self) -> Result<f64, SessionError>| {
            Check::run(format!("training: {what}"), self.allowed(allowed), || run(self))
        };
        let checks = [
            check("ten updates", [1e-4, 5e-2], Self::trajectory),
            check("micro-batches", [1e-4, 1e-1], Self::micro_batches),
            check("data parallelism", [1e-4, 1e-1], Self::data_parallel),
            check("activation checkpointing", [1e-5, 5e-2], Self::checkpointed),
            check("repeated", [0.0; 2], Self::repeated),
            check("save, load, continue", [0.0; 2], Self::continued),
        ];
        checks.into_iter().collect()
    }

    /// Ten updates with clipping, weight decay and z-loss: losses, norms of gradients and the weights in the
    /// end. As in `trajectory_goldens.py`.
    fn trajectory(&self) -> Result<f64, SessionError> {
        let (open, reference) = self.golden("v1_1")?;
        let mut session = open()?;
        let expected = references::file("trajectory.safetensors")?;
        let load = |name: &str| expected.load_f32(name).map_err(Error::from);
        let whole = batch(&reference)?;
        let mut steps: Vec<TrainStep> = vec![];
        for step in 1..=10 {
            let rows = (0..3).filter(|row| *row != step % 3);
            let update = Update {
                optimizer: Optimizer::Adamw { beta1: 0.9, beta2: 0.999, epsilon: 1e-4, weight_decay: 0.01 },
                learning_rate: 3e-3,
                clip_norm: Some(0.5),
                z_loss: 1e-3,
                dropout: Dropout::default(),
                ..update(step as u64)
            };
            steps.push(session.train_step(&[select(&whole, rows)], &update)?);
        }
        let column = |of: fn(&TrainStep) -> f64| HostTensor {
            shape: vec![steps.len()],
            data: steps.iter().map(|step| of(step) as f32).collect(),
        };
        let mut worst = deviation(Some(&column(|step| step.loss)), &load("loss")?);
        worst = worst.max(deviation(Some(&column(|step| step.gradient_norm)), &load("gradient_norm")?));
        let weights = session.export()?;
        for name in expected.names() {
            let Some(parameter) = name.strip_prefix("final.") else { continue };
            worst = worst.max(deviation(weights.get(parameter), &load(&name)?));
        }
        Ok(worst)
    }

    /// Rows one after the other add up to the batch, with dropout.
    fn micro_batches(&self) -> Result<f64, SessionError> {
        let (open, reference) = self.golden("v1_1")?;
        let whole = batch(&reference)?;
        let train = |batches: &[Batch]| -> Result<_, SessionError> {
            let mut session = open()?;
            Ok((session.train_step(batches, &update(1))?, session.optimizer_state()?))
        };
        let rows: Vec<Batch> = (0..whole.size).map(|row| select(&whole, [row])).collect();
        let (one, expected) = train(std::slice::from_ref(&whole))?;
        let (many, found) = train(&rows)?;
        let mut worst =
            (many.loss / one.loss - 1.0).abs().max((many.gradient_norm / one.gradient_norm - 1.0).abs());
        if (one.correct, one.tokens) != (many.correct, many.tokens) && self.how.precision == Precision::F32 {
            worst = f64::INFINITY;
        }
        Ok(worst.max(deviations(&found, &expected)))
    }

    /// Two processes, of which one has two of the three rows, train as one does, with dropout, and answer as
    /// it does.
    fn data_parallel(&self) -> Result<f64, SessionError> {
        let (open, reference) = self.golden("v1_1")?;
        let whole = batch(&reference)?;
        let train = |group: Option<Arc<dyn ProcessGroup>>| -> Result<_, SessionError> {
            let mut session = open()?;
            group.map_or(Ok(()), |group| session.join(group))?;
            let step = session.train_step(std::slice::from_ref(&whole), &update(1))?;
            let losses = session.evaluate(&whole)?.into_iter().map(|token| token.loss as f32);
            let losses = HostTensor { shape: vec![whole.labels.len()], data: losses.collect() };
            let state = session.optimizer_state()?;
            let answers = session.generate(&whole, &Decoding::default(), &|_| false)?;
            Ok((step, losses, state, answers.len()))
        };
        let (one, expected_losses, expected, _) = train(None)?;
        let mut worst: f64 = 0.0;
        let mut ranks = vec![];
        for rank in ThreadGroup::run(2, |group| train(Some(group))) {
            let (step, losses, state, answers) = rank?;
            if (step.tokens, answers) != (one.tokens, whole.size) {
                return Ok(f64::INFINITY);
            }
            worst = worst.max((step.loss / one.loss - 1.0).abs());
            worst = worst.max((step.gradient_norm / one.gradient_norm - 1.0).abs());
            worst = worst.max(deviation(Some(&losses), &expected_losses)).max(deviations(&state, &expected));
            ranks.push((step, state));
        }
        // All ranks have the same weights, to the bit.
        Ok(if ranks[0] == ranks[1] { worst } else { f64::INFINITY })
    }

    /// Computing blocks again gives the same gradients, with dropout: by the optimiser's state after an
    /// update.
    fn checkpointed(&self) -> Result<f64, SessionError> {
        let train = |checkpoint_activations| {
            let how = Computation { checkpoint_activations, ..self.how.clone() };
            let mut session = Suite { how: &how, ..*self }.random()?;
            train(session.as_mut(), 1..=1)?;
            session.optimizer_state()
        };
        Ok(deviations(&train(true)?, &train(false)?))
    }

    /// The same to the bit, with dropout.
    fn repeated(&self) -> Result<f64, SessionError> {
        let train = || {
            let mut session = self.random()?;
            train(session.as_mut(), 1..=4)?;
            session.export()
        };
        Ok(deviations(&train()?, &train()?))
    }

    /// Two updates, and two more in a session opened from what the first one gave: as four, to the bit.
    fn continued(&self) -> Result<f64, SessionError> {
        let mut straight = self.random()?;
        train(straight.as_mut(), 1..=4)?;
        let mut first = self.random()?;
        train(first.as_mut(), 1..=2)?;
        let mut second = self.open(first.config(), &first.export()?)?;
        second.load_optimizer_state(first.optimizer_state()?)?;
        train(second.as_mut(), 3..=4)?;
        let weights = deviations(&second.export()?, &straight.export()?);
        let state = deviations(&second.optimizer_state()?, &straight.optimizer_state()?);
        Ok(weights.max(state))
    }

    /// In groups of unequal width, large enough for several threads.
    fn random(&self) -> Result<Box<dyn Session>, SessionError> {
        let mut config = T5Config::v1_1(512, 48, 2, 24, 128, 2);
        config.rms_norm_groups = vec![32, 16];
        self.open(&config, &random_weights(&config, 1)?)
    }
}

/// With dropout; Adafactor, whose factored moments are the most to carry over.
fn update(step: u64) -> Update {
    Update {
        optimizer: Optimizer::Adafactor { decay_rate: 0.8, clip_threshold: 1.0, min_dim_size_to_factor: 32 },
        learning_rate: 1e-2,
        step,
        optimizer_step: step,
        clip_norm: Some(1.0),
        z_loss: 1e-4,
        dropout: Dropout { rate: 0.1, seed: 5 },
    }
}

fn train(session: &mut dyn Session, steps: std::ops::RangeInclusive<u64>) -> Result<(), SessionError> {
    let ids: Vec<i32> = (0..8 * 64).map(|i| 2 + (i * 37) % 500).collect();
    let rows: Vec<(&[i32], &[i32])> =
        ids.chunks(64).zip(20..).map(|(row, length)| (&row[..length + 30], &row[..length])).collect();
    let batches = [Batch::padded(rows[..4].iter().copied(), 0), Batch::padded(rows[4..].iter().copied(), 0)];
    for step in steps {
        session.train_step(&batches, &update(step))?;
    }
    Ok(())
}

/// Some rows of a batch.
fn select(batch: &Batch, rows: impl IntoIterator<Item = usize>) -> Batch {
    let rows: Vec<usize> = rows.into_iter().collect();
    fn take<T: Copy>(values: &[T], length: usize, rows: &[usize]) -> Vec<T> {
        rows.iter().flat_map(|row| values.iter().skip(row * length).take(length).copied()).collect()
    }
    Batch {
        size: rows.len(),
        input_ids: take(&batch.input_ids, batch.input_length, &rows),
        attention_mask: take(&batch.attention_mask, batch.input_length, &rows),
        labels: take(&batch.labels, batch.target_length, &rows),
        ..*batch
    }
}
