//! Runs a recipe without `cargo xtask`, on the CPU, and prints its report:
//!
//! ```sh
//! cargo run --release --package pipeline --features webster --example run_recipe \
//!     recipes/quickstart-smoke.toml
//! ```

use std::path::PathBuf;

use anyhow::{Context, Result};
use backend_burn as _; // linked, so that it registers itself
use pipeline::recipe::Recipe;
use pipeline::report::Report;
use pipeline::run::{How, Run};
use pipeline::{Compute, Silent};
use t5_model::{Computation, backend};

fn main() -> Result<()> {
    let path = PathBuf::from(std::env::args_os().nth(1).context("which recipe?")?);
    let recipe = Recipe::read(&path, &[])?;
    let compute = Compute::new(backend("burn")?, Computation::on("cpu"))?;
    let output = recipe.default_output();
    let run = Run::new(&recipe, &output, None, &Silent);
    run.execute(&run.selected(&[])?, &How::on(&compute))?;
    println!("{}", Report::of(&[output], &Default::default())?.text());
    Ok(())
}
