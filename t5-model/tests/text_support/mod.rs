//! Text and a vocabulary for tests, and access to the optional real data.
#![allow(dead_code, reason = "each test file uses a part")]

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use t5_model::text::Tokenizer;

const WORDS: [&str; 40] = [
    "the", "river", "runs", "under", "a", "stone", "bridge", "and", "cold", "water", "keeps", "turning",
    "old", "wheels", "while", "two", "small", "boats", "carry", "wood", "from", "forest", "to", "market",
    "where", "people", "trade", "bread", "for", "news", "in", "early", "morning", "light", "before", "rain",
    "comes", "over", "green", "hills",
];

/// Document `number`: some sentences, which depend only on the number.
pub fn document(number: usize) -> String {
    let length = 5 + number * 7 % 60;
    let words: Vec<_> =
        (0..length).map(|i| WORDS[(number * 31 + i * i + i * number) % WORDS.len()]).collect();
    format!("No. {number}: {}.", words.join(" "))
}

pub fn documents(count: usize) -> Vec<String> {
    (0..count).map(document).collect()
}

/// A vocabulary of 160 tokens, 30 of which are sentinels.
pub fn tokenizer() -> Arc<Tokenizer> {
    static TOKENIZER: LazyLock<Arc<Tokenizer>> =
        LazyLock::new(|| Arc::new(Tokenizer::train_unigram(documents(200), 160, 30).unwrap()));
    Arc::clone(&TOKENIZER)
}

/// The folder of real data, which is not in the repository; tests that use it pass where it is absent.
pub fn real_data(path: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("T5_TEST_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data")),
        PathBuf::from,
    );
    folder.is_dir().then(|| folder.join(path))
}

/// An error's message without the test's folder.
pub fn message(error: impl ToString, folder: &std::path::Path) -> String {
    error
        .to_string()
        .replace(&format!("{}/", folder.display()), "")
        .replace(&folder.display().to_string(), "FOLDER")
}
