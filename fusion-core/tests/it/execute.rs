//! The executor: number types, threads, noise, streaming.

use fusion_core::checkpoint::{Checkpoint, LazyTensor, TensorFile, Writer};
use fusion_core::execute::Executor;
use fusion_core::grow::DirectSum;
use fusion_core::plan::{Fill, FusionPlan, StandardDeviation};
use fusion_core::table::{Axis, ParamSpec, ParamTable, dim};
use fusion_core::{Dtype, HostTensors, TensorSource};
use half::{bf16, f16};

use crate::support::{Sizes, TINY, plan, random, t5};

fn noise(std: StandardDeviation) -> DirectSum {
    DirectSum { cross: Fill::normal(std, 3), ..DirectSum::default() }
}

/// The tensors in another type, through a file.
fn converted(tensors: &HostTensors, directory: &tempfile::TempDir, name: &str, dtype: Dtype) -> TensorFile {
    let path = directory.path().join(name);
    let lazy = tensors.iter().map(|(name, tensor)| {
        let values = tensor.data.iter();
        let bytes: Vec<u8> = match dtype {
            Dtype::F16 => values.flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
            Dtype::BF16 => values.flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
            Dtype::F64 => values.flat_map(|&x| f64::from(x).to_le_bytes()).collect(),
            Dtype::I32 => values.flat_map(|&x| (x as i32).to_le_bytes()).collect(),
            _ => values.flat_map(|&x| x.to_le_bytes()).collect(),
        };
        LazyTensor::of_bytes(name, dtype, tensor.shape.clone(), bytes)
    });
    Writer::default().file(&path, lazy.collect()).unwrap();
    TensorFile::open(&path).unwrap()
}

/// Values that all the types hold exactly, also their halves.
fn exact(table: &ParamTable) -> HostTensors {
    let mut tensors = random(table, 5);
    tensors
        .values_mut()
        .flat_map(|tensor| &mut tensor.data)
        .for_each(|x| *x = (*x * 8.0).round().clamp(-64.0, 64.0));
    tensors
}

#[test]
fn every_type_into_every_other() {
    let directory = tempfile::tempdir().unwrap();
    let table = t5(TINY);
    let tensors = exact(&table);
    let plan = plan(&[&table, &table], &DirectSum::default()).unwrap();
    let expected = Executor::new(&plan, &[&tensors, &tensors]).unwrap().in_memory().unwrap();
    let types = [Dtype::F16, Dtype::BF16, Dtype::F32, Dtype::F64];
    for first in types {
        let a = converted(&tensors, &directory, "a", first);
        for second in types {
            let b = converted(&tensors, &directory, "b", second);
            let sources: [&dyn TensorSource; 2] = [&a, &b];
            let executor = Executor::new(&plan, &sources).unwrap();
            // The narrowest that holds both.
            let wide = match [first, second] {
                [a, b] if a == b => a,
                [a, b] if a == Dtype::F64 || b == Dtype::F64 => Dtype::F64,
                _ => Dtype::F32,
            };
            assert_eq!(executor.param(0).unwrap().dtype, wide);
            assert!(executor.dtypes().unwrap().into_iter().eq([wide]));
            // The head is halved, which all types hold.
            assert_eq!(executor.rounds_to().unwrap(), None);
            assert_eq!(executor.in_memory().unwrap(), expected, "{first} {second}");
            let executor = executor.output_dtype(second).unwrap();
            assert_eq!(executor.param(0).unwrap().dtype, second);
            let rounds = second != wide && matches!(second, Dtype::F16 | Dtype::BF16);
            assert_eq!(executor.rounds_to().unwrap(), rounds.then_some(second));
            assert_eq!(executor.in_memory().unwrap(), expected, "{first} {second}");
        }
    }
    let integers = converted(&tensors, &directory, "c", Dtype::I32);
    let error = Executor::new(&plan, &[&tensors, &integers]).err().unwrap();
    insta::assert_snapshot!(error, @"tensor `shared.weight` has type I32, but only F16, BF16, F32 and F64 can be fused");
    let sources: [&dyn TensorSource; 2] = [&tensors, &tensors];
    let error = Executor::new(&plan, &sources).unwrap().output_dtype(Dtype::U8).err().unwrap();
    insta::assert_snapshot!(error, @"tensor `the output` has type U8, but only F16, BF16, F32 and F64 can be fused");
}

/// A third of a value needs more digits than it has.
#[test]
fn scales_that_are_no_powers_of_two_round() {
    let directory = tempfile::tempdir().unwrap();
    let table = t5(TINY);
    let tensors = exact(&table);
    for (parents, dtype, rounded) in [
        (3, Dtype::BF16, Some(Dtype::BF16)),
        (3, Dtype::F16, Some(Dtype::F16)),
        (3, Dtype::F32, None),
        (4, Dtype::BF16, None),
    ] {
        let plan = plan(&vec![&table; parents], &DirectSum::default()).unwrap();
        let source = converted(&tensors, &directory, "a", dtype);
        let sources: Vec<&dyn TensorSource> = vec![&source; parents];
        assert_eq!(
            Executor::new(&plan, &sources).unwrap().rounds_to().unwrap(),
            rounded,
            "{parents} {dtype}"
        );
    }
}

#[test]
fn rounds_to_nearest_and_refuses_what_does_not_fit() {
    let table =
        ParamTable::new([ParamSpec::new("head", [dim(Axis::Vocab, 3), dim(Axis::Embed, 1)])]).unwrap();
    let plan = plan(&[&table], &DirectSum::default()).unwrap();
    let mut tensors = random(&table, 0);
    // Half-way cases go to the even neighbour; what is above half-way goes up.
    tensors.get_mut("head").unwrap().data =
        vec![1.0 + 1.0 / 2048.0, 1.0 + 1.0 / 2048.0 + f32::EPSILON, -65519.0];
    let sources: [&dyn TensorSource; 1] = [&tensors];
    let executor = || Executor::new(&plan, &sources).unwrap().output_dtype(Dtype::F16).unwrap();
    assert_eq!(executor().in_memory().unwrap()["head"].data, [1.0, 1.0 + 1.0 / 1024.0, -65504.0]);

    tensors.get_mut("head").unwrap().data = vec![f32::NAN, f32::INFINITY, 1.0];
    let sources: [&dyn TensorSource; 1] = [&tensors];
    let executor = || Executor::new(&plan, &sources).unwrap().output_dtype(Dtype::F16).unwrap();
    let data = &executor().in_memory().unwrap()["head"].data;
    assert!(data[0].is_nan() && data[1] == f32::INFINITY && data[2] == 1.0);

    tensors.get_mut("head").unwrap().data = vec![0.0, 65520.0, 1.0];
    let sources: [&dyn TensorSource; 1] = [&tensors];
    let executor = Executor::new(&plan, &sources).unwrap().output_dtype(Dtype::F16).unwrap();
    insta::assert_snapshot!(
        executor.in_memory().unwrap_err(),
        @"parameter `head`: 6.552e4 does not fit F16; choose a wider output type"
    );
    // The error comes out of the writer, too, and no file is left.
    let directory = tempfile::tempdir().unwrap();
    assert!(
        Writer::default()
            .weights(directory.path(), executor.tensors().unwrap())
            .unwrap_err()
            .to_string()
            .contains("does not fit")
    );
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

fn bytes(plan: &FusionPlan, tensors: &HostTensors, threads: usize) -> Vec<Vec<u8>> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let sources: [&dyn TensorSource; 2] = [tensors, tensors];
        let executor = Executor::new(plan, &sources).unwrap();
        (0..plan.params.len()).map(|index| executor.param(index).unwrap().bytes).collect()
    })
}

#[test]
fn threads_do_not_matter() {
    // Wide enough for several chunks in a tensor.
    let table = t5(Sizes { embed: 300, mlp: 200, layers: 1, ..TINY });
    let tensors = random(&table, 2);
    let plan = plan(&[&table, &table], &noise(StandardDeviation::Relative(0.1))).unwrap();
    let one = bytes(&plan, &tensors, 1);
    assert!(one.iter().any(|bytes| bytes.len() > 4 << 16));
    assert!(one == bytes(&plan, &tensors, 2) && one == bytes(&plan, &tensors, 7));
}

#[test]
fn noise_has_the_standard_deviation_asked_for() {
    let layer = |name: &str| ParamSpec::new(name, [dim(Axis::Mlp, 200), dim(Axis::Embed, 300)]);
    let table = ParamTable::new([layer("wi_0"), layer("wi_1")]).unwrap();
    let mut tensors = random(&table, 2);
    // Off zero, to tell the root mean square from the deviation about the mean.
    tensors.values_mut().flat_map(|tensor| &mut tensor.data).for_each(|x| *x = 2.0 * *x + 3.0);
    let rms = |values: &[f32]| {
        (values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
    };
    let cross = |std, name: &str| -> Vec<f32> {
        let plan = plan(&[&table, &table], &noise(std)).unwrap();
        let child = Executor::new(&plan, &[&tensors, &tensors]).unwrap().in_memory().unwrap();
        let rows = child[name].data.chunks(600).enumerate();
        rows.flat_map(|(row, values)| if row < 200 { &values[300..] } else { &values[..300] }.to_vec())
            .collect()
    };
    let absolute = cross(StandardDeviation::Absolute(0.5), "wi_0");
    assert_eq!(absolute.len(), 2 * 200 * 300);
    assert!((rms(&absolute) - 0.5).abs() < 0.005, "{}", rms(&absolute));
    let relative = cross(StandardDeviation::Relative(0.1), "wi_0");
    let expected = 0.1 * rms(&tensors["wi_0"].data);
    assert!((rms(&relative) / expected - 1.0).abs() < 0.01, "{} {expected}", rms(&relative));
    // Parameters get noise of their own.
    let other = cross(StandardDeviation::Absolute(0.5), "wi_1");
    let correlation: f64 = absolute.iter().zip(&other).map(|(a, b)| f64::from(a * b)).sum::<f64>() / 0.25;
    assert!((correlation / absolute.len() as f64).abs() < 0.02);
}

#[test]
fn streaming_is_the_same_as_in_memory() {
    let (a, b) = (t5(TINY), t5(Sizes { kv: 2, embed: 4, ..TINY }));
    let (first, second) = (random(&a, 1), random(&b, 2));
    let plan = plan(&[&a, &b], &noise(StandardDeviation::Relative(0.1))).unwrap();
    let sources: [&dyn TensorSource; 2] = [&first, &second];
    let executor = Executor::new(&plan, &sources).unwrap();
    let expected = executor.in_memory().unwrap();
    let mut hashes = Vec::new();
    // In one file, in shards of a few tensors, and with a file for every tensor.
    for (shard_size, files) in [(u64::MAX, 1), (3000, 4), (1, plan.params.len() + 1)] {
        let directory = tempfile::tempdir().unwrap();
        let hash = Writer::default()
            .shard_size(shard_size)
            .weights(directory.path(), executor.tensors().unwrap())
            .unwrap();
        let written = std::fs::read_dir(directory.path()).unwrap().count();
        if shard_size == 3000 {
            assert!(written >= files, "{written}")
        } else {
            assert_eq!(written, files)
        }
        std::fs::write(directory.path().join("config.json"), "{}").unwrap();
        let checkpoint = Checkpoint::open(directory.path()).unwrap();
        let load = |name: String| (name.clone(), checkpoint.load_f32(&name).unwrap());
        assert_eq!(checkpoint.names().into_iter().map(load).collect::<HostTensors>(), expected);
        assert_eq!(checkpoint.blake3().unwrap(), hash);
        hashes.push(hash);
    }
    // The hash is of the tensors, not of the files.
    assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]));
}

/// One-sided connections fill the blocks on one side of the diagonal with the numbers they would have in both directions.
#[test]
fn connections_in_one_direction() {
    use fusion_core::dense::{Activation, DenseNetwork};
    use fusion_core::plan::Direction;
    // `[out, in]`, and `[in, out]` of the dense network.
    let (table, other) = (t5(TINY), t5(Sizes { embed: 4, heads: 1, kv: 2, mlp: 3, ..TINY }));
    let dense = DenseNetwork::random(&[2, 3, 3, 2], Activation::Relu, 1).unwrap();
    let dense_table = dense.table().unwrap();
    let fused = |direction| {
        let cross = Fill::Normal { std: StandardDeviation::Absolute(1.0), seed: 3, direction };
        let options = DirectSum { cross, ..DirectSum::default() };
        let tensors = [random(&table, 1), random(&other, 2), random(&table, 3)];
        let t5_plan = plan(&[&table, &other, &table], &options).unwrap();
        let t5 =
            Executor::new(&t5_plan, &[&tensors[0], &tensors[1], &tensors[2]]).unwrap().in_memory().unwrap();
        let dense_plan = plan(&[&dense_table, &dense_table], &options).unwrap();
        let dense =
            Executor::new(&dense_plan, &[dense.tensors(), dense.tensors()]).unwrap().in_memory().unwrap();
        [t5["encoder.block.0.layer.1.DenseReluDense.wo.weight"].clone(), dense["layers.1.weight"].clone()]
    };
    let [both, forward, backward] = [Direction::Both, Direction::Forward, Direction::Backward].map(fused);
    // Where a parent's rows and columns begin and end; whether the rows are outputs.
    let sizes: [(&[usize], &[usize], bool); 2] =
        [(&[0, 6, 10, 16], &[0, 5, 8, 13], true), (&[0, 3, 6], &[0, 3, 6], false)];
    for (at, (rows, columns, rows_are_outputs)) in sizes.into_iter().enumerate() {
        let parent =
            |bounds: &[usize], index: usize| bounds.iter().filter(|bound| **bound <= index).count() - 1;
        let width = *columns.last().unwrap();
        for (index, &value) in both[at].data.iter().enumerate() {
            let (row, column) = (parent(rows, index / width), parent(columns, index % width));
            let (output, input) = if rows_are_outputs { (row, column) } else { (column, row) };
            assert_ne!(value, 0.0);
            assert_eq!(forward[at].data[index], if input <= output { value } else { 0.0 });
            assert_eq!(backward[at].data[index], if input >= output { value } else { 0.0 });
        }
    }
    let plan_text = plan(
        &[&table, &other],
        &DirectSum {
            cross: Fill::Normal {
                std: StandardDeviation::Relative(0.01),
                seed: 3,
                direction: Direction::Forward,
            },
            ..DirectSum::default()
        },
    );
    assert!(
        plan_text
            .unwrap()
            .to_string()
            .contains("normal 0.01 × rms (seed 3), from earlier parents into later ones")
    );
}
