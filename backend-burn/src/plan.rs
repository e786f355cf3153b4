//! Executes plans on burn's tensors.

use std::error::Error;

use burn::tensor::{Device, Slice, Tensor, TensorData};
use fusion_core::HostTensor;
use fusion_core::execute::{PlacedBox, PlanDevice};

/// A burn device that executes plans.
pub struct BurnPlans {
    device: Device,
}

impl BurnPlans {
    pub fn new(device: Device) -> Self {
        BurnPlans { device }
    }

    fn tensor<const D: usize>(&self, HostTensor { shape, data }: HostTensor) -> Tensor<D> {
        Tensor::from_data(TensorData::new(data, shape), &self.device)
    }

    fn add<const D: usize>(
        &self,
        shape: &[usize],
        base: Option<HostTensor>,
        boxes: Vec<PlacedBox>,
    ) -> HostTensor {
        let mut sum: Tensor<D> = self.tensor(base.unwrap_or_else(|| HostTensor::zeros(shape)));
        for PlacedBox { source, from, at, extent, scale } in boxes {
            let part = self.tensor::<D>(source).slice(slices::<D>(&from, &extent));
            let part = if scale == 1.0 { part } else { part.mul_scalar(scale) };
            let place = slices::<D>(&at, &extent);
            let there = sum.clone().slice(place);
            sum = sum.slice_assign(place, there + part);
        }
        let data = sum.into_data().iter::<f32>().collect();
        HostTensor { shape: shape.to_vec(), data }
    }
}

fn slices<const D: usize>(start: &[usize], extent: &[usize]) -> [Slice; D] {
    std::array::from_fn(|axis| {
        let start = start.get(axis).copied().unwrap_or(0);
        Slice::from(start..start + extent.get(axis).copied().unwrap_or(1))
    })
}

impl PlanDevice for BurnPlans {
    fn add_boxes(
        &self,
        shape: &[usize],
        base: Option<HostTensor>,
        boxes: Vec<PlacedBox>,
    ) -> Result<HostTensor, Box<dyn Error + Send + Sync>> {
        Ok(match shape.len() {
            1 => self.add::<1>(shape, base, boxes),
            2 => self.add::<2>(shape, base, boxes),
            3 => self.add::<3>(shape, base, boxes),
            4 => self.add::<4>(shape, base, boxes),
            dimensions => return Err(format!("it has {dimensions} axes, more than 4").into()),
        })
    }
}
