//! The crate's errors.

use std::io;
use std::path::{Path, PathBuf};

use crate::table::Axis;
use crate::{Dtype, Mistaken};

/// A result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong between a parameter table and a child's checkpoint.
///
/// Fields named `parameter` and `tensor` are names; `parent` is an index into [`FusionPlan::parents`] where it is a
/// number, and a name for messages where it is text; sizes, offsets and extents are in elements.
///
/// [`FusionPlan::parents`]: crate::plan::FusionPlan::parents
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "fields are documented together, above")]
pub enum Error {
    // Tables and plans.
    /// There is nothing to fuse.
    #[error("there is nothing to fuse: give at least one parent")]
    NoParents,
    /// A name occurs twice in a table, a plan or a file.
    #[error("parameter `{parameter}` occurs twice")]
    DuplicateParameter { parameter: String },
    /// A parameter has no dimension, or one without axes.
    #[error("parameter `{parameter}` has a dimension without axes, or no dimension at all")]
    NoAxes { parameter: String },
    /// An axis has no elements.
    #[error("parameter `{parameter}`: axis {axis} has size 0")]
    EmptyAxis { parameter: String, axis: Axis },
    /// A parameter has more elements than can be addressed.
    #[error("parameter `{parameter}` [{dims}] is too large to address")]
    TooLarge { parameter: String, dims: String },
    /// One parent has a parameter that another lacks.
    #[error("parameter `{parameter}` is in {present}, but not in {missing}")]
    MissingParameter { parameter: String, present: String, missing: String },
    /// The axes of a parameter differ between parents.
    #[error("parameter `{parameter}`: {first} has the axes [{first_axes}], but {other} has [{other_axes}]")]
    AxesDiffer { parameter: String, first: String, first_axes: String, other: String, other_axes: String },
    /// A shared axis has different sizes in different parents.
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
    /// Parents average or contract a parameter in different ways.
    #[error("parameter `{parameter}`: {first} and {other} use it in different ways")]
    AveragingDiffers { parameter: String, first: String, other: String },
    /// No axis of a parameter is fused, and it is not averaged either.
    #[error(
        "parameter `{parameter}`: all of its axes ({axes}) are shared, so there is no room to place the parents \
         side by side, and nothing says that they may be averaged"
    )]
    NothingFused { parameter: String, axes: String },
    /// A parameter averages for a tied head but does not have exactly one embed axis.
    #[error("parameter `{parameter}` averages for a tied head, which needs exactly one embed axis")]
    TiedWithoutEmbed { parameter: String },
    /// The number of the parents' weights is not that of the parents.
    #[error("{weights} weights for {parents} parents")]
    WeightCount { weights: usize, parents: usize },
    /// The parents' weights do not add up to 1.
    #[error("the parents' weights must be finite and add up to 1, but they add up to {total}")]
    WeightSum { total: f64 },
    /// A parent's normalisation groups do not add up to the size of its embed axis.
    #[error("{parent}: normalisation groups {groups:?} do not add up to its embed axis of size {size}")]
    ParentGroups { parent: String, groups: Vec<usize>, size: usize },
    /// A plan's normalisation groups do not add up to the size of an embed axis.
    #[error(
        "parameter `{parameter}`: embed axis of size {size}, but the normalisation groups are {groups:?}"
    )]
    Groups { parameter: String, size: usize, groups: Vec<usize> },
    /// No parent has a place in a parameter.
    #[error("parameter `{parameter}`: nothing is placed in it")]
    NothingPlaced { parameter: String },
    /// A parameter refers to a parent that the plan does not have.
    #[error("parameter `{parameter}` refers to parent {parent}, but the plan has {parents}")]
    NoSuchParent { parameter: String, parent: usize, parents: usize },
    /// A place does not have one offset and one extent for each axis.
    #[error(
        "parameter `{parameter}`: the place of parent {parent} has {offset} offsets and {extent} extents \
         for {axes} axes"
    )]
    PlacementRank { parameter: String, parent: usize, offset: usize, extent: usize, axes: usize },
    /// A place lies outside its parameter, or is empty.
    #[error(
        "parameter `{parameter}`: parent {parent} covers {start}..{end} of axis {axis}, which has size {size}"
    )]
    OutOfBounds { parameter: String, parent: usize, axis: Axis, start: usize, end: usize, size: usize },
    /// Part of an axis belongs to no parent.
    #[error("parameter `{parameter}`: nothing is placed at {covered}..{start} of axis {axis}")]
    Uncovered { parameter: String, axis: Axis, covered: usize, start: usize },
    /// An absent parent's value is not finite.
    #[error("parameter `{parameter}`: the value of absent parent {parent} is {value}, which is not finite")]
    AbsentValue { parameter: String, parent: usize, value: f64 },
    /// An absent parent is larger than any of its tensors in the plan.
    #[error(
        "parameter `{parameter}`: absent parent {parent} takes {place}, which none of its tensors takes in this plan"
    )]
    AbsentSize { parameter: String, parent: usize, place: String },
    /// An absent parent's place overlaps another place.
    #[error("parameter `{parameter}`: the place of absent parent {parent} overlaps that of parent {other}")]
    AbsentOverlap { parameter: String, parent: usize, other: usize },
    /// A scale is not finite.
    #[error("parameter `{parameter}`: parent {parent} is scaled by {scale}, which is not finite")]
    Scale { parameter: String, parent: usize, scale: f64 },
    /// A source box does not have one offset and one size for each axis.
    #[error(
        "parameter `{parameter}`: the source box of parent {parent} has {offset} offsets and {sizes} sizes for {axes} axes"
    )]
    SourceRank { parameter: String, parent: usize, offset: usize, sizes: usize, axes: usize },
    /// A source box lies outside the parent's tensor.
    #[error(
        "parameter `{parameter}`: {start}..{end} of axis {axis} is taken from parent {parent}, whose tensor has size {size}"
    )]
    OutOfSource { parameter: String, parent: usize, axis: Axis, start: usize, end: usize, size: usize },
    /// The factor of a noise is not finite.
    #[error(
        "parameter `{parameter}`: the noise of parent {parent} is multiplied by {factor}, which is not finite"
    )]
    NoiseFactor { parameter: String, parent: usize, factor: f64 },
    /// A parameter contracts a dimension that it does not have.
    #[error("parameter `{parameter}`: products sum over dimension {contracts}, but it has {dimensions}")]
    Contraction { parameter: String, contracts: usize, dimensions: usize },
    /// One-sided cross-connections of a parameter whose inputs are not known.
    #[error(
        "parameter `{parameter}`: one-sided cross-connections need a matrix whose dimension of inputs is known"
    )]
    NoDirection { parameter: String },
    /// Two placements share some elements, but not all.
    #[error("parameter `{parameter}`: the placements of parents {first} and {second} overlap in part")]
    Overlap { parameter: String, first: usize, second: usize },
    /// The scales of placements that share their elements do not add up to 1.
    #[error(
        "parameter `{parameter}`: parents share the same place, but their scales add up to {total}, not to 1"
    )]
    AverageScales { parameter: String, total: f64 },
    /// A standard deviation is not finite and positive.
    #[error("the standard deviation of random numbers must be finite and above 0, but is {std}")]
    Deviation { std: f64 },
    /// Cross-connections are filled in a parameter that has none.
    #[error(
        "parameter `{parameter}` has fewer than two fused dimensions, so it has no cross-connections to fill"
    )]
    NoCrossConnections { parameter: String },
    /// An axis is to be widened that the model does not have.
    #[error("the model has no axis {axis} to widen")]
    NoSuchAxis { axis: Axis },
    /// Features are to be copied that an axis does not have.
    #[error("axis {axis}: features {start}..{end} are to be copied, but the model has {size}")]
    Features { axis: Axis, start: usize, end: usize, size: usize },
    /// A parameter would have more placements than a plan can reasonably have.
    #[error(
        "parameter `{parameter}` would be copied to {places} places, more than {most}; grow in several steps"
    )]
    TooManyCopies { parameter: String, places: usize, most: usize },
    /// A widening leaves out some of the parent's features.
    #[error("axis {axis}: features {start}..{end} have no place in the wider model")]
    FeaturesLost { axis: Axis, start: usize, end: usize },
    /// Features of a normalised axis are not all copied equally often.
    #[error(
        "axis {axis} cannot grow from {parent} to {child} by copying: the normalisation takes a mean over it, so every \
         feature must be copied equally often; {} and {} are possible", (child / parent).max(1) * parent, (child / parent + 1) * parent
    )]
    UnequalCopies { axis: Axis, parent: usize, child: usize },

    // Gradients' moments.
    /// A gradient is no constant multiple of the parent's.
    #[error(
        "parameter `{parameter}`: its gradient is no constant multiple of that in {parent}, so what an optimiser knows of \
         the parent's cannot be carried over, only reset"
    )]
    NoGradient { parameter: String, parent: String },
    /// Moments were given for more or fewer sources than a parameter has.
    #[error("parameter `{parameter}`: moments of {found} sources were given, but it has {expected}")]
    MomentCount { parameter: String, expected: usize, found: usize },
    /// A moment is not finite.
    #[error("parameter `{parameter}`: a moment of its gradient is {value}, which is not finite")]
    NonFiniteMoment { parameter: String, value: f32 },

    // Plans and the parents' files.
    /// More or fewer sources were given than the plan has parents.
    #[error("the plan has {parents} parents, but {sources} were given")]
    SourceCount { parents: usize, sources: usize },
    /// A parent's tensor does not have the planned shape.
    #[error("{parent}: tensor `{tensor}` has shape {found:?}, but the plan expects {expected:?}")]
    SourceShape { parent: String, tensor: String, expected: Vec<usize>, found: Vec<usize> },
    /// A tensor holds no floating-point numbers that can be fused.
    #[error("tensor `{tensor}` has type {dtype}, but only F16, BF16, F32 and F64 can be fused")]
    NotAFloat { tensor: String, dtype: Dtype },
    /// A finite value would become infinite in the output type.
    #[error("parameter `{parameter}`: {value:e} does not fit {dtype}; choose a wider output type")]
    DoesNotFit { parameter: String, value: f64, dtype: Dtype },
    /// There is no memory for a parameter.
    #[error("parameter `{parameter}`: there is no memory for its {bytes} bytes")]
    OutOfMemory { parameter: String, bytes: usize },
    /// The plan has no parameter with an index.
    #[error("the plan has {params} parameters, there is none with index {index}")]
    NoSuchParameter { index: usize, params: usize },
    /// A source has no tensor of a name.
    #[error("{origin} has no tensor `{tensor}`")]
    NoSuchTensor { origin: String, tensor: String },
    /// The values of a tensor are not as many as its shape says.
    #[error("tensor `{tensor}`: shape {shape:?} does not match {elements} values")]
    ShapeMismatch { tensor: String, shape: Vec<usize>, elements: usize },

    // Files.
    /// The operating system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// A directory is to be written where there is something else.
    #[error("{} exists and is not a directory", path.display())]
    NoDirectory { path: PathBuf },
    /// A path to write to ends in dots, or is empty.
    #[error("cannot write \"{}\": the path does not end in a name", path.display())]
    NoName { path: PathBuf },
    /// A path to write to is a link to nothing.
    #[error("{} is a symbolic link to {}, which does not exist", path.display(), target.display())]
    BrokenLink { path: PathBuf, target: PathBuf },
    /// A file is to be written where there is a directory, a device or a pipe.
    #[error("{} exists and is not a regular file", path.display())]
    NoFile { path: PathBuf },
    /// A directory is to be replaced in which this program wrote nothing.
    #[error("{} is not empty, and nothing in it was written by this program", path.display())]
    Occupied { path: PathBuf },
    /// A file is in the way that this program did not write.
    #[error("{} was not written by this program, so it is not replaced", path.display())]
    NotOurs { path: PathBuf },
    /// A file was changed after this program wrote it.
    #[error("{} was changed after this program wrote it, so it is not replaced", path.display())]
    Changed { path: PathBuf },
    /// A directory's record was written by a newer program.
    #[error("{}: this is a record of version {version}, newer than the {supported} this program reads", path.display())]
    RecordVersion { path: PathBuf, version: u32, supported: u32 },
    /// The file system has too little room.
    #[error(
        "there is no room for {}: {needed} bytes are needed, but only {available} are free",
        path.display()
    )]
    NoSpace { path: PathBuf, needed: u64, available: u64 },
    /// A device failed to produce a parameter.
    #[error("parameter `{parameter}` cannot be produced on the device: {source}")]
    Device { parameter: String, source: Box<dyn std::error::Error + Send + Sync> },
    /// [Progress](crate::checkpoint::Progress) asked for the writing to stop.
    #[error("the writing was stopped")]
    Stopped,
    /// A checkpoint was expected, which is a directory.
    #[error("{} is not a directory; a checkpoint is one", path.display())]
    NotADirectory { path: PathBuf },
    /// A directory holds no weights.
    #[error("{} holds no weights: looked for {looked_for}", path.display())]
    NoWeights { path: PathBuf, looked_for: &'static str },
    /// A directory holds no `config.json`.
    #[error("{} holds no config.json", path.display())]
    NoConfig { path: PathBuf },
    /// Something else is where a file of data is expected.
    #[error("{} is {what}", path.display())]
    Mistaken { path: PathBuf, what: Mistaken },
    /// A file holds other JSON than expected, or none.
    #[error("{}: {problem}", path.display())]
    Json { path: PathBuf, problem: serde_json::Error },
    /// An index of shards holds no object `weight_map`.
    #[error("{}: there is no object `weight_map`", path.display())]
    NoWeightMap { path: PathBuf },
    /// A tensor's entry in an index of shards is no name of a file.
    #[error("{}: `weight_map.{tensor}` is not a file name", path.display())]
    NotAFileName { path: PathBuf, tensor: String },
    /// A file of tensors would need a header longer than its format allows.
    #[error("{}: the header would take {bytes} bytes, more than {most}", path.display())]
    LongHeader { path: PathBuf, bytes: usize, most: u64 },
    /// A file of tensors is damaged or of an unknown kind.
    #[error("{}: {message}", path.display())]
    Weights { path: PathBuf, message: String },
    /// An index of shards names a file that lacks the tensor.
    #[error("{}: tensor `{tensor}` should be in {file}, but that file does not hold it", path.display())]
    NotInShard { path: PathBuf, tensor: String, file: String },
    /// An index of shards names a file outside its directory.
    #[error("{}: shard name `{file}` must be the name of a file in the same directory", path.display())]
    ShardName { path: PathBuf, file: String },
    /// `lineage.json` was written by a newer program.
    #[error("{}: this is lineage version {version}, newer than the {supported} this program reads", path.display())]
    LineageVersion { path: PathBuf, version: u64, supported: u32 },
}

impl Error {
    pub(crate) fn no_tensor(origin: impl std::fmt::Display, tensor: &str) -> Error {
        Error::NoSuchTensor { origin: origin.to_string(), tensor: tensor.into() }
    }

    /// For `map_err`: wraps an operating system's error with what was being done (`"open"`) to which path.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { action, path: path.as_ref().to_path_buf(), source }
    }

    /// For `map_err`: what is wrong with the JSON of which file.
    pub fn json(path: impl AsRef<Path>) -> impl FnOnce(serde_json::Error) -> Error {
        move |problem| Error::Json { path: path.as_ref().to_path_buf(), problem }
    }
}
