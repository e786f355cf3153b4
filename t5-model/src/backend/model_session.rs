//! A session over any backend's operations.

use std::cell::RefCell;
use std::collections::BTreeMap;

use fusion_core::{HostTensor, HostTensors, TensorSource};

use super::{
    Computation, CrossEntropy, Dropout, Evaluation, Forward, LossSums, Ops, Pending, Session, SessionError,
    TrainStep, Trained, Update, guarded,
};
use crate::generate::{Candidates, generate, log_likelihoods};
use crate::model::Checkpointed;
use crate::optimizer::Moments;
use crate::{Batch, Error, T5, T5Config, parameter_table};

/// A T5 on the device of its operations. Backends hand it out as their [`Session`].
pub struct ModelSession<O: Ops> {
    ops: O,
    config: T5Config,
    parameters: BTreeMap<String, O::Parameter>,
    moments: BTreeMap<String, Moments<O::Moment>>,
    checkpoint_activations: bool,
    begun: Vec<Begun>,
}

fn no_moments<P, M>(parameters: &BTreeMap<String, P>) -> BTreeMap<String, Moments<M>> {
    parameters.keys().map(|name| (name.clone(), Moments::default())).collect()
}

/// An update whose results nobody has asked for.
enum Begun {
    Done(TrainStep),
    Running(RunningStep),
}

/// An update that an asynchronous device may not have ended.
struct RunningStep {
    step: u64,
    tokens: u64,
    /// Of each micro-batch.
    sums: Vec<Pending<LossSums>>,
    gradient_norm: Pending<f64>,
}

impl RunningStep {
    fn finish(self) -> Result<TrainStep, SessionError> {
        let RunningStep { step, tokens, sums, gradient_norm } = self;
        let (mut loss, mut correct) = (0.0, 0);
        for sums in sums.into_iter().map(Pending::read) {
            loss += sums.loss;
            correct += sums.correct;
        }
        let (loss, gradient_norm) = (loss / tokens as f64, gradient_norm.read());
        match loss.is_finite() && gradient_norm.is_finite() {
            true => Ok(TrainStep { loss, correct, tokens, gradient_norm }),
            false => Err(SessionError::NonFinite { step, loss, gradient_norm }),
        }
    }
}

impl<O: Ops> ModelSession<O> {
    /// Puts the weights on the device, after comparing their shapes with the configuration's table.
    pub fn new(
        ops: O,
        how: &Computation,
        config: &T5Config,
        weights: &dyn TensorSource,
    ) -> Result<Self, SessionError> {
        let table = parameter_table(config)?;
        let mut parameters = BTreeMap::new();
        for spec in &table {
            let tensor = weights.load_f32(&spec.name).map_err(Error::from)?;
            if tensor.shape != spec.shape() {
                return Err(Error::Configuration(format!(
                    "it calls for {} of shape {:?}, but the weights have {:?}",
                    spec.name,
                    spec.shape(),
                    tensor.shape
                ))
                .into());
            }
            parameters.insert(spec.name.clone(), guarded(|| Ok(ops.parameter(tensor)))?);
        }
        Ok(ModelSession {
            ops,
            config: config.clone(),
            moments: no_moments(&parameters),
            parameters,
            checkpoint_activations: how.checkpoint_activations,
            begun: Vec::new(),
        })
    }

    /// Runs on the device, and ends what was being recorded.
    fn guarded<T>(
        &mut self,
        run: impl FnOnce(&mut Self) -> Result<T, SessionError>,
    ) -> Result<T, SessionError> {
        let result = guarded(|| run(self));
        self.ops.record(false);
        result
    }

    /// The gradients of one batch, with the loss scaled by `how`.
    fn gradients(
        &mut self,
        batch: &Batch,
        dropout: Dropout,
        pass: String,
        how: CrossEntropy,
    ) -> (Pending<LossSums>, Vec<O::Gradient>) {
        if self.checkpoint_activations {
            let ModelSession { ops, config, parameters, .. } = self;
            let gradients = BTreeMap::new();
            return Checkpointed { ops, config, parameters, batch, dropout, pass, gradients }.run(how);
        }
        self.ops.record(true);
        let model = T5::with_dropout(&self.ops, &self.config, &self.parameters, dropout, pass);
        let x = model.forward(batch); // [batch, target, d_model]
        let (loss, sums) = self.ops.cross_entropy(&x, model.head(), &batch.labels, how);
        drop(x);
        let parameters: Vec<_> = self.parameters.values().collect();
        let (_, gradients) = self.ops.backward(loss, &[], &parameters);
        self.ops.record(false);
        (sums, gradients)
    }

    fn check(&self, batch: &Batch) -> Result<u64, SessionError> {
        batch.validate(&self.config)?;
        match batch.target_tokens() {
            0 => Err(Error::Batch("it has no target tokens".into()).into()),
            tokens => Ok(tokens),
        }
    }

    fn apply(&mut self, gradients: Vec<O::Gradient>, update: &Update) -> Pending<f64> {
        let parameters = self.parameters.iter_mut().zip(self.moments.values_mut());
        let trained = parameters.map(|((name, parameter), moments)| {
            let decay = !name.ends_with("layer_norm.weight");
            Trained { parameter, moments, decay }
        });
        self.ops.update_all(trained.collect(), gradients, update)
    }
}

impl<O: Ops> Session for ModelSession<O> {
    fn config(&self) -> &T5Config {
        &self.config
    }

    fn begin_step(&mut self, micro_batches: &[Batch], update: &Update) -> Result<(), SessionError> {
        let mut tokens = 0;
        for batch in micro_batches {
            tokens += self.check(batch)?;
        }
        let how = CrossEntropy { scale: 1.0 / tokens as f32, z_loss: update.z_loss as f32 };
        self.guarded(|session| {
            let mut total: Option<Vec<O::Gradient>> = None;
            let mut sums = vec![];
            for (index, batch) in micro_batches.iter().enumerate() {
                let pass = format!("{}.{index}", update.step);
                let (batch_sums, gradients) = session.gradients(batch, update.dropout, pass, how);
                sums.push(batch_sums);
                match &mut total {
                    None => total = Some(gradients),
                    Some(total) => total
                        .iter_mut()
                        .zip(gradients)
                        .for_each(|(total, gradient)| session.ops.accumulate(total, gradient)),
                }
            }
            let gradient_norm = session.apply(total.unwrap_or_default(), update);
            let step = RunningStep { step: update.step, tokens, sums, gradient_norm };
            session.begun.push(match session.ops.is_asynchronous() {
                true => Begun::Running(step),
                false => Begun::Done(step.finish()?),
            });
            Ok(())
        })
    }

    fn finish_steps(&mut self) -> Result<Vec<TrainStep>, SessionError> {
        let begun = std::mem::take(&mut self.begun);
        let finish = |step| match step {
            Begun::Done(step) => Ok(step),
            Begun::Running(step) => step.finish(),
        };
        guarded(|| begun.into_iter().map(finish).collect())
    }

    fn is_asynchronous(&self) -> bool {
        self.ops.is_asynchronous()
    }

    fn evaluate(&mut self, batch: &Batch) -> Result<Evaluation, SessionError> {
        self.check(batch)?;
        self.guarded(|session| {
            let model = T5::new(&session.ops, &session.config, &session.parameters);
            let x = model.forward(batch);
            let how = CrossEntropy { scale: 1.0, z_loss: 0.0 };
            let (_, sums) = session.ops.cross_entropy(&x, model.head(), &batch.labels, how);
            let sums = sums.read();
            Ok(Evaluation { loss_sum: sums.loss, correct: sums.correct, tokens: sums.tokens })
        })
    }

    fn forward(&mut self, batch: &Batch, gradients: bool) -> Result<Forward, SessionError> {
        let tokens = self.check(batch)?;
        let how = CrossEntropy { scale: 1.0 / tokens as f32, z_loss: 0.0 };
        self.guarded(|session| {
            let model = T5::new(&session.ops, &session.config, &session.parameters);
            let x = model.forward(batch);
            let logits = session.ops.read_activation(&session.ops.linear(&x, model.head()));
            let (_, sums) = session.ops.cross_entropy(&x, model.head(), &batch.labels, how);
            let loss = sums.read().loss / tokens as f64;
            let mut forward = Forward { logits, loss, gradients: BTreeMap::new() };
            if gradients {
                let (_, gradients) = session.gradients(batch, Dropout::default(), String::new(), how);
                let read = gradients.iter().map(|gradient| session.ops.read_gradient(gradient));
                forward.gradients = session.parameters.keys().cloned().zip(read).collect();
            }
            Ok(forward)
        })
    }

    fn activations(
        &mut self,
        batch: &Batch,
        places: &[&str],
    ) -> Result<BTreeMap<String, HostTensor>, SessionError> {
        self.check(batch)?;
        self.guarded(|session| {
            let seen = RefCell::new(BTreeMap::new());
            let observe = |place: &str, x: &O::Activation| {
                if places.contains(&place) {
                    seen.borrow_mut().insert(place.to_owned(), session.ops.read_activation(x));
                }
            };
            T5::new(&session.ops, &session.config, &session.parameters).observed(&observe).forward(batch);
            Ok(seen.into_inner())
        })
    }

    fn generate(
        &mut self,
        batch: &Batch,
        max_new_tokens: usize,
        stop: &dyn Fn(&[i32]) -> bool,
    ) -> Result<Vec<Vec<i32>>, SessionError> {
        batch.validate(&self.config)?;
        self.guarded(|ModelSession { ops, config, parameters, .. }| {
            Ok(generate(ops, config, parameters, batch, max_new_tokens, stop))
        })
    }

    fn log_likelihoods(
        &mut self,
        batch: &Batch,
        candidates: &[Vec<i32>],
    ) -> Result<Vec<Vec<f64>>, SessionError> {
        batch.validate(&self.config)?;
        let candidates = Candidates::new(candidates, &self.config)?;
        self.guarded(|ModelSession { ops, config, parameters, .. }| {
            Ok(log_likelihoods(ops, config, parameters, batch, &candidates))
        })
    }

    fn export(&self) -> Result<HostTensors, SessionError> {
        let read =
            |(name, parameter): (&String, &O::Parameter)| (name.clone(), self.ops.read_parameter(parameter));
        guarded(|| Ok(self.parameters.iter().map(read).collect()))
    }

    fn optimizer_state(&self) -> Result<HostTensors, SessionError> {
        let read = |(parameter, moments): (&String, &Moments<O::Moment>)| {
            let read = |(moment, tensor)| (format!("{parameter}.{moment}"), self.ops.read_moment(tensor));
            moments.iter().map(read).collect::<Vec<_>>()
        };
        guarded(|| Ok(self.moments.iter().flat_map(read).collect()))
    }

    fn load_optimizer_state(&mut self, state: HostTensors) -> Result<(), SessionError> {
        let mut moments: BTreeMap<_, Moments<O::Moment>> = no_moments(&self.parameters);
        for (name, tensor) in state {
            let split =
                name.rsplit_once('.').filter(|(parameter, _)| self.parameters.contains_key(*parameter));
            let Some((parameter, moment)) = split else {
                return Err(SessionError::OptimizerState(format!("{name} belongs to no parameter")));
            };
            let (shape, tensor) = (tensor.shape.clone(), guarded(|| Ok(self.ops.moment(tensor)))?);
            let moments = moments.entry(parameter.into()).or_default();
            moments
                .insert(moment, &shape, tensor)
                .map_err(|problem| SessionError::OptimizerState(format!("{name}: {problem}")))?;
        }
        self.moments = moments;
        Ok(())
    }
}
