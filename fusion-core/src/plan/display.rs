//! The readable form of a plan. Blocks of a model that are treated alike share a line: `{0..7}` stands for the indices 0
//! to 7, and `index - 2` for the parent's block with an index that is smaller by 2. Boxes are half-open: `2:4` means rows 2
//! and 3, and `:` a whole axis.

use std::collections::HashMap;
use std::fmt::{self, Write as _};

use crate::plan::{
    Absence, Direction, Fill, FusionPlan, Noise, Normalisation, Place, Placement, PlannedParam,
    StandardDeviation,
};

impl fmt::Display for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fill::Normal { std, seed, direction } = self else { return f.write_str("zero") };
        write!(f, "normal {std} (seed {seed})")?;
        match direction {
            Direction::Both => Ok(()),
            Direction::Forward => f.write_str(", from earlier parents into later ones"),
            Direction::Backward => f.write_str(", from later parents into earlier ones"),
        }
    }
}

impl fmt::Display for StandardDeviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StandardDeviation::Absolute(std) => write!(f, "{}", significant(*std)),
            StandardDeviation::Relative(std) => write!(f, "{} × rms", significant(*std)),
        }
    }
}

impl fmt::Display for Normalisation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Normalisation::Property => "property",
            Normalisation::Rule => "rule",
        })
    }
}

impl fmt::Display for FusionPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "method         {}", self.method)?;
        for (index, parent) in self.parents.iter().enumerate() {
            write!(f, "parent {index:<7} {}", parent.label)?;
            if let Some(blake3) = &parent.blake3 {
                write!(f, " (blake3 {})", blake3.chars().take(12).collect::<String>())?;
            }
            writeln!(f)?;
        }
        write!(f, "normalisation  {}", self.normalisation)?;
        if !self.embed_groups.is_empty() {
            let groups: Vec<String> = self.embed_groups.iter().map(usize::to_string).collect();
            write!(f, ", groups {}", groups.join(" + "))?;
        }
        writeln!(f)?;
        writeln!(f, "cross          {}", self.cross())?;
        writeln!(f, "parameters     {} in {} tensors", thousands(self.parameter_count()), self.params.len())?;
        writeln!(f)?;
        let lines = lines(&self.params);
        let name_width = lines.iter().map(|line| line.name().chars().count()).max().unwrap_or(0);
        let dims_width = lines.iter().map(|line| line.dims.chars().count()).max().unwrap_or(0);
        for line in &lines {
            writeln!(f, "{:name_width$}  {:dims_width$}  {}", line.name(), line.dims, line.parts)?;
        }
        Ok(())
    }
}

/// A line of the text: parameters that differ only in one index of their names.
struct Line {
    before: String,
    indices: Vec<usize>,
    after: String,
    dims: String,
    parts: String,
}

impl Line {
    fn name(&self) -> String {
        let Line { before, indices, after, .. } = self;
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for &index in indices {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == index => *last = index,
                _ => runs.push((index, index)),
            }
        }
        match runs.as_slice() {
            [] => before.clone(),
            [(first, last)] if first == last => format!("{before}{first}{after}"),
            _ => {
                let run = |&(first, last): &(usize, usize)| match first == last {
                    true => first.to_string(),
                    false => format!("{first}..{last}"),
                };
                format!("{before}{{{}}}{after}", runs.iter().map(run).collect::<Vec<_>>().join(","))
            }
        }
    }
}

/// The parameters as lines, in the order of their first members.
fn lines(params: &[PlannedParam]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut known: HashMap<(String, String, String, String), usize> = HashMap::new();
    for param in params {
        let dims = param.dims.iter().map(|dim| dim.to_string()).collect::<Vec<_>>().join(", ");
        let (dims, parts) = (format!("[{dims}]"), parts(param));
        let (before, index, after) = split_at_index(&param.name);
        let key = (before.to_string(), after.to_string(), dims.clone(), parts.clone());
        match (known.get(&key).and_then(|&at| lines.get_mut(at)), index) {
            (Some(line), Some(index)) => line.indices.push(index),
            _ => {
                known.insert(key, lines.len());
                let (before, after) = (before.to_string(), after.to_string());
                lines.push(Line { before, indices: index.into_iter().collect(), after, dims, parts });
            }
        }
    }
    lines
}

/// Splits a name at its first component that is a number: `layers.`, 3, `.weight`.
fn split_at_index(name: &str) -> (&str, Option<usize>, &str) {
    let mut start = 0;
    for component in name.split('.') {
        let end = start + component.len();
        // A leading zero would not survive being printed as a number.
        if let Ok(index) = component.parse::<usize>()
            && index.to_string() == component
        {
            return (&name[..start], Some(index), &name[end..]);
        }
        start = end + 1;
    }
    (name, None, "")
}

/// Which parent is placed where: `0 → [0:6 · :, 0:512] × 0.5, 1 absent → [6:12 · :, 512:1024] = 0`.
fn parts(param: &PlannedParam) -> String {
    let placed = param.placements.iter().map(|placement| {
        let mut text = placement.parent.to_string();
        if placement.source != param.name {
            let _ = write!(text, " {}", source(&placement.source, &param.name));
        }
        if let Some(from) = taken(param, placement) {
            let _ = write!(text, " {from}");
        }
        let _ = write!(text, " → {}", boxed(param, placement.place()));
        if placement.scale != 1.0 {
            let _ = write!(text, " × {}", significant(placement.scale));
        }
        if let Some(Noise { pair, factor, .. }) = placement.noise {
            let sign = if factor < 0.0 { '-' } else { '+' };
            let size = if factor.abs() == 1.0 {
                String::new()
            } else {
                format!("{} · ", significant(factor.abs()))
            };
            let _ = write!(text, " {sign} {size}noise {pair}");
        }
        (placement.parent, text)
    });
    let absent = param.absent.iter().map(|absence| {
        let Absence { parent, value, .. } = absence;
        let place = boxed(param, absence.place());
        (*parent, format!("{parent} absent → {place} = {}", significant(*value)))
    });
    let mut parts: Vec<(usize, String)> = placed.chain(absent).collect();
    parts.sort_by_key(|(parent, _)| *parent);
    let mut text = parts.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(", ");
    if param.fill != Fill::Zero {
        text.push_str(", rest cross");
    }
    text
}

/// Describes a source whose name differs from the child's: by its index, if that is the only difference.
fn source(source: &str, name: &str) -> String {
    match (split_at_index(source), split_at_index(name)) {
        ((before, Some(from), after), (ours, Some(to), rest)) if (before, after) == (ours, rest) => {
            let (sign, shift) = if from < to { ('-', to - from) } else { ('+', from - to) };
            format!("(index {sign} {shift})")
        }
        _ => format!("`{source}`"),
    }
}

/// The box of the source, if it is not the whole tensor.
fn taken(param: &PlannedParam, placement: &Placement) -> Option<String> {
    let from = placement.from.as_ref()?;
    let place = Place { offset: &from.offset, extent: &placement.extent };
    Some(ranges(param, place, from.sizes.iter().copied()))
}

fn boxed(param: &PlannedParam, place: Place<'_>) -> String {
    ranges(param, place, param.factors().map(|factor| factor.size))
}

/// A box of a tensor that has the axes of a parameter, but sizes of its own.
fn ranges(param: &PlannedParam, place: Place<'_>, sizes: impl Iterator<Item = usize>) -> String {
    let mut axes = place.ranges().zip(sizes);
    let boxes = param.dims.iter().map(|dim| {
        let ranges = axes.by_ref().take(dim.factors.len()).map(|((start, end), size)| {
            if (start, end) == (0, size) { ":".to_string() } else { format!("{start}:{end}") }
        });
        ranges.collect::<Vec<_>>().join(" · ")
    });
    format!("[{}]", boxes.collect::<Vec<_>>().join(", "))
}

/// Six significant digits, without trailing zeros.
fn significant(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
