//! The order in which stages run.

use std::collections::BTreeSet;

use crate::stage::{Input, Stage};

/// Stages that have yet to run. Of those whose inputs are there, the one that has the most computation ahead goes
/// first: its own and that of the stages that wait for it, along the longest way.
pub struct Schedule<'a> {
    waiting: Vec<Waiting<'a>>,
    /// The names of stages that wait or run.
    unfinished: BTreeSet<&'a str>,
}

struct Waiting<'a> {
    stage: &'a Stage,
    ahead: f64,
}

impl<'a> Schedule<'a> {
    /// `stages` lists each after its inputs, and `computation` what each computes, in any unit. Equals run in
    /// the given order.
    pub fn new(stages: &[&'a Stage], computation: &[f64]) -> Self {
        let mut ahead = vec![0.0; stages.len()];
        for (at, stage) in stages.iter().enumerate().rev() {
            let waits = |other: &&'a Stage| inputs(other).any(|input| input == stage.name);
            let after = (at..).zip(stages.iter().skip(at)).filter(|(_, other)| waits(other));
            let longest = after.filter_map(|(other, _)| ahead.get(other).copied()).fold(0.0, f64::max);
            let own = computation.get(at).copied().unwrap_or(0.0);
            ahead.get_mut(at).into_iter().for_each(|ahead| *ahead = own + longest);
        }
        let waiting = stages.iter().zip(ahead).map(|(stage, ahead)| Waiting { stage, ahead }).collect();
        Schedule { waiting, unfinished: stages.iter().map(|stage| stage.name.as_str()).collect() }
    }

    /// The stages whose inputs are there, the first to run first.
    pub fn ready(&self) -> Vec<&'a Stage> {
        let is_there = |input: &str| !self.unfinished.contains(input);
        let ready = self.waiting.iter().filter(|waiting| inputs(waiting.stage).all(is_there));
        let mut ready: Vec<&Waiting<'_>> = ready.collect();
        ready.sort_by(|one, other| other.ahead.total_cmp(&one.ahead));
        ready.into_iter().map(|waiting| waiting.stage).collect()
    }

    /// A stage begins: it no longer waits, and others still wait for it.
    pub fn begins(&mut self, name: &str) {
        self.waiting.retain(|waiting| waiting.stage.name != name);
    }

    /// A stage that had begun waits again, as it did before.
    pub fn waits(&mut self, stage: &'a Stage) {
        self.waiting.push(Waiting { stage, ahead: 0.0 });
    }

    /// A stage has finished.
    pub fn finished(&mut self, name: &str) {
        self.unfinished.remove(name);
    }
}

/// The stages that a stage takes from.
fn inputs(stage: &Stage) -> impl Iterator<Item = &str> {
    stage.work.inputs().into_iter().filter_map(Input::stage)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Schedule;
    use crate::recipe::Recipe;

    const RECIPE: &str = r#"
        [data]
        text = "builtin:webster"
        held_out_every = 2
        tokenizer = "words"
        [pretraining]
        steps = 1
        [models.small]
        d_model = 8
        num_heads = 1
        d_kv = 8
        d_ff = 8
        num_layers = 1
        [stages.words]
        kind = "tokenizer"
        vocabulary = 200
        [stages.a]
        kind = "pretrain"
        model = "small"
        [stages.b]
        kind = "pretrain"
        model = "small"
        [stages.long]
        kind = "pretrain"
        model = "small"
        [stages.fused]
        kind = "fuse"
        parents = ["a", "b"]
        [stages.trained]
        kind = "pretrain"
        from = "fused"
    "#;

    /// The order in which `jobs` at a time begin, if those that began first finish first.
    fn order(jobs: usize, computation: &[f64]) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("recipe.toml");
        fs::write(&path, RECIPE).expect("written");
        let recipe = Recipe::read(&path, &[]).expect("a recipe");
        let stages: Vec<_> = recipe.stages.iter().collect();
        let mut schedule = Schedule::new(&stages, computation);
        let (mut running, mut order) = (Vec::new(), Vec::new());
        loop {
            while running.len() < jobs
                && let Some(next) = schedule.ready().first()
            {
                schedule.begins(&next.name);
                running.push(next.name.as_str());
                order.push(next.name.as_str());
            }
            if running.is_empty() {
                return order.join(" ");
            }
            schedule.finished(running.remove(0));
        }
    }

    #[test]
    fn the_longest_way_goes_first() {
        // words, a, b, long, fused, trained
        let computation = [0.0, 1.0, 2.0, 4.0, 0.0, 5.0];
        assert_eq!(order(1, &computation), "words b a fused trained long");
        assert_eq!(order(2, &computation), "words b a long fused trained");
        assert_eq!(order(3, &computation), "words b a long fused trained");
        assert_eq!(order(2, &[0.0, 1.0, 2.0, 9.0, 0.0, 5.0]), "words long b a fused trained");
    }

    #[test]
    fn equals_run_in_the_recipes_order() {
        assert_eq!(order(1, &[]), "words a b long fused trained");
        assert_eq!(order(9, &[]), "words a b long fused trained");
    }
}
