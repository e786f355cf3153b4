//! ByT5's vocabulary compared with transformers' `ByT5Tokenizer`: see goldens/byt5_goldens.py.

use std::fs;
use std::path::Path;

use serde_json::Value;
use t5_model::text::Tokenizer;

fn goldens() -> Value {
    serde_json::from_str(include_str!("goldens/byt5.json")).unwrap()
}

fn texts(values: &Value) -> Vec<String> {
    values.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn ids(values: &Value) -> Vec<Vec<i32>> {
    serde_json::from_value(values.clone()).unwrap()
}

fn encoded(tokenizer: &Tokenizer, texts: &[String]) -> Vec<Vec<i32>> {
    texts.iter().map(|text| tokenizer.encode(text).unwrap()).collect()
}

#[test]
fn ids_are_those_of_transformers() {
    let (goldens, tokenizer) = (goldens(), Tokenizer::bytes().unwrap());
    assert_eq!(tokenizer.vocab_size() as u64, goldens["tokens"].as_u64().unwrap());
    assert_eq!(tokenizer.model_vocab_size(), 384);
    assert_eq!((tokenizer.pad_id(), tokenizer.eos_id(), tokenizer.unk_id()), (0, 1, 2));
    assert_eq!(tokenizer.sentinels(), (259..384).collect::<Vec<_>>());
    let texts = texts(&goldens["texts"]);
    let expected = ids(&goldens["encoded"]);
    for (text, (found, expected)) in texts.iter().zip(encoded(&tokenizer, &texts).iter().zip(&expected)) {
        assert_eq!(found, expected, "{text:?}");
    }
    assert_eq!(tokenizer.encode_batch(&texts).unwrap(), expected);
}

#[test]
fn texts_are_those_of_transformers() {
    let (goldens, tokenizer) = (goldens(), Tokenizer::bytes().unwrap());
    let expected = texts(&goldens["decoded"]).into_iter().zip(texts(&goldens["shown"]));
    for (ids, (decoded, shown)) in ids(&goldens["ids"]).iter().zip(expected) {
        assert_eq!(tokenizer.decode(ids).unwrap(), decoded, "{ids:?}");
        let without = shown.replace("<pad>", "").replace("</s>", "");
        assert_eq!(tokenizer.decode_with_sentinels(ids).unwrap(), without, "{ids:?}");
    }
    // Outside the vocabulary, where transformers fails.
    assert_eq!(tokenizer.decode(&[75, 384, 9999, -100, 76]).unwrap(), "HI");
}

#[test]
fn folders_are_read_as_by_transformers() {
    let goldens = goldens();
    let all = texts(&goldens["texts"]);
    for (name, golden) in goldens["folders"].as_object().unwrap() {
        let folder = tempfile::tempdir().unwrap();
        for (file, content) in golden["files"].as_object().unwrap() {
            fs::write(folder.path().join(file), content.to_string()).unwrap();
        }
        assert!(Tokenizer::is_in(folder.path()), "{name}");
        let tokenizer = Tokenizer::load(folder.path()).unwrap();
        assert_eq!(tokenizer.vocab_size() as u64, golden["tokens"].as_u64().unwrap(), "{name}");
        let expected = ids(&golden["encoded"]);
        for (text, (found, expected)) in all.iter().zip(encoded(&tokenizer, &all).iter().zip(&expected)) {
            assert_eq!(found, expected, "{name}: {text:?}");
        }
        // What is saved is read as the same again.
        let saved = tempfile::tempdir().unwrap();
        tokenizer.save(saved.path()).unwrap();
        assert!(!saved.path().join("tokenizer.json").exists());
        let loaded = Tokenizer::load(saved.path()).unwrap();
        assert_eq!(loaded.fingerprint(), tokenizer.fingerprint(), "{name}");
        assert_eq!(encoded(&loaded, &all), expected, "{name}");
    }
}

#[test]
fn bytes_are_a_vocabulary_of_their_own() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/tokenizer");
    assert_ne!(tokenizer.fingerprint(), Tokenizer::load(&other).unwrap().fingerprint());
    assert!(tokenizer.ends_texts());
    // A class of its own decides, whatever else there is.
    let folder = tempfile::tempdir().unwrap();
    fs::copy(other.join("spiece.model"), folder.path().join("spiece.model")).unwrap();
    fs::write(folder.path().join("tokenizer_config.json"), r#"{"tokenizer_class": "ByT5Tokenizer"}"#)
        .unwrap();
    assert_eq!(Tokenizer::load(folder.path()).unwrap().fingerprint(), tokenizer.fingerprint());
}
