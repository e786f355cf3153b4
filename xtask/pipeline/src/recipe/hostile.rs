//! Damaged recipes are read and forecast, or refused with the file's name; they never cause a panic.

#[path = "../../../../fusion-core/tests/hostile/damage.rs"]
mod damage;

use std::fs;
use std::path::Path;

use damage::{damage, replacement, within_memory};
use proptest::prelude::*;

use super::Recipe;
use crate::Silent;
use crate::run::{There, forecasts};

/// One that includes no other, and has variables.
fn recipe() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/two-texts.toml");
    fs::read_to_string(path).expect("the project's recipe")
}

fn read(text: &[u8]) -> Result<(), TestCaseError> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("damaged.toml");
    fs::write(&path, text).expect("written");
    match within_memory(|| Recipe::read(&path, &[])) {
        Ok(recipe) => drop(within_memory(|| {
            forecasts(&recipe.stages, &There { glue: None, result: &|_| Ok(None), watch: &Silent })
        })),
        Err(error) => {
            let error = crate::problems::causes(&error);
            prop_assert!(error.contains("damaged.toml"), "{} does not name the file", error);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_recipes(damage in damage()) {
        read(&damage.apply(recipe().as_bytes()))?;
    }

    #[test]
    fn recipes_with_other_values(first in replacement(), second in prop::option::of(replacement())) {
        let document: toml::Value = toml::from_str(&recipe()).expect("TOML");
        let mut document = first.apply(&serde_json::to_value(document).expect("plain values"));
        if let Some(second) = second {
            document = second.apply(&document);
        }
        // TOML has no null and no integer beyond i64: a document with one cannot be written and is not a
        // recipe.
        if let Ok(text) = toml::to_string(&document) {
            read(text.as_bytes())?;
        }
    }
}

#[test]
fn a_bottomless_recipe() {
    let deep = format!("data = {}", "[".repeat(1 << 17));
    read(deep.as_bytes()).expect("refused");
}
