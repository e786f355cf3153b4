//! What a training reads, as text.

use anyhow::Result;
use serde::Serialize;
use t5_model::IGNORED_LABEL;
use t5_model::text::{DataPosition, SpanCorruptionStream, StreamedBatch, Tokenizer};

/// An example of a training, with the text that it was made from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Example {
    /// The text before corruption.
    pub text: String,
    /// The text with a sentinel in place of each masked span.
    pub input: String,
    /// The sentinels, each with the span that it stands for.
    pub target: String,
    /// The number of masked spans.
    pub spans: usize,
    /// Tokens in these spans.
    pub masked: usize,
    /// Tokens of the text before corruption.
    pub tokens: usize,
    /// The input's token ids, including the end of the sequence.
    pub input_ids: Vec<i32>,
    /// The target's token ids, including the end of the sequence.
    pub labels: Vec<i32>,
}

/// A batch of examples, and the position of the stream after it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// The batch's examples.
    pub examples: Vec<Example>,
    /// Where the stream goes on.
    pub position: DataPosition,
}

/// The batches of a stream, as text.
pub fn samples<'a>(
    stream: SpanCorruptionStream,
    tokenizer: &'a Tokenizer,
) -> impl Iterator<Item = Result<Sample>> + 'a {
    stream.map(|batch| {
        let StreamedBatch { batch, position } = batch?;
        let inputs = batch.input_ids.chunks(batch.input_length.max(1));
        let labels = batch.labels.chunks(batch.target_length.max(1));
        let examples = inputs.zip(labels).map(|(input, labels)| example(tokenizer, input, labels));
        Ok(Sample { examples: examples.collect::<Result<_>>()?, position })
    })
}

fn example(tokenizer: &Tokenizer, input: &[i32], labels: &[i32]) -> Result<Example> {
    let labels: Vec<i32> = labels.iter().copied().filter(|label| *label != IGNORED_LABEL).collect();
    let text = tokenizer.fill(input, &labels);
    let spans = input.iter().filter(|id| tokenizer.sentinels().contains(id)).count();
    Ok(Example {
        text: tokenizer.decode_with_sentinels(&text)?,
        input: tokenizer.decode_with_sentinels(input)?,
        target: tokenizer.decode_with_sentinels(&labels)?,
        spans,
        masked: labels.iter().filter(|label| !tokenizer.is_control(**label)).count(),
        tokens: text.len(),
        input_ids: input.to_vec(),
        labels,
    })
}
