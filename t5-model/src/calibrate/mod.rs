//! Calibration of the fusion rule. A stock RMSNorm takes the parents' slices as one vector, so a child under
//! the rule misses the ensemble that it would be under the property. From the embedding on to the logits,
//! each sublayer's output projection, the gains at a stack's end and an untied head are fitted by least
//! squares to what the ensemble has there, behind what was fitted before.

mod least_squares;

use std::collections::BTreeMap;

use fusion_core::{HostTensor, HostTensors};

use self::least_squares::LeastSquares;
use crate::parameters::{Module, Stack, Sublayer};
use crate::{Batch, IGNORED_LABEL, Probe, Session, SessionError, T5Config};

/// How strongly fitted weights are held to what they were: a share of the squares of what they are multiplied
/// with.
const RIDGE: f64 = 1e-2;

/// Opens a model.
pub type Open<'a> = dyn Fn(&T5Config, &HostTensors) -> Result<Box<dyn Session>, SessionError> + 'a;

/// What a model is fitted with.
pub struct Calibration<'a> {
    /// Opens a model on the device.
    pub open: &'a Open<'a>,
    /// The text that both models read.
    pub batches: &'a [Batch],
    /// Called after every step with the number of steps done and in total; returns whether to continue.
    pub progress: &'a dyn Fn(usize, usize) -> bool,
}

/// The sublayers of a stack, in the order in which they compute.
fn sublayers(config: &T5Config, stack: Stack) -> Vec<Sublayer> {
    let in_block = |block| stack.sublayers().iter().map(move |&kind| stack.sublayer(block, kind));
    (0..stack.depth(config)).flat_map(in_block).collect()
}

impl Calibration<'_> {
    /// Fits the weights of a child under the rule to the ensemble, a model with the same features. Returns
    /// false if it was stopped.
    pub fn fit(
        &self,
        ensemble: &mut dyn Session,
        config: &T5Config,
        weights: &mut HostTensors,
    ) -> Result<bool, SessionError> {
        let stacks = Stack::BOTH.map(|stack| sublayers(config, stack));
        let steps = stacks.iter().map(|sublayers| sublayers.len() + 1).sum::<usize>();
        let steps = steps + usize::from(!config.tied_head());
        let mut fit = Fit { calibration: self, ensemble, config, weights, done: 0, steps };
        for (stack, sublayers) in Stack::BOTH.into_iter().zip(&stacks) {
            let norms = sublayers.iter().skip(1).map(|sublayer| Module::Norm(*sublayer));
            for (sublayer, next) in sublayers.iter().zip(norms.chain([Module::FinalNorm(stack)])) {
                fit.output(*sublayer, next)?;
                if !fit.continues() {
                    return Ok(false);
                }
            }
            fit.gains(Module::FinalNorm(stack))?;
            if !fit.continues() {
                return Ok(false);
            }
        }
        if config.tied_head() {
            return Ok(true);
        }
        fit.head()?;
        Ok(fit.continues())
    }
}

/// A calibration under way.
struct Fit<'a> {
    calibration: &'a Calibration<'a>,
    ensemble: &'a mut dyn Session,
    config: &'a T5Config,
    weights: &'a mut HostTensors,
    done: usize,
    steps: usize,
}

impl Fit<'_> {
    /// Counts a step. False to stop.
    fn continues(&mut self) -> bool {
        self.done += 1;
        (self.calibration.progress)(self.done, self.steps)
    }

    /// Each gain by itself, to the ensemble's feature behind the norm.
    fn gains(&mut self, norm: Module) -> Result<(), SessionError> {
        let (probes, width) = ([Probe::Output(norm)], self.config.d_model);
        let mut sums = vec![(0f64, 0f64); width];
        self.visit([&probes, &probes], |expected, found| {
            let (expected, found) = (&expected[0], &found[0]);
            for (expected, found) in expected.chunks(width).zip(found.chunks(width)) {
                for (sums, (y, x)) in sums.iter_mut().zip(expected.iter().zip(found)) {
                    sums.0 += x * y;
                    sums.1 += x * x;
                }
            }
        })?;
        if let Some(gains) = self.weights.get_mut(&norm.weight()) {
            for (gain, (xy, xx)) in gains.data.iter_mut().zip(sums) {
                let factor = if xx > 0.0 { xy / xx } else { 1.0 };
                *gain = (f64::from(*gain) * factor) as f32;
            }
        }
        Ok(())
    }

    /// An output projection, so that the residual stream behind it is the ensemble's.
    fn output(&mut self, sublayer: Sublayer, next: Module) -> Result<(), SessionError> {
        let output = sublayer.output();
        let [before, inner] = [Module::Norm(sublayer), output].map(Probe::Input);
        let Some(shape) = self.weights.get(&output.weight()).map(|weight| weight.shape.clone()) else {
            return Ok(());
        };
        let mut squares = LeastSquares::new(shape[1], shape[0]);
        self.visit([&[Probe::Input(next)], &[before, inner]], |expected, found| {
            let wanted: Vec<f64> = expected[0].iter().zip(&found[0]).map(|(y, x)| y - x).collect();
            squares.add(&found[1], &wanted);
        })?;
        if let Some(weight) = self.weights.get_mut(&output.weight()) {
            squares.refit(weight, RIDGE);
        }
        Ok(())
    }

    /// The head, as if behind the linear map that comes closest to the ensemble's features before it.
    fn head(&mut self) -> Result<(), SessionError> {
        let probes = [Probe::Output(Module::FinalNorm(Stack::Decoder))];
        let width = self.config.d_model;
        let mut squares = LeastSquares::new(width, width);
        self.visit([&probes, &probes], |expected, found| {
            squares.add(&found[0], &expected[0]);
        })?;
        let Some(head) = self.weights.get_mut(&Module::Head.weight()) else { return Ok(()) };
        let mut map = HostTensor::zeros([width, width]);
        map.data.iter_mut().step_by(width + 1).for_each(|diagonal| *diagonal = 1.0);
        squares.refit(&mut map, RIDGE);
        let map: Vec<f64> = map.data.iter().map(|value| f64::from(*value)).collect();
        for row in head.data.chunks_mut(width) {
            let old: Vec<f64> = row.iter().map(|value| f64::from(*value)).collect();
            let mut new = vec![0.0; width];
            for (factor, line) in old.iter().zip(map.chunks(width)) {
                new.iter_mut().zip(line).for_each(|(new, value)| *new += factor * value);
            }
            row.iter_mut().zip(new).for_each(|(row, new)| *row = new as f32);
        }
        Ok(())
    }

    /// Runs both models on all batches and passes on, batch by batch, the activations of tokens: the
    /// ensemble's at the first probes and the child's at the second, `[token, width]` each. Padding is
    /// excluded.
    fn visit(
        &mut self,
        [expected, found]: [&[Probe]; 2],
        mut see: impl FnMut(&[Vec<f64>], &[Vec<f64>]),
    ) -> Result<(), SessionError> {
        let mut child = (self.calibration.open)(self.config, self.weights)?;
        for batch in self.calibration.batches {
            let expected = tokens(batch, expected, self.ensemble.activations(batch, expected)?)?;
            let found = tokens(batch, found, child.activations(batch, found)?)?;
            see(&expected, &found);
        }
        Ok(())
    }
}

/// The activations that belong to tokens, in the order of the probes.
fn tokens(
    batch: &Batch,
    probes: &[Probe],
    mut seen: BTreeMap<Probe, HostTensor>,
) -> Result<Vec<Vec<f64>>, SessionError> {
    let of = |probe: &Probe| {
        let missing = || SessionError::Device(format!("it does not show {probe:?}"));
        let HostTensor { shape, data } = seen.remove(probe).ok_or_else(missing)?;
        let width = shape.last().copied().unwrap_or(1).max(1);
        let (Probe::Input(module) | Probe::Output(module)) = probe;
        let is_token: Vec<bool> = match module.stack() {
            Some(Stack::Encoder) => batch.attention_mask.iter().map(|mask| *mask != 0).collect(),
            _ => batch.labels.iter().map(|label| *label != IGNORED_LABEL).collect(),
        };
        let rows = data.chunks(width).zip(is_token).filter(|(_, is_token)| *is_token);
        Ok(rows.flat_map(|(row, _)| row).map(|value| f64::from(*value)).collect())
    };
    probes.iter().map(of).collect()
}
