//! Objectives compared with the T5 library's numbers and UL2's table, and what they make of text.

mod text_support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use insta::assert_snapshot;
use proptest::prelude::*;
use serde_json::Value;
use t5_model::text::{
    ChunkKey, Corpus, DataPosition, Denoiser, Denoisers, ExampleStream, Objective, Order, PrefixLm,
    SpanCorruption, SpanLengths, StreamOptions, StreamedBatch, TargetToken, Tokenizer,
};
use text_support::{documents, tokenizer};

/// A vocabulary with UL2's modes.
fn with_modes() -> Arc<Tokenizer> {
    static TOKENIZER: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| {
        let texts = documents(200).into_iter().chain(["[R] [X] [S]".to_owned()]);
        Arc::new(Tokenizer::train_unigram(texts.collect::<Vec<_>>(), 160, 30).unwrap())
    });
    Arc::clone(&TOKENIZER)
}

/// From goldens/objective_goldens.py.
fn goldens(name: &str) -> Vec<Value> {
    let goldens: Value = serde_json::from_str(include_str!("goldens/objectives.json")).unwrap();
    goldens[name].as_array().cloned().unwrap()
}

fn number(golden: &Value, key: &str) -> usize {
    golden[key].as_u64().unwrap() as usize
}

fn float(golden: &Value, key: &str) -> f64 {
    golden[key].as_f64().unwrap()
}

fn key(chunk: u64) -> ChunkKey {
    ChunkKey { seed: 11, epoch: 3, chunk }
}

fn spans(noise_density: f64, mean_span_length: f64) -> Objective {
    Objective::SpanCorruption { noise_density, mean_span_length }
}

fn ul2(mode_tokens: bool) -> Objective {
    Objective::Ul2 { mode_tokens }
}

#[test]
fn lengths_are_those_of_the_t5_library() {
    let all = goldens("lengths");
    assert!(all.len() > 150, "{}", all.len());
    for golden in all {
        let input_length = number(&golden, "input_length");
        let (density, mean) = (float(&golden, "noise_density"), float(&golden, "mean_span_length"));
        let expected = SpanLengths {
            tokens: number(&golden, "tokens"),
            noise: number(&golden, "noise"),
            spans: number(&golden, "spans"),
            inputs: number(&golden, "inputs"),
            targets: number(&golden, "targets"),
        };
        assert_eq!(SpanLengths::new(input_length, density, mean, 1000).unwrap(), expected, "{golden}");
    }
}

#[test]
fn masks_are_replaced_as_in_the_t5_library() {
    let tokenizer = tokenizer();
    // There, sentinels descend from 999.
    let ids = |golden: &Value| -> Vec<i32> {
        let id = |id: &Value| id.as_i64().unwrap() as i32;
        let sentinel = |id: i32| (id > 900).then(|| tokenizer.sentinel((999 - id) as usize).unwrap());
        golden.as_array().unwrap().iter().map(|token| sentinel(id(token)).unwrap_or(id(token))).collect()
    };
    for golden in goldens("examples") {
        let mask: Vec<bool> = golden["mask"].as_str().unwrap().chars().map(|noise| noise == '1').collect();
        let chunk: Vec<i32> = (10..).take(mask.len()).collect();
        let (density, mean) = (float(&golden, "noise_density"), float(&golden, "mean_span_length"));
        let spans = SpanCorruption::new(number(&golden, "input_length"), density, mean, &tokenizer).unwrap();
        assert_eq!(spans.lengths().tokens, mask.len());
        let (mut inputs, mut targets) = (Vec::new(), Vec::new());
        spans.replace(&chunk, &mask, &mut inputs, &mut targets);
        assert_eq!((inputs, targets), (ids(&golden["inputs"]), ids(&golden["targets"])), "{golden}");
    }
}

#[test]
fn prefixes_are_cut_as_in_the_t5_library() {
    for golden in goldens("prefixes") {
        let prefix = PrefixLm::new(number(&golden, "input_length"), 0.5).unwrap();
        assert_eq!(prefix.chunk_length(), number(&golden, "tokens"));
        assert_eq!(prefix.longest_input(), number(&golden, "most_inputs") + 1);
        let fewest = number(&golden, "tokens") - number(&golden, "fewest_inputs");
        assert_eq!(prefix.longest_target(), fewest + 1);
    }
    // All cuts of 5 tokens are equally likely: within five standard deviations.
    let prefix = PrefixLm::new(6, 0.5).unwrap();
    let mut counts = BTreeMap::new();
    (0..8000).for_each(|chunk| *counts.entry(prefix.following(key(chunk))).or_insert(0) += 1);
    assert_eq!(counts.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(counts.values().all(|count| (1800..2200).contains(count)), "{counts:?}");
}

#[test]
fn a_share_of_the_text_follows_the_prefix() {
    for (density, fewest, most) in [(0.25, 1, 255), (0.5, 1, 510), (0.75, 256, 510), (1e-9, 1, 1)] {
        let prefix = PrefixLm::new(512, density).unwrap();
        let drawn: Vec<usize> = (0..4000).map(|chunk| prefix.following(key(chunk))).collect();
        let (least, longest) = (drawn.iter().min().unwrap(), drawn.iter().max().unwrap());
        assert!(*least >= fewest && *least <= fewest + 5, "{density}: {least}");
        assert!(*longest <= most && *longest + 5 >= most, "{density}: {longest}");
        let mean = drawn.iter().sum::<usize>() as f64 / drawn.len() as f64;
        assert!((mean - (density * 511.0).max(1.0)).abs() < 12.0, "{density}: {mean}");
    }
}

#[test]
fn ul2_has_the_denoisers_of_its_table() {
    let tokenizer = Tokenizer::train_unigram(documents(200), 500, 200).unwrap();
    let denoisers = Denoisers::new(&ul2(false), 512, &tokenizer).unwrap();
    let names: Vec<_> = (0..denoisers.count())
        .map(|denoiser| format!("{}: {}", denoisers.name(denoiser), denoisers.chunk_length(denoiser)))
        .collect();
    assert_snapshot!(names.join("\n"), @r"
    span_corruption, noise_density 0.15, mean_span_length 3: 568
    span_corruption, noise_density 0.15, mean_span_length 8: 588
    span_corruption, noise_density 0.5, mean_span_length 3: 766
    span_corruption, noise_density 0.5, mean_span_length 8: 908
    span_corruption, noise_density 0.15, mean_span_length 64: 600
    span_corruption, noise_density 0.5, mean_span_length 64: 1006
    prefix_lm, noise_density 0.25: 511
    ");
    let lengths = Denoisers::lengths(&ul2(false), 512, 200).unwrap();
    assert_eq!((lengths.inputs, lengths.targets), (512, 512));
    let mut drawn = [0; 7];
    (0..7000).for_each(|chunk| drawn[denoisers.draw(key(chunk))] += 1);
    assert!(drawn.iter().all(|count| (850..1150).contains(count)), "{drawn:?}");
}

#[test]
fn denoisers_are_drawn_at_their_rates() {
    let denoiser = |rate| Denoiser::PrefixLm { noise_density: 0.5, rate, mode: None };
    let objective = Objective::Mixture { denoisers: [0.5, 2.0, 1.5].map(denoiser).to_vec() };
    let denoisers = Denoisers::new(&objective, 20, &tokenizer()).unwrap();
    let drawn = |seed, epoch| -> Vec<usize> {
        (0..4000).map(|chunk| denoisers.draw(ChunkKey { seed, epoch, chunk })).collect()
    };
    let all = drawn(1, 0);
    let count = |denoiser| all.iter().filter(|drawn| **drawn == denoiser).count();
    assert!((400..600).contains(&count(0)), "{}", count(0));
    assert!((1850..2150).contains(&count(1)), "{}", count(1));
    assert_eq!(all, drawn(1, 0));
    assert_ne!(all, drawn(2, 0));
    assert_ne!(all, drawn(1, 1));
}

fn stream(objective: &Objective, options: StreamOptions, position: DataPosition) -> ExampleStream {
    let denoisers = Denoisers::new(objective, 40, &with_modes()).unwrap();
    let corpus = Corpus::from_documents("sample", documents(80));
    ExampleStream::new(corpus, with_modes(), denoisers, options, position).unwrap()
}

fn rows(streamed: &StreamedBatch) -> impl Iterator<Item = (usize, &[i32], &[i32])> {
    let batch = &streamed.batch;
    let rows = batch.input_ids.chunks(batch.input_length).zip(batch.labels.chunks(batch.target_length));
    streamed.denoisers.iter().zip(rows).map(|(denoiser, (input, labels))| (*denoiser, input, labels))
}

#[test]
fn a_mixture_reads_all_of_the_text_once() {
    let tokenizer = with_modes();
    let text: Vec<i32> = documents(80).iter().flat_map(|text| tokenizer.encode(text).unwrap()).collect();
    for objective in [ul2(true), Objective::PrefixLm { noise_density: 0.5 }, spans(0.3, 5.0)] {
        let options = StreamOptions { batch_size: 7, ..StreamOptions::evaluation() };
        let batches = stream(&objective, options, DataPosition::default());
        let denoisers = batches.denoisers().clone();
        let mut read = Vec::new();
        let mut kinds = BTreeSet::new();
        for streamed in batches.map(Result::unwrap) {
            streamed.batch.validate(&config()).unwrap();
            for (denoiser, input, labels) in rows(&streamed) {
                assert!(streamed.batch.input_length <= 40);
                read.extend(denoisers.chunk_of(denoiser, input, labels, &tokenizer));
                kinds.insert(denoiser);
            }
        }
        assert_eq!(kinds.len(), denoisers.count());
        assert!(read.len() + 80 > text.len(), "{} of {}", read.len(), text.len());
        assert_eq!(read, text[..read.len()]);
    }
}

/// Of a model that has the vocabulary's ids.
fn config() -> t5_model::T5Config {
    let config = include_str!("../src/conformance/goldens/v1_1/config.json");
    let mut config: serde_json::Map<String, Value> = serde_json::from_str(config).unwrap();
    config.insert("vocab_size".into(), 256.into());
    t5_model::T5Config::from_json(&config, "config.json".as_ref()).unwrap()
}

proptest! {
    #[test]
    fn a_mixture_resumes_anywhere(seed in any::<u64>(), batch_size in 1_usize..6, at in 0_usize..12) {
        let order = Order::Training { shuffle_buffer: 5 };
        let options = StreamOptions { order, ..StreamOptions::training(batch_size, seed) };
        let all: Vec<StreamedBatch> =
            stream(&ul2(true), options, DataPosition::default()).take(16).map(Result::unwrap).collect();
        let resumed = stream(&ul2(true), options, all[at].position);
        let resumed: Vec<StreamedBatch> = resumed.take(15 - at).map(Result::unwrap).collect();
        prop_assert_eq!(&all[at + 1..], &resumed);
    }
}

#[test]
fn inputs_begin_with_modes() {
    let tokenizer = with_modes();
    let options = StreamOptions { batch_size: 64, ..StreamOptions::evaluation() };
    let batches = stream(&ul2(true), options, DataPosition::default());
    let denoisers = batches.denoisers().clone();
    for streamed in batches.take(1).map(Result::unwrap) {
        for (denoiser, input, _) in rows(&streamed) {
            let mode = tokenizer.encode(&denoisers.name(denoiser)[..3]).unwrap();
            assert!(!mode.is_empty() && input.starts_with(&mode), "{input:?}");
        }
        assert!(streamed.batch.input_length <= 40);
    }
}

#[test]
fn what_target_tokens_are() {
    let shown = |objective: &Objective| {
        let options = StreamOptions { batch_size: 3, ..StreamOptions::evaluation() };
        let mut batches = stream(objective, options, DataPosition::default());
        let denoisers = batches.denoisers().clone();
        let streamed = batches.next().unwrap().unwrap();
        let letter = |token| match token {
            None => '.',
            Some(TargetToken::Sentinel) => 's',
            Some(TargetToken::First) => 'f',
            Some(TargetToken::Rest) => 'r',
        };
        let lines = rows(&streamed)
            .map(|(_, _, labels)| denoisers.target_tokens(labels).map(letter).collect::<String>());
        lines.collect::<Vec<_>>().join("\n")
    };
    assert_snapshot!(shown(&spans(0.3, 3.0)), @r"
    sfrsfrsfrrrsfrsfrrrrs
    sfrsfrrrsfrsfrrrrsfrs
    sfrsfrrrrrsfsfsfrrrrs
    ");
    assert_snapshot!(shown(&Objective::PrefixLm { noise_density: 0.25 }), @r"
    frrrrrrrrrrrrrrrrrs
    frrrrrrrrs.........
    frrrrrrrrrrrrrs....
    ");
}

#[test]
fn what_cannot_be_done_is_refused() {
    let tokenizer = tokenizer();
    let fails = |objective: &Objective, length| {
        Denoisers::new(objective, length, &tokenizer).unwrap_err().to_string()
    };
    let prefix = |noise_density| Objective::PrefixLm { noise_density };
    assert_snapshot!(fails(&prefix(0.0), 64), @"noise density 0: expected a number above 0 and below 1");
    assert_snapshot!(fails(&prefix(1.0), 64), @"noise density 1: expected a number above 0 and below 1");
    assert_snapshot!(fails(&prefix(0.5), 2), @"input length 2 is too short for prefix language modelling: two tokens, which are cut into a prefix and what follows, and EOS need 3");
    assert_snapshot!(fails(&prefix(0.5), usize::MAX), @"inputs of 18446744073709551615 tokens take chunks of more than 1048576 tokens");
    assert_snapshot!(fails(&spans(1.5, 3.0), 64), @"noise density 1.5: expected a number above 0 and below 1");
    assert_snapshot!(fails(&ul2(false), 512), @r#"denoiser "span_corruption, noise_density 0.5, mean_span_length 3": inputs of 512 tokens need at least 85 sentinels, the vocabulary has 30: shorten the input or lengthen the spans"#);
    assert_snapshot!(fails(&ul2(true), 4), @r#"denoiser "[R] span_corruption, noise_density 0.15, mean_span_length 3": mode "[R]": the vocabulary has no tokens for it"#);
    let error = Denoisers::new(&ul2(true), 5, &with_modes()).unwrap_err();
    assert_snapshot!(error, @r#"denoiser "[R] span_corruption, noise_density 0.15, mean_span_length 3": mode "[R]": its 4 tokens leave too few of an input's 5"#);
    let mixture = |denoisers: &[&str]| Objective::Mixture {
        denoisers: denoisers.iter().map(|denoiser| denoiser.parse().unwrap()).collect(),
    };
    assert_snapshot!(fails(&mixture(&[]), 64), @"a mixture needs at least one denoiser");
    assert_snapshot!(fails(&mixture(&["prefix_lm", "prefix_lm,mode=<extra_id_0>"]), 64), @r#"denoiser "<extra_id_0> prefix_lm, noise_density 0.5": mode "<extra_id_0>": it is a sentinel, or ends the text"#);
    assert_snapshot!(fails(&mixture(&["prefix_lm", "prefix_lm,mode=漢字"]), 64), @r#"denoiser "漢字 prefix_lm, noise_density 0.5": mode "漢字": the vocabulary has no tokens for it"#);
    let unread = |text: &str| text.parse::<Denoiser>().unwrap_err().to_string();
    assert_snapshot!(unread("spans"), @"");
    assert_snapshot!(unread("prefix_lm,rate"), @"");
    assert_snapshot!(unread("prefix_lm,rate=0"), @"");
    assert_snapshot!(unread("prefix_lm,rate=much"), @"");
    assert_snapshot!(unread("prefix_lm,rate=NaN"), @"");
    assert_snapshot!(unread("prefix_lm,mean_span_length=3"), @"");
    assert_snapshot!(unread("prefix_lm,kind=3"), @"");
    assert_snapshot!(unread("prefix_lm,mode="), @"");
    assert_snapshot!(unread("span-corruption,noise-density=1"), @"");
}

#[test]
fn denoisers_are_read_from_text() {
    let read: Denoiser =
        "span-corruption,noise_density=0.5,mean-span-length=8,rate=2,mode=[X]".parse().unwrap();
    let expected = Denoiser::SpanCorruption {
        noise_density: 0.5,
        mean_span_length: 8.0,
        rate: 2.0,
        mode: Some("[X]".into()),
    };
    assert_eq!(read, expected);
    let usual =
        Denoiser::SpanCorruption { noise_density: 0.15, mean_span_length: 3.0, rate: 1.0, mode: None };
    assert_eq!("span_corruption".parse::<Denoiser>().unwrap(), usual);
}
