//! A chart in the terminal, of braille patterns in colours, or of letters where there are no colours.

use std::iter;

use anyhow::Result;
use console::{Style, Term};
use pipeline::report::plot::{Axis, Look, MEASURES, Plot, tick};
use pipeline::report::results::Results;

use super::output::print;

/// Rows of the chart without its axis.
const ROWS: usize = 14;
const NARROWEST: usize = 60;
const WIDEST: usize = 110;
/// For numbers beside the axis, with the space behind them.
const NUMBERS: usize = 9;
/// Colours of 256 that are seen on black and on white, in the order of the page's.
const COLOURS: [u8; pipeline::report::plot::COLOURS] = [32, 166, 35, 133, 136, 62, 161, 37, 94, 66];

/// Prints the held-out loss over computation, if standard output is a terminal that can show it.
pub fn show(results: &Results) -> Result<()> {
    let Some((columns, colours)) = able(&Term::stdout()) else { return Ok(()) };
    match Plot::of_sets(results, MEASURES[0], Axis::TotalFlops).filter(is_curve) {
        Some(plot) => print(&format!("\n{}", text(&plot, columns, colours))),
        None => Ok(()),
    }
}

/// Whether a chart can be shown to the user at all.
pub fn is_shown() -> bool {
    able(&Term::stdout()).is_some()
}

/// How many columns there are, and whether there are colours.
fn able(term: &Term) -> Option<(usize, bool)> {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
    if !term.is_term() || is_dumb || !is_utf8() {
        return None;
    }
    let (_, columns) = term.size_checked()?;
    let columns = usize::from(columns);
    (columns >= NARROWEST).then(|| (columns.min(WIDEST), console::colors_enabled()))
}

fn is_utf8() -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(|name| std::env::var(name).ok());
    let locale = set.into_iter().find(|value| !value.is_empty()).unwrap_or_default().to_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// A single evaluation is no curve.
fn is_curve(plot: &Plot) -> bool {
    plot.lines.iter().any(|line| line.y.iter().flatten().count() > 1)
}

/// A place of the chart.
#[derive(Clone, Copy)]
struct Cell {
    shown: char,
    line: Option<usize>,
}

const EMPTY: Cell = Cell { shown: ' ', line: None };
/// The first braille pattern, which is empty; the others follow by their dots.
const BRAILLE: u32 = 0x2800;
/// Dots of a pattern, across and down.
const DOTS: [i64; 2] = [2, 4];

/// A chart with its axes and legend, in at most so many columns.
fn text(plot: &Plot, columns: usize, colours: bool) -> String {
    let (Some(x_range), Some(y_range)) = (plot.x_range(), plot.y_range()) else { return String::new() };
    let width = columns - NUMBERS - 1;
    let mut cells = vec![vec![EMPTY; width]; ROWS];
    let dots = if colours { DOTS } else { [1, 1] };
    let size = [width as i64 * dots[0], ROWS as i64 * dots[1]];
    let place = |x: f64, y: f64| {
        let share = |value: f64, [low, high]: [f64; 2]| (value - low) / (high - low);
        let across = share(x, x_range) * (size[0] - 1) as f64;
        let down = (1.0 - share(y, y_range)) * (size[1] - 1) as f64;
        [across.round() as i64, down.round() as i64]
    };
    for (number, line) in plot.lines.iter().enumerate() {
        let places: Vec<Option<[i64; 2]>> =
            line.x.iter().zip(&line.y).map(|(x, y)| Some(place(*x, (*y)?))).collect();
        let alone = places.iter().flatten().copied().map(|place| (place, place));
        let pairs = places.windows(2).filter_map(|pair| Some((pair[0]?, pair[1]?)));
        for (drawn, dot) in alone.chain(pairs).flat_map(|(from, to)| between(from, to)).enumerate() {
            // As long as four dots, every other one, for the second ten.
            if line.look.dash > 0 && drawn / 4 % 2 == 1 {
                continue;
            }
            let Some(cell) = cell(&mut cells, dot, dots) else { continue };
            cell.line = Some(number);
            cell.shown = match colours {
                true => with_dot(cell.shown, dot),
                false => letter(number),
            };
        }
    }
    for goal in &plot.goals {
        let [_, y] = place(x_range[0], *goal);
        let row = (0..width).map(|column| [column as i64 * dots[0], y]);
        for dot in row.step_by(2) {
            if let Some(cell) = cell(&mut cells, dot, dots).filter(|cell| cell.line.is_none()) {
                cell.shown = '╌';
            }
        }
    }
    for (number, line) in plot.lines.iter().enumerate() {
        let mark = line.mark.and_then(|[x, y]| cell(&mut cells, place(x, y), dots));
        if let Some(mark) = mark {
            *mark = Cell { shown: '○', line: Some(number) };
        }
    }

    let style = |number: Option<usize>| {
        let look = number.and_then(|number| plot.lines.get(number)).map(|line| line.look);
        look.filter(|_| colours).map_or_else(Style::new, style_of).force_styling(colours)
    };
    let mut lines = vec![format!("{}, over {}", plot.y_label, plot.x_label)];
    let numbers = numbers(y_range, ROWS / 2, |value| place(x_range[0], value)[1] / dots[1]);
    for (row, cells) in cells.iter().enumerate() {
        let number = numbers.iter().find(|(at, _)| *at == row as i64);
        let (number, tick) = number.map_or((String::new(), '│'), |(_, number)| (number.clone(), '┤'));
        let mut text = format!("{number:>0$} {tick}", NUMBERS - 1);
        for cells in cells.chunk_by(|one, other| one.line == other.line) {
            let shown: String = cells.iter().map(|cell| cell.shown).collect();
            text += &style(cells.first().and_then(|cell| cell.line)).apply_to(shown).to_string();
        }
        lines.push(text.trim_end().to_owned());
    }
    let numbers = numbers_below(x_range, width, |value| (place(value, y_range[0])[0] / dots[0]) as usize);
    lines.extend(numbers);
    lines.extend(legend(plot, columns, colours, style));
    lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}

fn style_of(look: Look) -> Style {
    match look.colour.and_then(|colour| COLOURS.get(colour)) {
        Some(colour) => Style::new().color256(*colour),
        None => Style::new().bold(),
    }
}

/// Names lines where there are no colours.
fn letter(number: usize) -> char {
    ('a'..='z').cycle().nth(number).unwrap_or('*')
}

/// The cell of a dot, if it is inside of the chart.
fn cell(cells: &mut [Vec<Cell>], [x, y]: [i64; 2], dots: [i64; 2]) -> Option<&mut Cell> {
    let column = usize::try_from(x.div_euclid(dots[0])).ok()?;
    cells.get_mut(usize::try_from(y.div_euclid(dots[1])).ok()?)?.get_mut(column)
}

/// A braille pattern, or the empty one in place of something else, with a dot more.
fn with_dot(shown: char, [x, y]: [i64; 2]) -> char {
    let bits = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
    let bit: u32 = bits[y.rem_euclid(DOTS[1]) as usize][x.rem_euclid(DOTS[0]) as usize];
    let known = if (BRAILLE..BRAILLE + 256).contains(&u32::from(shown)) { u32::from(shown) } else { BRAILLE };
    char::from_u32(known | bit).unwrap_or(shown)
}

/// All dots from one to another.
fn between(from: [i64; 2], to: [i64; 2]) -> impl Iterator<Item = [i64; 2]> {
    let steps = (to[0] - from[0]).abs().max((to[1] - from[1]).abs()).max(1);
    let at = move |axis: usize, step: i64| {
        let share = step as f64 / steps as f64;
        from[axis] + ((to[axis] - from[axis]) as f64 * share).round() as i64
    };
    (0..=steps).map(move |step| [at(0, step), at(1, step)])
}

/// Round values within a range, at most about so many.
fn round_values([low, high]: [f64; 2], most: usize) -> Vec<f64> {
    let rough = (high - low) / most.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|part| part * power).find(|step| *step >= rough);
    let step = step.unwrap_or(rough);
    let first = (low / step).ceil();
    (0..=2 * most).map(|at| (first + at as f64) * step).take_while(|value| *value <= high).collect()
}

/// Numbers by their rows.
fn numbers(range: [f64; 2], most: usize, row: impl Fn(f64) -> i64) -> Vec<(i64, String)> {
    round_values(range, most).into_iter().map(|value| (row(value), tick(value))).collect()
}

/// The axis below a chart, and its numbers.
fn numbers_below(range: [f64; 2], width: usize, column: impl Fn(f64) -> usize) -> [String; 2] {
    let mut axis: Vec<char> = iter::repeat_n('─', width).collect();
    let mut below = String::new();
    for value in round_values(range, width / 12) {
        let (at, number) = (column(value), tick(value));
        let Some(mark) = axis.get_mut(at) else { continue };
        *mark = '┬';
        let long = number.chars().count();
        let from = (NUMBERS + 1 + at).saturating_sub(long / 2).min(NUMBERS + 1 + width - long.min(width));
        let gap = from.saturating_sub(below.chars().count());
        below.extend(iter::repeat_n(' ', gap));
        below += &number;
    }
    [format!("{:1$}└{2}", "", NUMBERS, axis.into_iter().collect::<String>()), below]
}

/// What each line is, in as many lines as it takes.
fn legend(plot: &Plot, columns: usize, colours: bool, style: impl Fn(Option<usize>) -> Style) -> Vec<String> {
    let indent = " ".repeat(NUMBERS + 1);
    let (mut lines, mut used) = (Vec::<String>::new(), columns);
    for (number, line) in plot.lines.iter().enumerate() {
        let seeds = if line.seeds > 1 { format!(" ({} seeds)", line.seeds) } else { String::new() };
        // A name may be anything, but it must not command the terminal.
        let name: String = line.name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        let name = console::truncate_str(&name, columns - indent.len() - 20, "…").into_owned() + &seeds;
        let key = if colours { "──".to_owned() } else { letter(number).to_string() };
        let wide = console::measure_text_width(&key) + 1 + console::measure_text_width(&name);
        let entry = format!("{} {name}", style(Some(number)).apply_to(key));
        match lines.last_mut() {
            Some(last) if used + 3 + wide <= columns => {
                used += 3 + wide;
                *last += &format!("   {entry}");
            }
            _ => {
                used = indent.len() + wide;
                lines.push(format!("{indent}{entry}"));
            }
        }
    }
    if plot.lines.iter().any(|line| line.mark.is_some()) {
        lines.push(format!("{indent}○ first shows the baseline's final loss (╌)"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use pipeline::report::plot::{Line, Look, Plot};

    use super::{round_values, text};

    fn plot() -> Plot {
        let line = |name: &str, colour: Option<usize>, from: f64| Line {
            name: name.into(),
            seeds: if colour.is_some() { 3 } else { 1 },
            look: Look { colour, dash: 0 },
            x: (0..=20).map(|step| f64::from(step) * 1e12 + from).collect(),
            y: (0..=20).map(|step| Some(4.0 - f64::from(step) * 0.05 - from / 2e13)).collect(),
            deviation: Vec::new(),
            mark: colour.map(|_| [1.6e13, 2.95]),
        };
        Plot {
            name: "loss".into(),
            x_label: "computation, FLOP",
            y_label: "loss, nats",
            lines: vec![line("baseline", None, 0.0), line("fused\u{1b}[2J", Some(0), 8e12)],
            goals: vec![3.0],
            late: false,
        }
    }

    #[test]
    fn charts_in_a_terminal() {
        insta::assert_snapshot!("letters", text(&plot(), 70, false));
        insta::assert_snapshot!("colours", text(&plot(), 70, true).replace('\u{1b}', "ESC"));
    }

    #[test]
    fn nothing_is_wider_than_the_terminal() {
        let mut plot = plot();
        plot.lines[0].name = "a very long name ".repeat(20);
        for columns in [60, 81, 110] {
            for colours in [false, true] {
                let text = text(&plot, columns, colours);
                let widest = text.lines().map(console::measure_text_width).max();
                assert!(widest <= Some(columns), "{columns}: {widest:?}");
            }
        }
    }

    #[test]
    fn round_values_of_a_range() {
        assert_eq!(round_values([0.0, 30.0], 4), [0.0, 10.0, 20.0, 30.0]);
        assert_eq!(round_values([2.81, 3.44], 4), [15.0, 16.0, 17.0].map(|value| value * 0.2));
    }
}
