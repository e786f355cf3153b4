//! Damaged or malicious configurations and vocabularies give an error that names the file, without a panic or
//! a large allocation.

#[path = "../../fusion-core/tests/hostile/damage.rs"]
mod damage;
mod text_support;

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use damage::{damage, replacement, within_memory};
use proptest::prelude::*;
use serde_json::Value;
use t5_model::text::Tokenizer;
use t5_model::{T5Config, parameter_table};
use text_support::tokenizer;

static TOKENIZER: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    tokenizer().save(directory.path()).unwrap();
    fs::read(directory.path().join("tokenizer.json")).unwrap()
});

/// Loads a vocabulary and, if that succeeds, uses it.
fn use_tokenizer(name: &str, bytes: &[u8]) -> Result<(), TestCaseError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, bytes).unwrap();
    let tokenizer = match within_memory(|| Tokenizer::load(&path)) {
        Ok(tokenizer) => tokenizer,
        Err(error) => {
            prop_assert!(error.to_string().contains(name), "{} does not name {}", error, name);
            return Ok(());
        }
    };
    let ids = within_memory(|| tokenizer.encode("The old <extra_id_0> wheels\u{e9}\u{0}🙂"));
    let _ = ids.map(|ids| within_memory(|| tokenizer.decode(&ids)));
    Ok(())
}

/// A SentencePiece model of a few letters: repeated messages of a text, a score and a kind.
fn pieces() -> Vec<u8> {
    let special =
        [("<pad>", 3), ("</s>", 3), ("<unk>", 2), ("▁", 1)].map(|(text, kind)| (text.to_owned(), kind));
    let letters = ('a'..='z').map(|letter| (letter.to_string(), 1));
    let piece = |(text, kind): (String, u8)| {
        let mut message = [&[0x0a, text.len() as u8], text.as_bytes(), &[0x15]].concat();
        message.extend((-1.5f32).to_le_bytes());
        message.extend([0x18, kind]);
        [vec![0x0a, message.len() as u8], message].concat()
    };
    special.into_iter().chain(letters).flat_map(piece).collect()
}

#[test]
fn pieces_are_a_vocabulary() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spiece.model");
    fs::write(&path, pieces()).unwrap();
    assert_eq!(Tokenizer::load(&path).unwrap().vocab_size(), 130);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn configurations(first in replacement(), second in replacement()) {
        let config = Value::Object(T5Config::v1_1(64, 8, 2, 4, 16, 2).to_json());
        let Value::Object(config) = second.apply(&first.apply(&config)) else { return Ok(()) };
        match within_memory(|| T5Config::from_json(&config, Path::new("config.json"))) {
            Ok(config) => prop_assert!(within_memory(|| parameter_table(&config)).is_ok()),
            Err(error) => prop_assert!(error.to_string().contains("config.json")),
        }
    }

    #[test]
    fn vocabularies(first in replacement(), second in prop::option::of(replacement())) {
        let mut document = first.apply(&serde_json::from_slice(&TOKENIZER).unwrap());
        if let Some(second) = second {
            document = second.apply(&document);
        }
        use_tokenizer("tokenizer.json", document.to_string().as_bytes())?;
    }

    #[test]
    fn damaged_vocabularies(damage in damage()) {
        use_tokenizer("tokenizer.json", &damage.apply(&TOKENIZER))?;
    }

    #[test]
    fn damaged_pieces(damage in damage()) {
        use_tokenizer("spiece.model", &damage.apply(&pieces()))?;
    }

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300), pieces: bool) {
        use_tokenizer(if pieces { "spiece.model" } else { "tokenizer.json" }, &bytes)?;
    }
}
