//! Text to training examples: tokenising, and span corruption by itself.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use t5_model::text::{ChunkKey, Corpus, SpanCorruption, Tokenizer};

fn text(criterion: &mut Criterion) {
    let data = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data"));
    let (documents, tokenizer): (Vec<String>, _) = if data.is_dir() {
        let c4 = data.join("text/c4/c4-train.first1000.json.gz").display().to_string();
        let documents = Corpus::open(&[c4]).and_then(|corpus| corpus.documents(0, 0)).expect("C4 sample");
        let documents = documents
            .into_iter()
            .flatten()
            .map(|document| document?.into_text())
            .collect::<Result<_, _>>()
            .expect("C4 sample");
        (documents, Tokenizer::load(data.join("tokenizer")).expect("T5 vocabulary"))
    } else {
        let word =
            |number: usize| format!("{}{}", ["wal", "rem", "tin", "os"][number % 4], number * number % 977);
        let document = |number: usize| (0..400).map(|i| word(number + i * i)).collect::<Vec<_>>().join(" ");
        let documents: Vec<_> = (0..500).map(document).collect();
        let tokenizer = Tokenizer::train_unigram(&documents, 2000, 100).expect("vocabulary");
        (documents, tokenizer)
    };
    let tokenizer = Arc::new(tokenizer);
    let tokens: Vec<i32> = tokenizer.encode_batch(&documents).expect("tokens").concat();

    let mut group = criterion.benchmark_group("text");
    group.sample_size(10);
    group.throughput(Throughput::Elements(tokens.len() as u64));
    group
        .bench_function("tokenize", |bencher| bencher.iter(|| tokenizer.encode_batch(black_box(&documents))));
    let spans = SpanCorruption::new(512, 0.15, 3.0, &tokenizer).expect("512 tokens");
    group.bench_function("corrupt", |bencher| {
        bencher.iter(|| {
            let (mut inputs, mut targets) = (Vec::new(), Vec::new());
            for (chunk, tokens) in tokens.chunks_exact(spans.lengths().tokens).enumerate() {
                let key = ChunkKey { seed: 1, epoch: 0, chunk: chunk as u64 };
                spans.corrupt(black_box(tokens), key, &mut inputs, &mut targets).expect("chunk");
            }
            (inputs, targets)
        });
    });
    group.finish();
}

criterion_group!(benches, text);
criterion_main!(benches);
