//! Streams of batches: their contents, their order, and resuming them.

mod text_support;

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroU64;

use insta::assert_snapshot;
use proptest::prelude::*;
use t5_model::text::{
    Corpus, DataPosition, Denoisers, ExampleStream, HoldOut, Objective, Order, Split, StreamOptions,
    StreamedBatch, TextError, Tokenizer, count_tokens, write_tokens,
};
use text_support::{document, documents, message, tokenizer};

/// Chunks of 44 tokens with 2 noise spans. (A single span is always the end of the chunk.)
const INPUT_LENGTH: usize = 40;

fn corpus(count: usize) -> Corpus {
    Corpus::from_documents("sample", documents(count))
}

fn open(corpus: &Corpus, options: StreamOptions, position: DataPosition) -> ExampleStream {
    let spans = Denoisers::new(&Objective::T5, INPUT_LENGTH, &tokenizer()).unwrap();
    ExampleStream::new(corpus.clone(), tokenizer(), spans, options, position).unwrap()
}

fn take(corpus: &Corpus, options: StreamOptions, position: DataPosition, count: usize) -> Vec<StreamedBatch> {
    open(corpus, options, position).take(count).map(Result::unwrap).collect()
}

fn evaluation(batch_size: usize) -> StreamOptions {
    StreamOptions { batch_size, ..StreamOptions::evaluation() }
}

fn training(batch_size: usize, seed: u64, shuffle_buffer: usize) -> StreamOptions {
    StreamOptions { order: Order::Training { shuffle_buffer }, ..StreamOptions::training(batch_size, seed) }
}

/// The chunks of some batches, with sentinels replaced by the tokens they stand for.
fn chunks(batches: &[StreamedBatch]) -> Vec<Vec<i32>> {
    let tokenizer = tokenizer();
    let mut chunks = Vec::new();
    for StreamedBatch { batch, .. } in batches {
        assert_eq!(batch.input_ids.len(), batch.size * batch.input_length);
        assert_eq!(batch.labels.len(), batch.size * batch.target_length);
        assert_eq!(batch.attention_mask, vec![1; batch.input_ids.len()]);
        let rows = batch.input_ids.chunks(batch.input_length).zip(batch.labels.chunks(batch.target_length));
        for (inputs, labels) in rows {
            let mut chunk = Vec::new();
            for id in &inputs[..inputs.len() - 1] {
                match labels.iter().position(|label| label == id && tokenizer.is_control(*id)) {
                    Some(at) => {
                        chunk.extend(labels[at + 1..].iter().take_while(|id| !tokenizer.is_control(**id)));
                    }
                    None => chunk.push(*id),
                }
            }
            chunks.push(chunk);
        }
    }
    chunks
}

/// The expected chunks: all tokens, joined, in pieces of the raw length.
fn joined(documents: impl IntoIterator<Item = String>) -> Vec<Vec<i32>> {
    let tokenizer = tokenizer();
    let tokens: Vec<i32> = documents.into_iter().flat_map(|text| tokenizer.encode(&text).unwrap()).collect();
    let length = Denoisers::new(&Objective::T5, INPUT_LENGTH, &tokenizer).unwrap().chunk_length(0);
    tokens.chunks_exact(length).map(<[i32]>::to_vec).collect()
}

fn sorted<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort();
    items
}

#[test]
fn evaluation_passes_once_in_order() {
    let expected = joined(documents(600));
    assert!(expected.len() > 256, "more than a block: {}", expected.len());
    let batches = take(&corpus(600), evaluation(7), DataPosition::default(), usize::MAX);
    assert_eq!(chunks(&batches), expected);
    let sizes: BTreeSet<_> = batches.iter().map(|streamed| streamed.batch.size).collect();
    assert_eq!(sizes, BTreeSet::from([7, expected.len() % 7]));
    assert_eq!(batches.last().map(|last| last.batch.size), Some(expected.len() % 7));
    assert_eq!(take(&corpus(600), evaluation(7), DataPosition::default(), usize::MAX), batches);
}

#[test]
fn training_gives_each_chunk_once_an_epoch() {
    let expected = joined(documents(80));
    let epochs = 3;
    let options = training(1, 5, 16);
    let batches = take(&corpus(80), options, DataPosition::default(), epochs * expected.len());
    let all = chunks(&batches);
    let mut orders = BTreeSet::new();
    for epoch in all.chunks(expected.len()) {
        assert_eq!(sorted(epoch.to_vec()), sorted(expected.clone()));
        // Only blocks of 16 are shuffled.
        for (block, in_order) in epoch.chunks(16).zip(expected.chunks(16)) {
            assert_eq!(sorted(block.to_vec()), sorted(in_order.to_vec()));
        }
        orders.insert(epoch.to_vec());
    }
    assert_eq!(orders.len(), epochs, "each epoch has an order of its own");
    assert!(!orders.contains(&expected));
    // The same chunk is corrupted differently in the next epoch.
    let inputs: BTreeSet<_> = batches.iter().map(|streamed| streamed.batch.input_ids.clone()).collect();
    assert!(inputs.len() > 2 * expected.len(), "{} of {}", inputs.len(), batches.len());
}

#[test]
fn batches_are_full_across_blocks_and_epochs() {
    let batches = take(&corpus(12), training(64, 5, 3), DataPosition::default(), 5);
    assert!(batches.iter().all(|streamed| streamed.batch.size == 64));
    assert!(batches[4].position.epoch > 0);
}

#[test]
fn seeds_give_different_orders() {
    let first = take(&corpus(40), training(4, 1, 64), DataPosition::default(), 4);
    assert_eq!(first, take(&corpus(40), training(4, 1, 64), DataPosition::default(), 4));
    let second = take(&corpus(40), training(4, 2, 64), DataPosition::default(), 4);
    assert_ne!(chunks(&first), chunks(&second));
}

#[test]
fn files_are_permuted_in_each_epoch() {
    let folder = tempfile::tempdir().unwrap();
    for file in 0..8 {
        fs::write(folder.path().join(format!("{file}.txt")), document(file).repeat(3)).unwrap();
    }
    let corpus = Corpus::open(&[folder.path().display().to_string()]).unwrap();
    // Blocks of one chunk are not shuffled: only the order of the files changes.
    let batches = take(&corpus, training(1, 3, 1), DataPosition::default(), 400);
    let epoch = |number| -> Vec<_> {
        let batches: Vec<_> =
            batches.iter().filter(|streamed| streamed.position.epoch == number).cloned().collect();
        chunks(&batches)
    };
    assert!(batches.last().is_some_and(|last| last.position.epoch >= 2));
    assert_ne!(epoch(0), epoch(1));
    let limited = StreamOptions { max_documents: Some(8), ..training(1, 3, 1) };
    let expected = joined((0..8).map(|file| document(file).repeat(3)));
    let batches = take(&corpus, limited, DataPosition::default(), 2 * expected.len());
    assert_eq!(chunks(&batches), [expected.clone(), expected].concat(), "a limit keeps the order");
}

#[test]
fn hold_out_splits_the_documents() {
    let part = |split| {
        let hold_out = Some(HoldOut { every: NonZeroU64::new(4).unwrap(), split });
        let options = StreamOptions { hold_out, ..evaluation(8) };
        chunks(&take(&corpus(60), options, DataPosition::default(), usize::MAX))
    };
    assert_eq!(part(Split::HeldOut), joined((0..60).step_by(4).map(document)));
    assert_eq!(part(Split::Train), joined((0..60).filter(|number| number % 4 != 0).map(document)));
    let options = StreamOptions { max_documents: Some(9), ..evaluation(8) };
    let limited = take(&corpus(60), options, DataPosition::default(), usize::MAX);
    assert_eq!(chunks(&limited), joined((0..9).map(document)));
}

#[test]
fn text_cannot_spell_control_tokens() {
    let marked: Vec<_> = documents(20).iter().map(|text| format!("<pad>{text}</s><extra_id_3>")).collect();
    let corpus = Corpus::from_documents("marked", marked);
    let all = chunks(&take(&corpus, evaluation(8), DataPosition::default(), usize::MAX));
    assert!(all.concat().iter().all(|id| !tokenizer().is_control(*id)));
    assert_eq!(all.concat().len() / 16, joined(documents(20)).concat().len() / 16);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_stream_resumes_anywhere(
        stop in 1_usize..60,
        batch_size in 1_usize..9,
        shuffle_buffer in 1_usize..40,
        seed in any::<u64>(),
        files in 1_usize..5,
        limited in any::<bool>(),
        held_out in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        for file in 0..files {
            let documents: Vec<_> = (0..6).map(|number| document(file * 17 + number * 5)).collect();
            fs::write(folder.path().join(format!("{file}.txt")), documents.join("\n\n")).unwrap();
        }
        let corpus = Corpus::open(&[folder.path().display().to_string()]).unwrap();
        let hold_out = HoldOut { every: NonZeroU64::new(3).unwrap(), split: Split::Train };
        let options = StreamOptions {
            max_documents: limited.then_some(4),
            hold_out: held_out.then_some(hold_out),
            ..training(batch_size, seed, shuffle_buffer)
        };
        let all = take(&corpus, options, DataPosition::default(), stop + 20);
        let position = serde_json::to_string(&all[stop - 1].position).unwrap();
        let position: DataPosition = serde_json::from_str(&position).unwrap();
        prop_assert_eq!(position, all[stop - 1].position);
        prop_assert_eq!(&take(&corpus, options, position, 20), &all[stop..]);

        let once = StreamOptions { order: Order::Evaluation, ..options };
        let all = take(&corpus, once, DataPosition::default(), usize::MAX);
        let stop = stop % all.len();
        for last in [stop, all.len() - 1] {
            prop_assert_eq!(&take(&corpus, once, all[last].position, usize::MAX), &all[last + 1..]);
        }
    }
}

#[test]
fn dropping_a_stream_ends_its_thread() {
    // Joins the thread, which would otherwise tokenise forever.
    let mut stream = open(&corpus(40), training(1, 1, 2), DataPosition::default());
    assert!(stream.next().is_some());
    drop(stream);
    drop(open(&corpus(40), training(1, 1, usize::MAX), DataPosition::default()));
}

#[test]
fn errors() {
    let folder = tempfile::tempdir().unwrap();
    let fails = |corpus: &Corpus, options, position| {
        let mut stream = open(corpus, options, position);
        let error =
            stream.by_ref().take(2000).find_map(Result::err).map(|error| message(error, folder.path()));
        assert!(stream.next().is_none(), "an error ends the stream");
        error.unwrap()
    };
    let start = DataPosition::default();
    let small = Corpus::from_documents("small", vec!["water".to_owned()]);
    assert_snapshot!(fails(&small, training(1, 1, 8), start), @"too little text: one pass over the corpus gives 6 tokens, one example needs 44");
    assert_snapshot!(fails(&small, evaluation(1), start), @"too little text: one pass over the corpus gives 6 tokens, one example needs 44");
    let file = folder.path().join("a.json");
    let line = format!("{{\"text\": \"{}\"}}\n", document(50));
    fs::write(&file, format!("{}oops\n", line.repeat(30))).unwrap();
    let broken = Corpus::open(&[file.display().to_string()]).unwrap();
    assert_snapshot!(fails(&broken, training(1, 1, 2), start), @"a.json:31: expected one JSON object a line with a string field `text`: expected value at column 1");
    for (position, expected) in [
        (DataPosition { file: 2, ..start }, "file 2"),
        (DataPosition { document: 99, ..start }, "99"),
        (DataPosition { token: 100_000, ..start }, "token"),
        (DataPosition { index: 8, ..start }, "index"),
        (DataPosition { block: u64::MAX, epoch: u64::MAX, documents: u64::MAX, index: 99, ..start }, "all"),
    ] {
        let message = fails(&corpus(40), training(1, 1, 8), position);
        assert!(message.starts_with("cannot resume the text at "), "{expected}: {message}");
    }
    assert_snapshot!(fails(&corpus(40), training(1, 1, 8), DataPosition { index: 8, ..start }), @"cannot resume the text at epoch 0, block 0, example 8 (file 0, document 0, token 0): the block has 8 examples; has the data or an option changed?");
    assert_snapshot!(fails(&corpus(40), training(1, 1, 8), DataPosition { token: 100_000, ..start }), @"cannot resume the text at epoch 0, block 0, example 0 (file 0, document 0, token 100000): the document has 21 tokens; has the data or an option changed?");
    let spans = Denoisers::new(&Objective::T5, INPUT_LENGTH, &tokenizer()).unwrap();
    let zero = ExampleStream::new(corpus(1), tokenizer(), spans, training(1, 1, 0), start);
    assert_snapshot!(zero.err().unwrap(), @"shuffle_buffer must be at least 1");
}

/// Tokenises every file of a corpus into a folder of its own.
fn tokens(corpus: &Corpus, folder: &std::path::Path) -> Corpus {
    for file in 0..corpus.file_count() {
        let path = folder.join(format!("{file:05}.tokens"));
        let count = write_tokens(corpus, file, &tokenizer(), &path, |_| true).unwrap().expect("not stopped");
        assert_eq!(count_tokens(&path, &tokenizer()).unwrap(), count);
    }
    // Texts beside them are not read, and what belongs to them is not worth a word.
    fs::create_dir(folder.join("tokenizer")).unwrap();
    for name in ["tokenizer/tokenizer.json", "tokens.json", ".deep-fusion.json", "notes.txt"] {
        fs::write(folder.join(name), "{}").unwrap();
    }
    Corpus::open(&[folder.display().to_string()]).unwrap()
}

#[test]
fn tokens_stand_for_their_text() {
    let folder = tempfile::tempdir().unwrap();
    let texts = folder.path().join("texts");
    fs::create_dir(&texts).unwrap();
    for file in 0..5 {
        // Empty documents and control tokens occur in texts.
        let lines = (0..40).map(|number| match number % 17 {
            3 => String::new(),
            5 => format!("{}</s><extra_id_0>", document(number)),
            _ => document(40 * file + number),
        });
        let lines = lines.map(|text| serde_json::json!({ "text": text }).to_string() + "\n");
        fs::write(texts.join(format!("{file}.jsonl")), lines.collect::<String>()).unwrap();
    }
    let text = Corpus::open(&[texts.display().to_string()]).unwrap();
    let own = folder.path().join("tokens");
    let tokens = tokens(&text, &own);
    assert_eq!((tokens.file_count(), tokens.left_out().len()), (5, 1));

    let every = NonZeroU64::new(7).unwrap();
    let part = |split| Some(HoldOut { every, split });
    for options in [
        training(4, 3, 8),
        StreamOptions { hold_out: part(Split::Train), ..training(4, 3, 8) },
        StreamOptions { max_documents: Some(30), ..training(4, 3, 8) },
        StreamOptions { hold_out: part(Split::HeldOut), ..evaluation(4) },
    ] {
        let batches = take(&text, options, DataPosition::default(), 60);
        assert_eq!(take(&tokens, options, DataPosition::default(), 60), batches);
        let middle = batches[batches.len() / 2].position;
        assert_eq!(take(&tokens, options, middle, 9), take(&text, options, middle, 9));
    }

    let path = own.join("00001.tokens");
    let fails = |result: Result<_, TextError>| message(result.map(|_| ()).unwrap_err(), folder.path());
    let other = Tokenizer::train_unigram(documents(200), 140, 30).unwrap();
    let spans = Denoisers::new(&Objective::T5, INPUT_LENGTH, &other).unwrap();
    let mut stream =
        ExampleStream::new(tokens.clone(), other.into(), spans, evaluation(4), DataPosition::default())
            .unwrap();
    assert_snapshot!(fails(stream.next().unwrap().map(drop)), @"tokens/00000.tokens: these tokens are of another vocabulary than the tokenizer's");
    assert_snapshot!(fails(tokens.documents(0, 0).unwrap().unwrap().next().unwrap().unwrap().into_text().map(drop)), @"tokens cannot be read as text: name the text that they were made of");
    assert_snapshot!(fails(tokens.documents(0, 41).map(drop)), @"cannot resume the text at document 41 of tokens/00000.tokens: it has 40 documents; has the data or an option changed?");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 40]).unwrap();
    assert_snapshot!(fails(count_tokens(&path, &tokenizer()).map(drop)), @"tokens/00001.tokens: truncated: the tensors take 7152 bytes, but only 7112 are there");
    // The end of the first document lies behind the second's.
    let mut damaged = whole.clone();
    let ends = whole.len() - 32 - 8 * 40;
    damaged[ends + 6] = 1;
    fs::write(&path, &damaged).unwrap();
    assert_snapshot!(fails(count_tokens(&path, &tokenizer()).map(drop)), @"tokens/00001.tokens: not a file of tokens: its documents do not end one after the other");
    // A token that the vocabulary does not have.
    let mut damaged = whole;
    damaged[512..514].copy_from_slice(&[0xff, 0xff]);
    fs::write(&path, &damaged).unwrap();
    let first =
        open(&Corpus::open(&[path.display().to_string()]).unwrap(), evaluation(4), DataPosition::default())
            .next();
    assert_snapshot!(fails(first.unwrap().map(drop)), @"cannot tokenize: a file of tokens holds 65535, where the vocabulary has 160 tokens");
}

#[test]
fn tokenising_can_be_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tokens");
    assert_eq!(write_tokens(&corpus(10), 0, &tokenizer(), &path, |_| false).unwrap(), None);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
