//! Errors between a text file and a batch.

use std::path::PathBuf;

/// The result of this module's functions.
pub type Result<T, E = TextError> = std::result::Result<T, E>;

/// Why a text yields no batches.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what each variant means")]
pub enum TextError {
    #[error("no text: the list of inputs is empty")]
    NoInputs,
    #[error("no text: `{input}` matches no file")]
    NoMatch { input: String },
    #[error("no text: folder `{}` holds no file that ends in {}", path.display(), EXTENSIONS)]
    EmptyFolder { path: PathBuf },
    #[error("cannot read `{}` as text: its name must end in {}", path.display(), EXTENSIONS)]
    Extension { path: PathBuf },
    #[error("{} is a link to a file that does not exist", path.display())]
    BrokenLink { path: PathBuf },
    #[error("`{input}` is not a valid glob pattern: {reason}")]
    Glob { input: String, reason: String },
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}:{line}: cannot read on (is the file whole?): {source}", path.display())]
    ReadLine { path: PathBuf, line: u64, source: std::io::Error },
    #[error("{}:{line}: expected one JSON object a line with a string field `{field}`: {reason}", path.display())]
    Json { path: PathBuf, line: u64, field: String, reason: String },
    #[error("{}: there is no column {column:?}; there are: {}", path.display(), found.join(", "))]
    NoColumn { path: PathBuf, column: String, found: Vec<String> },
    #[error("{}: column {column:?} holds {found}, not text", path.display())]
    ColumnType { path: PathBuf, column: String, found: String },
    #[error("{}:{line}: {reason}", path.display())]
    Row { path: PathBuf, line: u64, reason: String },
    #[error("{}, row {row}: column {column:?} is null", path.display())]
    Null { path: PathBuf, row: u64, column: String },
    #[error("{}: not a readable Parquet file: {reason}", path.display())]
    Parquet { path: PathBuf, reason: String },
    #[error("{}: this program was built without a reader of Parquet files", path.display())]
    NoParquet { path: PathBuf },
    #[error("{name} cannot be fetched: {source}")]
    Fetch { name: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{}: not a file of tokens: {reason}", path.display())]
    Tokens { path: PathBuf, reason: String },
    #[error("{}: these tokens are of another vocabulary than the tokenizer's", path.display())]
    OtherVocabulary { path: PathBuf },
    #[error("tokens cannot be read as text: name the text that they were made of")]
    TokensAsText,
    #[error("{}:{line}: expected UTF-8 text", path.display())]
    NotUtf8 { path: PathBuf, line: u64 },
    #[error(
        "{}:{line}: a document of more than {limit} bytes; blank lines separate documents in .txt files, \
         line ends in JSON lines",
        path.display()
    )]
    DocumentTooLong { path: PathBuf, line: u64, limit: u64 },

    #[error("no tokenizer in `{}`: expected tokenizer.json or spiece.model", path.display())]
    NoTokenizer { path: PathBuf },
    #[error("{}: not a usable tokenizer: {reason}", path.display())]
    Tokenizer { path: PathBuf, reason: String },
    #[error("{problem}")]
    TokenizerFiles { problem: String },
    #[error("{origin}: the vocabulary has no `{token}`, which T5 needs")]
    MissingToken { origin: String, token: String },
    #[error("cannot tokenize: {reason}")]
    Encode { reason: String },
    #[error("cannot create `{}`: {source}", path.display())]
    CreateFolder { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Write(#[from] fusion_core::Error),
    #[error("cannot train a vocabulary: {reason}")]
    Training { reason: String },
    #[error(
        "a vocabulary of {requested} tokens is too small: {characters} distinct characters, {special} special \
         tokens and sentinels need at least {}",
        characters + special + 1
    )]
    VocabularyTooSmall { requested: usize, characters: usize, special: usize },

    #[error("inputs of {input_length} tokens take chunks of more than {limit} tokens")]
    ChunkTooLong { input_length: usize, limit: usize },
    #[error("noise density {value}: expected a number above 0 and below 1")]
    NoiseDensity { value: f64 },
    #[error("mean noise span length {value}: expected a number of at least 1")]
    MeanSpanLength { value: f64 },
    #[error("input length {input_length} is too short: one token, one sentinel and EOS need 3")]
    InputLength { input_length: usize },
    #[error(
        "input length {input_length} is too short for prefix language modelling: two tokens, which are cut into a \
         prefix and what follows, and EOS need 3"
    )]
    PrefixInputLength { input_length: usize },
    #[error("a mixture needs at least one denoiser")]
    NoDenoisers,
    #[error("denoiser {denoiser:?}: {problem}")]
    Denoiser { denoiser: String, problem: String },
    #[error("{problem}")]
    UnreadDenoiser { problem: String },
    #[error("rate {value} of a denoiser: expected a number above 0")]
    Rate { value: f64 },
    #[error("mode {mode:?}: {problem}")]
    Mode { mode: String, problem: String },
    #[error(
        "{spans} noise spans need {spans} gaps, but only {kept} of {tokens} tokens are kept: lower the noise density"
    )]
    SpansDoNotFit { spans: usize, kept: usize, tokens: usize },
    #[error(
        "inputs of {input_length} tokens need at least {spans} sentinels, the vocabulary has {available}: shorten \
         the input or lengthen the spans"
    )]
    TooManySpans { input_length: usize, spans: usize, available: usize },
    #[error("a chunk of {actual} tokens, expected {expected}")]
    ChunkLength { actual: usize, expected: usize },

    #[error("{option} must be at least 1")]
    Zero { option: &'static str },
    #[error("too little text: one pass over the corpus gives {tokens} tokens, one example needs {needed}")]
    CorpusTooSmall { tokens: usize, needed: usize },
    #[error("cannot resume the text at {position}: {reason}; has the data or an option changed?")]
    Position { position: String, reason: String },
    #[error("the tokenizing thread ended unexpectedly")]
    ThreadEnded,
}

/// Suffixes of readable files.
pub(super) const EXTENSIONS: &str =
    ".json, .jsonl, .txt, .csv, .tsv, one of these with .gz or .zst, .parquet, or .tokens";
