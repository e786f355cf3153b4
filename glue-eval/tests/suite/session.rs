//! A session that memorises, and a tokenizer of words.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::rc::Rc;

use fusion_core::{HostTensor, HostTensors};
use t5_model::backend::TokenLoss;
use t5_model::text::Tokenizer;
use t5_model::{Batch, Decoding, Forward, Session, SessionError, T5Config, TrainStep, Update};

/// Every word of these tests is a token, in addition to T5's special ones.
const WORDS: &str = "<pad> </s> <unk> <extra_id_0> sst2 sentence: stsb sentence1: sentence2: a gripping film dull and \
    long never boring negative positive A. B. C. D. E. 1.0 2.0 5.0";

/// `<extra_id_0>`, which a model fine-tuned for only a few steps still tends to begin with.
pub const SENTINEL: i32 = 3;

pub fn tokenizer() -> Tokenizer {
    let vocabulary: serde_json::Map<_, _> =
        WORDS.split(' ').enumerate().map(|(id, word)| (word.to_owned(), id.into())).collect();
    let special = |(id, word): (usize, &str)| {
        serde_json::json!({
            "id": id, "content": word, "special": true, "normalized": false,
            "single_word": false, "lstrip": false, "rstrip": false,
        })
    };
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": WORDS.split(' ').take(4).enumerate().map(special).collect::<Vec<_>>(),
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>" },
    });
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    Tokenizer::load(folder.path()).unwrap()
}

/// Remembers the target of every prompt it was trained on. Clones share their memory.
#[derive(Clone)]
pub struct Shared {
    memory: Rc<RefCell<Memory>>,
    config: T5Config,
    steps: Vec<TrainStep>,
}

impl Shared {
    pub fn new(memory: Memory) -> Self {
        Shared {
            memory: Rc::new(RefCell::new(memory)),
            config: T5Config::v1_1(30, 4, 1, 4, 4, 1),
            steps: vec![],
        }
    }

    pub fn take(&self) -> Memory {
        self.memory.take()
    }

    pub fn opened(&self) -> Box<dyn Session> {
        Box::new(self.clone())
    }
}

/// What is remembered, and what should go wrong.
#[derive(Default)]
pub struct Memory {
    pub targets: HashMap<Vec<i32>, Vec<i32>>,
    /// Every prompt in the order of training.
    pub seen: Vec<Vec<i32>>,
    pub micro_batch_sizes: Vec<Vec<usize>>,
    pub updates: Vec<Update>,
    /// The step after which everything is forgotten.
    pub forgets_at: Option<u64>,
    pub fails_at: Option<u64>,
    pub answers_too_few: bool,
    /// The number of tokens in all answers.
    pub said: usize,
    /// Whether every answer begins with a sentinel.
    pub begins_with_sentinel: bool,
}

/// The rows of a batch without their padding. Panics on a malformed batch.
fn rows(batch: &Batch) -> Vec<(Vec<i32>, Vec<i32>)> {
    assert_eq!(batch.input_ids.len(), batch.size * batch.input_length);
    assert_eq!(batch.attention_mask.len(), batch.size * batch.input_length);
    assert_eq!(batch.labels.len(), batch.size * batch.target_length);
    let row = |number: usize| {
        let inputs = number * batch.input_length..(number + 1) * batch.input_length;
        let mask = &batch.attention_mask[inputs.clone()];
        let length = mask.iter().take_while(|&&token| token == 1).count();
        let (prompt, padding) = batch.input_ids[inputs].split_at(length);
        assert!(mask[length..].iter().all(|&token| token == 0) && padding.iter().all(|&id| id == 0));
        let labels = &batch.labels[number * batch.target_length..(number + 1) * batch.target_length];
        let target: Vec<i32> = labels.iter().copied().take_while(|&id| id != -100).collect();
        assert!(labels[target.len()..].iter().all(|&id| id == -100));
        (prompt.to_vec(), target)
    };
    let rows: Vec<_> = (0..batch.size).map(row).collect();
    assert_eq!(rows.iter().map(|row| row.0.len()).max(), Some(batch.input_length), "padded to the longest");
    rows
}

impl Session for Shared {
    fn config(&self) -> &T5Config {
        &self.config
    }

    fn begin_step(&mut self, micro_batches: &[Batch], update: &Update) -> Result<(), SessionError> {
        let step = self.memory.borrow_mut().train_step(micro_batches, update)?;
        self.steps.push(step);
        Ok(())
    }

    fn finish_steps(&mut self) -> Result<Vec<TrainStep>, SessionError> {
        Ok(std::mem::take(&mut self.steps))
    }

    fn evaluate(&mut self, _: &Batch) -> Result<Vec<TokenLoss>, SessionError> {
        unimplemented!("answers are generated")
    }

    fn forward(&mut self, _: &Batch, _: bool) -> Result<Forward, SessionError> {
        unimplemented!("answers are generated")
    }

    fn generate(
        &mut self,
        batch: &Batch,
        decoding: &Decoding,
        stop: &dyn Fn(&[i32]) -> bool,
    ) -> Result<Vec<Vec<i32>>, SessionError> {
        self.memory.borrow_mut().generate(batch, decoding.limit(), stop)
    }

    /// For learned answers, the logarithm of 1; for all others less, decreasing with their position.
    fn log_likelihoods(
        &mut self,
        batch: &Batch,
        candidates: &[Vec<i32>],
    ) -> Result<Vec<Vec<f64>>, SessionError> {
        let memory = self.memory.borrow();
        let likelihood = |learned: Option<&Vec<i32>>, (place, candidate): (usize, &Vec<i32>)| {
            let (end, tokens) = candidate.split_last().expect("an end token");
            assert_eq!(*end, 1);
            if learned.is_some_and(|learned| learned == tokens) { 0.0 } else { -1.0 - place as f64 }
        };
        let row = |(prompt, _): (Vec<i32>, Vec<i32>)| {
            let learned = memory.targets.get(&prompt);
            candidates.iter().enumerate().map(|candidate| likelihood(learned, candidate)).collect()
        };
        Ok(rows(batch).into_iter().map(row).collect())
    }

    fn export(&self) -> Result<HostTensors, SessionError> {
        let steps = self.memory.borrow().updates.len() as f32;
        Ok([("steps".to_owned(), HostTensor { shape: vec![1], data: vec![steps] })].into_iter().collect())
    }

    fn optimizer_state(&self) -> Result<HostTensors, SessionError> {
        self.export()
    }

    fn load_optimizer_state(&mut self, state: HostTensors) -> Result<(), SessionError> {
        assert_eq!(state, self.export()?);
        Ok(())
    }
}

impl Memory {
    fn train_step(&mut self, micro_batches: &[Batch], update: &Update) -> Result<TrainStep, SessionError> {
        if self.fails_at == Some(update.step) {
            return Err(SessionError::Device("out of memory".to_owned()));
        }
        self.updates.push(update.clone());
        self.micro_batch_sizes.push(micro_batches.iter().map(|batch| batch.size).collect());
        for (prompt, mut target) in micro_batches.iter().flat_map(rows) {
            self.seen.push(prompt.clone());
            assert_eq!(target.pop(), Some(1), "targets end with the end token");
            self.targets.insert(prompt, target);
        }
        if self.forgets_at == Some(update.step) {
            self.targets.clear();
        }
        Ok(TrainStep { loss: 1.0 / update.step as f64, correct: 0, tokens: 1, gradient_norm: 1.0 })
    }

    fn generate(
        &mut self,
        batch: &Batch,
        max_new_tokens: usize,
        stop: &dyn Fn(&[i32]) -> bool,
    ) -> Result<Vec<Vec<i32>>, SessionError> {
        let babble = vec![2; max_new_tokens];
        let mut answers: Vec<Vec<i32>> = rows(batch)
            .iter()
            .map(|(prompt, _)| self.targets.get(prompt).unwrap_or(&babble).clone())
            .collect();
        if self.begins_with_sentinel {
            answers.iter_mut().for_each(|answer| answer.insert(0, SENTINEL));
        }
        for answer in &mut answers {
            let end = (1..=answer.len()).find(|&end| stop(&answer[..end]));
            answer.truncate(end.unwrap_or(answer.len()));
            self.said += answer.len();
        }
        if self.answers_too_few {
            answers.pop();
        }
        Ok(answers)
    }
}
