//! Where an answer begins and ends, and which tokens it may have.

use std::collections::HashSet;

use crate::T5Config;

/// An answer so far.
pub(super) struct Context<'a> {
    pub start: i32,
    pub tokens: &'a [i32],
    /// The tokens that may end it.
    pub ends: &'a [i32],
    /// As long as it may be.
    pub max_new_tokens: usize,
}

/// Where an answer begins and ends, and which tokens it may have. A rule means what it means in transformers,
/// where the tokens of an answer include the one that its decoder starts with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// What the decoder starts with; `None` for the configuration's `decoder_start_token_id`.
    pub start: Option<i32>,
    /// The tokens that end an answer; `None` for the configuration's `eos_token_id`.
    pub ends: Option<Vec<i32>>,
    /// Tokens, the first included, before which an answer does not end.
    pub min_length: usize,
    /// The first token.
    pub forced_first: Option<i32>,
    /// The tokens one of which is the last if an answer is as long as it may be.
    pub forced_last: Vec<i32>,
    /// Tokens that no answer has.
    pub suppressed: Vec<i32>,
    /// Tokens that no answer begins with.
    pub suppressed_first: Vec<i32>,
    /// Sequences of tokens that no answer has.
    pub bad_words: Vec<Vec<i32>>,
    /// By this, the positive logits of tokens that were there before are divided and the negative ones
    /// multiplied; `None` for 1.
    pub repetition_penalty: Option<f32>,
    /// No sequence of this many tokens occurs twice; 0 for no such rule.
    pub no_repeat_ngram: usize,
}

impl Rules {
    /// Without any rule.
    pub(super) const NONE: Rules = Rules {
        start: None,
        ends: None,
        min_length: 0,
        forced_first: None,
        forced_last: Vec::new(),
        suppressed: Vec::new(),
        suppressed_first: Vec::new(),
        bad_words: Vec::new(),
        repetition_penalty: None,
        no_repeat_ngram: 0,
    };

    /// The token that the decoder of a model starts with, and those that end its answers.
    pub(super) fn bounds<'a>(&'a self, config: &'a T5Config) -> (i32, &'a [i32]) {
        let start = self.start.unwrap_or(config.decoder_start_token_id);
        (start, self.ends.as_deref().unwrap_or(&config.eos_token_id.0))
    }

    /// Whether logits are taken as they are.
    pub(super) fn are_free(&self) -> bool {
        *self == Rules { start: self.start, ends: self.ends.clone(), ..Rules::NONE }
    }

    /// Applies the rules to the logits of the token that comes next, in transformers' order.
    pub(super) fn apply(&self, logits: &mut [f32], context: &Context<'_>) {
        let Context { start, tokens, ends, max_new_tokens } = *context;
        const NEVER: f32 = f32::NEG_INFINITY;
        let forbid = |logits: &mut [f32], token: i32| {
            let logit = usize::try_from(token).ok().and_then(|token| logits.get_mut(token));
            logit.into_iter().for_each(|logit| *logit = NEVER);
        };
        let context: Vec<i32> = std::iter::once(start).chain(tokens.iter().copied()).collect();
        if let Some(penalty) = self.repetition_penalty {
            let seen: HashSet<i32> = context.iter().copied().collect();
            for token in seen {
                let logit = usize::try_from(token).ok().and_then(|token| logits.get_mut(token));
                let penalised = |logit: f32| if logit < 0.0 { logit * penalty } else { logit / penalty };
                logit.into_iter().for_each(|logit| *logit = penalised(*logit));
            }
        }
        if self.no_repeat_ngram > 0 && context.len() >= self.no_repeat_ngram {
            let last = &context[context.len() + 1 - self.no_repeat_ngram..];
            for ngram in context.windows(self.no_repeat_ngram) {
                if let [before @ .., next] = ngram
                    && before == last
                {
                    forbid(logits, *next);
                }
            }
        }
        for word in &self.bad_words {
            if let [before @ .., last] = word.as_slice()
                && context.ends_with(before)
                && !(before.is_empty() && ends.contains(last))
            {
                forbid(logits, *last);
            }
        }
        if context.len() < self.min_length {
            ends.iter().for_each(|end| forbid(logits, *end));
        }
        let only = |logits: &mut [f32], tokens: &[i32]| {
            for (token, logit) in (0..).zip(logits) {
                *logit = if tokens.contains(&token) { 0.0 } else { NEVER };
            }
        };
        if let (Some(first), []) = (self.forced_first, tokens) {
            only(logits, &[first]);
        }
        if !self.forced_last.is_empty() && tokens.len() + 1 == max_new_tokens {
            only(logits, &self.forced_last);
        }
        self.suppressed.iter().for_each(|token| forbid(logits, *token));
        // A forced first token leaves the choice to the second.
        if tokens.len() == usize::from(self.forced_first.is_some()) {
            self.suppressed_first.iter().for_each(|token| forbid(logits, *token));
        }
    }
}
