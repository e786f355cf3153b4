//! The contract of `forward`, which other programs rely on.

use std::path::Path;

use fusion_core::Dtype;
use fusion_core::checkpoint::{LazyTensor, Writer};

use crate::program::{call, directory, golden, text};

struct Tensor {
    name: &'static str,
    dtype: Dtype,
    shape: Vec<usize>,
    values: Vec<i64>,
}

fn ids(name: &'static str, shape: [usize; 2], values: Vec<i64>) -> Tensor {
    Tensor { name, dtype: Dtype::I64, shape: shape.to_vec(), values }
}

fn write(path: &Path, tensors: &[Tensor]) {
    let lazy = |tensor: &Tensor| {
        let bytes: Vec<u8> = match tensor.dtype {
            Dtype::I32 => tensor.values.iter().flat_map(|value| (*value as i32).to_le_bytes()).collect(),
            _ => tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        };
        LazyTensor::of_bytes(tensor.name, tensor.dtype, tensor.shape.clone(), bytes)
    };
    Writer::default().file(path, tensors.iter().map(lazy).collect()).expect("a file");
}

#[test]
fn errors_name_tensor_type_and_shape() {
    let folder = directory(&[]);
    let input = folder.path().join("in.safetensors");
    let (model, output) = (golden("v1_1"), folder.path().join("out.safetensors"));
    let good = || (ids("input_ids", [1, 2], vec![3, 1]), ids("labels", [1, 2], vec![4, 1]));
    let narrow = |tensor: Tensor| Tensor { dtype: Dtype::I32, ..tensor };
    let flat = |tensor: Tensor| Tensor { shape: vec![2], ..tensor };
    let cases = [
        vec![good().1],
        vec![good().0],
        vec![narrow(good().0), good().1],
        vec![flat(good().0), good().1],
        vec![good().0, ids("labels", [2, 1], vec![4, 1])],
        vec![good().0, ids("labels", [1, 2], vec![4, -1])],
        vec![good().0, good().1, ids("attention_mask", [1, 1], vec![1])],
        vec![good().0, good().1, ids("attention_mask", [1, 2], vec![1, 2])],
        vec![ids("input_ids", [1, 2], vec![3, 1 << 40]), good().1],
    ];
    let mut errors = String::new();
    for tensors in cases {
        write(&input, &tensors);
        let arguments =
            ["forward", "--model", text(&model), "--input", text(&input), "--output", text(&output)];
        errors += &call(&arguments).failure().replace(text(folder.path()), "");
    }
    insta::assert_snapshot!(errors);
    assert!(!output.exists());
}

/// Compared with transformers' logits, loss and gradients.
#[cfg(feature = "burn")]
#[test]
fn the_references_are_met() {
    use fusion_core::TensorSource;
    use fusion_core::checkpoint::TensorFile;

    let folder = directory(&[]);
    let output = folder.path().join("out.safetensors");
    for model in ["v1_0", "v1_1", "gated_tied", "relu_untied"] {
        let directory = golden(model);
        let input = directory.join("reference.safetensors");
        let arguments = [
            "forward",
            "--model",
            text(&directory),
            "--input",
            text(&input),
            "--output",
            text(&output),
            "--grad",
        ];
        call(&arguments).success();
        let (reference, found) =
            (TensorFile::open(&input).expect("a file"), TensorFile::open(&output).expect("a file"));
        assert!(found.names().len() > 20);
        for name in found.names() {
            let (expected, tensor) =
                (reference.load_f32(&name).expect("expected"), found.load_f32(&name).expect("found"));
            assert_eq!(tensor.shape, expected.shape, "{model} {name}");
            let norm =
                |values: &mut dyn Iterator<Item = f32>| values.map(|value| value * value).sum::<f32>().sqrt();
            let difference = norm(&mut tensor.data.iter().zip(&expected.data).map(|(a, b)| a - b));
            let tolerance = if name.starts_with("grad.") { 2e-4 } else { 2e-5 };
            assert!(
                difference <= tolerance * norm(&mut expected.data.iter().copied()).max(1e-6),
                "{model} {name}"
            );
        }
    }
}

#[test]
fn only_an_earlier_result_is_replaced() {
    let folder = directory(&[("empty", ""), ("notes", "mine")]);
    let at = |name: &str| folder.path().join(name);
    let tensors = [ids("input_ids", [1, 2], vec![3, 1]), ids("labels", [1, 2], vec![4, 1])];
    write(&at("in.safetensors"), &tensors);
    let model = golden("v1_1");
    std::fs::copy(model.join("model.safetensors"), at("weights.safetensors")).expect("copied");
    let forward = |output: &str| {
        let (input, output) = (at("in.safetensors"), at(output));
        call(&["forward", "--model", text(&model), "--input", text(&input), "--output", text(&output)])
    };
    for output in ["out", "out", "new/out", "empty"] {
        forward(output).success();
    }
    let before = ["in.safetensors", "weights.safetensors", "notes"].map(|name| std::fs::read(at(name)).ok());
    let mut messages = String::new();
    for output in ["in.safetensors", "weights.safetensors", "notes", "notes/x", "new", "/dev/null", "new/.."]
    {
        messages += &format!("{output}: {}", forward(output).failure());
    }
    let after = ["in.safetensors", "weights.safetensors", "notes"].map(|name| std::fs::read(at(name)).ok());
    assert!(before == after, "nothing has changed");
    insta::assert_snapshot!(messages.replace(text(folder.path()), "DIR"));
}
