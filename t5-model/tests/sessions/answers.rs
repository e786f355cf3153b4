//! Sampling: the distribution against transformers' warpers (`answers_goldens.py`), and answers that do not
//! depend on what else is in a batch.

use std::path::Path;

use fusion_core::checkpoint::Checkpoint;
use serde::Deserialize;
use t5_model::{Answer, Batch, Decoding, Sampling, Session, SessionError, T5Config};

use crate::open;

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/conformance/goldens").join(name)
}

#[derive(Deserialize)]
struct Case {
    logits: Vec<f32>,
    settings: Settings,
    left: Vec<(i32, f64)>,
}

#[derive(Debug, Deserialize)]
struct Settings {
    temperature: f64,
    top_k: Option<usize>,
    top_p: Option<f64>,
    min_p: Option<f64>,
}

#[test]
fn distributions_are_those_of_transformers() {
    let text = std::fs::read(golden("sampling.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&text).unwrap();
    assert!(cases.len() > 100);
    for Case { logits, settings, left } in cases {
        let sampling = Sampling {
            temperature: settings.temperature,
            top_k: settings.top_k.unwrap_or(usize::MAX),
            top_p: settings.top_p.unwrap_or(1.0),
            min_p: settings.min_p.unwrap_or(0.0),
        };
        let mut found = sampling.distribution(&logits);
        found.sort_by_key(|(token, _)| *token);
        let probability = |token| {
            let expected = left.iter().find(|(expected, _)| *expected == token);
            expected.map_or(0.0, |(_, probability)| *probability)
        };
        // Of what is left, rounding may have made some probabilities 0.
        assert!(found.len() >= left.len(), "{settings:?} {logits:?}: {found:?}, expected {left:?}");
        for (token, found) in found {
            let expected = probability(token);
            assert!((found - expected).abs() < 1e-7, "{settings:?}, {token}: {found}, expected {expected}");
        }
    }
}

fn session() -> Box<dyn Session> {
    let checkpoint = Checkpoint::open(&golden("v1_1")).unwrap();
    open(&T5Config::of_checkpoint(&checkpoint).unwrap(), &checkpoint)
}

fn batch(inputs: &[&[i32]]) -> Batch {
    Batch::padded(inputs.iter().map(|input| (*input, [].as_slice())), 0)
}

const INPUTS: [&[i32]; 4] = [&[5, 9, 17, 1], &[40, 1], &[5, 9, 17, 1], &[8, 8, 31, 20, 11, 1]];

fn answers(how: &Decoding, batches: &[&[&[i32]]]) -> Vec<Vec<Answer>> {
    let (mut session, mut first, mut all) = (session(), 0, Vec::new());
    for inputs in batches {
        all.extend(session.answers(&batch(inputs), how, first).unwrap());
        first += inputs.len() as u64;
    }
    all
}

#[test]
fn an_input_is_answered_alike_in_any_batch() {
    let default = || Decoding { max_new_tokens: Some(9), ..Decoding::default() };
    let ways = [
        default(),
        Decoding { answers: 3, temperature: Some(1.3), top_p: Some(0.95), seed: 5, ..default() },
        Decoding { answers: 2, beams: 4, ..default() },
    ];
    for how in ways {
        let together = answers(&how, &[&INPUTS]);
        let apart = answers(&how, &[&INPUTS[..1], &INPUTS[1..3], &INPUTS[3..]]);
        assert_eq!(together, apart, "{how:?}");
        assert!(together.iter().all(|row| row.len() == how.answers));
    }
}

#[test]
fn draws_depend_on_seed_and_input_and_answer() {
    let how = Decoding { max_new_tokens: Some(12), answers: 4, sample: true, ..Decoding::default() };
    let found = answers(&how, &[&INPUTS]);
    assert_ne!(found[0], found[2], "equal inputs are drawn for apart");
    assert!(found[0].iter().any(|answer| answer.tokens != found[0][0].tokens));
    assert_eq!(found, answers(&how, &[&INPUTS]));
    assert_ne!(found, answers(&Decoding { seed: 1, ..how }, &[&INPUTS]));
}

/// Beam search and the others say how likely an answer is: as ranking does.
#[test]
fn log_probabilities_are_those_of_ranking() {
    let default = || Decoding { max_new_tokens: Some(12), ..Decoding::default() };
    let ways = [
        default(),
        Decoding { answers: 2, temperature: Some(0.5), ..default() },
        Decoding { answers: 3, beams: 3, length_penalty: Some(2.0), ..default() },
    ];
    for how in ways {
        let found = answers(&how, &[&INPUTS]);
        for (input, found) in INPUTS.iter().zip(found) {
            let end = |answer: &Answer| (answer.tokens.len() < how.limit()).then_some(1);
            let candidates: Vec<Vec<i32>> = found
                .iter()
                .map(|answer| answer.tokens.iter().copied().chain(end(answer)).collect())
                .collect();
            let ranked = session().log_likelihoods(&batch(&[input]), &candidates).unwrap();
            for ((answer, ranked), candidate) in found.iter().zip(&ranked[0]).zip(&candidates) {
                assert!((answer.log_probability - ranked).abs() < 1e-4, "{how:?}: {answer:?}, {ranked}");
                let power = if how.beams > 1 { how.length_penalty.unwrap_or(1.0) } else { 0.0 };
                let score = answer.log_probability / (candidate.len() as f64).powf(power);
                assert!((answer.score - score).abs() < 1e-9, "{how:?}: {answer:?}");
            }
        }
    }
}

/// More beams than the vocabulary has tokens.
#[test]
fn a_small_vocabulary_is_searched() {
    let how = Decoding { max_new_tokens: Some(3), answers: 40, beams: 80, ..Decoding::default() };
    let found = answers(&how, &[&INPUTS[..1]]);
    let mut tokens: Vec<&[i32]> = found[0].iter().map(|answer| answer.tokens.as_slice()).collect();
    assert_eq!(tokens.len(), 40);
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), 40, "each is found once");
}

#[test]
fn settings_are_checked_first() {
    let how = Decoding { answers: 2, ..Decoding::default() };
    let refused = session().answers(&batch(&INPUTS), &how, 0);
    assert!(matches!(refused, Err(SessionError::Model(_))), "{refused:?}");
}
