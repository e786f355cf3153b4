//! What a model says of an input's holes.

use super::tokenizer::Tokenizer;

impl Tokenizer {
    /// An input whose sentinels are replaced by what the answer says of each. A sentinel that the answer does
    /// not name stays; of one that it names twice, the first is taken. Padding and EOS are left out.
    pub fn fill(&self, input: &[i32], answer: &[i32]) -> Vec<i32> {
        let spans = self.spans(answer);
        let mut filled = Vec::with_capacity(input.len());
        for id in input.iter().filter(|id| !self.ends(**id)) {
            match spans.iter().find(|(sentinel, _)| sentinel == id) {
                Some((_, span)) => filled.extend(*span),
                None => filled.push(*id),
            }
        }
        filled
    }

    /// What a target or an answer says, up to its end: each sentinel, with the tokens after it.
    pub fn spans<'a>(&self, answer: &'a [i32]) -> Vec<(i32, &'a [i32])> {
        let is_sentinel = |id: &i32| self.sentinels().contains(id);
        let said = answer.iter().position(|id| self.ends(*id)).map_or(answer, |end| &answer[..end]);
        let sentinels = said.iter().enumerate().filter(|(_, id)| is_sentinel(id));
        let span = |(at, id): (usize, &i32)| {
            let rest = &said[at + 1..];
            (*id, &rest[..rest.iter().position(is_sentinel).unwrap_or(rest.len())])
        };
        sentinels.map(span).collect()
    }

    fn ends(&self, id: i32) -> bool {
        self.is_control(id) && !self.sentinels().contains(&id)
    }
}
