//! A session over any backend's operations.

use std::cell::RefCell;
use std::collections::BTreeMap;

use fusion_core::{HostTensor, HostTensors, TensorSource};

use crate::activation_checkpoints::Checkpointed;
use crate::generate::generate;
use crate::guard::guarded;
use crate::optimizer::{Moments, ParameterUpdate};
use crate::rank::{Candidates, log_likelihoods};
use crate::{
    Batch, Computation, CrossEntropy, Error, Evaluation, Forward, LossSums, Ops, Session, SessionError, T5,
    T5Config, TrainStep, Update, parameter_table,
};

/// A T5 on the device of its operations. Backends hand it out as their [`Session`].
pub struct ModelSession<O: Ops> {
    ops: O,
    config: T5Config,
    parameters: BTreeMap<String, O::Parameter>,
    moments: BTreeMap<String, Moments<O::Moment>>,
    checkpoint_activations: bool,
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
            parameters,
            moments: BTreeMap::new(),
            checkpoint_activations: how.checkpoint_activations,
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
        dropout: crate::Dropout,
        pass: String,
        how: CrossEntropy,
    ) -> (LossSums, Vec<O::Gradient>) {
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

    fn apply(&mut self, gradients: Vec<O::Gradient>, update: &Update, gradient_norm: f64) {
        let clip = update.clip_norm.map_or(1.0, |limit| (limit / (gradient_norm + 1e-6)).min(1.0));
        let each = ParameterUpdate {
            optimizer: update.optimizer,
            learning_rate: update.learning_rate,
            step: update.optimizer_step,
            gradient_scale: clip as f32,
            decay: true,
        };
        for ((name, parameter), gradient) in self.parameters.iter_mut().zip(gradients) {
            let moments = self.moments.entry(name.clone()).or_default();
            let each = ParameterUpdate { decay: !name.ends_with("layer_norm.weight"), ..each };
            self.ops.update(parameter, gradient, moments, &each);
        }
    }
}

impl<O: Ops> Session for ModelSession<O> {
    fn config(&self) -> &T5Config {
        &self.config
    }

    fn train_step(&mut self, micro_batches: &[Batch], update: &Update) -> Result<TrainStep, SessionError> {
        let mut tokens = 0;
        for batch in micro_batches {
            tokens += self.check(batch)?;
        }
        let how = CrossEntropy { scale: 1.0 / tokens as f32, z_loss: update.z_loss as f32 };
        self.guarded(|session| {
            let mut total: Option<Vec<O::Gradient>> = None;
            let mut sums = LossSums::default();
            for (index, batch) in micro_batches.iter().enumerate() {
                let pass = format!("{}.{index}", update.step);
                let (batch_sums, gradients) = session.gradients(batch, update.dropout, pass, how);
                sums.loss += batch_sums.loss;
                sums.correct += batch_sums.correct;
                match &mut total {
                    None => total = Some(gradients),
                    Some(total) => total
                        .iter_mut()
                        .zip(gradients)
                        .for_each(|(total, gradient)| session.ops.accumulate(total, gradient)),
                }
            }
            let gradients = total.unwrap_or_default();
            let squared = session.ops.squared_norm(&gradients);
            let (loss, gradient_norm) = (sums.loss / tokens as f64, squared.sqrt());
            if !loss.is_finite() || !gradient_norm.is_finite() {
                return Err(SessionError::NonFinite { step: update.step, loss, gradient_norm });
            }
            session.apply(gradients, update, gradient_norm);
            Ok(TrainStep { loss, correct: sums.correct, tokens, gradient_norm })
        })
    }

    fn evaluate(&mut self, batch: &Batch) -> Result<Evaluation, SessionError> {
        self.check(batch)?;
        self.guarded(|session| {
            let model = T5::new(&session.ops, &session.config, &session.parameters);
            let x = model.forward(batch);
            let how = CrossEntropy { scale: 1.0, z_loss: 0.0 };
            let (_, sums) = session.ops.cross_entropy(&x, model.head(), &batch.labels, how);
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
            let mut forward = Forward { logits, loss: sums.loss / tokens as f64, gradients: BTreeMap::new() };
            if gradients {
                let (_, gradients) = session.gradients(batch, crate::Dropout::default(), String::new(), how);
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
        let mut moments = BTreeMap::<String, Moments<O::Moment>>::new();
        for (name, tensor) in state.0 {
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
