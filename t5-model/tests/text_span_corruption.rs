//! Span corruption compared with the T5 library's numbers, and its invariants.

mod text_support;

use std::collections::BTreeMap;

use insta::assert_snapshot;
use proptest::prelude::*;
use t5_model::text::{ChunkKey, SpanCorruption, random_spans_noise_mask};
use text_support::{real_data, tokenizer};

fn key(chunk: u64) -> ChunkKey {
    ChunkKey { seed: 11, epoch: 3, chunk }
}

/// Values of `random_spans_helper` (T5 0.9.4); the first two are from that library's own test.
#[test]
fn lengths_of_the_t5_library() {
    let tokenizer = tokenizer();
    for (input, density, mean, tokens, targets) in [
        (64, 0.2, 2.0, 70, 22),
        (64, 0.2, 1.0, 63, 27),
        (512, 0.15, 3.0, 568, 114),
        (511, 0.15, 3.0, 567, 114),
        (510, 0.15, 3.0, 566, 114),
        (256, 0.15, 3.0, 284, 58),
        (128, 0.15, 3.0, 141, 29),
        (64, 0.15, 3.0, 70, 14),
        (32, 0.15, 3.0, 34, 8),
        (16, 0.15, 3.0, 17, 5),
        (512, 0.15, 8.0, 588, 100),
        (100, 0.3, 2.0, 116, 54),
        // Half noise: targets must not become longer than inputs.
        (64, 0.5, 3.0, 94, 64),
    ] {
        let spans = SpanCorruption::new(input, density, mean, &tokenizer).unwrap();
        let lengths = spans.lengths();
        assert_eq!(
            (lengths.tokens, lengths.inputs, lengths.targets),
            (tokens, input, targets),
            "{input} {density}"
        );
    }
}

#[test]
fn t5_example() {
    let tokenizer = tokenizer();
    let spans = SpanCorruption::new(12, 0.3, 2.0, &tokenizer).unwrap();
    assert_eq!(spans.lengths().tokens, 13);
    let chunk: Vec<i32> = (10..23).collect();
    let (mut inputs, mut targets) = (Vec::new(), Vec::new());
    spans.corrupt(&chunk, key(0), &mut inputs, &mut targets).unwrap();
    // Sentinels are 159 and 158.
    assert_snapshot!(format!("{inputs:?}\n{targets:?}"), @r#"
    [10, 11, 159, 14, 15, 16, 17, 18, 19, 20, 158, 1]
    [159, 12, 13, 158, 21, 22, 1]
    "#);
}

#[test]
fn all_masks_are_equally_likely() {
    // 4 noise tokens in 2 spans and 4 kept tokens in 2 spans: 3 × 3 masks.
    let mut counts = BTreeMap::new();
    for chunk in 0..9000 {
        let mask = random_spans_noise_mask(8, 4, 2, key(chunk));
        assert_eq!((mask.len(), mask.iter().filter(|noise| **noise).count()), (8, 4));
        assert_eq!((mask[0], mask[7]), (false, true));
        *counts.entry(mask).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 9);
    // Within five standard deviations.
    assert!(counts.values().all(|count| (850..1150).contains(count)), "{:?}", counts.values());
}

#[test]
fn corruption_is_a_function_of_the_key() {
    let mask = random_spans_noise_mask(568, 85, 28, key(5));
    assert_eq!(mask, random_spans_noise_mask(568, 85, 28, key(5)));
    for other in [
        key(6),
        ChunkKey { seed: 12, ..key(5) },
        ChunkKey { epoch: 4, ..key(5) },
        ChunkKey { seed: 11 + (1 << 32), ..key(5) },
        ChunkKey { chunk: 5 + (1 << 32), ..key(5) },
    ] {
        assert_ne!(mask, random_spans_noise_mask(568, 85, 28, other), "{other:?}");
    }
}

proptest! {
    #[test]
    fn invariants(
        input_length in 3_usize..200,
        density in 0.05..0.5_f64,
        mean in 1.5..6.0_f64,
        chunk in any::<u64>(),
        seed in any::<u64>(),
    ) {
        let tokenizer = tokenizer();
        let Ok(spans) = SpanCorruption::new(input_length, density, mean, &tokenizer) else {
            // The only possible failure here is to run out of the 30 sentinels.
            prop_assert!(input_length as f64 * density / mean > 15.0);
            return Ok(());
        };
        let lengths = spans.lengths();
        prop_assert!(lengths.inputs <= input_length);
        prop_assert_eq!(lengths.inputs, lengths.tokens - lengths.noise + lengths.spans + 1);
        let expected_noise = lengths.tokens as f64 * density;
        prop_assert!((lengths.noise as f64 - expected_noise).abs() <= 0.5 || lengths.noise == 1);

        let tokens: Vec<i32> = (0..lengths.tokens as i32).map(|token| 1000 + token).collect();
        let (mut inputs, mut targets) = (Vec::new(), Vec::new());
        let key = ChunkKey { seed, epoch: 0, chunk };
        spans.corrupt(&tokens, key, &mut inputs, &mut targets).unwrap();
        prop_assert_eq!((inputs.len(), targets.len()), (lengths.inputs, lengths.targets));
        prop_assert_eq!((inputs.pop(), targets.pop()), (Some(tokenizer.eos_id()), Some(tokenizer.eos_id())));

        let sentinels = |ids: &[i32]| ids.iter().copied().filter(|id| *id < 1000).collect::<Vec<_>>();
        prop_assert_eq!(sentinels(&inputs), &tokenizer.sentinels()[..lengths.spans]);
        prop_assert_eq!(sentinels(&targets), &tokenizer.sentinels()[..lengths.spans]);
        prop_assert!(inputs[0] >= 1000 && inputs[inputs.len() - 1] < 1000);
        prop_assert!(targets[0] < 1000 && targets[targets.len() - 1] >= 1000);

        // Each sentinel stands for at least one token, and substituting them restores the chunk.
        let mut filled = Vec::new();
        for &id in &inputs {
            if id >= 1000 {
                filled.push(id);
            } else {
                let start = targets.iter().position(|target| *target == id).unwrap() + 1;
                let span: Vec<_> = targets[start..].iter().copied().take_while(|id| *id >= 1000).collect();
                prop_assert!(!span.is_empty());
                filled.extend(span);
            }
        }
        prop_assert_eq!(filled, tokens);
    }
}

#[test]
fn t5_uses_28_sentinels_of_512_tokens() {
    let Some(folder) = real_data("tokenizer") else { return };
    let tokenizer = t5_model::text::Tokenizer::load(folder).unwrap();
    let spans = SpanCorruption::new(512, 0.15, 3.0, &tokenizer).unwrap();
    let (mut inputs, mut targets) = (Vec::new(), Vec::new());
    spans.corrupt(&vec![5; 568], key(0), &mut inputs, &mut targets).unwrap();
    assert_eq!((inputs.len(), targets.len()), (512, 114));
    let sentinels: Vec<_> = inputs.iter().copied().filter(|id| *id >= 32_000).collect();
    assert_eq!(sentinels, (32_072..32_100).rev().collect::<Vec<_>>());
}

#[test]
fn errors() {
    let tokenizer = tokenizer();
    let fails =
        |input, density, mean| SpanCorruption::new(input, density, mean, &tokenizer).unwrap_err().to_string();
    assert_snapshot!(fails(64, 0.0, 3.0), @"noise density 0: expected a number above 0 and below 1");
    assert_snapshot!(fails(64, f64::NAN, 3.0), @"noise density NaN: expected a number above 0 and below 1");
    assert_snapshot!(fails(64, 0.15, 0.5), @"mean noise span length 0.5: expected a number of at least 1");
    assert_snapshot!(fails(64, 0.15, f64::INFINITY), @"mean noise span length inf: expected a number of at least 1");
    assert_snapshot!(fails(2, 0.15, 3.0), @"input length 2 is too short: one token, one sentinel and EOS need 3");
    assert_snapshot!(fails(1024, 0.15, 3.0), @"inputs of 1024 tokens need at least 51 sentinels, the vocabulary has 30: shorten the input or lengthen the spans");
    assert_snapshot!(fails(64, 0.9, 1.0), @"inputs of 64 tokens need at least 57 sentinels, the vocabulary has 30: shorten the input or lengthen the spans");
    assert_snapshot!(fails(20, 0.8, 1.0), @"15 noise spans need 15 gaps, but only 4 of 19 tokens are kept: lower the noise density");
    assert_snapshot!(fails(usize::MAX, 0.15, 3.0), @"inputs of 18446744073709551615 tokens need at least 922337203685477504 sentinels, the vocabulary has 30: shorten the input or lengthen the spans");
    assert_snapshot!(fails(64, 0.999_999_99, 1e9), @"inputs of 64 tokens take chunks of more than 1048576 tokens");
    let spans = SpanCorruption::new(64, 0.15, 3.0, &tokenizer).unwrap();
    assert_snapshot!(spans.corrupt(&[5; 69], key(0), &mut vec![], &mut vec![]).unwrap_err(), @"a chunk of 69 tokens, expected 70");
}
