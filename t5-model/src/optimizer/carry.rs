//! Carries an optimiser's state through a fusion, so that the child's next update is as large as its parents' would have been.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

use fusion_core::carry::{Carry, CrossSquares, Squares};
use fusion_core::checkpoint::{LazyTensor, Writer};
use fusion_core::plan::{FusionPlan, Placement, PlannedParam};
use fusion_core::{Dtype, HostTensor, TensorSource};
use serde::{Deserialize, Serialize};

use super::{Moment, Optimizer, OptimizerState, Role, write_optimizer_state};
use crate::{Error, Result};

/// What happens to the parents' optimiser state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum CarryOptimizer {
    /// Drop them: the child starts without a state.
    #[default]
    Reset,
    /// Carry them over to the child, so that its next updates are as large as the parents' would have been.
    ///
    /// The squares of what connects the parents are [estimated](CrossSquares::Estimated).
    Carry,
    /// Like carry, but as if the connections between the parents had never had a gradient.
    ///
    /// The squares there are zero.
    Diagonal,
}

/// A child's optimiser state, before it is written.
pub struct CarriedState<'a> {
    plan: &'a FusionPlan,
    /// One for each of the plan's parents.
    states: Vec<&'a OptimizerState>,
    cross: CrossSquares,
    optimizer: Optimizer,
    step: u64,
}

impl<'a> CarriedState<'a> {
    /// The state of a plan's child from those of its parents, one each; `None` for a reset.
    ///
    /// Its step is the smallest of the parents'. Averages of parents with more steps are rescaled so that
    /// bias corrections for the smaller step leave their meaning unchanged. Adafactor has no bias
    /// corrections; for it, the smallest step forgets the parents soonest.
    ///
    /// # Errors
    /// [`Error::OptimizerState`] if the parents' optimisers average in different ways; an error of the plan
    /// if a gradient of the child does not follow from the parents'.
    pub fn new(
        plan: &'a FusionPlan,
        states: Vec<&'a OptimizerState>,
        mode: CarryOptimizer,
    ) -> Result<Option<Self>> {
        let cross = match mode {
            CarryOptimizer::Reset => return Ok(None),
            CarryOptimizer::Carry => CrossSquares::Estimated,
            CarryOptimizer::Diagonal => CrossSquares::Zero,
        };
        let (parents, sources) = (plan.parents.len(), states.len());
        let Some(first) = states.first().filter(|_| parents == sources) else {
            return Err(fusion_core::Error::SourceCount { parents, sources }.into());
        };
        let (optimizer, step) =
            (first.optimizer, states.iter().map(|state| state.step).fold(first.step, u64::min));
        if let Some(other) = states.iter().find(|state| !state.optimizer.averages_like(&optimizer)) {
            let (own, place) = (other.optimizer, first.directory.display());
            let problem = format!(
                "it is that of {own}, but {place} has that of {optimizer}; these cannot be joined, only reset"
            );
            return Err(Error::OptimizerState { directory: other.directory.clone(), problem });
        }
        let carried = CarriedState { plan, states, cross, optimizer, step };
        for param in &plan.params {
            Carry::new(plan, param)?;
            for place in &param.placements {
                let shape = place.source_shape(&param.dims);
                carried.state(place)?.check_moments(
                    &optimizer,
                    &place.source,
                    &shape,
                    Role::of(&param.dims),
                )?;
            }
        }
        Ok(Some(carried))
    }

    /// The size of the moments in bytes.
    pub fn size(&self) -> u64 {
        self.plan.params.iter().map(|param| self.optimizer.moments_size(&param.dims)).sum()
    }

    /// Writes the state next to the child's weights. Only a few moments are in memory at a time, along with
    /// those they are computed from.
    pub fn write(&self, directory: &Path, weights_blake3: &str, writer: &Writer<'_>) -> Result<()> {
        let mut tensors = Vec::new();
        for param in &self.plan.params {
            let shape = param.shape();
            for &moment in self.optimizer.moments(&shape, Role::of(&param.dims)) {
                let (name, shape) = (moment.of(&param.name), moment.shape(&shape));
                tensors.push(LazyTensor::made(name, Dtype::F32, shape, move || {
                    self.moment(param, moment).map(|tensor| tensor.data)
                }));
            }
        }
        write_optimizer_state(directory, self.optimizer, self.step, weights_blake3, tensors, writer)?;
        Ok(())
    }

    /// A moment of the child.
    fn moment(&self, param: &PlannedParam, moment: Moment) -> fusion_core::Result<HostTensor> {
        let carry = Carry::new(self.plan, param)?;
        if moment == Moment::Mean {
            let means = Sources::new(param, |place| self.load(place, param, Moment::Mean))?;
            return carry.means(&means.of(param));
        }
        let squares = Sources::new(param, |place| self.squares(place, param))?;
        let squares = squares.of(param);
        match moment {
            Moment::Rows => carry.factors(&squares, self.cross).map(|[rows, _]| rows),
            Moment::Columns => carry.factors(&squares, self.cross).map(|[_, columns]| columns),
            _ => carry.squares(&squares, self.cross),
        }
    }

    /// The squares known for a placement's parent. Where the child has factors, a smaller parent may have
    /// full squares.
    fn squares(&self, place: &Placement, param: &PlannedParam) -> fusion_core::Result<Squares> {
        let of_parent = self.optimizer.moments(&place.source_shape(&param.dims), Role::of(&param.dims));
        if of_parent.contains(&Moment::Squares) {
            return self.load(place, param, Moment::Squares).map(Squares::Elements);
        }
        let rows = self.load(place, param, Moment::Rows)?;
        Ok(Squares::factors(rows.data, self.load(place, param, Moment::Columns)?.data))
    }

    /// A moment of a placement's parent, rescaled to bias corrections for the child's step.
    fn load(
        &self,
        place: &Placement,
        param: &PlannedParam,
        moment: Moment,
    ) -> fusion_core::Result<HostTensor> {
        let state = self.state(place)?;
        let mut tensor = state.moments.load_f32(&moment.of(&place.source))?;
        let fullness = |step| self.optimizer.fullness(moment, Role::of(&param.dims), step);
        let factor = fullness(self.step) / fullness(state.step);
        if factor != 1.0 {
            tensor.data.iter_mut().for_each(|value| *value = (f64::from(*value) * factor) as f32);
        }
        Ok(tensor)
    }

    fn state(&self, place: &Placement) -> fusion_core::Result<&OptimizerState> {
        let (parents, sources) = (self.plan.parents.len(), self.states.len());
        let state = self.states.get(place.parent).copied();
        state.ok_or(fusion_core::Error::SourceCount { parents, sources })
    }
}

/// The sources that a parameter's placements read, each once.
struct Sources<'a, T>(BTreeMap<(usize, &'a str), T>);

impl<'a, T> Sources<'a, T> {
    fn new(
        param: &'a PlannedParam,
        load: impl Fn(&'a Placement) -> fusion_core::Result<T>,
    ) -> fusion_core::Result<Self> {
        let mut sources = BTreeMap::new();
        for place in &param.placements {
            if let Entry::Vacant(entry) = sources.entry((place.parent, place.source.as_str())) {
                entry.insert(load(place)?);
            }
        }
        Ok(Sources(sources))
    }

    /// The source of each placement.
    fn of(&self, param: &'a PlannedParam) -> Vec<&T> {
        let places = param.placements.iter();
        places.filter_map(|place| self.0.get(&(place.parent, place.source.as_str()))).collect()
    }
}
