//! Puts what a model says of an input's holes into them.

use std::collections::HashMap;

use super::tokenizer::Tokenizer;

impl Tokenizer {
    /// An input whose sentinels are replaced by what the answer says of each. A sentinel that the answer does
    /// not name stays; of one that it names twice, the first is taken. Padding and EOS are left out.
    pub fn fill(&self, input: &[i32], answer: &[i32]) -> Vec<i32> {
        let sentinel = |id: &i32| self.sentinels().contains(id);
        let is_end = |id: &i32| self.is_control(*id) && !sentinel(id);
        let mut spans: HashMap<i32, &[i32]> = HashMap::new();
        let said = answer.iter().position(is_end).map_or(answer, |end| &answer[..end]);
        for (at, id) in said.iter().enumerate().filter(|(_, id)| sentinel(id)) {
            let span = &said[at + 1..];
            let length = span.iter().position(sentinel).unwrap_or(span.len());
            spans.entry(*id).or_insert(&span[..length]);
        }
        let mut filled = Vec::with_capacity(input.len());
        for id in input.iter().filter(|id| !is_end(id)) {
            match spans.get(id) {
                Some(span) => filled.extend(*span),
                None => filled.push(*id),
            }
        }
        filled
    }
}
