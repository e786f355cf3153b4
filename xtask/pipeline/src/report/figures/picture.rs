//! Drawings as pixels.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::fontdb::{Database, ID};
use resvg::usvg::{FontResolver, Options, Tree};

/// The licence of the font that the program carries for pictures, so that they look the same everywhere.
pub const FONT_LICENSE: &str = include_str!("LICENSE-DejaVu");
const FAMILY: &str = "DejaVu Sans";
/// Pixels of a picture for one of the drawing.
const DENSITY: f32 = 2.0;

/// A drawing as a PNG file.
pub fn png(svg: &str) -> Result<Vec<u8>> {
    let mut fonts = Database::new();
    fonts.load_font_data(dejavu::sans::regular().to_vec());
    fonts.set_sans_serif_family(FAMILY);
    let options = Options {
        font_family: FAMILY.to_owned(),
        fontdb: Arc::new(fonts),
        font_resolver: FontResolver {
            select_font: FontResolver::default_font_selector(),
            select_fallback: Box::new(fallback),
        },
        ..Options::default()
    };
    let tree = Tree::from_str(svg, &options)?;
    let size = tree.size().to_int_size().scale_by(DENSITY).context("a drawing without a size")?;
    let mut pixels = Pixmap::new(size.width(), size.height()).context("a drawing that is too large")?;
    resvg::render(&tree, Transform::from_scale(DENSITY, DENSITY), &mut pixels.as_mut());
    Ok(pixels.encode_png()?)
}

/// A font of this machine for a character that the program's own lacks, such as a Chinese one.
fn fallback(c: char, used: &[ID], fonts: &mut Arc<Database>) -> Option<ID> {
    if fonts.len() == 1 {
        Arc::make_mut(fonts).load_system_fonts();
    }
    FontResolver::default_fallback_selector()(c, used, fonts)
}
