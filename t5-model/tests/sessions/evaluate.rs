//! Evaluations, compared with sums over the model's logits.

use t5_model::conformance::random_weights;
use t5_model::text::{
    Corpus, DataPosition, Denoisers, ExampleStream, Objective, StreamOptions, StreamedBatch,
};
use t5_model::train::{Evaluation, EvaluationSize, evaluate};
use t5_model::{Batch, IGNORED_LABEL, Session, T5Config};

use crate::open;
use crate::text_support::{documents, tokenizer};

/// Examples of 20 tokens, with two spans or three.
fn text(batch_size: usize) -> ExampleStream {
    text_of(&Objective::T5, batch_size)
}

fn text_of(objective: &Objective, batch_size: usize) -> ExampleStream {
    let spans = Denoisers::new(objective, 40, &tokenizer()).unwrap();
    let options = StreamOptions { batch_size, ..StreamOptions::evaluation() };
    let corpus = Corpus::from_documents("sample", documents(60));
    ExampleStream::new(corpus, tokenizer(), spans, options, DataPosition::default()).unwrap()
}

fn model() -> Box<dyn Session> {
    let config = T5Config::v1_1(160, 8, 2, 4, 16, 1);
    open(&config, &random_weights(&config, 3).unwrap())
}

fn evaluation(batch_size: usize, examples: u64, examples_at_once: usize) -> Evaluation {
    let size = EvaluationSize { examples, examples_at_once };
    evaluate(model().as_mut(), text(batch_size), size, &mut |_, _| {}).unwrap()
}

/// The loss of each label, and whether it is the most likely token, from the logits.
fn predictions(batch: &Batch) -> Vec<(f64, bool)> {
    let logits = model().forward(batch, false).unwrap().logits;
    let rows = logits.data.chunks(160).zip(&batch.labels);
    let row = |(logits, label): (&[f32], &i32)| {
        let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
        let target = logits[*label as usize];
        (sum.ln() - f64::from(target), logits.iter().all(|logit| *logit <= target))
    };
    rows.map(row).collect()
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[test]
fn tokens_are_told_apart_by_their_place_in_a_span() {
    let Evaluation { quality, tokens } = evaluation(8, 16, 3);

    let batches: Vec<Batch> = text(8).take(2).map(|next| next.unwrap().batch).collect();
    let (mut places, mut found, mut exchanged) = (vec![], vec![], vec![]);
    for batch in &batches {
        for labels in batch.labels.chunks(batch.target_length) {
            let control = |at: usize| tokenizer().is_control(labels[at]);
            places.extend((0..labels.len()).map(|at| match at {
                _ if control(at) => "sentinel",
                0 => "first",
                _ if control(at - 1) => "first",
                _ => "rest",
            }));
        }
        found.extend(predictions(batch));
        let rows: Vec<&[i32]> = batch.input_ids.chunks(batch.input_length).collect();
        let input_ids = (0..8).flat_map(|row| rows[(row + 4) % 8]).copied().collect();
        exchanged.extend(predictions(&Batch { input_ids, ..batch.clone() }));
    }
    assert_eq!(tokens, places.len() as u64);
    let close = |value: Option<f64>, expected: Option<f64>| {
        let (value, expected) = (value.unwrap(), expected.unwrap());
        assert!((value - expected).abs() < 1e-5, "{value}, not {expected}");
    };
    close(Some(quality.loss), mean(found.iter().map(|token| token.0)));
    close(Some(quality.accuracy), mean(found.iter().map(|token| f64::from(u8::from(token.1)))));
    // Examples have equally many tokens, so the error of the mean is that of their means.
    let examples: Vec<f64> =
        found.chunks(tokens as usize / 16).filter_map(|own| mean(own.iter().map(|token| token.0))).collect();
    let variance = examples.iter().map(|own| (own - quality.loss).powi(2)).sum::<f64>() / 15.0;
    close(quality.loss_error, Some((variance / 16.0).sqrt()));
    let of = |place: &str| -> Vec<(f64, bool)> {
        found.iter().zip(&places).filter(|(_, at)| **at == place).map(|(token, _)| *token).collect()
    };
    for (place, loss, accuracy) in [
        ("sentinel", quality.sentinel_loss, quality.sentinel_accuracy),
        ("first", quality.first_loss, quality.first_accuracy),
        ("rest", quality.rest_loss, quality.rest_accuracy),
    ] {
        close(loss, mean(of(place).iter().map(|token| token.0)));
        close(accuracy, mean(of(place).iter().map(|token| f64::from(u8::from(token.1)))));
    }
    let gain = mean(exchanged.iter().map(|token| token.0)).unwrap() - quality.loss;
    assert!(gain.abs() > 1e-4, "the model reads its inputs");
    close(quality.context_gain, Some(gain));
}

#[test]
fn an_evaluation_does_not_depend_on_how_examples_are_cut() {
    let whole = evaluation(8, 13, 8);
    for at_once in [1, 3, 5, 100] {
        assert_eq!(evaluation(8, 13, at_once), whole, "{at_once} at once");
    }
    assert_ne!(evaluation(8, 12, 8), whole);
}

#[test]
fn a_single_example_has_no_context_gain() {
    assert_eq!(evaluation(8, 1, 8).quality.context_gain, None);
}

/// An example without its padding.
fn alone(batch: &Batch, input: usize, target: usize) -> Batch {
    let (own, target) = (batch.rows(input..input + 1), batch.rows(target..target + 1));
    let tokens = own.input_tokens() as usize;
    let labels: Vec<i32> = target.labels.into_iter().filter(|label| *label != IGNORED_LABEL).collect();
    Batch {
        size: 1,
        input_length: tokens,
        target_length: labels.len(),
        input_ids: own.input_ids[..tokens].to_vec(),
        attention_mask: vec![1; tokens],
        labels,
    }
}

#[test]
fn examples_of_a_mixture_exchange_inputs_with_their_kind() {
    let mixture = Objective::Ul2 { mode_tokens: false };
    let size = EvaluationSize { examples: 16, examples_at_once: 5 };
    let Evaluation { quality, tokens } =
        evaluate(model().as_mut(), text_of(&mixture, 16), size, &mut |_, _| {}).unwrap();

    let StreamedBatch { batch, denoisers, .. } = text_of(&mixture, 16).next().unwrap().unwrap();
    assert!(batch.labels.contains(&IGNORED_LABEL) && batch.attention_mask.contains(&0));
    let losses = |input, target| predictions(&alone(&batch, input, target)).into_iter().map(|token| token.0);
    let (mut all, mut own, mut exchanged) = (vec![], vec![], vec![]);
    for row in 0..16 {
        all.extend(losses(row, row));
        let kind: Vec<usize> = (0..16).filter(|other| denoisers[*other] == denoisers[row]).collect();
        if kind.len() > 1 {
            let at = kind.iter().position(|other| *other == row).unwrap();
            own.extend(losses(row, row));
            exchanged.extend(losses(kind[(at + kind.len() / 2) % kind.len()], row));
        }
    }
    assert_eq!(tokens, all.len() as u64);
    let mean = |losses: Vec<f64>| mean(losses.into_iter()).unwrap();
    assert!((quality.loss - mean(all)).abs() < 1e-5);
    let gain = mean(exchanged) - mean(own);
    assert!(gain.abs() > 1e-4 && (quality.context_gain.unwrap() - gain).abs() < 1e-5, "{gain}");
}
