//! `seeds = 3`: the stages that depend on a seed, once for each set of seeds.

use std::collections::BTreeSet;

use anyhow::Result;

use super::resolve::{Located, Unread, read};
use crate::problems::Problems;
use crate::stage::{SeedSet, Set, Shared, Stage};

/// Adds the stages of all sets but the first to those of the first, which become members of it. A stage that
/// no seed decides is there once, for all.
pub fn fan_out(
    shared: &Shared<'_>,
    unread: &[Unread],
    mut first: Vec<Located>,
    sets: u64,
) -> Result<Vec<Located>> {
    let several = depend_on_seeds(&first);
    let mut problems = Problems::default();
    for located in first.iter().filter(|located| several.contains(&located.stage.name)) {
        problems.keep(check(shared, located, &first, sets));
    }
    problems.result()?;
    let mut others = Vec::new();
    for number in 2..=sets {
        for unread in unread.iter().filter(|unread| several.contains(unread.name())) {
            let set = Set { number, stages: &several };
            let mut located = read(shared, unread.clone(), Some(&set))?;
            located.stage = in_set(located.stage, number);
            others.push(located);
        }
    }
    for located in first.iter_mut().filter(|located| several.contains(&located.stage.name)) {
        located.stage.seed_set = Some(SeedSet { stage: located.stage.name.clone(), number: 1 });
    }
    first.extend(others);
    Ok(first)
}

/// The stages whose results depend on a seed, their own or one of a stage before them.
fn depend_on_seeds(stages: &[Located]) -> BTreeSet<String> {
    let mut depend = BTreeSet::new();
    loop {
        let before = depend.len();
        for Located { stage, inputs, .. } in stages {
            if stage.work.seed().is_some() || inputs.iter().any(|(input, _)| depend.contains(input.get_ref()))
            {
                depend.insert(stage.name.clone());
            }
        }
        if depend.len() == before {
            return depend;
        }
    }
}

/// Checks that a stage's names and seeds in all sets are its own.
fn check(shared: &Shared<'_>, own: &Located, all: &[Located], sets: u64) -> Result<()> {
    let name = &own.stage.name;
    let taken =
        (2..=sets).map(|number| SeedSet::name(name, number)).find(|name| shared.stages.contains(name));
    if let Some(taken) = taken {
        let message =
            format!("with `seeds = {sets}`, stage {name:?} is also called {taken:?}, which is another stage");
        return Err(shared.texts.error(own.span.clone(), message));
    }
    let Some(seed) = own.stage.work.seed() else { return Ok(()) };
    for (other, other_seed) in
        all.iter().filter_map(|other| Some((&other.stage.name, other.stage.work.seed()?)))
    {
        let apart = seed.saturating_sub(other_seed);
        if apart > 0 && apart.is_multiple_of(SeedSet::APART) && apart / SeedSet::APART < sets {
            let message = format!(
                "sets of seeds are {} apart, so the seed {seed} of stage {name:?} is also one of stage {other:?}, \
                 whose seed is {other_seed}",
                SeedSet::APART
            );
            return Err(shared.texts.error(own.span.clone(), message));
        }
    }
    Ok(())
}

fn in_set(stage: Stage, number: u64) -> Stage {
    let set = SeedSet { stage: stage.name, number };
    let seeded = stage.work.seed().and_then(|seed| stage.work.with_seed(set.seed(seed)));
    let work = seeded.unwrap_or(stage.work);
    Stage { name: SeedSet::name(&set.stage, number), seed_set: Some(set), work, ..stage }
}
