//! Trainings that differ only in seeds, taken together.

use std::collections::BTreeMap;

use glue_eval::Summary;
use serde::Serialize;

use super::ReadRun;
use super::training::{Curve, Training};
use crate::report::seeds;

/// Trainings of a run that differ in nothing but seeds.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// What the names of its trainings have in common.
    pub name: String,
    /// What it is in its run's comparison.
    pub role: Role,
    /// The index of its run.
    pub run: usize,
    /// Indices of [`Results::trainings`](super::Results::trainings), in order.
    pub members: Vec<usize>,
    /// Over the evaluations that all of its finished trainings have; until one has finished, over those of all
    /// that have begun.
    pub band: Band,
    /// When the mean of the losses first was that of the baseline at its end.
    pub passes: Option<Passing>,
}

/// What a set is in a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// What the others are compared with.
    Baseline,
    /// Compared with the baseline.
    Arm,
    /// Not compared, such as a parent.
    Other,
}

/// Evaluations over several seeds. All columns are equally long.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Band {
    /// The number of trainings that it is over.
    pub seeds: usize,
    /// Updates of the weights.
    pub steps: Vec<u64>,
    /// Input and target tokens.
    pub tokens: Vec<u64>,
    /// Floating-point operations of each training alone.
    pub flops: Vec<f64>,
    /// The same with those of its parents.
    pub total_flops: Vec<f64>,
    /// By name, as in [`Curve::values`].
    pub values: BTreeMap<String, Spread>,
}

/// A value over several seeds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// `None` where it was not measured with every seed.
    pub mean: Vec<Option<f64>>,
    /// The standard deviation (with n − 1); `None` for a single seed.
    pub deviation: Vec<Option<f64>>,
}

/// The first evaluation that showed a loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Passing {
    /// At this step.
    pub step: u64,
    /// Having spent this computation, parents counted.
    pub total_flops: f64,
    /// As a share of the baseline's.
    pub share: f64,
    /// The loss that it showed.
    pub loss: f64,
}

impl Group {
    /// The mean of a value at the last common evaluation, and its standard deviation over seeds.
    pub fn last(&self, value: &str) -> Option<Summary> {
        let Spread { mean, deviation } = self.band.values.get(value)?;
        Some(Summary { mean: mean.last().copied()??, deviation: deviation.last().copied().flatten() })
    }

    /// The computation behind it, parents counted.
    pub fn total_flops(&self) -> Option<f64> {
        self.band.total_flops.last().copied()
    }
}

impl Band {
    /// Over the steps that all of these have.
    pub fn of(curves: &[&Curve]) -> Self {
        let mut band = Band { seeds: curves.len(), ..Band::default() };
        let Some((first, others)) = curves.split_first() else { return band };
        // For each of a step's evaluations, where it is in each curve.
        let mut rows = Vec::new();
        for (row, step) in first.steps.iter().enumerate() {
            let at: Option<Vec<usize>> =
                others.iter().map(|curve| curve.steps.binary_search(step).ok()).collect();
            if let Some(at) = at {
                rows.push(std::iter::once(row).chain(at).collect::<Vec<_>>());
                band.steps.push(*step);
            }
        }
        let mean = |column: &dyn Fn(&Curve) -> &[f64], rows: &[usize]| {
            let values = curves.iter().zip(rows).filter_map(|(curve, row)| column(curve).get(*row));
            values.sum::<f64>() / curves.len() as f64
        };
        for rows in &rows {
            band.tokens.extend(rows.first().and_then(|row| first.tokens.get(*row)));
            band.flops.push(mean(&|curve| &curve.flops, rows));
            band.total_flops.push(mean(&|curve| &curve.total_flops, rows));
        }
        for name in first.values.keys() {
            let mut spread = Spread::default();
            for rows in &rows {
                let values =
                    curves.iter().zip(rows).map(|(curve, row)| curve.values.get(name)?.get(*row).copied()?);
                let values: Option<Vec<f64>> = values.collect();
                let summary = values.and_then(|values| Summary::of(&values));
                spread.mean.push(summary.map(|summary| summary.mean));
                spread.deviation.push(summary.and_then(|summary| summary.deviation));
            }
            if spread.mean.iter().any(Option::is_some) {
                band.values.insert(name.clone(), spread);
            }
        }
        band
    }
}

/// The first evaluation with this loss or a lower one.
fn passing(
    steps: &[u64],
    total_flops: &[f64],
    losses: &[Option<f64>],
    loss: f64,
    baseline: f64,
) -> Option<Passing> {
    let row = losses.iter().position(|own| own.is_some_and(|own| own <= loss))?;
    let (step, total_flops) = (*steps.get(row)?, *total_flops.get(row)?);
    Some(Passing { step, total_flops, share: total_flops / baseline, loss: losses.get(row).copied()?? })
}

/// Puts trainings together, the first set of a comparison first, and finds out where each passes its run's
/// baseline; that of the first run with a comparison counts for runs without one.
pub(super) fn sets(runs: &[ReadRun], trainings: &mut [Training]) -> Vec<Group> {
    let mut sets = Vec::new();
    for (index, run) in runs.iter().enumerate() {
        sets.extend(of_run(index, run, trainings));
    }
    for set in &mut sets {
        let members = || set.members.iter().filter_map(|member| trainings.get(*member));
        // Those that have hardly begun would leave nothing of the others.
        let finished: Vec<&Curve> =
            members().filter(|own| own.state.is_finished()).map(|own| &own.curve).collect();
        let curves: Vec<&Curve> = match finished.is_empty() {
            true => members().map(|own| &own.curve).filter(|curve| !curve.steps.is_empty()).collect(),
            false => finished,
        };
        set.band = Band::of(&curves);
    }
    let ends: Vec<(usize, f64, f64)> = sets
        .iter()
        .filter(|set| set.role == Role::Baseline)
        .filter(|set| {
            let finished = |member: &usize| trainings.get(*member).is_some_and(|own| own.state.is_finished());
            set.members.iter().any(finished)
        })
        .filter_map(|set| Some((set.run, set.last("loss")?.mean, set.total_flops()?)))
        .collect();
    for set in &mut sets {
        let own = ends.iter().find(|(run, ..)| *run == set.run).or(ends.first());
        let Some(&(_, loss, baseline)) = own.filter(|(_, _, flops)| *flops > 0.0) else { continue };
        let Band { steps, total_flops, values, .. } = &set.band;
        if let Some(losses) = values.get("loss") {
            set.passes = passing(steps, total_flops, &losses.mean, loss, baseline);
        }
        for member in &set.members {
            let Some(training) = trainings.get_mut(*member) else { continue };
            let Curve { steps, total_flops, values, .. } = &training.curve;
            if let Some(losses) = values.get("loss") {
                training.passes = passing(steps, total_flops, losses, loss, baseline);
            }
        }
    }
    sets
}

fn of_run(index: usize, run: &ReadRun, trainings: &[Training]) -> Vec<Group> {
    let keys = seeds::apart_from_seeds(&run.report.stages);
    let comparison = run.report.file.as_ref().and_then(|file| file.comparison.as_ref());
    let mut sets: Vec<(String, Group)> = Vec::new();
    for (at, training) in trainings.iter().enumerate().filter(|(_, training)| training.run == index) {
        let (stage, own) = (training.stage.as_str(), training.recipe_name.as_str());
        let role = match comparison {
            Some(comparison) if comparison.baseline == own => Role::Baseline,
            Some(comparison) if comparison.arms.iter().any(|arm| arm == own) => Role::Arm,
            _ => Role::Other,
        };
        // Sets of seeds are what the recipe says. Without them, what made the trainings tells which belong together.
        let in_set = run.stage(stage).is_some_and(|stage| stage.entry.seed_set.is_some());
        let key = match in_set {
            true => format!("set {own}"),
            false => keys.get(stage).cloned().unwrap_or_else(|| stage.to_owned()),
        };
        match sets.iter_mut().find(|(known, _)| *known == key) {
            Some((_, set)) => {
                set.members.push(at);
                // Another seed of the baseline may be listed among the arms.
                set.role = if role == Role::Baseline || set.role == Role::Other { role } else { set.role };
            }
            None => {
                let (name, members) = (String::new(), vec![at]);
                sets.push((
                    key,
                    Group { name, role, run: index, members, band: Band::default(), passes: None },
                ));
            }
        }
    }
    let mut sets: Vec<Group> = sets.into_iter().map(|(_, set)| set).collect();
    for set in &mut sets {
        let members: Vec<&Training> = set.members.iter().filter_map(|at| trainings.get(*at)).collect();
        let names: Vec<&str> = members.iter().map(|training| training.name.as_str()).collect();
        set.name = match members.first().and_then(|first| run.stage(&first.stage)) {
            Some(stage) if stage.entry.seed_set.is_some() => run.full_name(stage.entry.recipe_name()),
            _ => common_name(&names),
        };
    }
    let places = |set: &Group| match set.role {
        Role::Baseline => 0,
        Role::Arm => 1,
        Role::Other => 2,
    };
    sets.sort_by_key(places);
    sets
}

/// What names have in common at their beginning, up to a separator: `fused` of `fused-1` and `fused-2`.
fn common_name(names: &[&str]) -> String {
    let Some((first, others)) = names.split_first() else { return String::new() };
    if others.is_empty() {
        return (*first).to_owned();
    }
    let common = others.iter().fold(*first, |common, name| {
        let same = common.char_indices().zip(name.chars()).take_while(|((_, one), other)| one == other);
        let length = same.last().map_or(0, |((at, last), _)| at + last.len_utf8());
        common.get(..length).unwrap_or_default()
    });
    let separators = ['-', '_', '.', '@'];
    // The first digits of numbers, such as the 1 of `base-11` and `base-12`, are no part of the name.
    let before = common.trim_end_matches(|c: char| c.is_ascii_digit());
    let name = if before.ends_with(separators) { before } else { common };
    let name = name.trim_end_matches(separators);
    if name.is_empty() || name.ends_with('/') { (*first).to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::{Band, Curve, common_name, passing};

    #[test]
    fn names_of_sets() {
        let cases: [(&[&str], &str); 10] = [
            (&["fused"], "fused"),
            (&["fused-1", "fused-2", "fused-3"], "fused"),
            (&["fused", "fused-2"], "fused"),
            (&["small-a", "small-b"], "small"),
            (&["t5-1", "t5-2"], "t5"),
            (&["t5", "t5-2"], "t5"),
            (&["base-11", "base-12"], "base"),
            (&["run/a", "run/b"], "run/a"),
            (&["x", "y"], "x"),
            (&["größe-1", "größe-2"], "größe"),
        ];
        for (names, common) in cases {
            assert_eq!(common_name(names), common, "{names:?}");
        }
    }

    fn curve(steps: &[u64], losses: &[Option<f64>], parents: f64) -> Curve {
        Curve {
            steps: steps.to_vec(),
            tokens: steps.to_vec(),
            flops: steps.iter().map(|step| *step as f64).collect(),
            total_flops: steps.iter().map(|step| *step as f64 + parents).collect(),
            values: [("loss".to_owned(), losses.to_vec())].into(),
        }
    }

    #[test]
    fn a_band_has_the_common_steps() {
        let one = curve(&[0, 5, 10], &[Some(4.0), Some(3.0), None], 10.0);
        let other = curve(&[0, 10, 20], &[Some(5.0), Some(2.0), Some(1.0)], 20.0);
        let band = Band::of(&[&one, &other]);
        assert_eq!(band.steps, [0, 10]);
        assert_eq!(band.total_flops, [15.0, 25.0]);
        let losses = &band.values["loss"];
        assert_eq!(losses.mean, [Some(4.5), None]);
        assert_eq!(losses.deviation[0].map(|deviation| (deviation * 1e4).round()), Some(7071.0));
        let alone = Band::of(&[&one]);
        assert_eq!(alone.values["loss"].deviation, [None; 3]);
        assert_eq!(Band::of(&[]), Band::default());
    }

    #[test]
    fn passing_is_the_first_evaluation_that_shows_the_loss() {
        let curve = curve(&[0, 5, 10, 15], &[Some(4.0), None, Some(2.9), Some(3.5)], 10.0);
        let at = |loss| passing(&curve.steps, &curve.total_flops, &curve.values["loss"], loss, 40.0);
        let found = at(3.0).expect("reached");
        assert_eq!((found.step, found.total_flops, found.share, found.loss), (10, 20.0, 0.5, 2.9));
        assert_eq!(at(4.0).map(|found| found.step), Some(0));
        assert_eq!(at(1.0), None);
    }
}
