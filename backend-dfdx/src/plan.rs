//! Executes plans on dfdx's tensors.

use std::error::Error;

use dfdx::prelude::*;
use fusion_core::HostTensor;
use fusion_core::execute::{PlacedBox, PlanDevice};

use crate::tensor::{tensor, values, values_mut};

/// Ranks are types in dfdx: leading axes of size 1 give every tensor four.
const AXES: usize = 4;
type FourAxes = Tensor<(usize, usize, usize, usize), f32, Cpu>;

/// dfdx as a device that executes plans.
#[derive(Default)]
pub struct DfdxPlans {
    device: Cpu,
}

impl DfdxPlans {
    fn tensor(&self, HostTensor { shape, data }: HostTensor) -> FourAxes {
        let [a, b, c, d] = in_front(1, &shape);
        tensor(&self.device, data, (a, b, c, d))
    }
}

/// Pads sizes or offsets to four axes, with `what` in front.
fn in_front(what: usize, of: &[usize]) -> [usize; AXES] {
    let mut all = [what; AXES];
    all[AXES - of.len()..].copy_from_slice(of);
    all
}

/// Adds a box to `sum`, row by row; dfdx cannot assign to a slice.
fn add_at(sum: &mut FourAxes, part: &FourAxes, at: [usize; AXES]) {
    let (sizes, extent) = (sum.shape().concrete(), part.shape().concrete());
    let start = |[a, b, c]: [usize; 3]| {
        (((at[0] + a) * sizes[1] + at[1] + b) * sizes[2] + at[2] + c) * sizes[3] + at[3]
    };
    let rows = (0..extent[0]).flat_map(|a| (0..extent[1]).map(move |b| (a, b)));
    let rows = rows.flat_map(|(a, b)| (0..extent[2]).map(move |c| [a, b, c]));
    let sum = values_mut(sum);
    for (row, part) in rows.zip(values(part).chunks(extent[3])) {
        let there = &mut sum[start(row)..][..part.len()];
        there.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
}

impl PlanDevice for DfdxPlans {
    fn add_boxes(
        &self,
        shape: &[usize],
        base: Option<HostTensor>,
        boxes: Vec<PlacedBox>,
    ) -> Result<HostTensor, Box<dyn Error + Send + Sync>> {
        if shape.len() > AXES {
            return Err(format!("it has {} axes, more than {AXES}", shape.len()).into());
        }
        let mut sum = self.tensor(base.unwrap_or_else(|| HostTensor::zeros(shape)));
        for PlacedBox { source, from, at, extent, scale } in boxes {
            let (from, extent) = (in_front(0, &from), in_front(1, &extent));
            let [a, b, c, d] = std::array::from_fn(|axis| from[axis]..from[axis] + extent[axis]);
            let part = self.tensor(source).slice((a, b, c, d)) * scale as f32;
            add_at(&mut sum, &part, in_front(0, &at));
        }
        Ok(HostTensor { shape: shape.to_vec(), data: values(&sum).to_vec() })
    }
}
