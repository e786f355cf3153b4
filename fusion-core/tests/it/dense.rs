//! Equations 1 to 5 on random dense networks.

use fusion_core::dense::{Activation, DenseNetwork};
use fusion_core::execute::Executor;
use fusion_core::grow::DirectSum;
use fusion_core::random::Philox;
use fusion_core::table::ParamTable;
use fusion_core::{HostTensors, TensorSource};
use proptest::prelude::*;

use crate::support::plan;

fn fuse(parents: &[&DenseNetwork], activation: Activation) -> DenseNetwork {
    let tables: Vec<ParamTable> = parents.iter().map(|parent| parent.table().unwrap()).collect();
    let plan = plan(&tables.iter().collect::<Vec<_>>(), &DirectSum::default()).unwrap();
    let sources: Vec<&dyn TensorSource> = parents.iter().map(|parent| parent.tensors() as _).collect();
    let tensors: HostTensors = Executor::new(&plan, &sources).unwrap().in_memory().unwrap();
    DenseNetwork::new(tensors, activation).unwrap()
}

fn close(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-5 * (1.0 + a.abs()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn concatenates_features_and_averages_logits(
        hidden in (0..4usize).prop_flat_map(|depth| {
            prop::collection::vec(prop::collection::vec(1..9usize, depth), 2..5)
        }),
        (input, output) in (1..6usize, 1..6usize),
        seed: u64,
        relu: bool,
    ) {
        let activation = if relu { Activation::Relu } else { Activation::Tanh };
        let networks: Vec<DenseNetwork> = hidden
            .iter()
            .enumerate()
            .map(|(i, hidden)| {
                let widths = [&[input], hidden.as_slice(), &[output]].concat();
                DenseNetwork::random(&widths, activation, seed.wrapping_add(i as u64)).unwrap()
            })
            .collect();
        let child = fuse(&networks.iter().collect::<Vec<_>>(), activation);
        let mut x = vec![0.0; input];
        Philox::new(seed, "x").fill_normal(0, 1.0, &mut x);
        let parents: Vec<Vec<Vec<f32>>> = networks.iter().map(|network| network.forward(&x).unwrap()).collect();
        let fused = child.forward(&x).unwrap();
        let (logits, features) = fused.split_last().unwrap();
        for (layer, features) in features.iter().enumerate() {
            let concatenation: Vec<f32> = parents.iter().flat_map(|parent| parent[layer].clone()).collect();
            prop_assert!(close(features, &concatenation));
        }
        let average: Vec<f32> = (0..output)
            .map(|i| parents.iter().map(|parent| parent.last().unwrap()[i]).sum::<f32>() / parents.len() as f32)
            .collect();
        prop_assert!(close(logits, &average), "{logits:?} {average:?}");
    }

    #[test]
    fn self_fusion_changes_no_prediction(times in 1..5usize, hidden in 1..9usize, seed: u64) {
        let network = DenseNetwork::random(&[3, hidden, hidden, 2], Activation::Tanh, seed).unwrap();
        let child = fuse(&vec![&network; times], Activation::Tanh);
        let x = [0.3, -0.7, 1.1];
        let (before, after) = (network.forward(&x).unwrap(), child.forward(&x).unwrap());
        prop_assert!(close(&before[2], &after[2]));
        prop_assert_eq!(after[1].len(), times * hidden);
    }
}

#[test]
fn error_messages() {
    let network = DenseNetwork::random(&[2, 3, 1], Activation::Relu, 0).unwrap();
    let damaged = |damage: &dyn Fn(&mut HostTensors)| {
        let mut tensors = network.tensors().clone();
        damage(&mut tensors);
        DenseNetwork::new(tensors, Activation::Relu).unwrap_err().to_string()
    };
    let messages = [
        network.forward(&[1.0]).unwrap_err().to_string(),
        damaged(&|tensors| tensors.clear()),
        damaged(&|tensors| drop(tensors.remove("layers.1.bias"))),
        damaged(&|tensors| tensors.get_mut("layers.1.weight").unwrap().shape = vec![1, 3]),
        damaged(&|tensors| tensors.get_mut("layers.1.weight").unwrap().shape = vec![3]),
        damaged(&|tensors| tensors.get_mut("layers.0.bias").unwrap().data.truncate(2)),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}
