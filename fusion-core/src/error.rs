//! The crate's errors.

use std::io;
use std::path::{Path, PathBuf};

use crate::Dtype;
use crate::table::Axis;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong between a parameter table and a child's checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // Tables and plans.
    #[error("there is nothing to fuse: give at least one parent")]
    NoParents,
    #[error("parameter `{parameter}` occurs twice")]
    DuplicateParameter { parameter: String },
    #[error("parameter `{parameter}` has a dimension without axes, or no dimension at all")]
    NoAxes { parameter: String },
    #[error("parameter `{parameter}`: axis {axis} has size 0")]
    EmptyAxis { parameter: String, axis: Axis },
    #[error("parameter `{parameter}` [{dims}] is too large to address")]
    TooLarge { parameter: String, dims: String },
    #[error("parameter `{parameter}` is in {present}, but not in {missing}")]
    MissingParameter { parameter: String, present: String, missing: String },
    #[error("parameter `{parameter}`: {first} has the axes [{first_axes}], but {other} has [{other_axes}]")]
    AxesDiffer { parameter: String, first: String, first_axes: String, other: String, other_axes: String },
    #[error(
        "parameter `{parameter}`: axis {axis} is shared and must have the same size in every parent, \
         but it is {first_size} in {first} and {other_size} in {other}"
    )]
    SharedAxis {
        parameter: String,
        axis: Axis,
        first: String,
        first_size: usize,
        other: String,
        other_size: usize,
    },
    #[error("parameter `{parameter}`: {first} and {other} use it in different ways")]
    AveragingDiffers { parameter: String, first: String, other: String },
    #[error(
        "parameter `{parameter}`: all of its axes ({axes}) are shared, so there is no room to place the parents \
         side by side, and nothing says that they may be averaged"
    )]
    NothingFused { parameter: String, axes: String },
    #[error("parameter `{parameter}` averages for a tied head, which needs exactly one embed axis")]
    TiedWithoutEmbed { parameter: String },
    #[error("{weights} weights for {parents} parents")]
    WeightCount { weights: usize, parents: usize },
    #[error("the parents' weights must be finite and add up to 1, but they add up to {total}")]
    WeightSum { total: f64 },
    #[error("{parent}: normalisation groups {groups:?} do not add up to its embed axis of size {size}")]
    ParentGroups { parent: String, groups: Vec<usize>, size: usize },
    #[error(
        "parameter `{parameter}`: embed axis of size {size}, but the normalisation groups are {groups:?}"
    )]
    Groups { parameter: String, size: usize, groups: Vec<usize> },
    #[error("parameter `{parameter}`: nothing is placed in it")]
    NothingPlaced { parameter: String },
    #[error("parameter `{parameter}` refers to parent {parent}, but the plan has {parents}")]
    NoSuchParent { parameter: String, parent: usize, parents: usize },
    #[error(
        "parameter `{parameter}`: the place of parent {parent} has {offset} offsets and {extent} extents \
         for {axes} axes"
    )]
    PlacementRank { parameter: String, parent: usize, offset: usize, extent: usize, axes: usize },
    #[error(
        "parameter `{parameter}`: parent {parent} covers {start}..{end} of axis {axis}, which has size {size}"
    )]
    OutOfBounds { parameter: String, parent: usize, axis: Axis, start: usize, end: usize, size: usize },
    #[error("parameter `{parameter}`: nothing is placed at {covered}..{start} of axis {axis}")]
    Uncovered { parameter: String, axis: Axis, covered: usize, start: usize },
    #[error("parameter `{parameter}`: the value of absent parent {parent} is {value}, which is not finite")]
    AbsentValue { parameter: String, parent: usize, value: f64 },
    #[error(
        "parameter `{parameter}`: absent parent {parent} takes {place}, which none of its tensors takes in this plan"
    )]
    AbsentSize { parameter: String, parent: usize, place: String },
    #[error("parameter `{parameter}`: the place of absent parent {parent} overlaps that of parent {other}")]
    AbsentOverlap { parameter: String, parent: usize, other: usize },
    #[error("parameter `{parameter}`: parent {parent} is scaled by {scale}, which is not finite")]
    Scale { parameter: String, parent: usize, scale: f64 },
    #[error(
        "parameter `{parameter}`: the source box of parent {parent} has {offset} offsets and {sizes} sizes for {axes} axes"
    )]
    SourceRank { parameter: String, parent: usize, offset: usize, sizes: usize, axes: usize },
    #[error(
        "parameter `{parameter}`: {start}..{end} of axis {axis} is taken from parent {parent}, whose tensor has size {size}"
    )]
    OutOfSource { parameter: String, parent: usize, axis: Axis, start: usize, end: usize, size: usize },
    #[error(
        "parameter `{parameter}`: the noise of parent {parent} is multiplied by {factor}, which is not finite"
    )]
    NoiseFactor { parameter: String, parent: usize, factor: f64 },
    #[error("parameter `{parameter}`: products sum over dimension {contracts}, but it has {dimensions}")]
    Contraction { parameter: String, contracts: usize, dimensions: usize },
    #[error(
        "parameter `{parameter}`: one-sided cross-connections need a matrix whose dimension of inputs is known"
    )]
    NoDirection { parameter: String },
    #[error("parameter `{parameter}`: the placements of parents {first} and {second} overlap in part")]
    Overlap { parameter: String, first: usize, second: usize },
    #[error(
        "parameter `{parameter}`: parents share the same place, but their scales add up to {total}, not to 1"
    )]
    AverageScales { parameter: String, total: f64 },
    #[error("the standard deviation of random numbers must be finite and above 0, but is {std}")]
    Deviation { std: f64 },
    #[error(
        "parameter `{parameter}` has fewer than two fused dimensions, so it has no cross-connections to fill"
    )]
    NoCrossConnections { parameter: String },
    #[error("the model has no axis {axis} to widen")]
    NoSuchAxis { axis: Axis },
    #[error("axis {axis}: features {start}..{end} are to be copied, but the model has {size}")]
    Features { axis: Axis, start: usize, end: usize, size: usize },
    #[error(
        "parameter `{parameter}` would be copied to {places} places, more than {most}; grow in several steps"
    )]
    TooManyCopies { parameter: String, places: usize, most: usize },
    #[error("axis {axis}: features {start}..{end} have no place in the wider model")]
    FeaturesLost { axis: Axis, start: usize, end: usize },
    #[error(
        "axis {axis} cannot grow from {parent} to {child} by copying: the normalisation takes a mean over it, so every \
         feature must be copied equally often; {} and {} are possible", (child / parent).max(1) * parent, (child / parent + 1) * parent
    )]
    UnequalCopies { axis: Axis, parent: usize, child: usize },

    // Gradients' moments.
    #[error(
        "parameter `{parameter}`: its gradient is no constant multiple of that in {parent}, so what an optimiser knows of \
         the parent's cannot be carried over, only reset"
    )]
    NoGradient { parameter: String, parent: String },
    #[error("parameter `{parameter}`: moments of {found} sources were given, but it has {expected}")]
    MomentCount { parameter: String, expected: usize, found: usize },
    #[error("parameter `{parameter}`: a moment of its gradient is {value}, which is not finite")]
    NonFiniteMoment { parameter: String, value: f32 },

    // Plans and the parents' files.
    #[error("the plan has {parents} parents, but {sources} were given")]
    SourceCount { parents: usize, sources: usize },
    #[error("{parent}: tensor `{tensor}` has shape {found:?}, but the plan expects {expected:?}")]
    SourceShape { parent: String, tensor: String, expected: Vec<usize>, found: Vec<usize> },
    #[error("tensor `{tensor}` has type {dtype}, but only F16, BF16, F32 and F64 can be fused")]
    NotAFloat { tensor: String, dtype: Dtype },
    #[error("parameter `{parameter}`: {value:e} does not fit {dtype}; choose a wider output type")]
    DoesNotFit { parameter: String, value: f64, dtype: Dtype },
    #[error("parameter `{parameter}`: there is no memory for its {bytes} bytes")]
    OutOfMemory { parameter: String, bytes: usize },
    #[error("the plan has {params} parameters, there is none with index {index}")]
    NoSuchParameter { index: usize, params: usize },
    #[error("{origin} has no tensor `{tensor}`")]
    NoSuchTensor { origin: String, tensor: String },
    #[error("tensor `{tensor}`: shape {shape:?} does not match {elements} values")]
    ShapeMismatch { tensor: String, shape: Vec<usize>, elements: usize },

    // Files.
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "there is no room for {}: {needed} bytes are needed, but only {available} are free",
        path.display()
    )]
    NoSpace { path: PathBuf, needed: u64, available: u64 },
    #[error("parameter `{parameter}` cannot be produced on the device: {source}")]
    Device { parameter: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the writing was stopped")]
    Stopped,
    #[error("{} is not a directory; a checkpoint is one", path.display())]
    NotADirectory { path: PathBuf },
    #[error("{} holds no weights: looked for {looked_for}", path.display())]
    NoWeights { path: PathBuf, looked_for: &'static str },
    #[error("{} holds no config.json", path.display())]
    NoConfig { path: PathBuf },
    #[error("{}: {message}", path.display())]
    Json { path: PathBuf, message: String },
    #[error("{}: {message}", path.display())]
    Weights { path: PathBuf, message: String },
    #[error("{}: tensor `{tensor}` should be in {file}, but that file does not hold it", path.display())]
    NotInShard { path: PathBuf, tensor: String, file: String },
    #[error("{}: shard name `{file}` must be the name of a file in the same directory", path.display())]
    ShardName { path: PathBuf, file: String },
    #[error("{}: this is lineage version {version}, newer than the {supported} this program reads", path.display())]
    LineageVersion { path: PathBuf, version: u64, supported: u32 },
}

impl Error {
    /// For `map_err`: an operating system's error, with what was done to which path.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { action, path: path.as_ref().to_path_buf(), source }
    }
}
