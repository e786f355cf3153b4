//! A chart: plotters draws its axes and says where everything is.

use anyhow::{Context as _, Result, anyhow};
use plotters::prelude::*;
use serde::Serialize;

use super::colours::Palette;
use super::width;
use crate::report::plot::{Line, Look, Plot, tick};

/// In pixels.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 380.0;
/// Plotters counts in whole pixels, so it draws larger and is made smaller.
const FINE: f64 = 10.0;
const LABEL: f64 = 12.0;
const LEGEND_LINE: f64 = 20.0;
/// From a swatch to the next name, without the name.
const SWATCH: f64 = 48.0;
const MARGIN: f64 = 12.0;
/// At most so many values have dots.
const SPARSE: usize = 10;

/// What the template puts together. Places are in pixels.
#[derive(Serialize)]
pub struct Chart {
    width: f64,
    height: f64,
    title: String,
    /// Parts of a pixel.
    fine: u32,
    scale: f64,
    /// Axes and their numbers, as SVG.
    axes: String,
    /// Where the middle of a label is, and what it says.
    x_label: (f64, f64, &'static str),
    y_label: (f64, f64, &'static str),
    /// The part in which there are curves: left, top, width and height, in parts of pixels as all that follows.
    inside: [i32; 4],
    goals: Vec<[i32; 3]>,
    lines: Vec<Drawn>,
    legend: Vec<Entry>,
}

#[derive(Serialize)]
struct Drawn {
    title: String,
    colour: String,
    dashes: Option<[u32; 2]>,
    /// Corners of polygons.
    bands: Vec<String>,
    /// Corners of lines, between gaps.
    pieces: Vec<String>,
    /// Centres of dots: values that have no neighbours, and all if they are few.
    points: Vec<[i32; 2]>,
    mark: Option<[i32; 2]>,
}

#[derive(Serialize)]
struct Entry {
    x: f64,
    y: f64,
    name: String,
    colour: String,
    dashes: Option<[u32; 2]>,
}

impl Chart {
    /// `None` if there is nothing to draw.
    pub fn new(plot: &Plot, palette: &Palette) -> Result<Option<Self>> {
        let (Some([left, right]), Some([bottom, top])) = (plot.x_range(), plot.y_range()) else {
            return Ok(None);
        };
        let colour = |name: &str| -> Result<RGBColor> {
            let [red, green, blue] =
                palette.rgb(name).with_context(|| format!("there is no colour {name}"))?;
            Ok(RGBColor(red, green, blue))
        };
        let (muted, rule) = (colour("muted")?, colour("rule")?);
        let fine = |pixels: f64| (FINE * pixels).round() as i32;
        let mut drawing = String::new();
        let area = SVGBackend::with_string(&mut drawing, (fine(WIDTH) as u32, fine(HEIGHT) as u32))
            .into_drawing_area();
        // Plotters takes points of 1.24 to a pixel.
        let text = |size: f64| ("sans-serif", FINE * size * 1.24).into_font().color(&muted);
        let mut chart = ChartBuilder::on(&area)
            .margin_top(fine(MARGIN))
            .margin_right(fine(1.6 * MARGIN))
            .x_label_area_size(fine(44.0))
            .y_label_area_size(fine(62.0))
            .build_cartesian_2d(left..right, bottom..top)
            .map_err(|error| anyhow!("{error}"))?;
        chart
            .configure_mesh()
            .x_labels(8)
            .y_labels(8)
            .bold_line_style(rule.stroke_width(fine(0.6) as u32))
            .light_line_style(TRANSPARENT)
            .axis_style(rule.stroke_width(fine(1.0) as u32))
            .set_all_tick_mark_size(fine(4.0))
            .x_label_formatter(&|value| tick(*value))
            .y_label_formatter(&|value| tick(*value))
            .label_style(text(LABEL - 1.0))
            .draw()
            .map_err(|error| anyhow!("{error}"))?;
        let place = |x: f64, y: f64| -> [i32; 2] { chart.backend_coord(&(x, y)).into() };
        let [top_edge, bottom_edge] = [place(left, top)[1], place(left, bottom)[1]];
        let corner = |[x, y]: [i32; 2]| format!("{x},{y}");
        let mut lines = Vec::new();
        for line in &plot.lines {
            let (mut bands, mut pieces, mut points) = (Vec::new(), Vec::new(), Vec::new());
            for rows in runs(line, |row| line.band(row).is_some()) {
                let edge =
                    |row: usize, side: usize| Some(corner(place(*line.x.get(row)?, line.band(row)?[side])));
                let upper = rows.iter().filter_map(|row| edge(*row, 1));
                let lower = rows.iter().rev().filter_map(|row| edge(*row, 0));
                bands.push(upper.chain(lower).collect::<Vec<_>>().join(" "));
            }
            let is_sparse = line.y.iter().flatten().count() <= SPARSE;
            for rows in runs(line, |row| line.y[row].is_some()) {
                let places: Vec<[i32; 2]> =
                    rows.iter().filter_map(|row| Some(place(*line.x.get(*row)?, line.y[*row]?))).collect();
                if is_sparse || places.len() == 1 {
                    points.extend(places.iter().filter(|place| (top_edge..=bottom_edge).contains(&place[1])));
                }
                if places.len() > 1 {
                    pieces.push(places.into_iter().map(corner).collect::<Vec<_>>().join(" "));
                }
            }
            lines.push(Drawn {
                title: legend_name(line),
                colour: line_colour(line.look, palette)?,
                dashes: dashes(line.look),
                bands,
                pieces,
                points,
                mark: line.mark.map(|[x, y]| place(x, y)),
            });
        }
        let shown = plot.goals.iter().filter(|goal| (bottom..=top).contains(*goal));
        let goals = shown.map(|goal| {
            let ([from, y], [to, _]) = (place(left, *goal), place(right, *goal));
            [from, to, y]
        });
        let ([x0, y0], [x1, y1]) = (place(left, top), place(right, bottom));
        let goals = goals.collect();
        drop(chart);
        area.present().map_err(|error| anyhow!("{error}"))?;
        drop(area);
        let (mut legend, rows) = legend(plot, palette)?;
        legend.iter_mut().for_each(|entry| entry.y += HEIGHT);
        let axes = drawing.split_once('>').map(|(_, inner)| inner).unwrap_or_default();
        let axes = axes.trim_end().trim_end_matches("</svg>");
        // The rest of the drawing has the first, and the others are as if they were not there.
        let axes = [" font-family=\"sans-serif\"", " opacity=\"1\""]
            .iter()
            .fold(axes.to_owned(), |axes, own| axes.replace(own, ""));
        let middle = |from: i32, to: i32| f64::from(from + to) / 2.0 / FINE;
        Ok(Some(Chart {
            width: WIDTH,
            height: HEIGHT + LEGEND_LINE * rows as f64 + MARGIN,
            title: plot.title(),
            fine: FINE as u32,
            scale: 1.0 / FINE,
            axes,
            x_label: (middle(x0, x1), HEIGHT - 6.0, plot.x_label),
            y_label: (16.0, middle(y0, y1), plot.y_label),
            inside: [x0, y0, x1 - x0, y1 - y0],
            goals,
            lines,
            legend,
        }))
    }
}

/// Rows that are neighbours and of which something holds.
fn runs(line: &Line, holds: impl Fn(usize) -> bool) -> Vec<Vec<usize>> {
    let mut runs: Vec<Vec<usize>> = Vec::new();
    for row in (0..line.x.len()).filter(|row| holds(*row)) {
        match runs.last_mut() {
            Some(run) if run.last() == Some(&row.wrapping_sub(1)) => run.push(row),
            _ => runs.push(vec![row]),
        }
    }
    runs
}

fn line_colour(look: Look, palette: &Palette) -> Result<String> {
    let name = look.colour.map_or_else(|| "base".to_owned(), |colour| format!("c{colour}"));
    palette.light().get(&name).cloned().with_context(|| format!("there is no colour {name}"))
}

/// A dash and a gap in pixels; `None` for a line without gaps.
fn dashes(look: Look) -> Option<[u32; 2]> {
    [None, Some([7, 4]), Some([2, 3])].get(look.dash).copied().flatten()
}

/// `fused (3 seeds)`.
fn legend_name(line: &Line) -> String {
    match line.seeds {
        0 | 1 => line.name.clone(),
        seeds => format!("{} ({seeds} seeds)", line.name),
    }
}

/// Below the chart in columns of one width, so that it covers nothing; how many rows it has.
fn legend(plot: &Plot, palette: &Palette) -> Result<(Vec<Entry>, usize)> {
    let names: Vec<String> = plot.lines.iter().map(legend_name).collect();
    let widest = names.iter().map(|name| width(name, LABEL)).fold(0.0, f64::max);
    let room = WIDTH - 2.0 * MARGIN;
    let column = (SWATCH + widest).min(room);
    let columns = ((room / column).floor() as usize).clamp(1, names.len().max(1));
    let mut entries = Vec::new();
    for (at, (line, name)) in plot.lines.iter().zip(names).enumerate() {
        entries.push(Entry {
            x: MARGIN + (at % columns) as f64 * column,
            y: LEGEND_LINE * (at / columns) as f64 + 0.5 * LEGEND_LINE,
            name: fitting(name, room - SWATCH),
            colour: line_colour(line.look, palette)?,
            dashes: dashes(line.look),
        });
    }
    Ok((entries, plot.lines.len().div_ceil(columns)))
}

/// A name, cut to a width.
fn fitting(name: String, room: f64) -> String {
    if width(&name, LABEL) <= room {
        return name;
    }
    let mut short = String::new();
    for c in name.chars() {
        short.push(c);
        if width(&short, LABEL) > room - LABEL {
            break;
        }
    }
    short + "…"
}
