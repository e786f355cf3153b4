//! The vocabulary compared with T5's own files, and training of small ones.

mod text_support;

use insta::assert_snapshot;
use t5_model::text::{Corpus, Tokenizer};
use text_support::{documents, message, real_data, tokenizer};

const GERMAN: &str = "translate English to German: That is good.";

#[test]
fn t5_vocabulary_from_both_files() {
    let Some(folder) = real_data("tokenizer") else { return };
    let json = Tokenizer::load(folder.join("tokenizer.json")).unwrap();
    let pieces = Tokenizer::load(folder.join("spiece.model")).unwrap();
    for tokenizer in [&json, &pieces, &Tokenizer::load(&folder).unwrap()] {
        let mut ids = tokenizer.encode(GERMAN).unwrap();
        ids.push(tokenizer.eos_id());
        assert_eq!(ids, [13959, 1566, 12, 2968, 10, 466, 19, 207, 5, 1]);
        assert_eq!(tokenizer.decode(&ids).unwrap(), GERMAN);
        assert_eq!((tokenizer.pad_id(), tokenizer.eos_id(), tokenizer.unk_id()), (0, 1, 2));
        assert_eq!((tokenizer.vocab_size(), tokenizer.model_vocab_size()), (32_100, 32_128));
        assert_eq!((tokenizer.sentinel(0), tokenizer.sentinel(99)), (Some(32_099), Some(32_000)));
        assert_eq!(tokenizer.sentinel(100), None);
        assert_eq!(tokenizer.encode("a <extra_id_0> b").unwrap(), [3, 9, 32_099, 3, 115]);
        assert_eq!(tokenizer.decode(&[32_099, 207, 32_120, -100, 1]).unwrap(), "good");
    }
    assert_eq!(json.fingerprint(), pieces.fingerprint());
}

#[test]
fn both_files_agree_on_real_text() {
    let Some(folder) = real_data("tokenizer") else { return };
    let json = Tokenizer::load(folder.join("tokenizer.json")).unwrap();
    let pieces = Tokenizer::load(folder.join("spiece.model")).unwrap();
    let mut texts: Vec<String> = [
        "",
        " ",
        "  two  spaces,\ta tab\nand a line   ",
        "ﬁne ½ ™ Ⅷ ｆｕｌｌ e\u{301}é \u{200b}\u{ad}\u{feff} 日本語 🙂 ▁",
        "</s><pad> <unk> <extra_id_5>x",
        "\u{0}\u{1f}\u{85}\u{a0}",
    ]
    .map(str::to_owned)
    .to_vec();
    for domain in ["c4", "wikipedia_en", "gutenberg_fiction", "wikinews_en"] {
        let corpus =
            Corpus::open(&[folder.with_file_name("text").join(domain).display().to_string()]).unwrap();
        let documents = corpus.documents(0, 0).unwrap().unwrap().take(100);
        texts.extend(documents.map(|document| document.unwrap().into_text().unwrap()));
    }
    let ids = json.encode_batch(&texts).unwrap();
    assert_eq!(ids, pieces.encode_batch(&texts).unwrap());
    assert!(ids.iter().map(Vec::len).sum::<usize>() > 100_000);
    assert_eq!(ids[3], json.encode(&texts[3]).unwrap());
}

/// A vocabulary from the T5 library's own tests: pieces without a normaliser of T5's size.
#[test]
fn small_sentencepiece_model() {
    let Some(file) = real_data("fixtures/seqio_test_sentencepiece.model") else { return };
    let tokenizer = Tokenizer::load(&file).unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.sentinel(0)), (126, Some(125)));
    // From the T5 library's test of this model.
    assert_eq!(tokenizer.encode("this is a test").unwrap(), [11, 8, 6, 3, 8, 6, 3, 5, 10]);
}

#[test]
fn trained_vocabulary_has_t5_layout() {
    let tokenizer = tokenizer();
    assert_eq!((tokenizer.pad_id(), tokenizer.eos_id(), tokenizer.unk_id()), (0, 1, 2));
    assert_eq!(tokenizer.vocab_size(), 160);
    assert_eq!(tokenizer.model_vocab_size(), 256);
    let sentinels: Vec<_> = (0..31).map_while(|i| tokenizer.sentinel(i)).collect();
    assert_eq!(sentinels, (130..160).rev().collect::<Vec<_>>());
    for text in documents(20) {
        let ids = tokenizer.encode(&text).unwrap();
        assert!(ids.iter().all(|id| (3..130).contains(id)), "{ids:?}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
    assert_eq!(tokenizer.encode("ｒｉｖｅｒ\u{a0}\u{200b}").unwrap(), tokenizer.encode("river").unwrap());
    assert!(tokenizer.encode("日").unwrap().contains(&2));
}

/// Sentinels as transformers' tokenizers show them, with the space before a word and none before a sentinel.
#[test]
fn sentinels_are_shown() {
    let tokenizer = tokenizer();
    let said = tokenizer.encode("<extra_id_0> the river<extra_id_1> bridge").unwrap();
    let padded = [&[tokenizer.pad_id()], &said[..], &[tokenizer.eos_id(), tokenizer.pad_id(), -100]].concat();
    let shown = tokenizer.decode_with_sentinels(&padded).unwrap();
    assert_eq!(shown, "<extra_id_0> the river<extra_id_1> bridge");
    assert_eq!(tokenizer.decode_with_sentinels(&[tokenizer.unk_id()]).unwrap(), "<unk>");
    assert_eq!(tokenizer.decode(&said).unwrap(), "the river bridge");
}

#[test]
fn holes_are_filled() {
    let tokenizer = tokenizer();
    let fill = |input: &str, answer: &str| {
        let ids = |text| tokenizer.encode(text).unwrap();
        let input = [ids(input), vec![tokenizer.eos_id()]].concat();
        tokenizer.decode_with_sentinels(&tokenizer.fill(&input, &ids(answer))).unwrap()
    };
    let input = "the <extra_id_0> runs under <extra_id_1> bridge";
    assert_eq!(
        fill(input, "<extra_id_0> river<extra_id_1> a stone<extra_id_2>"),
        "the river runs under a stone bridge"
    );
    assert_eq!(fill(input, "<extra_id_1> a<extra_id_0> water"), "the water runs under a bridge");
    // The first of two; what belongs to no hole is left out.
    let answer = "old <extra_id_0> river<extra_id_5> wheels<extra_id_0> water";
    assert_eq!(fill(input, answer), "the river runs under<extra_id_1> bridge");
    assert_eq!(fill(input, "<extra_id_0><extra_id_1>"), "the runs under bridge");
    assert_eq!(fill(input, ""), fill(input, "river"));
    let ended = [tokenizer.sentinel(0).unwrap(), 5, tokenizer.eos_id(), 6];
    assert_eq!(tokenizer.fill(&[tokenizer.sentinel(0).unwrap()], &ended), [5]);
}

#[test]
fn training_depends_on_nothing_but_the_words() {
    let folder = tempfile::tempdir().unwrap();
    // Rare characters inside frequent words are the ones that training drops and restores.
    let mut texts: Vec<_> = documents(60);
    texts.extend((0..200).map(|_| "Zürich Québec Łódź Þórr naïve jalapeño".to_owned()));
    let mut files = Vec::new();
    for run in 0..4 {
        texts.rotate_left(7);
        let path = folder.path().join(run.to_string());
        let tokenizer = Tokenizer::train_unigram(&texts, 140, 10).unwrap();
        tokenizer.save(&path).unwrap();
        files.push(
            ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]
                .map(|name| std::fs::read_to_string(path.join(name)).unwrap()),
        );
    }
    assert!(files.iter().all(|file| *file == files[0]));
    let loaded = Tokenizer::load(folder.path().join("0")).unwrap();
    let trained = Tokenizer::train_unigram(&texts, 140, 10).unwrap();
    assert_eq!(loaded.fingerprint(), trained.fingerprint());
    assert_eq!(loaded.encode_batch(&texts).unwrap(), trained.encode_batch(&texts).unwrap());
    loaded.save(folder.path().join("again")).unwrap();
    assert_eq!(std::fs::read_to_string(folder.path().join("again/tokenizer.json")).unwrap(), files[0][0]);
    assert_ne!(loaded.fingerprint(), tokenizer().fingerprint());
}

#[test]
fn saving_keeps_ids_and_fingerprint() {
    let Some(folder) = real_data("tokenizer") else { return };
    let original = Tokenizer::load(folder.join("spiece.model")).unwrap();
    let saved = tempfile::tempdir().unwrap();
    original.save(saved.path()).unwrap();
    let loaded = Tokenizer::load(saved.path()).unwrap();
    assert_eq!(loaded.fingerprint(), original.fingerprint());
    assert_eq!(loaded.encode(GERMAN).unwrap(), original.encode(GERMAN).unwrap());
}

#[test]
fn errors() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let fails = |path| message(Tokenizer::load(path).unwrap_err(), folder.path());
    assert_snapshot!(fails(folder.path().to_owned()), @"no tokenizer in `FOLDER`: expected tokenizer.json or spiece.model");
    assert_snapshot!(fails(folder.path().join("none.json")), @"cannot read none.json: No such file or directory (os error 2)");
    assert_snapshot!(fails(write("broken.json", b"{\"version\": \"1.0\",")), @"broken.json: not a usable tokenizer: EOF while parsing an object at line 1 column 18");
    assert_snapshot!(fails(write("text.model", b"not a protocol buffer")), @"text.model: not a usable tokenizer: not a SentencePiece model: failed to decode Protobuf message: invalid wire type value: 6");
    // Trainer field 3 is 2: byte pair encoding.
    assert_snapshot!(fails(write("bpe.model", b"\x12\x02\x18\x02")), @"bpe.model: not a usable tokenizer: SentencePiece model type 2, expected unigram (1)");
    assert_snapshot!(fails(write("empty.model", b"")), @"empty.model: the vocabulary has no `<pad>`, which T5 needs");
    // Pieces `<unk>` and `</s>`, but no `<pad>`.
    assert_snapshot!(fails(write("no_pad.model", b"\x0a\x09\x0a\x05<unk>\x18\x02\x0a\x08\x0a\x04</s>\x18\x03")), @"no_pad.model: the vocabulary has no `<pad>`, which T5 needs");
    // A normaliser that claims a trie of 4 GiB.
    assert_snapshot!(fails(write("charsmap.model", b"\x1a\x06\x12\x04\xff\xff\xff\xff")), @"charsmap.model: not a usable tokenizer: the SentencePiece model's normaliser is cut short");
    let train = |texts: &[&str], size| Tokenizer::train_unigram(texts, size, 10).unwrap_err().to_string();
    assert_snapshot!(train(&[], 100), @"cannot train a vocabulary: the text has no words");
    assert_snapshot!(train(&["  ", "\u{200b}"], 100), @"cannot train a vocabulary: the text has no words");
    assert_snapshot!(train(&["abcdefg"], 20), @"a vocabulary of 20 tokens is too small: 8 distinct characters, 13 special tokens and sentinels need at least 22");
    assert_snapshot!(train(&["abcdefg"], usize::MAX), @"cannot train a vocabulary: 18446744073709551602 pieces, more than 1048576");
}
