//! A session over any backend's operations.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use fusion_core::{HostTensor, HostTensors, TensorSource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::data_parallel::{Buckets, owners, parts};
use super::step::{Begun, OwnStep, RunningStep};
use super::{
    Communication, Computation, CrossEntropy, Forward, Ops, Pending, ProcessGroup, Session, SessionError,
    TokenLoss, TrainStep, Trained, Update, guarded,
};
use crate::generate::{Candidates, answers, generate, log_likelihoods};
use crate::model::{Checkpointed, Dropouts, T5};
use crate::optimizer::Moments;
use crate::parameters::{Weights, parameters};
use crate::{Answer, Batch, Decoding, Error, Probe, T5Config};

/// A T5 on the device of its operations: the [`Session`] of every backend.
pub struct ModelSession<O: Ops> {
    ops: O,
    config: T5Config,
    weights: Weights,
    /// In the order of [`Weights::parameters`], as are the moments.
    parameters: Vec<O::Parameter>,
    moments: Vec<Moments<O::Moment>>,
    checkpoint_activations: bool,
    begun: Vec<Begun>,
    /// The processes that train with this one.
    group: Option<Arc<dyn ProcessGroup>>,
    /// Which rank updates a parameter and keeps its moments, if each does so for some.
    owners: Option<Vec<usize>>,
    communication: Communication,
}

/// The losses of a batch's tokens, and the gradient of each parameter.
type Differentiated<O> = (Pending<Vec<TokenLoss>>, Vec<<O as Ops>::Gradient>);

impl<O: Ops> ModelSession<O> {
    /// Puts the weights on the device after checking their shapes against the configuration's table.
    pub fn new(
        ops: O,
        how: &Computation,
        config: &T5Config,
        weights: &dyn TensorSource,
    ) -> Result<Self, SessionError> {
        let mut on_device = BTreeMap::new(); // sorted by name
        for spec in parameters(config)?.into_iter().map(|parameter| parameter.spec) {
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
            on_device.insert(spec.name, guarded(|| Ok(ops.parameter(tensor)))?);
        }
        Ok(ModelSession {
            ops,
            config: config.clone(),
            weights: Weights::new(config)?,
            moments: on_device.iter().map(|_| Moments::default()).collect(),
            parameters: on_device.into_values().collect(),
            checkpoint_activations: how.checkpoint_activations,
            begun: Vec::new(),
            group: None,
            owners: None,
            communication: Communication::default(),
        })
    }

    fn model(&self) -> T5<'_, O> {
        T5::new(&self.ops, &self.config, &self.weights, &self.parameters)
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        self.weights.parameters.iter().map(|parameter| &parameter.spec.name)
    }

    /// Runs something on the device, then stops recording.
    fn guarded<T>(
        &mut self,
        run: impl FnOnce(&mut Self) -> Result<T, SessionError>,
    ) -> Result<T, SessionError> {
        let result = guarded(|| run(self));
        self.ops.record(false);
        result
    }

    /// The gradients of one batch, with the loss scaled by `how`.
    fn gradients(&mut self, batch: &Batch, dropout: Dropouts, how: CrossEntropy) -> Differentiated<O> {
        if self.checkpoint_activations {
            let ModelSession { ops, config, weights, parameters, .. } = self;
            return Checkpointed { ops, config, weights, parameters, batch, dropout }.run(how);
        }
        let (loss, losses) = self.recorded_loss(batch, dropout, how);
        let parameters: Vec<_> = self.parameters.iter().collect();
        let (_, gradients) = self.ops.backward(loss, &[], &parameters);
        self.ops.record(false);
        (losses, gradients)
    }

    /// Starts a recording: the loss of one batch, to be differentiated.
    fn recorded_loss(
        &mut self,
        batch: &Batch,
        dropout: Dropouts,
        how: CrossEntropy,
    ) -> (O::Loss, Pending<Vec<TokenLoss>>) {
        self.ops.record(true);
        let model = self.model().with_dropout(dropout);
        let x = model.forward(batch); // [batch, target, d_model]
        self.ops.cross_entropy(&x, model.head(), &batch.labels, how)
    }

    /// The same for the last of this process's micro-batches, added to the gradients of those before and to
    /// those of all other processes.
    fn reduced_gradients(
        &mut self,
        batch: &Batch,
        dropout: Dropouts,
        how: CrossEntropy,
        before: Option<Vec<O::Gradient>>,
        group: &dyn ProcessGroup,
    ) -> Result<Differentiated<O>, SessionError> {
        let mut before: Vec<Option<O::Gradient>> = match before {
            None => self.parameters.iter().map(|_| None).collect(),
            Some(before) => before.into_iter().map(Some).collect(),
        };
        let elements: Vec<usize> =
            self.weights.parameters.iter().map(|row| row.spec.shape().iter().product()).collect();
        let mut add = |ops: &O, buckets: &mut Buckets<'_, O>, index: usize, gradient| {
            let gradient = match before[index].take() {
                None => gradient,
                Some(mut total) => {
                    ops.accumulate(&mut total, gradient);
                    total
                }
            };
            buckets.add(index, gradient, elements[index]);
        };
        let (losses, gradients, communication);
        if self.checkpoint_activations {
            let all;
            (losses, all) = self.gradients(batch, dropout, how);
            let mut buckets = Buckets::new(&self.ops, group);
            for (index, gradient) in all.into_iter().enumerate().rev() {
                add(&self.ops, &mut buckets, index, gradient);
            }
            (gradients, communication) = buckets.finish()?;
        } else {
            let loss;
            (loss, losses) = self.recorded_loss(batch, dropout, how);
            let parameters: Vec<_> = self.parameters.iter().collect();
            let mut buckets = Buckets::new(&self.ops, group);
            self.ops.backward_in_turn(loss, &parameters, &mut |index, gradient| {
                add(&self.ops, &mut buckets, index, gradient);
            });
            (gradients, communication) = buckets.finish()?;
            self.ops.record(false);
        }
        self.communication.bytes += communication.bytes;
        self.communication.seconds += communication.seconds;
        Ok((losses, gradients))
    }

    fn check(&self, batch: &Batch) -> Result<u64, SessionError> {
        batch.validate(&self.config)?;
        match batch.target_tokens() {
            0 => Err(Error::Batch("it has no target tokens".into()).into()),
            tokens => Ok(tokens),
        }
    }

    fn apply(&mut self, gradients: Vec<O::Gradient>, update: &Update) -> Result<Pending<f64>, SessionError> {
        if let (Some(group), Some(owners)) = (self.group.clone(), self.owners.clone()) {
            return Ok(self.apply_own(gradients, update, group.as_ref(), &owners)?.into());
        }
        let rows = self.weights.parameters.iter();
        let trained = rows
            .zip(self.parameters.iter_mut().zip(&mut self.moments))
            .map(|(row, (parameter, moments))| Trained { parameter, moments, role: row.role });
        Ok(self.ops.update_all(trained.collect(), gradients, update))
    }

    /// Updates this rank's parameters, and takes the others from the ranks that have updated them.
    fn apply_own(
        &mut self,
        gradients: Vec<O::Gradient>,
        update: &Update,
        group: &dyn ProcessGroup,
        owners: &[usize],
    ) -> Result<f64, SessionError> {
        let norm = self.ops.squared_norm(&gradients).sqrt();
        if !norm.is_finite() {
            return Ok(norm);
        }
        let mut own = Vec::new();
        for (index, gradient) in gradients.into_iter().enumerate() {
            if owners[index] == group.rank() {
                let how = update.of_parameter(norm, self.weights.parameters[index].role);
                let (parameter, moments) = (&mut self.parameters[index], &mut self.moments[index]);
                self.ops.update(parameter, gradient, moments, &how);
                let values = self.ops.read_parameter(parameter).data;
                own.extend(values.into_iter().flat_map(f32::to_le_bytes));
            }
        }
        let (size, since) = (own.len(), Instant::now());
        let all = group.all_gather(own)?;
        self.communication.add(size, since);
        for (rank, bytes) in all.into_iter().enumerate() {
            let mut values = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
            let of_rank = owners.iter().enumerate().filter(|(_, owner)| **owner == rank);
            for (index, _) in of_rank.filter(|_| rank != group.rank()) {
                let shape = self.weights.parameters[index].spec.shape();
                let data = values.by_ref().take(shape.iter().product()).collect();
                self.ops.write_parameter(&mut self.parameters[index], HostTensor { shape, data });
            }
        }
        Ok(norm)
    }

    /// Which of so many examples this process computes.
    fn share(&self, examples: usize) -> Range<usize> {
        self.group.as_ref().map_or(0..examples, |group| group.share(examples))
    }

    /// The results for a batch's examples, of which each process computes its own.
    fn shared<T: Serialize + DeserializeOwned>(
        &mut self,
        batch: &Batch,
        compute: impl FnOnce(&mut Self, &Batch, usize) -> Result<Vec<T>, SessionError>,
    ) -> Result<Vec<T>, SessionError> {
        let Some(group) = self.group.clone() else { return compute(self, batch, 0) };
        let rows = self.share(batch.size);
        let own = match rows.is_empty() {
            true => Vec::new(),
            false => compute(self, &batch.rows(rows.clone()), rows.start)?,
        };
        Ok(group.gather(&own)?.into_iter().flatten().collect())
    }
}

impl<O: Ops> Session for ModelSession<O> {
    fn config(&self) -> &T5Config {
        &self.config
    }

    fn join(&mut self, group: Arc<dyn ProcessGroup>) -> Result<(), SessionError> {
        let sizes = self.weights.parameters.iter().map(|row| row.spec.shape().iter().product());
        let shards = group.options().shard_optimizer;
        self.owners = shards.then(|| owners(&sizes.collect::<Vec<usize>>(), group.world_size()));
        self.group = Some(group);
        Ok(())
    }

    fn begin_step(&mut self, micro_batches: &[Batch], update: &Update) -> Result<(), SessionError> {
        let (mut tokens, mut examples) = (0, 0);
        for batch in micro_batches {
            tokens += self.check(batch)?;
            examples += batch.size;
        }
        let own = self.share(examples);
        if own.is_empty() {
            let processes = self.group.as_ref().map_or(1, |group| group.world_size());
            let problem = format!("its {examples} examples cannot be divided among {processes} processes");
            return Err(Error::Batch(problem).into());
        }
        let how = CrossEntropy { scale: 1.0 / tokens as f32, z_loss: update.z_loss as f32 };
        let parts = parts(micro_batches, &own);
        self.guarded(|session| {
            let mut total: Option<Vec<O::Gradient>> = None;
            let (mut losses, last) = (vec![], parts.len() - 1);
            for (number, (first, part)) in parts.iter().enumerate() {
                let dropout = Dropouts::new(update, *first, part);
                if number == last
                    && let Some(group) = session.group.clone()
                {
                    let (of_part, gradients) =
                        session.reduced_gradients(part, dropout, how, total.take(), group.as_ref())?;
                    losses.push(of_part);
                    total = Some(gradients);
                    break;
                }
                let (of_part, gradients) = session.gradients(part, dropout, how);
                losses.push(of_part);
                match &mut total {
                    None => total = Some(gradients),
                    Some(total) => total
                        .iter_mut()
                        .zip(gradients)
                        .for_each(|(total, gradient)| session.ops.accumulate(total, gradient)),
                }
            }
            let gradients = total.unwrap_or_default();
            let gradient_norm = session.apply(gradients, update)?;
            let step = RunningStep { step: update.step, tokens, losses, gradient_norm };
            session.begun.push(match session.ops.is_asynchronous() {
                true => Begun::Running(step),
                false => Begun::Done(step.wait()),
            });
            Ok(())
        })
    }

    fn finish_steps(&mut self) -> Result<Vec<TrainStep>, SessionError> {
        let begun = std::mem::take(&mut self.begun);
        let own: Vec<OwnStep> = guarded(|| Ok(begun.into_iter().map(Begun::wait).collect()))?;
        let sums: Vec<(f64, u64)> = own.iter().map(|step| step.sums).collect();
        let of_ranks = match &self.group {
            None => vec![sums],
            Some(group) => group.gather(&sums)?,
        };
        let of_step = |index: usize| of_ranks.iter().filter_map(move |sums| sums.get(index).copied());
        own.into_iter().enumerate().map(|(index, step)| step.finish(of_step(index))).collect()
    }

    fn communication(&mut self) -> Option<Communication> {
        self.group.as_ref()?;
        Some(std::mem::take(&mut self.communication))
    }

    fn is_asynchronous(&self) -> bool {
        self.ops.is_asynchronous()
    }

    fn evaluate(&mut self, batch: &Batch) -> Result<Vec<TokenLoss>, SessionError> {
        self.check(batch)?;
        self.shared(batch, |session, batch, _| {
            session.guarded(|session| {
                let model = session.model();
                let x = model.forward(batch);
                let how = CrossEntropy { scale: 1.0, z_loss: 0.0 };
                let (_, losses) = session.ops.cross_entropy(&x, model.head(), &batch.labels, how);
                Ok(losses.read())
            })
        })
    }

    fn forward(&mut self, batch: &Batch, gradients: bool) -> Result<Forward, SessionError> {
        let tokens = self.check(batch)?;
        let how = CrossEntropy { scale: 1.0 / tokens as f32, z_loss: 0.0 };
        self.guarded(|session| {
            let model = session.model();
            let x = model.forward(batch);
            let logits = session.ops.read_activation(&session.ops.linear(&x, model.head()));
            let (_, losses) = session.ops.cross_entropy(&x, model.head(), &batch.labels, how);
            let loss = losses.read().iter().map(|token| token.loss).sum::<f64>() / tokens as f64;
            let mut forward = Forward { logits, loss, gradients: BTreeMap::new() };
            if gradients {
                let (_, gradients) = session.gradients(batch, Dropouts::default(), how);
                let read = gradients.iter().map(|gradient| session.ops.read_gradient(gradient));
                forward.gradients = session.names().cloned().zip(read).collect();
            }
            Ok(forward)
        })
    }

    fn activations(
        &mut self,
        batch: &Batch,
        probes: &[Probe],
    ) -> Result<BTreeMap<Probe, HostTensor>, SessionError> {
        self.check(batch)?;
        self.guarded(|session| {
            let seen = RefCell::new(BTreeMap::new());
            let observe = |probe: Probe, x: &O::Activation| {
                if probes.contains(&probe) {
                    seen.borrow_mut().insert(probe, session.ops.read_activation(x));
                }
            };
            session.model().observed(&observe).forward(batch);
            Ok(seen.into_inner())
        })
    }

    fn generate(
        &mut self,
        batch: &Batch,
        decoding: &Decoding,
        stop: &dyn Fn(&[i32]) -> bool,
    ) -> Result<Vec<Vec<i32>>, SessionError> {
        batch.validate(&self.config)?;
        self.shared(batch, |session, batch, _| {
            session.guarded(|session| Ok(generate(&session.model(), batch, decoding, stop)))
        })
    }

    fn answers(
        &mut self,
        batch: &Batch,
        how: &Decoding,
        first_input: u64,
    ) -> Result<Vec<Vec<Answer>>, SessionError> {
        how.check()?;
        batch.validate(&self.config)?;
        self.shared(batch, |session, batch, first| {
            let first_input = first_input + first as u64;
            session.guarded(|session| Ok(answers(&session.model(), batch, how, first_input)))
        })
    }

    fn log_likelihoods(
        &mut self,
        batch: &Batch,
        candidates: &[Vec<i32>],
    ) -> Result<Vec<Vec<f64>>, SessionError> {
        batch.validate(&self.config)?;
        let candidates = Candidates::new(candidates, &self.config)?;
        self.shared(batch, |session, batch, _| {
            session.guarded(|session| Ok(log_likelihoods(&session.model(), batch, &candidates)))
        })
    }

    fn export(&self) -> Result<HostTensors, SessionError> {
        let read = |parameter: &O::Parameter| self.ops.read_parameter(parameter);
        guarded(|| Ok(self.names().cloned().zip(self.parameters.iter().map(read)).collect()))
    }

    fn optimizer_state(&self) -> Result<HostTensors, SessionError> {
        let read = |(parameter, moments): (&String, &Moments<O::Moment>)| {
            let read = |(moment, tensor)| (format!("{parameter}.{moment}"), self.ops.read_moment(tensor));
            moments.iter().map(read).collect::<Vec<_>>()
        };
        let own: HostTensors = guarded(|| Ok(self.names().zip(&self.moments).flat_map(read).collect()))?;
        match (&self.group, &self.owners) {
            (Some(group), Some(_)) => {
                let own: Vec<_> =
                    own.into_iter().map(|(name, tensor)| (name, tensor.shape, tensor.data)).collect();
                let all = group.gather(&own)?.into_iter().flatten();
                Ok(all.map(|(name, shape, data)| (name, HostTensor { shape, data })).collect())
            }
            _ => Ok(own),
        }
    }

    fn load_optimizer_state(&mut self, state: HostTensors) -> Result<(), SessionError> {
        let mut loaded: Vec<Moments<O::Moment>> = self.moments.iter().map(|_| Moments::default()).collect();
        for (name, tensor) in state {
            let found = name.rsplit_once('.').and_then(|(parameter, moment)| {
                let rows = &self.weights.parameters;
                let index = rows.binary_search_by(|row| row.spec.name.as_str().cmp(parameter)).ok()?;
                Some((index, moment))
            });
            let Some((index, moment)) = found else {
                return Err(SessionError::OptimizerState(format!("{name} belongs to no parameter")));
            };
            let rank = self.group.as_ref().map_or(0, |group| group.rank());
            if self.owners.as_ref().is_some_and(|owners| owners[index] != rank) {
                continue;
            }
            let moments = &mut loaded[index];
            let (shape, tensor) = (tensor.shape.clone(), guarded(|| Ok(self.ops.moment(tensor)))?);
            moments
                .insert(moment, &shape, tensor)
                .map_err(|problem| SessionError::OptimizerState(format!("{name}: {problem}")))?;
        }
        self.moments = loaded;
        Ok(())
    }
}
