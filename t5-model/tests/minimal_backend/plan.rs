//! Executes plans: boxes of tensors are scaled and added one element at a time.

use std::error::Error;

use fusion_core::HostTensor;
use fusion_core::execute::{PlacedBox, PlanDevice};

pub struct MinimalPlans;

impl PlanDevice for MinimalPlans {
    fn add_boxes(
        &self,
        shape: &[usize],
        base: Option<HostTensor>,
        boxes: Vec<PlacedBox>,
    ) -> Result<HostTensor, Box<dyn Error + Send + Sync>> {
        let mut sum = base.unwrap_or_else(|| HostTensor::zeros(shape));
        for PlacedBox { source, from, at, extent, scale } in boxes {
            for index in 0..extent.iter().product() {
                let position = position(index, &extent);
                let value = f64::from(source.data[element(&source.shape, &from, &position)]) * scale;
                sum.data[element(shape, &at, &position)] += value as f32;
            }
        }
        Ok(sum)
    }
}

/// The position of an element in a box stored row by row.
fn position(mut index: usize, extent: &[usize]) -> Vec<usize> {
    let mut position = vec![0; extent.len()];
    for (position, size) in position.iter_mut().zip(extent).rev() {
        *position = index % size;
        index /= size;
    }
    position
}

/// The element of a tensor at a position in a box that begins at `start`.
fn element(shape: &[usize], start: &[usize], position: &[usize]) -> usize {
    let axes = shape.iter().zip(start).zip(position);
    axes.fold(0, |element, ((size, start), position)| element * size + start + position)
}
