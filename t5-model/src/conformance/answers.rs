//! Greedy decoding and ranking against transformers (`t5_goldens.py`), and so beam search
//! (`answers_goldens.py`).

use fusion_core::checkpoint::TensorFile;
use fusion_core::{HostTensor, TensorSource};
use serde::Deserialize;

use super::references::{self, batch, deviation};
use super::{Check, Suite};
use crate::{Answer, Batch, Decoding, Error, IGNORED_LABEL, Precision, Session, SessionError};

/// As in the script.
const MAX_NEW_TOKENS: usize = 12;

#[derive(Deserialize)]
struct Generation {
    tokens: Vec<Vec<i32>>,
}

/// A beam search, with its answers to each row.
#[derive(Deserialize)]
struct Search {
    how: Decoding,
    tokens: Vec<Vec<Vec<i32>>>,
    scores: Vec<Vec<f64>>,
}

impl Suite<'_> {
    /// What a model answers to inputs of three lengths, and how likely it finds other answers.
    pub(super) fn answers(&self, variant: &str) -> Result<Vec<Check>, SessionError> {
        let (open, reference) = self.golden(variant)?;
        let batch = batch(&reference)?;
        let name = |what: &str| format!("model: {variant}, {what}");
        let allowed = self.allowed([2e-5, 6e-2]);
        let ranking = || ranked(open()?.as_mut(), &batch, &reference);
        let mut checks = vec![Check::run(name("ranking"), allowed, ranking)?];
        // Rounding to bf16 may decide another way.
        if self.how.precision == Precision::F32 {
            let Generation { tokens } = references::json(&format!("{variant}/generation.json"))?;
            let searches: Vec<Search> = references::json(&format!("{variant}/beams.json"))?;
            let company = || in_company(open()?.as_mut(), &batch, &tokens);
            let stopped = || stopped(open()?.as_mut(), &batch, &tokens);
            checks.push(Check::run(name("greedy decoding"), 0.0, company)?);
            checks.push(Check::run(name("greedy decoding, stopped"), 0.0, stopped)?);
            let sampled = || sampled(open()?.as_mut(), &batch, &tokens);
            checks.push(Check::run(name("sampling"), 0.0, sampled)?);
            let searched = || searched(open()?.as_mut(), &batch, &searches);
            checks.push(Check::run(name("beam search"), 1e-4, searched)?);
        }
        Ok(checks)
    }
}

/// Rows that are not continued as they should, alone and without padding, together, and among many that end
/// before them.
fn in_company(session: &mut dyn Session, batch: &Batch, expected: &[Vec<i32>]) -> Result<f64, SessionError> {
    let companies: [&[usize]; 6] = [&[0], &[1], &[2], &[0, 1, 2], &[2, 0, 1, 1, 2, 2, 1], &[1, 1, 1, 0]];
    let mut wrong = 0;
    for company in companies {
        let found = session.generate(&rows(batch, company), &Decoding::greedy(MAX_NEW_TOKENS), &|_| false)?;
        let expected = company.iter().map(|row| &expected[*row]);
        wrong += found.iter().zip(expected).filter(|(found, expected)| found != expected).count();
        wrong += found.len().abs_diff(company.len());
    }
    Ok(wrong as f64)
}

/// The same where every token in turn ends the rows that come to it, and where a number of tokens does.
fn stopped(session: &mut dyn Session, batch: &Batch, expected: &[Vec<i32>]) -> Result<f64, SessionError> {
    let mut said = expected.concat();
    said.sort();
    said.dedup();
    let (mut wrong, limit) = (0, Decoding::greedy(MAX_NEW_TOKENS));
    for token in said {
        let found = session.generate(batch, &limit, &|tokens| tokens.last() == Some(&token))?;
        let until =
            |row: &Vec<i32>| row.iter().position(|said| *said == token).map_or(row.len(), |at| at + 1);
        let expected = expected.iter().map(|row| &row[..until(row)]);
        wrong += found.iter().zip(expected).filter(|(found, expected)| found != expected).count();
    }
    for most in [0, 1, 7] {
        let found = session.generate(batch, &Decoding::greedy(most), &|_| false)?;
        let until = expected.iter().map(|row| &row[..row.len().min(most)]);
        wrong += found.iter().zip(until).filter(|(found, expected)| found != expected).count();
        let found = session.generate(batch, &limit, &|tokens| tokens.len() == most)?;
        let most = if most == 0 { MAX_NEW_TOKENS } else { most };
        let until = expected.iter().map(|row| &row[..row.len().min(most)]);
        wrong += found.iter().zip(until).filter(|(found, expected)| found != expected).count();
    }
    Ok(wrong as f64)
}

/// Rows that are not continued greedily, although there is only one token to draw from.
fn sampled(session: &mut dyn Session, batch: &Batch, expected: &[Vec<i32>]) -> Result<f64, SessionError> {
    let how = Decoding { answers: 3, top_k: Some(1), ..Decoding::greedy(MAX_NEW_TOKENS) };
    let found = session.answers(batch, &how, 0)?;
    let wrong = |(found, expected): (&Vec<Answer>, &Vec<i32>)| {
        found.iter().filter(|answer| answer.tokens != *expected).count()
    };
    let wrong: usize = found.iter().zip(expected).map(wrong).sum();
    Ok((wrong + found.concat().len().abs_diff(3 * expected.len())) as f64)
}

/// The largest deviation of a score, or the number of rows whose answers differ.
fn searched(session: &mut dyn Session, batch: &Batch, searches: &[Search]) -> Result<f64, SessionError> {
    let (mut wrong, mut largest) = (0, 0f64);
    for Search { how, tokens, scores } in searches {
        let found = session.answers(batch, how, 0)?;
        wrong += found.len().abs_diff(tokens.len());
        for (found, (tokens, scores)) in found.iter().zip(tokens.iter().zip(scores)) {
            wrong += usize::from(!found.iter().map(|answer| &answer.tokens).eq(tokens));
            let deviations = found.iter().zip(scores).map(|(found, score)| (found.score - score).abs());
            largest = deviations.fold(largest, f64::max);
        }
    }
    Ok(if wrong > 0 { wrong as f64 } else { largest })
}

/// The deviation of candidates' likelihoods: of each row's labels from transformers' logits, and of all from
/// what `forward` says of a batch with these labels.
fn ranked(session: &mut dyn Session, batch: &Batch, reference: &TensorFile) -> Result<f64, SessionError> {
    let vocabulary = session.config().vocab_size;
    let mut candidates: Vec<Vec<i32>> = batch
        .labels
        .chunks(batch.target_length)
        .map(|labels| labels.iter().copied().take_while(|label| *label != IGNORED_LABEL).collect())
        .collect();
    let (beginning, other) = (candidates[0][..9].to_vec(), candidates[1][3..].to_vec());
    candidates.extend([[&beginning[..], &other].concat(), beginning, other, vec![2], vec![]]);
    let found = session.log_likelihoods(batch, &candidates)?;

    let mut pairs: Vec<(f64, f64)> = Vec::new(); // found, expected
    let logits = reference.load_f32("logits").map_err(Error::from)?; // [batch, target, vocabulary]
    for (row, logits) in logits.data.chunks(batch.target_length * vocabulary).enumerate() {
        pairs.push((found[row][row], log_likelihood(logits, &candidates[row], vocabulary)));
    }
    for (at, candidate) in candidates.iter().enumerate() {
        if candidate.is_empty() {
            pairs.extend(found.iter().map(|found| (found[at], 0.0)));
            continue;
        }
        let (labels, target_length) = (candidate.repeat(batch.size), candidate.len());
        let labelled = Batch { labels, target_length, ..batch.clone() };
        let logits = session.forward(&labelled, false)?.logits;
        for (found, logits) in found.iter().zip(logits.data.chunks(target_length * vocabulary)) {
            pairs.push((found[at], log_likelihood(logits, candidate, vocabulary)));
        }
    }
    let (found, expected): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
    let tensor = |values: Vec<f64>| HostTensor {
        shape: vec![values.len()],
        data: values.into_iter().map(|value| value as f32).collect(),
    };
    Ok(deviation(Some(&tensor(found)), &tensor(expected)))
}

/// In f64.
fn log_likelihood(logits: &[f32], tokens: &[i32], vocabulary: usize) -> f64 {
    let log_probability = |(logits, token): (&[f32], &i32)| {
        let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
        f64::from(logits[*token as usize]) - sum.ln()
    };
    logits.chunks(vocabulary).zip(tokens).map(log_probability).sum()
}

/// A batch of some of a batch's rows, padded to the longest of these, without targets.
fn rows(batch: &Batch, rows: &[usize]) -> Batch {
    let starts = || rows.iter().map(|row| row * batch.input_length);
    let mask = |start: usize| &batch.attention_mask[start..][..batch.input_length];
    let lengths = starts().map(|start| mask(start).iter().filter(|mask| **mask == 1).count());
    let input_length = lengths.max().unwrap_or(0);
    Batch {
        size: rows.len(),
        input_length,
        target_length: 0,
        input_ids: starts().flat_map(|start| &batch.input_ids[start..][..input_length]).copied().collect(),
        attention_mask: starts().flat_map(|start| &mask(start)[..input_length]).copied().collect(),
        labels: vec![],
    }
}
