//! The parts of a task's data, and where they are.

use std::fmt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::error::GlueError;
use crate::task::{EvaluationSet, Task};

/// A part of a task's data.
#[derive(Clone, Copy, Debug)]
pub enum Split {
    /// What a model is trained on.
    Train,
    /// A set with labels to evaluate on.
    Dev(&'static EvaluationSet),
    /// A set without labels, for GLUE's server.
    Test(&'static EvaluationSet),
}

impl Split {
    /// All splits of a task: the training set, then the sets with labels, then those without.
    pub fn all(task: Task) -> impl Iterator<Item = Split> {
        let sets = task.spec().evaluation_sets;
        let labelled = sets.iter().map(Split::Dev);
        [Split::Train].into_iter().chain(labelled).chain(sets.iter().map(Split::Test))
    }

    /// Whether its examples have labels.
    pub fn is_labelled(self) -> bool {
        !matches!(self, Split::Test(_))
    }

    /// Rows of the official file.
    pub fn official_rows(self, task: Task) -> usize {
        match self {
            Split::Train => task.spec().train_rows,
            Split::Dev(set) => set.dev_rows,
            Split::Test(set) => set.test_rows,
        }
    }

    /// The path of the TSV file in a folder of GLUE's files.
    pub fn tsv(self, task: Task) -> PathBuf {
        let name = match self {
            Split::Train => "train.tsv",
            Split::Dev(set) => set.dev,
            Split::Test(set) => set.test,
        };
        Path::new(task.spec().title).join(name)
    }

    /// The path of the Parquet file in a folder of GLUE's files, if the split is in one piece.
    pub fn parquet(self, task: Task) -> PathBuf {
        Path::new(task.spec().name).join(format!("{self}-00000-of-00001.parquet"))
    }

    /// The split's files in `glue`: the TSV file, or else the Parquet file or its shards in their order.
    ///
    /// # Errors
    /// Files or shards that are missing; a folder that cannot be read.
    pub fn find(self, task: Task, glue: &Path) -> Result<Vec<PathBuf>, GlueError> {
        let tsv = glue.join(self.tsv(task));
        if tsv.exists() {
            return Ok(vec![tsv]);
        }
        let shards = self.shards(&glue.join(task.spec().name))?;
        if shards.is_empty() {
            let (split, parquet) = (self.to_string(), glue.join(self.parquet(task)));
            return Err(GlueError::MissingFiles { task, split, tsv, parquet });
        }
        Ok(shards)
    }

    /// The split's shards in a folder, if it exists and holds any.
    fn shards(self, folder: &Path) -> Result<Vec<PathBuf>, GlueError> {
        let failed = |source| GlueError::Io { path: folder.to_owned(), source };
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut shards = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let shard = entry.file_name().to_str().and_then(|name| self.shard(name));
            shards.extend(shard.map(|numbers| (numbers, entry.path())));
        }
        shards.sort();
        let expected = (0..).map(|number| (number, shards.len()));
        if !shards.iter().map(|(numbers, _)| *numbers).eq(expected.take(shards.len())) {
            let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
            let found = shards.iter().filter_map(|(_, path)| name(path)).collect();
            return Err(GlueError::Shards { folder: folder.to_owned(), split: self.to_string(), found });
        }
        Ok(shards.into_iter().map(|(_, path)| path).collect())
    }

    /// Whether this path in a folder of GLUE's files is that of one of the split's Parquet files.
    pub fn is_parquet(self, task: Task, path: &str) -> bool {
        let name = path.strip_prefix(task.spec().name).and_then(|rest| rest.strip_prefix('/'));
        name.is_some_and(|name| self.shard(name).is_some())
    }

    /// A shard's number and the number of shards, if this is the name of one: `train-00000-of-00001.parquet`.
    fn shard(self, name: &str) -> Option<(usize, usize)> {
        let name = name.strip_prefix(&self.to_string())?.strip_prefix('-')?;
        let (number, of) = name.strip_suffix(".parquet")?.split_once("-of-")?;
        Some((number.parse().ok()?, of.parse().ok()?))
    }
}

/// The hub's name: `train`, `validation`, `test_matched`.
impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, set) = match self {
            Split::Train => return f.write_str("train"),
            Split::Dev(set) => ("validation", set),
            Split::Test(set) => ("test", set),
        };
        if set.name.is_empty() { f.write_str(name) } else { write!(f, "{name}_{}", set.name) }
    }
}
