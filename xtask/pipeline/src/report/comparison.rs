//! Training from scratch against fusions: at equal steps (the paper's Table 1), and at equal computation
//! including the parents' training (Table 4).

use t5_model::train::EvaluationPoint;

use super::Section;
use super::table::Table;
use crate::numbers::count;
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

    /// The computation spent when an evaluation's loss first reached this value.
    fn flops_to_reach(&self, loss: f64) -> Option<f64> {
        let point = self.evaluations.iter().find(|point| point.quality.loss <= loss)?;
        Some(self.parents_flops + point.flops)
    }
}

/// The sections of a comparison; the baseline comes first.
pub fn sections(baseline: &Arm, arms: &[Arm]) -> Vec<Section> {
    let all: Vec<&Arm> = std::iter::once(baseline).chain(arms).collect();
    vec![at_equal_steps(&all), at_equal_compute(baseline, &all), computation(baseline, &all)]
}

fn at_equal_steps(arms: &[&Arm]) -> Section {
    let mut table = Table::new([""]);
    let common = |step: &u64| arms.iter().all(|arm| arm.at_step(*step).is_some());
    let steps: Vec<u64> = arms.first().map_or(Vec::new(), |arm| {
        arm.evaluations.iter().map(|point| point.step).filter(|step| common(step)).collect()
    });
    let steps = spread(&steps);
    table.header.extend(steps.iter().map(|step| format!("step {step}")));
    for arm in arms {
        let cells = steps.iter().map(|step| quality(arm.at_step(*step)));
        table.rows.push(std::iter::once(arm.name.clone()).chain(cells).collect());
    }
    let mut notes = Vec::new();
    if let Some(step) = steps.last() {
        notes.push(verdict(&format!("After {step} steps"), arms, |arm| arm.at_step(*step)));
    }
    Section {
        title: "At equal steps of the large model".into(),
        about: "Loss / token accuracy in % on held-out text.".into(),
        table,
        notes,
    }
}

fn at_equal_compute(baseline: &Arm, arms: &[&Arm]) -> Section {
    let mut table = Table::new([""]);
    table.header.extend(BUDGETS.map(|share| format!("{:.0} %", 100.0 * share)));
    for arm in arms {
        let cells = BUDGETS.map(|share| quality(arm.within(share * baseline.total_flops())));
        table.rows.push(std::iter::once(arm.name.clone()).chain(cells).collect());
    }
    let notes = BUDGETS.map(|share| {
        let budget = share * baseline.total_flops();
        verdict(&format!("At {:.0} % of the baseline's computation", 100.0 * share), arms, |arm| {
            arm.within(budget)
        })
    });
    Section {
        title: "At equal computation".into(),
        about: "Loss / token accuracy in % at shares of the baseline's computation, the parents' training counted: \
                each model's last evaluation that the budget pays for. A dash: it does not pay for the parents. Before \
                its last step a model is in the middle of its schedule, with a learning rate that has yet to fall."
            .into(),
        table,
        notes: notes.to_vec(),
    }
}

fn computation(baseline: &Arm, arms: &[&Arm]) -> Section {
    let mut table =
        Table::new(["", "parents, FLOP", "own, FLOP", "of the baseline's", "to the baseline's loss"]);
    let share = |flops: f64| format!("{:.1} %", 100.0 * flops / baseline.total_flops());
    for arm in arms {
        let reached = baseline.last().and_then(|last| arm.flops_to_reach(last.quality.loss));
        table.rows.push(vec![
            arm.name.clone(),
            count(arm.parents_flops),
            count(arm.total_flops() - arm.parents_flops),
            share(arm.total_flops()),
            reached.map_or(MISSING.into(), share),
        ]);
    }
    Section {
        title: "Computation".into(),
        about: "Forward and backward passes of all training behind a model; a parent that occurs twice counts once. The \
                last column: after which share of the baseline's computation an evaluation first showed the baseline's \
                final loss."
            .into(),
        table,
        notes: vec![
            "Each model was trained once: a difference means something only if it exceeds what another seed changes."
                .into(),
        ],
    }
}

/// Says which model is ahead, the baseline or the best arm.
fn verdict<'a>(
    when: &str,
    arms: &[&'a Arm],
    point: impl Fn(&'a Arm) -> Option<&'a EvaluationPoint>,
) -> String {
    let Some((baseline, fused)) = arms.split_first() else { return String::new() };
    let Some(reference) = point(baseline) else {
        return format!("{when}, {} was not evaluated.", baseline.name);
    };
    let measured: Vec<(&str, f64)> = fused
        .iter()
        .filter_map(|arm| point(arm).map(|point| (arm.name.as_str(), point.quality.loss)))
        .collect();
    let best = measured.iter().min_by(|a, b| a.1.total_cmp(&b.1));
    let (name, loss) = (&baseline.name, reference.quality.loss);
    match best {
        None => format!("{when}, no fused model has begun: the budget does not pay for any one's parents."),
        Some((best, best_loss)) if *best_loss < loss => {
            format!("{when}, {best} is ahead: loss {best_loss:.4} against {loss:.4} of {name}.")
        }
        Some((best, best_loss)) => {
            format!(
                "{when}, no fusion wins: {name} has loss {loss:.4}, the best fused model ({best}) {best_loss:.4}."
            )
        }
    }
}

fn quality(point: Option<&EvaluationPoint>) -> String {
    point.map_or(MISSING.into(), |EvaluationPoint { quality, .. }| {
        format!("{:.4} / {:.2}", quality.loss, 100.0 * quality.accuracy)
    })
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

    use super::Arm;

    fn arm(parents_flops: f64, losses: &[f64]) -> Arm {
        let point = |(step, loss): (u64, &f64)| EvaluationPoint {
            step,
            tokens: 100 * step,
            flops: 10.0 * step as f64,
            quality: Quality { loss: *loss, ..Quality::default() },
        };
        Arm { name: "arm".into(), parents_flops, evaluations: (0..).zip(losses).map(point).collect() }
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

    #[test]
    fn steps_are_spread_from_first_to_last() {
        assert_eq!(super::spread(&[]), Vec::<u64>::new());
        assert_eq!(super::spread(&[0, 5]), [0, 5]);
        assert_eq!(super::spread(&[0, 1, 2, 3, 4, 5, 6, 7, 8]), [0, 2, 4, 6, 8]);
    }
}
