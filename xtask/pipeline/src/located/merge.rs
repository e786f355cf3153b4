//! Recipes that include others, and overrides from the command line.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use toml::de::DeValue;

use super::{Table, Texts, Value};

/// Puts what one text says into the form in which texts are merged.
pub type Normalise<'a> = &'a dyn Fn(&mut Table);

/// Reads a recipe with everything it includes, and applies `sets` (`key.path=value`) on top.
pub fn load(path: &Path, sets: &[String], normalise: Normalise<'_>, texts: &mut Texts) -> Result<Table> {
    let mut table = read(path, &mut Vec::new(), normalise, texts)?;
    for set in sets {
        let mut set = parse_set(set, texts)?;
        normalise(&mut set);
        merge(&mut table, set);
    }
    Ok(table)
}

/// `open` lists the files being read, so that one that includes itself does not recurse forever.
fn read(path: &Path, open: &mut Vec<PathBuf>, normalise: Normalise<'_>, texts: &mut Texts) -> Result<Table> {
    let canonical =
        fs::canonicalize(path).with_context(|| format!("cannot read the recipe {}", path.display()))?;
    if open.contains(&canonical) {
        let files = open.iter().chain([&canonical]).filter_map(|file| file.file_name());
        let files: Vec<_> = files.map(|file| file.to_string_lossy()).collect();
        bail!("recipes include each other: {}", files.join(" -> "));
    }
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read the recipe {}", path.display()))?;
    let directory = path.parent().unwrap_or(Path::new("")).to_owned();
    let mut table = texts.parse(path.display().to_string(), &directory, text)?.into_inner();
    normalise(&mut table);
    let Some(include) = table.remove("include") else { return Ok(table) };
    let included = match include.get_ref() {
        DeValue::String(file) => vec![(include.span(), file.to_string())],
        DeValue::Array(files) if files.iter().all(|file| file.get_ref().is_str()) => {
            let file = |file: &Value| (file.span(), file.get_ref().as_str().unwrap_or_default().to_owned());
            files.iter().map(file).collect()
        }
        other => {
            let message = format!("`include` must be a file or a list of files, not {}", other.type_str());
            return Err(texts.error(include.span(), message));
        }
    };
    open.push(canonical);
    let mut merged = Table::new();
    for (span, file) in included {
        if file.contains("${") {
            let message = format!("`include` of {file:?}: files are included before variables are known");
            return Err(texts.error(span, message));
        }
        let base = read(&directory.join(&file), open, normalise, texts);
        merge(
            &mut merged,
            base.map_err(|error| error.context(texts.error(span, format!("`include` of {file:?}"))))?,
        );
    }
    open.pop();
    merge(&mut merged, table);
    Ok(merged)
}

/// A value that is not TOML is taken as a string: `data.text=my/texts`.
fn parse_set(set: &str, texts: &mut Texts) -> Result<Table> {
    let Some((key, value)) = set.split_once('=') else {
        bail!("--set {set}: expected key=value, such as pretraining.steps=100");
    };
    let name = format!("--set {set}");
    let here = Path::new("");
    let is_toml = toml::from_str::<toml::Table>(&format!("value = {value}")).is_ok();
    let value = if is_toml { value.to_owned() } else { toml::Value::from(value).to_string() };
    Ok(texts.parse_override(name, here, format!("{key}={value}"))?.into_inner())
}

/// Keys that say the same in two ways: one of them replaces the other.
const EXCLUSIVE: [[&str; 2]; 3] =
    [["held_out_text", "held_out_every"], ["model", "from"], ["steps", "computation"]];

/// Merges `over` into `base`: tables are merged key by key, everything else is replaced. A table with another
/// `kind` or `name` is replaced as well: the old one's keys would mean nothing to it.
pub fn merge(base: &mut Table, over: Table) {
    for [one, other] in EXCLUSIVE {
        for (key, replaced) in [(one, other), (other, one)] {
            if over.contains_key(key) && !over.contains_key(replaced) {
                base.remove(replaced);
            }
        }
    }
    for (key, value) in over {
        match base.get_mut(key.get_ref().as_ref()) {
            Some(old) => merge_value(old, value),
            None => {
                base.insert(key, value);
            }
        }
    }
}

fn merge_value(old: &mut Value, new: Value) {
    match (old.get_mut(), new.get_ref()) {
        (DeValue::Table(base), DeValue::Table(over)) if !is_another(base, over) => {
            if let DeValue::Table(over) = new.into_inner() {
                merge(base, over);
            }
        }
        _ => *old = new,
    }
}

fn is_another(base: &Table, over: &Table) -> bool {
    ["kind", "name"].into_iter().any(|tag| {
        let name =
            |table: &Table| table.get(tag).and_then(|value| value.get_ref().as_str().map(str::to_owned));
        name(over).is_some_and(|over| name(base).is_some_and(|base| base != over))
    })
}
