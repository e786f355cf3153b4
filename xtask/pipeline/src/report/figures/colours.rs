//! The page's colours, for drawings that follow their surroundings as it does.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result};

use crate::report::page::STYLE;

/// The colours of the page's style by their names in it, without the hyphens.
pub struct Palette {
    light: BTreeMap<String, String>,
    dark: BTreeMap<String, String>,
}

/// For which surroundings a drawing has colours.
#[derive(Clone, Copy, PartialEq)]
pub enum Theme {
    /// Light ones.
    Light,
    /// Light and dark ones, as the reader's device asks for.
    Both,
}

impl Palette {
    /// # Errors
    /// Only if this program's own style is wrong.
    pub fn of_page() -> Result<Self> {
        let (before, after) = STYLE
            .split_once("@media (prefers-color-scheme: dark)")
            .context("the page has no dark colours")?;
        let block = |text: &str| Some(text.split_once("{\n")?.1.split_once('}')?.0.to_owned());
        let light = block(before).context("the page has no light colours")?;
        let dark = after
            .split_once("{\n")
            .and_then(|(_, after)| block(after))
            .context("the page has no dark colours")?;
        let (mut light, dark) = (colours(&light), colours(&dark));
        // That of a printed page, since figures go into papers.
        light.insert("paper".to_owned(), "#FFFFFF".to_owned());
        Ok(Palette { light, dark })
    }

    /// The light colours.
    pub fn light(&self) -> &BTreeMap<String, String> {
        &self.light
    }

    /// A light colour as red, green and blue.
    pub fn rgb(&self, name: &str) -> Option<[u8; 3]> {
        let digits = self.light.get(name)?.get(1..)?;
        let part = |at: usize| u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok();
        Some([part(0)?, part(1)?, part(2)?])
    }

    /// The content of a drawing's `<style>`: the page's rules for a graph if there is one, and dark colours in place
    /// of the light ones that fill and draw other elements.
    pub fn style(&self, theme: Theme, drawing: &str) -> String {
        let is_graph = drawing.contains("class=\"graph\"");
        let mut style = if is_graph { graph_rules(&self.light) } else { String::new() };
        if theme == Theme::Both {
            style += "@media (prefers-color-scheme: dark) {\n";
            let mut known = Vec::new();
            for (name, light) in &self.light {
                let Some(dark) = self.dark.get(name).filter(|dark| *dark != light) else { continue };
                if known.contains(&light) {
                    continue;
                }
                known.push(light);
                for property in ["fill", "stroke"] {
                    let selected = format!("{property}=\"{light}\"");
                    if drawing.contains(&selected) {
                        // Writing to a string cannot fail.
                        let _ = writeln!(style, "[{selected}] {{ {property}: {dark} }}");
                    }
                }
            }
            if is_graph {
                style += &graph_rules(&self.dark);
            }
            style += "}";
        }
        style
    }
}

/// `--name: #rrggbb;`, in capital letters as in the drawings.
fn colours(block: &str) -> BTreeMap<String, String> {
    let each = block.split(';').filter_map(|own| own.trim().split_once(':'));
    each.filter_map(|(name, value)| {
        let value = value.trim();
        let name = name.trim().strip_prefix("--").filter(|_| value.len() == 7 && value.starts_with('#'))?;
        Some((name.to_owned(), value.to_uppercase()))
    })
    .collect()
}

/// The page's rules for what is inside a graph.
fn graph_rules(colours: &BTreeMap<String, String>) -> String {
    let rules = STYLE.lines().filter(|line| line.starts_with(".graph ") && !line.starts_with(".graph {"));
    let mut rules: String = rules.flat_map(|line| [line, "\n"]).collect();
    for (name, colour) in colours {
        rules = rules.replace(&format!("var(--{name})"), colour);
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::{Palette, Theme};
    use crate::report::plot::COLOURS;

    #[test]
    fn colours_of_the_page() {
        let palette = Palette::of_page().expect("colours");
        for name in ["paper", "ink", "muted", "rule", "base"] {
            assert!(palette.rgb(name).is_some() && palette.dark.contains_key(name), "{name}");
        }
        for colour in 0..COLOURS {
            assert!(palette.rgb(&format!("c{colour}")).is_some(), "{colour}");
        }
        assert!(!palette.light.contains_key(&format!("c{COLOURS}")), "there are more colours than COLOURS");
        assert_eq!(palette.rgb("c0"), Some([0x08, 0x68, 0xac]));
        let drawing = r##"<g class="graph"/><path fill="#0868AC" stroke="#D1600A"/>"##;
        let (light, both) = (palette.style(Theme::Light, drawing), palette.style(Theme::Both, drawing));
        assert!(light.contains(".graph .fused .box { fill: #E3EDF8; stroke: #3C78B4; }"), "{light}");
        assert!(!light.contains("var(") && !both.contains("var(") && !light.contains("@media"));
        assert!(both.contains("[fill=\"#0868AC\"] { fill: #5AA9E6 }"), "{both}");
        assert!(both.contains(".graph .fused .box { fill: #1C3047; stroke: #6FA5DC; }"), "{both}");
        assert_eq!(both.matches('[').count(), 2, "{both}");
        assert_eq!(palette.style(Theme::Light, "<path/>"), "");
    }
}
