//! Curves as they are drawn wherever they are: on a page, in files and in a terminal. What is shown, in which
//! order and colour, how far it reaches, and what is marked.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::numbers::UNITS;

use super::results::{Band, Course, FusedModel, GlueModel, GluePoint, Group, Passing, Results, Role};

/// A quantity that was measured on held-out text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Measure {
    /// As in [`Band::values`].
    pub name: &'static str,
    /// With its unit.
    pub label: &'static str,
    /// What it is multiplied by.
    pub scale: f64,
    /// Whether it falls so far at first that nothing else would be seen of it, see [`LATE`].
    pub late: bool,
}

const fn measure(name: &'static str, label: &'static str, scale: f64, late: bool) -> Measure {
    Measure { name, label, scale, late }
}

/// In the order in which they are offered.
pub const MEASURES: [Measure; 9] = [
    measure("loss", "loss, nats", 1.0, true),
    measure("accuracy", "accuracy, %", 100.0, false),
    measure("context_gain", "context gain, nats", 1.0, false),
    measure("sentinel_loss", "loss of sentinels, nats", 1.0, true),
    measure("first_loss", "loss of each span's first token, nats", 1.0, true),
    measure("rest_loss", "loss of a span's other tokens, nats", 1.0, true),
    measure("sentinel_accuracy", "accuracy of sentinels, %", 100.0, false),
    measure("first_accuracy", "accuracy of first tokens, %", 100.0, false),
    measure("rest_accuracy", "accuracy of other tokens, %", 100.0, false),
];

/// A [late](Measure::late) measure is drawn as high as it is after one part in so many of its evaluations, and after the
/// first.
pub const LATE: usize = 10;
/// Above and below the curves, as a share of what they span.
pub const ROOM: f64 = 0.06;

/// What a curve is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// Updates.
    Steps,
    /// Input and target tokens.
    Tokens,
    /// Computation of a training alone.
    Flops,
    /// The same with that of everything behind its model.
    TotalFlops,
}

impl Axis {
    /// In the order in which they are offered, with their labels.
    pub const ALL: [Axis; 4] = [Axis::Steps, Axis::TotalFlops, Axis::Flops, Axis::Tokens];

    /// With its unit.
    pub fn label(self) -> &'static str {
        match self {
            Axis::Steps => "steps",
            Axis::Tokens => "tokens",
            Axis::Flops => "own computation, FLOP",
            Axis::TotalFlops => "computation with parents, FLOP",
        }
    }

    /// All of them by their names.
    pub fn labels() -> BTreeMap<Axis, &'static str> {
        Axis::ALL.into_iter().map(|axis| (axis, axis.label())).collect()
    }

    fn of(self, band: &Band) -> Vec<f64> {
        match self {
            Axis::Steps => band.steps.iter().map(|step| *step as f64).collect(),
            Axis::Tokens => band.tokens.iter().map(|tokens| *tokens as f64).collect(),
            Axis::Flops => band.flops.clone(),
            Axis::TotalFlops => band.total_flops.clone(),
        }
    }
}

/// How a line is told from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Look {
    /// One of [`COLOURS`]; none is ink.
    pub colour: Option<usize>,
    /// 0: through, 1: dashed, 2: dotted.
    pub dash: usize,
}

/// How many colours there are before lines are dashed.
pub const COLOURS: usize = 10;

/// Ink for baselines, colours for the others in their order.
pub fn looks(baselines: impl IntoIterator<Item = bool>) -> Vec<Look> {
    let mut next = 0;
    let look = |is_baseline: bool| {
        if is_baseline {
            return Look { colour: None, dash: 0 };
        }
        let at = next;
        next += 1;
        Look { colour: Some(at % COLOURS), dash: at / COLOURS % 3 }
    };
    baselines.into_iter().map(look).collect()
}

/// A set of trainings that has something to draw.
#[derive(Clone, Copy, Debug)]
pub struct Drawn<'a> {
    /// The trainings.
    pub set: &'a Group,
    /// Its line.
    pub look: Look,
    /// Whether it is left out until a reader asks for it: where models are compared, those that are not.
    pub hidden: bool,
    /// Where a ring marks that it shows the baseline's final loss, and the row of its band.
    pub passes: Option<(usize, Passing)>,
}

/// In the order of a legend.
pub fn sets(results: &Results) -> Vec<Drawn<'_>> {
    let shown: Vec<&Group> = results.sets.iter().filter(|set| !set.band.steps.is_empty()).collect();
    let compared = shown.iter().any(|set| set.role != Role::Other);
    let looks = looks(shown.iter().map(|set| set.role == Role::Baseline));
    let mut all = Vec::with_capacity(shown.len());
    for (set, look) in shown.into_iter().zip(looks) {
        let passes = set
            .passes
            .filter(|_| set.role != Role::Baseline)
            .and_then(|passes| Some((set.band.steps.iter().position(|own| *own == passes.step)?, passes)));
        all.push(Drawn { set, look, hidden: compared && set.role == Role::Other, passes });
    }
    all
}

/// The losses at which the baselines ended, by the baselines' names.
pub fn goals(results: &Results) -> Vec<(&str, f64)> {
    let baselines = results.sets.iter().filter(|set| set.role == Role::Baseline);
    // A baseline passes its own end where it ends, once it has finished.
    let finished = baselines.filter(|set| set.passes.is_some());
    finished.filter_map(|set| Some((set.name.as_str(), set.last("loss")?.mean))).collect()
}

/// A curve, or the mean of several with a band.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Of its model.
    pub name: String,
    /// How many trainings it is the mean of; 1 for other curves.
    pub seeds: usize,
    /// How it is drawn.
    pub look: Look,
    /// Ascending.
    pub x: Vec<f64>,
    /// Beside each `x`; `None` where there is a gap.
    pub y: Vec<Option<f64>>,
    /// Half the band's height beside each `x`; empty without a band.
    pub deviation: Vec<Option<f64>>,
    /// Where there is a ring.
    pub mark: Option<[f64; 2]>,
}

impl Line {
    fn new(
        name: &str,
        look: Look,
        columns: impl IntoIterator<Item = (u64, Option<f64>, Option<f64>)>,
    ) -> Self {
        let mut line = Line {
            name: name.to_owned(),
            seeds: 1,
            look,
            x: vec![],
            y: vec![],
            deviation: vec![],
            mark: None,
        };
        for (step, y, deviation) in columns {
            line.x.push(step as f64);
            line.y.push(y.filter(|y| y.is_finite()));
            line.deviation.push(deviation);
        }
        if line.deviation.iter().all(Option::is_none) {
            line.deviation.clear();
        }
        line
    }

    /// The edges of its band at a row, if it has one there.
    pub fn band(&self, row: usize) -> Option<[f64; 2]> {
        let (y, deviation) = (self.y.get(row).copied()??, self.deviation.get(row).copied()??);
        Some([y - deviation, y + deviation])
    }

    fn has_values(&self) -> bool {
        self.y.iter().any(Option::is_some)
    }
}

/// A chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Plot {
    /// What it is of: letters and hyphens.
    pub name: String,
    /// With its unit.
    pub x_label: &'static str,
    /// With its unit.
    pub y_label: &'static str,
    /// In the order of the legend.
    pub lines: Vec<Line>,
    /// Dashed horizontal lines.
    pub goals: Vec<f64>,
    /// See [`Measure::late`].
    pub late: bool,
}

impl Plot {
    fn new(
        name: &str,
        [x_label, y_label]: [&'static str; 2],
        lines: impl IntoIterator<Item = Line>,
    ) -> Option<Self> {
        let lines: Vec<Line> = lines.into_iter().filter(Line::has_values).collect();
        let plot = Plot { name: name.to_owned(), x_label, y_label, lines, goals: Vec::new(), late: false };
        (!plot.lines.is_empty()).then_some(plot)
    }

    /// A measure of all trainings that are compared, or of all if none is; `None` if it was not measured.
    pub fn of_sets(results: &Results, measure: Measure, axis: Axis) -> Option<Self> {
        let line = |drawn: &Drawn<'_>| {
            let values = drawn.set.band.values.get(measure.name)?;
            let scaled = |values: &[Option<f64>]| -> Vec<Option<f64>> {
                values.iter().map(|value| value.map(|value| measure.scale * value)).collect()
            };
            let x = axis.of(&drawn.set.band);
            let deviation = &values.deviation;
            Some(Line {
                name: drawn.set.name.clone(),
                seeds: drawn.set.band.seeds,
                look: drawn.look,
                y: scaled(&values.mean),
                deviation: match deviation.iter().any(Option::is_some) {
                    true => scaled(deviation),
                    false => Vec::new(),
                },
                mark: drawn
                    .passes
                    .filter(|_| measure.name == "loss")
                    .and_then(|(row, passes)| Some([*x.get(row)?, passes.loss])),
                x,
            })
        };
        let sets = sets(results);
        let lines = sets.iter().filter(|drawn| !drawn.hidden).filter_map(line);
        let over = match axis {
            Axis::Steps => "steps",
            Axis::Tokens => "tokens",
            Axis::Flops => "own-computation",
            Axis::TotalFlops => "computation",
        };
        let name = format!("{}-by-{over}", measure.name.replace('_', "-"));
        let mut plot = Plot::new(&name, [axis.label(), measure.label], lines)?;
        plot.late = measure.late;
        if measure.name == "loss" {
            plot.goals = goals(results).into_iter().map(|(_, loss)| loss).collect();
        }
        Some(plot)
    }

    /// What it shows, without units.
    pub fn title(&self) -> String {
        let bare = |label: &'static str| label.rsplit_once(", ").map_or(label, |(name, _)| name);
        format!("{} over {}", bare(self.y_label), bare(self.x_label))
    }

    /// From the first to the last value, and a little further; `None` without any.
    pub fn x_range(&self) -> Option<[f64; 2]> {
        let all = self.lines.iter().flat_map(|line| line.x.iter().zip(&line.y));
        let [low, high] = range(all.filter(|(_, y)| y.is_some()).map(|(x, _)| *x))?;
        Some(if high > low { [low, high + 0.01 * (high - low)] } else { [low - 0.5, high + 0.5] })
    }

    /// What is seen of the values, with some room; `None` without any.
    pub fn y_range(&self) -> Option<[f64; 2]> {
        let values = |line: &'_ Line, from: usize| -> Vec<f64> {
            let rows = (0..line.y.len()).filter_map(|row| Some((row, line.y[row]?))).skip(from);
            rows.flat_map(|(row, y)| [y].into_iter().chain(line.band(row).into_iter().flatten())).collect()
        };
        let all = |late: bool| {
            let from = |line: &Line| if late { (line.y.iter().flatten().count() / LATE).max(1) } else { 0 };
            range(self.lines.iter().flat_map(|line| values(line, from(line))).collect::<Vec<_>>())
        };
        let [low, mut high] = all(false)?;
        if let Some([_, top]) = all(true).filter(|[_, top]| self.late && *top > low) {
            high = high.min(top);
        }
        let room = if high > low { ROOM * (high - low) } else { (0.05 * high.abs()).max(0.05) };
        Some([low - room, high + room])
    }
}

fn range(values: impl IntoIterator<Item = f64>) -> Option<[f64; 2]> {
    let finite = values.into_iter().filter(|value| value.is_finite());
    finite.map(|value| [value, value]).reduce(|one, other| [one[0].min(other[0]), one[1].max(other[1])])
}

/// The charts of some results, the most important first.
pub fn plots(results: &Results) -> Vec<Plot> {
    let mut plots = Vec::new();
    for measure in MEASURES.iter().take(2) {
        for axis in [Axis::Steps, Axis::TotalFlops] {
            plots.extend(Plot::of_sets(results, *measure, axis));
        }
    }
    plots.extend(
        Plot::of_sets(results, MEASURES[2], Axis::Steps)
            .map(|plot| Plot { name: "context-gain".to_owned(), ..plot }),
    );
    plots.extend(glue(results));
    plots.extend(courses(results));
    plots.extend(symmetry(results));
    plots
}

/// The average over GLUE's tasks while models are fine-tuned, and the share of outputs that are no answers; empty
/// if no model was scored twice.
pub fn glue(results: &Results) -> Vec<Plot> {
    let models: Vec<&GlueModel> = results.glue.iter().flat_map(|glue| &glue.models).collect();
    if models.iter().all(|model| model.points.len() < 2) {
        return Vec::new();
    }
    let looks = looks(models.iter().map(|_| false));
    let lines = |y: fn(&GluePoint) -> f64, deviation: fn(&GluePoint) -> Option<f64>| {
        let line = move |(model, look): (&&GlueModel, &Look)| {
            let columns = model.points.iter().map(|point| (point.step, Some(y(point)), deviation(point)));
            Line::new(&model.name, *look, columns)
        };
        models.iter().zip(&looks).map(line)
    };
    let over = "steps of fine-tuning";
    let average = Plot::new("glue", [over, AVERAGE], lines(|point| point.mean, |point| point.deviation));
    let invalid = lines(|point| 100.0 * point.invalid, |_| None);
    let invalid = Plot::new("glue-invalid", [over, "outputs that are no answer, %"], invalid);
    average.into_iter().chain(invalid).collect()
}

/// The average over GLUE's tasks of models on the way of trainings (the paper's Figure 3).
pub fn courses(results: &Results) -> Option<Plot> {
    let courses: Vec<&Course> = results.glue.iter().flat_map(|glue| &glue.courses).collect();
    let looks = looks(courses.iter().map(|course| course.is_baseline));
    let line = |(course, look): (&Course, Look)| {
        let columns = course.steps.iter().zip(&course.mean).zip(&course.deviation);
        let columns = columns.map(|((step, mean), deviation)| (*step, Some(*mean), *deviation));
        Line::new(&course.name, look, columns)
    };
    let lines = courses.into_iter().zip(looks).map(line);
    Plot::new("glue-by-pretraining", ["steps of pretraining", AVERAGE], lines)
}

/// How far apart the halves of fused models are; `None` unless one was looked at on its way.
pub fn symmetry(results: &Results) -> Option<Plot> {
    let models = || results.weights.iter().filter(|model| model.symmetry.len() > 1);
    models().find(|model| model.symmetry.len() > 2)?;
    let line = |(model, look): (&FusedModel, Look)| {
        let columns = model.symmetry.iter().map(|point| (point.step, Some(point.asymmetry.median), None));
        Line::new(model.training.as_deref().unwrap_or(&model.fusion), look, columns)
    };
    let lines = models().zip(looks(models().map(|_| false))).map(line);
    Plot::new("half-asymmetry", ["steps since the fusion", "half-asymmetry"], lines)
}

const AVERAGE: &str = "average over GLUE, %";

/// A number beside an axis: `0.25`, `1.5 k`, `20 T`.
pub fn tick(value: f64) -> String {
    // The steps between ticks leave errors of rounding at zero.
    if value.abs() < 1e-12 {
        return "0".to_owned();
    }
    let (size, unit) = UNITS.into_iter().find(|(size, _)| value.abs() >= *size).unwrap_or((1.0, ""));
    let scaled = value / size;
    let digits = (3 - scaled.abs().log10().floor() as i32).clamp(0, 12) as usize;
    let text = format!("{scaled:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} {unit}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Line, Look, Plot, looks, tick};

    fn line(y: &[Option<f64>], deviation: &[Option<f64>]) -> Line {
        let x = (0..y.len()).map(|row| row as f64).collect();
        let look = Look { colour: None, dash: 0 };
        Line { name: "a".into(), seeds: 1, look, x, y: y.to_vec(), deviation: deviation.to_vec(), mark: None }
    }

    #[test]
    fn ticks() {
        let values = [0.0, 1e-17, 0.25, -0.5, 3.0, 2.95, 999.0, 1500.0, 2e13, 1.25e6, 0.0001];
        let texts = ["0", "0", "0.25", "-0.5", "3", "2.95", "999", "1.5 k", "20 T", "1.25 M", "0.0001"];
        assert_eq!(values.map(tick), texts);
    }

    #[test]
    fn a_baseline_is_ink_and_the_eleventh_dashed() {
        let looks = looks((0..12).map(|at| at == 3));
        assert_eq!((looks[3].colour, looks[4].colour), (None, Some(3)));
        assert_eq!((looks[10].colour, looks[10].dash), (Some(9), 0));
        assert_eq!((looks[11].colour, looks[11].dash), (Some(0), 1));
    }

    #[test]
    fn ranges() {
        let plot = |lines: Vec<Line>, late| {
            let mut plot = Plot::new("a", ["x", "y"], lines)?;
            plot.late = late;
            Some(plot)
        };
        assert_eq!(plot(vec![line(&[None, None], &[])], false), None);
        // The first tenth of ten does not count if it is late; a gap does not, either way.
        let mut falling: Vec<Option<f64>> = (0..11).map(|row| Some(10.0 - f64::from(row))).collect();
        falling[4] = None;
        let y = |late| plot(vec![line(&falling, &[])], late).and_then(|plot| plot.y_range());
        assert_eq!(y(false), Some([-0.6, 10.6]));
        assert_eq!(y(true), Some([-0.54, 9.54]));
        let band = plot(vec![line(&[Some(1.0), Some(1.0)], &[None, Some(0.5)])], false).expect("a plot");
        assert_eq!(band.y_range(), Some([0.44, 1.56]));
        assert_eq!(band.x_range(), Some([0.0, 1.01]));
        assert_eq!(band.title(), "y over x");
        let point = plot(vec![line(&[Some(2.0)], &[])], true).expect("a plot");
        assert_eq!((point.x_range(), point.y_range()), (Some([-0.5, 0.5]), Some([1.9, 2.1])));
    }
}
