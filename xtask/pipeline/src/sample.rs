//! What a training reads, as text.

use anyhow::Result;
use serde::Serialize;
use t5_model::IGNORED_LABEL;
use t5_model::text::{DataPosition, Denoisers, ExampleStream, StreamedBatch, Tokenizer};

/// An example of a training, with the text that it was made from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Example {
    /// Of a mixture, the denoiser that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denoiser: Option<String>,
    /// The text before corruption.
    pub text: String,
    /// The text with a sentinel in place of each masked span, or a prefix of it.
    pub input: String,
    /// The sentinels, each with the span that it stands for, or what follows the prefix.
    pub target: String,
    /// The number of masked spans; 0 if the target follows a prefix.
    pub spans: usize,
    /// Tokens in these spans, or after the prefix.
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
    stream: ExampleStream,
    tokenizer: &'a Tokenizer,
) -> impl Iterator<Item = Result<Sample>> + 'a {
    let denoisers = stream.denoisers().clone();
    stream.map(move |batch| {
        let StreamedBatch { batch, denoisers: made_by, position } = batch?;
        let inputs = batch.input_ids.chunks(batch.input_length.max(1));
        let masks = batch.attention_mask.chunks(batch.input_length.max(1));
        let labels = batch.labels.chunks(batch.target_length.max(1));
        let mut examples = Vec::with_capacity(batch.size);
        for (((input, mask), labels), denoiser) in inputs.zip(masks).zip(labels).zip(made_by) {
            let input: Vec<i32> =
                input.iter().zip(mask).filter(|(_, mask)| **mask != 0).map(|(id, _)| *id).collect();
            let labels = labels.iter().copied().filter(|label| *label != IGNORED_LABEL).collect();
            examples.push(example(&denoisers, tokenizer, denoiser, input, labels)?);
        }
        Ok(Sample { examples, position })
    })
}

fn example(
    denoisers: &Denoisers,
    tokenizer: &Tokenizer,
    denoiser: usize,
    input_ids: Vec<i32>,
    labels: Vec<i32>,
) -> Result<Example> {
    let text = denoisers.chunk_of(denoiser, &input_ids, &labels, tokenizer);
    Ok(Example {
        denoiser: (denoisers.count() > 1).then(|| denoisers.name(denoiser).to_owned()),
        text: tokenizer.decode_with_sentinels(&text)?,
        input: tokenizer.decode_with_sentinels(&input_ids)?,
        target: tokenizer.decode_with_sentinels(&labels)?,
        spans: input_ids.iter().filter(|id| tokenizer.sentinels().contains(id)).count(),
        masked: labels.iter().filter(|label| !tokenizer.is_control(**label)).count(),
        tokens: text.len(),
        input_ids,
        labels,
    })
}
