//! What a sound plan will do that its author may not want.

use crate::plan::{Fill, FusionPlan, Normalisation, Placement, PlannedParam};
use crate::table::{Axis, AxisRule};

/// A property of a plan that is worth telling its author. It says what is so; what to do about it depends on how the plan
/// was asked for.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// Two parents are the same model, and nothing tells their halves of the child apart in training: noise in the
    /// cross-connections would.
    #[error(
        "parents {first} and {second} are the same model and the cross-connections are zero: both halves of \
         the child get equal gradients and stay equal forever, so training cannot use the added width"
    )]
    HalvesStayEqual {
        /// The index of one parent.
        first: usize,
        /// The index of the other.
        second: usize,
    },
    /// Nothing tells copies of features apart in training: noise that cancels between the copies would, or unequal
    /// shares.
    #[error(
        "features are copied (first in `{parameter}`) and nothing tells the copies apart: they get equal \
         gradients and stay equal forever, so training cannot use the added width"
    )]
    CopiesStayEqual {
        /// The first of the features' weights.
        parameter: String,
    },
    /// The fusion rule with different parents does not average their predictions; the property would.
    #[error(
        "the parents differ and their concatenation is normalised as one vector (the fusion rule): the \
         child's first predictions will not be the average of its parents'"
    )]
    InexactNormalisation,
    /// The zero padding of narrow heads gets no gradient.
    #[error(
        "the heads of parent {parent} have {size} of the child's {padded} features (first in `{parameter}`): \
         the padding is zero on both sides of every product, so it gets no gradient and stays zero"
    )]
    PaddingStaysZero {
        /// The first padded parameter.
        parameter: String,
        /// The parent with the narrow heads.
        parent: usize,
        /// The size of its heads.
        size: usize,
        /// The size of the child's heads.
        padded: usize,
    },
    /// The features of an absent parent get no gradient: noise in the cross-connections would change that.
    #[error(
        "parent {parent} lacks {count} of the child's weights (first `{parameter}`): its blocks there pass its \
         features on unchanged, and with cross-connections of zero their heads and hidden features are zero \
         on both sides of every product, get no gradient and stay zero"
    )]
    AbsentStaysZero {
        /// The first of the parameters.
        parameter: String,
        /// The parent that lacks them.
        parent: usize,
        /// How many it lacks.
        count: usize,
    },
}

impl FusionPlan {
    /// What the author of this plan should know before training its child.
    pub fn warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let equal = self.equal_parents();
        if let (Some((first, second)), Fill::Zero) = (equal, self.cross()) {
            warnings.push(Warning::HalvesStayEqual { first, second });
        }
        warnings.extend(self.equal_copies());
        let one_model = (1..self.parents.len()).all(|index| self.are_equal(0, index));
        if self.normalisation == Normalisation::Rule && !one_model && !self.embed_groups.is_empty() {
            warnings.push(Warning::InexactNormalisation);
        }
        warnings.extend(self.padding());
        warnings.extend((0..self.parents.len()).filter_map(|parent| self.absence(parent)));
        warnings
    }

    fn equal_parents(&self) -> Option<(usize, usize)> {
        let pairs = (0..self.parents.len()).flat_map(|a| (a + 1..self.parents.len()).map(move |b| (a, b)));
        pairs.into_iter().find(|&(a, b)| self.are_equal(a, b))
    }

    /// The first weight in which the sum over two copies of a feature takes both alike.
    fn equal_copies(&self) -> Option<Warning> {
        let param = self.params.iter().find(|param| self.parents.len() == 1 && has_equal_copies(param))?;
        Some(Warning::CopiesStayEqual { parameter: param.name.clone() })
    }

    /// By the hashes where both are known, otherwise by the labels.
    fn are_equal(&self, a: usize, b: usize) -> bool {
        let (Some(a), Some(b)) = (self.parents.get(a), self.parents.get(b)) else { return false };
        match (&a.blake3, &b.blake3) {
            (Some(a), Some(b)) => a == b,
            _ => a.label == b.label,
        }
    }

    /// The first parameter with padding along an axis, if any.
    fn padding(&self) -> Option<Warning> {
        self.params.iter().find_map(|param| {
            let padded =
                param.factors().enumerate().filter(|(_, factor)| factor.axis.rule() == AxisRule::Padded);
            padded.into_iter().find_map(|(index, factor)| {
                let short = |size: &usize| *size < factor.size;
                let part = param.placements.iter().find(|p| p.extent.get(index).is_some_and(short))?;
                Some(Warning::PaddingStaysZero {
                    parameter: param.name.clone(),
                    parent: part.parent,
                    size: *part.extent.get(index)?,
                    padded: factor.size,
                })
            })
        })
    }

    /// What a parent lacks, among the parameters that could have cross-connections and have none.
    fn absence(&self, parent: usize) -> Option<Warning> {
        let is_dead = |param: &&PlannedParam| {
            param.fill == Fill::Zero
                && param.fused_dims() >= 2
                && param.absent.iter().any(|absence| absence.parent == parent && absence.value == 0.0)
        };
        // Features that nothing produces, either; zero weights behind living features do get gradients.
        let is_produced = |param: &PlannedParam| {
            param.dims.first().is_some_and(|dim| dim.factors.iter().all(|factor| factor.axis != Axis::Embed))
        };
        let dead = self.params.iter().filter(is_dead);
        let parameter = dead.clone().find(|param| is_produced(param))?.name.clone();
        Some(Warning::AbsentStaysZero { parameter, parent, count: dead.count() })
    }
}

/// Whether two places hold the same, and lie apart along the dimension that products sum over only.
fn has_equal_copies(param: &PlannedParam) -> bool {
    let Some(contracts) = param.contracts else { return false };
    let dimensions = param.dims.iter().enumerate();
    let summed: Vec<bool> =
        dimensions.flat_map(|(at, dim)| dim.factors.iter().map(move |_| at == contracts)).collect();
    let alike = |a: &Placement, b: &Placement| {
        let mut offsets = a.offset.iter().zip(&b.offset).zip(&summed);
        (&a.source, &a.from, &a.extent, a.noise) == (&b.source, &b.from, &b.extent, b.noise)
            && a.scale == b.scale
            && offsets.all(|((a, b), summed)| *summed || a == b)
    };
    let later = |at: usize| param.placements.iter().skip(at + 1);
    param.placements.iter().enumerate().any(|(at, a)| later(at).any(|b| alike(a, b)))
}
