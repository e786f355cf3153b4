//! What a page shows, as files: drawings in SVG, and pictures of them in PNG.

mod chart;
mod colours;
mod matrices;
mod picture;

use std::path::Path;

use anyhow::{Context as _, Result};
use fusion_core::atomic::{claim, write_own_file};
use minijinja::value::{Serde, Value};
use minijinja::{Environment, context};
use unicode_width::UnicodeWidthStr;

use self::colours::{Palette, Theme};
use super::page::{GraphPicture, templates};
use super::plot;
use super::results::Results;

pub use self::picture::FONT_LICENSE;

/// A figure of a report.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Of its files, without their extensions.
    pub name: String,
    /// A drawing in colours for light and for dark surroundings.
    pub svg: String,
    /// The same in those for light ones.
    light: String,
}

impl Figure {
    /// A picture of it in light colours, with two pixels for one of the drawing.
    ///
    /// # Errors
    /// Only if this program's own drawing is wrong.
    pub fn png(&self) -> Result<Vec<u8>> {
        picture::png(&self.light).with_context(|| format!("the figure {} cannot be drawn", self.name))
    }
}

/// All figures of some results.
///
/// # Errors
/// Only if this program's own templates are wrong.
pub fn figures(results: &Results) -> Result<Vec<Figure>> {
    let environment = environment()?;
    let palette = Palette::of_page()?;
    let mut figures = Figures { environment, palette, all: Vec::new() };
    for plot in plot::plots(results) {
        let Some(chart) = chart::Chart::new(&plot, &figures.palette)? else { continue };
        figures.add(&plot.name, "chart", &Value::from(Serde(&chart)))?;
    }
    for run in results.runs.iter().filter(|run| !run.stages.is_empty()) {
        let name = if results.runs.len() > 1 { format!("recipe-{}", run.name) } else { "recipe".to_owned() };
        let graph = GraphPicture::new(&run.stages);
        let title = format!("The recipe {}", run.name);
        figures.add(&name, "recipe", &context! { title, graph => Value::from(Serde(&graph)) })?;
    }
    for model in &results.weights {
        let name = model.training.as_deref().unwrap_or(&model.fusion);
        let drawing = matrices::Drawing::new(model);
        figures.add(&format!("weights-{name}"), "matrices", &Value::from(Serde(&drawing)))?;
    }
    Ok(figures.all)
}

/// Writes all figures of some results into a directory, which is created if it does not exist; their names.
///
/// # Errors
/// A file of such a name that this program did not write, or that was changed since, and a directory that cannot be
/// written into. Then nothing has been written.
pub fn write(results: &Results, directory: &Path) -> Result<Vec<String>> {
    let figures = figures(results)?;
    let names = |name: &str| [format!("{name}.svg"), format!("{name}.png")];
    let files: Vec<[String; 2]> = figures.iter().map(|figure| names(&figure.name)).collect();
    claim(directory, &files.iter().flatten().map(String::as_str).collect::<Vec<_>>())?;
    for (figure, [svg, png]) in figures.iter().zip(&files) {
        write_own_file(directory, svg, figure.svg.as_bytes())?;
        write_own_file(directory, png, &figure.png()?)?;
    }
    Ok(figures.into_iter().map(|figure| figure.name).collect())
}

struct Figures {
    environment: Environment<'static>,
    palette: Palette,
    all: Vec<Figure>,
}

impl Figures {
    fn add(&mut self, name: &str, template: &str, drawing: &Value) -> Result<()> {
        let name = self.free_name(name);
        let template = self.environment.get_template(template).context("a figure has no template")?;
        let drawn = |style: &str| -> Result<String> {
            let colours = Value::from(Serde(self.palette.light()));
            let svg = template.render(context! { style, colours, sans => SANS, ..drawing.clone() });
            Ok(only_xml(&svg.context("a figure's template is wrong")?))
        };
        let plain = drawn("")?;
        let drawn = |theme: Theme| drawn(&self.palette.style(theme, &plain));
        let (svg, light) = (drawn(Theme::Both)?, drawn(Theme::Light)?);
        self.all.push(Figure { name, svg, light });
        Ok(())
    }

    /// A name for files, from one that may be anything, which no other figure has, whatever a file system thinks of
    /// capital letters.
    fn free_name(&self, name: &str) -> String {
        let mut plain = String::new();
        for c in name.chars().take(LONGEST) {
            match c.is_alphanumeric() || "-_.".contains(c) {
                true => plain.push(c),
                false if plain.ends_with('-') => {}
                false => plain.push('-'),
            }
        }
        let name = plain.trim_end_matches('-').to_owned();
        let is_taken =
            |name: &str| self.all.iter().any(|figure| figure.name.to_lowercase() == name.to_lowercase());
        let numbered = (2..).map(|number| format!("{name}-{number}"));
        let mut names = std::iter::once(name.clone()).chain(numbered);
        names.find(|name| !is_taken(name)).unwrap_or(name)
    }
}

/// The most characters of a file's name, well below what file systems take.
const LONGEST: usize = 60;
/// The page's sans serif. Rasterised with the font that this program carries.
const SANS: &str =
    "system-ui, -apple-system, Segoe UI, Roboto, Helvetica Neue, Arial, DejaVu Sans, sans-serif";

const TEMPLATES: [(&str, &str); 3] = [
    ("chart", include_str!("chart.svg")),
    ("recipe", include_str!("recipe.svg")),
    ("matrices", include_str!("matrices.svg")),
];

fn environment() -> Result<Environment<'static>> {
    let mut environment = templates()?;
    for (name, text) in TEMPLATES {
        environment.add_template(name, text)?;
    }
    Ok(environment)
}

/// Replaces what XML cannot contain, even escaped.
fn only_xml(text: &str) -> String {
    let is_xml = |c: char| !c.is_control() && !"\u{fffe}\u{ffff}".contains(c) || "\n\t".contains(c);
    text.chars().map(|c| if is_xml(c) { c } else { '\u{fffd}' }).collect()
}

/// About how wide a text is at a size.
fn width(text: &str, size: f64) -> f64 {
    0.6 * size * text.width() as f64
}

#[cfg(test)]
mod tests {
    use super::{Figures, Palette, environment, only_xml};
    use minijinja::value::Value;

    #[test]
    fn characters_of_xml() {
        assert_eq!(only_xml("a\u{1b}[1m\u{0}\u{ffff}\tb\n"), "a\u{fffd}[1m\u{fffd}\u{fffd}\tb\n");
    }

    #[test]
    fn names_of_files() {
        let mut figures = Figures {
            environment: environment().expect("templates"),
            palette: Palette::of_page().expect("colours"),
            all: Vec::new(),
        };
        figures.environment.add_template("empty", "").expect("a template");
        for name in ["weights-a/b", "weights-A b", "../größe (1)", &"x".repeat(300)] {
            figures.add(name, "empty", &Value::UNDEFINED).expect("a figure");
        }
        let names: Vec<&str> = figures.all.iter().map(|figure| figure.name.as_str()).collect();
        assert_eq!(names, ["weights-a-b", "weights-A-b-2", "..-größe-1", &"x".repeat(60)]);
    }
}
