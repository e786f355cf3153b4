//! A report as one HTML page that needs no network: text, tables and the recipe's graph are in it as they are;
//! curves and weights are drawn by a script from data in the page.

mod charts;
mod graph;
mod highlight;
mod live;
mod tables;
mod view;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context as _, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::results::Results;
use crate::source::digest::hexadecimal;
use charts::Charts;
pub use live::{Live, Served};
use view::View;

pub(super) use self::graph::Picture as GraphPicture;
pub(super) use self::view::rms;

/// The template of the page, and that of the graph in it.
const TEMPLATES: [(&str, &str); 2] =
    [("page", include_str!("page.html")), ("graph", include_str!("graph.svg"))];
pub(super) const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const UPLOT: &str = include_str!("uplot/uPlot.iife.min.js");
const UPLOT_STYLE: &str = include_str!("uplot/uPlot.min.css");
/// uPlot's licence, MIT, which goes wherever it goes.
pub const UPLOT_LICENSE: &str = include_str!("uplot/LICENSE");

/// The page of these results.
///
/// # Errors
/// Only if this program's own template is wrong.
pub fn html(results: &Results) -> Result<String> {
    render(results, None)
}

/// The page. One with a version follows its runs: it asks the server that it came from for other versions.
fn render(results: &Results, live: Option<&str>) -> Result<String> {
    let charts = embedded(&Charts::new(results))?;
    // The page runs scripts that carry this word, and no others. It depends on all that the page is made of, so
    // nobody can put it into a name or a text beforehand.
    let nonce = hexadecimal(Sha256::new().chain_update(&charts).chain_update(SCRIPT));
    let template = templates()?;
    let page = template.get_template("page").context("the page has no template")?;
    let page = page.render(context! {
        view => Value::from(Serde(View::new(results))),
        charts, nonce, live,
        style => STYLE, script => SCRIPT,
        uplot => UPLOT, uplot_style => UPLOT_STYLE, uplot_license => UPLOT_LICENSE.trim(),
        version => env!("CARGO_PKG_VERSION"),
    });
    page.context("the page's template is wrong")
}

/// Whether there is nothing in a place, or an earlier page.
pub fn may_replace(place: &Path) -> bool {
    let Ok(mut file) = File::open(place) else { return true };
    let mut start = Vec::new();
    let read = Read::by_ref(&mut file).take(START).read_to_end(&mut start);
    read.is_ok() && (start.is_empty() || String::from_utf8_lossy(&start).contains(MARK))
}

/// What tells that a file is a page, and how far from its beginning that is.
const MARK: &str = "<meta name=\"generator\" content=\"deep-fusion ";
const START: u64 = 2048;

/// The templates. Whatever is put into them is escaped, unless they say that it is markup.
pub(super) fn templates() -> Result<Environment<'static>> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    for (name, text) in TEMPLATES {
        environment.add_template(name, text)?;
    }
    Ok(environment)
}

/// JSON that may stand inside `<script>`: nothing in it looks like markup or ends a line of a script.
fn embedded(value: &impl Serialize) -> Result<String> {
    let json = serde_json::to_string(value)?;
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            // Outside strings, JSON has none of these.
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => safe += &format!("\\u{:04x}", u32::from(c)),
            c => safe.push(c),
        }
    }
    Ok(safe)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::{SCRIPT, UPLOT, UPLOT_LICENSE, UPLOT_STYLE, embedded, hexadecimal};

    #[test]
    fn nothing_in_embedded_json_is_markup() {
        let hostile = "</script><script>alert(1)</script><!-- & \u{2028}\u{2029}";
        let json = embedded(&hostile).expect("JSON");
        assert!(!json.contains(['<', '>', '&', '\u{2028}', '\u{2029}']), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), hostile);
    }

    #[test]
    fn scripts_may_stand_inside_a_page() {
        for text in [SCRIPT, UPLOT, UPLOT_STYLE] {
            assert!(!text.to_lowercase().contains("</s") && !text.contains("<!--"));
        }
        assert!(!UPLOT_LICENSE.contains("--"), "it stands in a comment");
    }

    /// The README beside them says which files they are.
    #[test]
    fn vendored_files_are_as_they_were() {
        let readme = include_str!("uplot/README.md");
        for text in [UPLOT, UPLOT_STYLE] {
            assert!(readme.contains(&hexadecimal(Sha256::new().chain_update(text))));
        }
    }
}
