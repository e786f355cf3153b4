//! Training from scratch against fusions: at equal steps (the paper's Table 1), and at equal computation
//! including the parents' training (Table 4).

use std::collections::BTreeMap;

use t5_model::train::EvaluationPoint;

use super::Section;
use super::seeds::Variation;
use super::table::Table;
use crate::numbers::{count, mean, sets};
use crate::stage::Arm;

/// Shares of the baseline's computation at which the arms are compared.
const BUDGETS: [f64; 4] = [0.25, 0.5, 0.75, 1.0];
/// The number of steps shown besides the first.
const STEPS: usize = 4;
const MISSING: &str = "-";

impl Arm {
    fn last(&self) -> Option<&EvaluationPoint> {
        self.evaluations.last()
    }

    fn total_flops(&self) -> f64 {
        self.parents_flops + self.last().map_or(0.0, |point| point.flops)
    }

    /// The last evaluation within the budget, if the budget covers the parents.
    fn within(&self, budget: f64) -> Option<&EvaluationPoint> {
        // Sums of the same numbers in another order may differ in their last digits.
        let affordable = |point: &&EvaluationPoint| self.parents_flops + point.flops <= budget * (1.0 + 1e-9);
        self.evaluations.iter().rfind(affordable)
    }

    fn at_step(&self, step: u64) -> Option<&EvaluationPoint> {
        self.evaluations.iter().find(|point| point.step == step)
    }

    /// The arm's name in the recipe, which all sets of seeds share.
    fn stage(&self) -> &str {
        self.seed_set.as_ref().map_or(&self.name, |set| &set.stage)
    }

    /// Of several arms, the one with the same set of seeds, or else the first.
    fn fellow<'a>(&self, arms: &'a [Arm]) -> Option<&'a Arm> {
        let number = |arm: &Arm| arm.seed_set.as_ref().map(|set| set.number);
        arms.iter().find(|arm| number(arm) == number(self)).or(arms.first())
    }

    /// The computation spent when an evaluation's loss first reached this value.
    fn flops_to_reach(&self, loss: f64) -> Option<f64> {
        let point = self.evaluations.iter().find(|point| point.quality.loss <= loss)?;
        Some(self.parents_flops + point.flops)
    }
}

/// What is known of differences that mean nothing.
#[derive(Debug, Default)]
pub struct Chance<'a> {
    /// For each arm, what made it but seeds.
    pub groups: BTreeMap<&'a str, &'a str>,
    /// What another seed changes.
    pub seeds: Option<Variation>,
}

/// Models that differ only by seeds, at one point of their training.
struct Contender<'a> {
    /// The first's.
    name: &'a str,
    losses: Vec<f64>,
    /// The largest standard error of their evaluations.
    error: Option<f64>,
}

impl Contender<'_> {
    fn loss(&self) -> f64 {
        self.losses.iter().sum::<f64>() / self.losses.len().max(1) as f64
    }

    fn called(&self) -> String {
        match self.losses.len() {
            0 | 1 => self.name.to_owned(),
            seeds => format!("{} (mean of {seeds} seeds)", self.name),
        }
    }
}

impl Chance<'_> {
    /// Twice the standard deviation of the difference of two losses that would be equal but for chance.
    fn margin(&self, one: &Contender<'_>, other: &Contender<'_>) -> Option<f64> {
        let shares = |contender: &Contender<'_>| 1.0 / contender.losses.len().max(1) as f64;
        let seeds = self.seeds.as_ref().map(|seeds| seeds.deviation * (shares(one) + shares(other)).sqrt());
        let errors = one.error.zip(other.error).map(|(one, other)| one.hypot(other));
        [seeds, errors].into_iter().flatten().reduce(f64::max).map(|deviation| 2.0 * deviation)
    }

    /// The models at one point, those that differ only by seeds together.
    fn contenders<'a>(
        &self,
        arms: &[&'a Arm],
        point: impl Fn(&'a Arm) -> Option<&'a EvaluationPoint>,
    ) -> Vec<Contender<'a>> {
        let mut all: Vec<(&str, Contender<'a>)> = Vec::new();
        for arm in arms {
            let Some(EvaluationPoint { quality, .. }) = point(arm) else { continue };
            let group = self.groups.get(arm.name.as_str()).copied().unwrap_or(&arm.name);
            let at = all.iter().position(|(known, _)| *known == group).unwrap_or_else(|| {
                all.push((group, Contender { name: &arm.name, losses: Vec::new(), error: None }));
                all.len() - 1
            });
            if let Some((_, contender)) = all.get_mut(at) {
                contender.losses.push(quality.loss);
                contender.error = contender.error.into_iter().chain(quality.loss_error).reduce(f64::max);
            }
        }
        all.into_iter().map(|(_, contender)| contender).collect()
    }

    /// How a difference is judged.
    fn note(&self, arms: &[&Arm]) -> String {
        let has_errors =
            arms.iter().all(|arm| arm.last().is_some_and(|last| last.quality.loss_error.is_some()));
        match (&self.seeds, has_errors) {
            (Some(Variation { deviation, trainings }), _) => format!(
                "Another seed changes a loss by {deviation:.4}, the standard deviation of trainings that differ in \
                 nothing else ({}). A model is called ahead if its loss is lower by more than twice the standard \
                 deviation that this, or the standard errors of the evaluations if they are larger, gives to a \
                 difference.",
                trainings.join(", ")
            ),
            (None, true) => "A model is called ahead if its loss is lower by more than twice the standard error of the \
                             difference of the evaluations. Each model was trained once: another seed may change \
                             more."
                .into(),
            (None, false) => "Each model was trained once: a difference means something only if it exceeds what \
                              another seed changes."
                .into(),
        }
    }
}

/// The same model with each set of seeds, or alone.
struct Sets<'a> {
    /// In the recipe.
    name: &'a str,
    arms: Vec<&'a Arm>,
}

/// The sections of a comparison. `baselines` and `arms` have a model for each set of seeds.
pub fn sections(baselines: &[Arm], arms: &[Arm], chance: &Chance<'_>) -> Vec<Section> {
    let compared = Compared::new(baselines, arms, chance);
    vec![compared.at_equal_steps(), compared.at_equal_compute(), compared.computation()]
}

struct Compared<'a> {
    baselines: &'a [Arm],
    /// The baseline first.
    all: Vec<&'a Arm>,
    models: Vec<Sets<'a>>,
    chance: &'a Chance<'a>,
}

impl<'a> Compared<'a> {
    fn new(baselines: &'a [Arm], arms: &'a [Arm], chance: &'a Chance<'a>) -> Self {
        let all: Vec<&Arm> = baselines.iter().chain(arms).collect();
        let mut models: Vec<Sets<'_>> = Vec::new();
        for arm in &all {
            match models.iter_mut().find(|model| model.name == arm.stage()) {
                Some(model) => model.arms.push(arm),
                None => models.push(Sets { name: arm.stage(), arms: vec![arm] }),
            }
        }
        Compared { baselines, all, models, chance }
    }

    /// The computation of the baseline with which a model is compared: that of the same set of seeds.
    fn baseline_flops(&self, arm: &Arm) -> f64 {
        arm.fellow(self.baselines).map_or(0.0, Arm::total_flops)
    }

    /// A row for each model, of which there is a point or none for each set of seeds.
    fn row(
        &self,
        model: &Sets<'a>,
        columns: &[&dyn Fn(&'a Arm) -> Option<&'a EvaluationPoint>],
    ) -> Vec<String> {
        let cell = |point: &&dyn Fn(&'a Arm) -> Option<&'a EvaluationPoint>| {
            let points: Vec<&EvaluationPoint> = model.arms.iter().filter_map(|arm| point(arm)).collect();
            quality(&points) + &sets(points.len(), model.arms.len())
        };
        std::iter::once(model.name.to_owned()).chain(columns.iter().map(cell)).collect()
    }

    /// What numbers with a deviation are, if there are any.
    fn about_sets(&self) -> String {
        let most = self.models.iter().map(|model| model.arms.len()).max().unwrap_or(0);
        if most > 1 {
            format!(" Mean ± standard deviation over {most} sets of seeds.")
        } else {
            String::new()
        }
    }

    fn at_equal_steps(&self) -> Section {
        let mut table = Table::new([""]);
        let common = |step: &u64| self.all.iter().all(|arm| arm.at_step(*step).is_some());
        let steps: Vec<u64> = self.all.first().map_or(Vec::new(), |arm| {
            arm.evaluations.iter().map(|point| point.step).filter(|step| common(step)).collect()
        });
        let steps = spread(&steps);
        table.header.extend(steps.iter().map(|step| format!("step {step}")));
        for model in &self.models {
            let points: Vec<_> = steps.iter().map(|step| move |arm: &'a Arm| arm.at_step(*step)).collect();
            let points: Vec<&dyn Fn(&'a Arm) -> _> = points.iter().map(|point| point as _).collect();
            table.rows.push(self.row(model, &points));
        }
        let mut notes = Vec::new();
        if let Some(step) = steps.last() {
            notes.push(verdict(&format!("After {step} steps"), &self.all, self.chance, |arm| {
                arm.at_step(*step)
            }));
        }
        Section {
            title: "At equal steps of the large model".into(),
            about: format!("Loss / token accuracy in % on held-out text.{}", self.about_sets()),
            table,
            notes,
        }
    }

    fn at_equal_compute(&self) -> Section {
        let mut table = Table::new([""]);
        table.header.extend(BUDGETS.map(|share| format!("{:.0} %", 100.0 * share)));
        let within = |share: f64| move |arm: &'a Arm| arm.within(share * self.baseline_flops(arm));
        for model in &self.models {
            let points = BUDGETS.map(within);
            let points: Vec<&dyn Fn(&'a Arm) -> _> = points.iter().map(|point| point as _).collect();
            table.rows.push(self.row(model, &points));
        }
        let notes = BUDGETS.map(|share| {
            let when = format!("At {:.0} % of the baseline's computation", 100.0 * share);
            verdict(&when, &self.all, self.chance, within(share))
        });
        Section {
            title: "At equal computation".into(),
            about: format!(
                "Loss / token accuracy in % at shares of the baseline's computation, the parents' training counted: \
                 each model's last evaluation that the budget pays for. A dash: it does not pay for the parents. \
                 Before its last step a model is in the middle of its schedule, with a learning rate that has yet to \
                 fall.{}",
                self.about_sets()
            ),
            table,
            notes: notes.to_vec(),
        }
    }

    fn computation(&self) -> Section {
        let mut table =
            Table::new(["", "parents, FLOP", "own, FLOP", "of the baseline's", "to the baseline's loss"]);
        for model in &self.models {
            let each =
                |of: &dyn Fn(&Arm) -> f64| -> Vec<f64> { model.arms.iter().map(|arm| of(arm)).collect() };
            let share = |arm: &Arm, flops: f64| 100.0 * flops / self.baseline_flops(arm);
            let reached = |arm: &&'a Arm| {
                let loss = arm.fellow(self.baselines)?.last()?.quality.loss;
                Some(share(arm, arm.flops_to_reach(loss)?))
            };
            let reached: Vec<f64> = model.arms.iter().filter_map(reached).collect();
            let percent = |shares: &[f64]| mean(shares, 1).map(|mean| format!("{mean} %"));
            let flops = |of: &dyn Fn(&Arm) -> f64| {
                let each = each(of);
                count(each.iter().sum::<f64>() / each.len().max(1) as f64)
            };
            table.rows.push(vec![
                model.name.to_owned(),
                flops(&|arm| arm.parents_flops),
                flops(&|arm| arm.total_flops() - arm.parents_flops),
                percent(&each(&|arm| share(arm, arm.total_flops()))).unwrap_or(MISSING.into()),
                percent(&reached).unwrap_or(MISSING.into()) + &sets(reached.len(), model.arms.len()),
            ]);
        }
        Section {
            title: "Computation".into(),
            about: format!(
                "Forward and backward passes of all training behind a model; a parent that occurs twice counts once. \
                 The last column: after which share of the baseline's computation an evaluation first showed the \
                 baseline's final loss.{}",
                self.about_sets()
            ),
            table,
            notes: vec![self.chance.note(&self.all)],
        }
    }
}

/// Says which model is ahead, the baseline or the best arm, if the difference means anything.
fn verdict<'a>(
    when: &str,
    arms: &[&'a Arm],
    chance: &Chance<'_>,
    point: impl Fn(&'a Arm) -> Option<&'a EvaluationPoint>,
) -> String {
    let Some(baseline) = arms.first() else { return String::new() };
    if point(baseline).is_none() {
        return format!("{when}, {} was not evaluated.", baseline.name);
    }
    let contenders = chance.contenders(arms, point);
    let best = contenders.iter().skip(1).min_by(|one, other| one.loss().total_cmp(&other.loss()));
    let (Some(reference), Some(best)) = (contenders.first(), best) else {
        return format!("{when}, no fused model has begun: the budget does not pay for any one's parents.");
    };
    let (name, loss) = (reference.called(), reference.loss());
    let (best_name, best_loss) = (best.called(), best.loss());
    match chance.margin(reference, best) {
        Some(margin) if (loss - best_loss).abs() <= margin => format!(
            "{when}, {best_name} and {name} are level: loss {best_loss:.4} against {loss:.4}, no further apart \
             than chance may put them."
        ),
        _ if best_loss >= loss => format!(
            "{when}, no fusion wins: {name} has loss {loss:.4}, the best fused model ({best_name}) {best_loss:.4}."
        ),
        Some(_) => format!("{when}, {best_name} is ahead: loss {best_loss:.4} against {loss:.4} of {name}."),
        None => {
            format!("{when}, {best_name} has the lower loss: {best_loss:.4} against {loss:.4} of {name}.")
        }
    }
}

/// Loss and accuracy of a model, with each set of seeds.
fn quality(points: &[&EvaluationPoint]) -> String {
    let each = |of: fn(&EvaluationPoint) -> f64| points.iter().map(|point| of(point)).collect::<Vec<_>>();
    let loss = mean(&each(|point| point.quality.loss), 4);
    let accuracy = mean(&each(|point| 100.0 * point.quality.accuracy), 2);
    loss.zip(accuracy).map_or(MISSING.into(), |(loss, accuracy)| format!("{loss} / {accuracy}"))
}

/// The first step, the last, and some in between.
fn spread(steps: &[u64]) -> Vec<u64> {
    let last = steps.len().saturating_sub(1);
    let mut indices: Vec<usize> = (0..=STEPS).map(|part| part * last / STEPS).collect();
    indices.dedup();
    indices.into_iter().filter_map(|index| steps.get(index).copied()).collect()
}

#[cfg(test)]
mod tests {
    use t5_model::train::{EvaluationPoint, Quality};

    use super::{Arm, Chance, Variation};

    fn arm(parents_flops: f64, losses: &[f64]) -> Arm {
        let point = |(step, loss): (u64, &f64)| EvaluationPoint {
            step,
            tokens: 100 * step,
            flops: 10.0 * step as f64,
            quality: Quality { loss: *loss, ..Quality::default() },
        };
        let evaluations = (0..).zip(losses).map(point).collect();
        Arm { name: "arm".into(), seed_set: None, parents_flops, evaluations }
    }

    #[test]
    fn a_budget_pays_for_the_parents_first() {
        let arm = arm(15.0, &[9.0, 8.0, 7.0]);
        assert_eq!(arm.within(14.9), None);
        assert_eq!(arm.within(15.0).map(|point| point.step), Some(0));
        assert_eq!(arm.within(34.9).map(|point| point.step), Some(1));
        assert_eq!(arm.within(1e9).map(|point| point.step), Some(2));
        assert_eq!(arm.flops_to_reach(8.0), Some(25.0));
        assert_eq!(arm.flops_to_reach(6.9), None);
    }

    /// Only what exceeds chance is called ahead; without knowledge of chance, nothing is.
    #[test]
    fn ahead_is_more_than_chance() {
        let named = |name: &str, loss: f64, error: Option<f64>| {
            let mut arm = arm(0.0, &[loss]);
            arm.name = name.into();
            arm.evaluations[0].quality.loss_error = error;
            arm
        };
        let said = |arms: &[Arm], chance: &Chance<'_>| {
            super::verdict("Then", &arms.iter().collect::<Vec<_>>(), chance, |arm| arm.last())
        };
        let pair = |loss, error| [named("base", 4.8213, error), named("fused", loss, error)];
        let unknown = Chance::default();
        let seeds = |deviation| Chance {
            seeds: Some(Variation { deviation, trainings: Vec::new() }),
            ..Chance::default()
        };
        let lower = "Then, fused has the lower loss: 4.8180 against 4.8213 of base.";
        assert_eq!(said(&pair(4.8180, None), &unknown), lower);
        let level = "Then, fused and base are level: loss 4.8180 against 4.8213, no further apart than chance may put them.";
        assert_eq!(said(&pair(4.8180, Some(0.02)), &unknown), level);
        assert_eq!(said(&pair(4.8180, None), &seeds(0.01)), level);
        let ahead = "Then, fused is ahead: loss 4.8180 against 4.8213 of base.";
        assert_eq!(said(&pair(4.8180, None), &seeds(0.001)), ahead);
        assert_eq!(said(&pair(4.8180, Some(0.001)), &unknown), ahead);
        // The larger of both counts.
        assert_eq!(said(&pair(4.8180, Some(0.02)), &seeds(0.001)), level);
        let behind = said(&pair(4.9, None), &seeds(0.01));
        assert!(behind.starts_with("Then, no fusion wins: base has loss 4.8213"), "{behind}");
        // Several seeds make a difference surer.
        let arms = [
            named("base", 4.82, None),
            named("base-2", 4.84, None),
            named("base-3", 4.80, None),
            named("fused", 4.79, None),
            named("fused-2", 4.80, None),
            named("fused-3", 4.78, None),
        ];
        let groups = [
            ("base", "b"),
            ("base-2", "b"),
            ("base-3", "b"),
            ("fused", "f"),
            ("fused-2", "f"),
            ("fused-3", "f"),
        ];
        let grouped = Chance { groups: groups.into(), ..seeds(0.015) };
        let ahead =
            "Then, fused (mean of 3 seeds) is ahead: loss 4.7900 against 4.8200 of base (mean of 3 seeds).";
        assert_eq!(said(&arms, &grouped), ahead);
        assert!(said(&arms, &Chance { groups: groups.into(), ..seeds(0.02) }).contains("are level"));
    }

    #[test]
    fn steps_are_spread_from_first_to_last() {
        assert_eq!(super::spread(&[]), Vec::<u64>::new());
        assert_eq!(super::spread(&[0, 5]), [0, 5]);
        assert_eq!(super::spread(&[0, 1, 2, 3, 4, 5, 6, 7, 8]), [0, 2, 4, 6, 8]);
    }
}
