//! Fuses two models of T5-Small's size (77 M parameters each, f32) into one of T5-Medium's, from files to a file, and
//! compares that with copying a file of the child's size. Both sync to the disk.

use std::fs::File;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fusion_core::TensorSource;
use fusion_core::checkpoint::{LazyTensor, TensorFile, Writer};
use fusion_core::execute::Executor;
use fusion_core::grow::DirectSum;
use fusion_core::plan::{Fill, StandardDeviation};
use fusion_core::random::Philox;

#[allow(dead_code, reason = "the bench uses a part")]
#[path = "../tests/it/support.rs"]
mod support;

fn fuse(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let table = support::t5(support::T5_SMALL);
    let parents = ["a", "b"].map(|name| {
        let path = directory.path().join(name);
        let tensors = support::random(&table, u64::from(name.as_bytes()[0]));
        Writer::default().weights(&path, LazyTensor::all(&tensors).unwrap()).unwrap();
        TensorFile::open(&path.join("model.safetensors")).unwrap()
    });
    let sources: [&dyn TensorSource; 2] = [&parents[0], &parents[1]];
    let child = directory.path().join("child");

    let mut group = criterion.benchmark_group("t5_small_pair");
    group.sample_size(10);
    let noise = Fill::normal(StandardDeviation::Relative(0.01), 1);
    for (name, cross) in [("fuse_zero", Fill::Zero), ("fuse_normal", noise)] {
        let plan = support::plan(&[&table, &table], &DirectSum { cross, ..DirectSum::default() }).unwrap();
        let executor = Executor::new(&plan, &sources).unwrap();
        group.throughput(Throughput::Bytes(4 * plan.parameter_count()));
        group.bench_function(name, |bencher| {
            bencher.iter(|| Writer::default().weights(&child, executor.tensors().unwrap()).unwrap());
        });
        group.bench_function(format!("{name}_without_writing"), |bencher| {
            bencher.iter(|| {
                (0..plan.params.len()).for_each(|index| drop(black_box(executor.param(index).unwrap())))
            });
        });
    }
    let (original, copy) = (child.join("model.safetensors"), child.join("copy.safetensors"));
    group.bench_function("copy", |bencher| {
        bencher.iter(|| {
            std::fs::copy(&original, &copy).unwrap();
            File::open(&copy).unwrap().sync_all().unwrap();
        });
    });
    group.finish();
}

fn random(criterion: &mut Criterion) {
    let mut out = vec![0.0; 1 << 20];
    let mut group = criterion.benchmark_group("random");
    group.throughput(Throughput::Elements(out.len() as u64));
    let stream = Philox::new(1, "bench");
    group.bench_function("uniform", |bencher| bencher.iter(|| stream.fill_uniform(0, black_box(&mut out))));
    group
        .bench_function("normal", |bencher| bencher.iter(|| stream.fill_normal(0, 1.0, black_box(&mut out))));
    group.finish();
}

criterion_group!(benches, random, fuse);
criterion_main!(benches);
