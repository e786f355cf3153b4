//! Tables that only a page has.

use crate::numbers::{bytes, count, duration};
use crate::report::Section;
use crate::report::results::{Cost, Group, Results};
use crate::report::table::Table;

const MISSING: &str = "-";

fn or_missing(text: Option<String>) -> String {
    text.unwrap_or_else(|| MISSING.to_owned())
}

/// Drops columns of these names in which nothing is known.
fn drop_missing(table: &mut Table, names: &[&str]) {
    for name in names {
        let column = table.header.iter().position(|header| header == name);
        if let Some(column) = column.filter(|column| table.rows.iter().all(|row| row[*column] == MISSING)) {
            table.header.remove(column);
            table.rows.iter_mut().for_each(|row| drop(row.remove(column)));
        }
    }
}

/// The sets with what they came to, over their seeds.
pub fn sets(results: &Results) -> Option<Section> {
    let mut table = Table::new([
        "",
        "seeds",
        "loss",
        "accuracy, %",
        "context gain",
        "computation, FLOP",
        "to the baseline's loss",
    ]);
    let baseline = results.baseline().and_then(Group::total_flops);
    for set in &results.sets {
        let value = |name: &str, scale: f64, digits: usize| {
            let summary = set.last(name)?;
            let deviation = summary.deviation.map(|deviation| format!(" ± {:.digits$}", scale * deviation));
            Some(format!("{:.digits$}{}", scale * summary.mean, deviation.unwrap_or_default()))
        };
        let share = |flops: f64| {
            let share = baseline.filter(|baseline| *baseline > 0.0).map(|baseline| 100.0 * flops / baseline);
            share.map(|share| format!(" ({share:.0} %)")).unwrap_or_default()
        };
        table.rows.push(vec![
            set.name.clone(),
            set.band.seeds.to_string(),
            or_missing(value("loss", 1.0, 4)),
            or_missing(value("accuracy", 100.0, 2)),
            or_missing(value("context_gain", 1.0, 3)),
            or_missing(set.total_flops().map(|flops| format!("{}{}", count(flops), share(flops)))),
            or_missing(set.passes.map(|passes| format!("{:.1} %", 100.0 * passes.share))),
        ]);
    }
    let mut about = "At the last common evaluation: mean ± standard deviation over seeds. Computation includes the parents', \
                     each counted once."
        .to_owned();
    match baseline {
        Some(_) => {
            about += " In brackets and in the last column, it is a share of the baseline's. The last column: after which \
                      share the mean loss first was the baseline's at its end."
        }
        None => drop_missing(&mut table, &["to the baseline's loss"]),
    }
    let title = "Trainings, over their seeds".to_owned();
    (!table.rows.is_empty()).then_some(Section { title, about, table, notes: Vec::new() })
}

/// What each stage that makes a model cost.
pub fn costs(results: &Results) -> Option<Section> {
    let mut table =
        Table::new(["", "own, FLOP", "with parents, FLOP", "time", "with parents", "tokens/s", "memory"]);
    for cost in &results.costs {
        let Cost { own_flops, parents_flops, seconds, total_seconds, tokens_per_second, memory, .. } = cost;
        table.rows.push(vec![
            cost.name.clone(),
            if cost.fusion { "0".to_owned() } else { count(*own_flops) },
            if cost.fusion { MISSING.to_owned() } else { count(own_flops + parents_flops) },
            or_missing(seconds.map(duration)),
            or_missing(total_seconds.map(duration)),
            or_missing(tokens_per_second.map(count)),
            or_missing(memory.map(|memory| bytes(memory as f64))),
        ]);
    }
    drop_missing(&mut table, &["memory", "tokens/s", "with parents"]);
    let about = "Computation is that of forward and backward passes; a fusion has none. Times are those of all processes \
                 that worked on a stage, evaluations included; tokens per second leave these out. Parents count once, \
                 however often they are used. Memory is the most that the process took."
        .to_owned();
    (!table.rows.is_empty()).then_some(Section { title: "Costs".into(), about, table, notes: Vec::new() })
}
