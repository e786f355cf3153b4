//! Executes plans on libtorch's tensors.

use std::error::Error;

use fusion_core::HostTensor;
use fusion_core::execute::{PlacedBox, PlanDevice};
use tch::{Device, Kind, Tensor};

use crate::tensor::{host, sizes, upload};

/// A device that executes plans.
pub struct TchPlans {
    device: Device,
}

impl TchPlans {
    pub fn new(device: Device) -> Self {
        TchPlans { device }
    }

    fn tensor(&self, tensor: &HostTensor) -> Tensor {
        upload(&tensor.data, &sizes(&tensor.shape), self.device)
    }
}

/// A view of a box of a tensor.
fn view(tensor: &Tensor, start: &[usize], extent: &[usize]) -> Tensor {
    let axes = start.iter().zip(extent).enumerate();
    axes.fold(tensor.shallow_clone(), |tensor, (axis, (start, extent))| {
        tensor.narrow(axis as i64, *start as i64, *extent as i64)
    })
}

impl PlanDevice for TchPlans {
    fn add_boxes(
        &self,
        shape: &[usize],
        base: Option<HostTensor>,
        boxes: Vec<PlacedBox>,
    ) -> Result<HostTensor, Box<dyn Error + Send + Sync>> {
        let sum = match base {
            Some(base) => self.tensor(&base),
            None => Tensor::f_zeros(sizes(shape), (Kind::Float, self.device))?,
        };
        for PlacedBox { source, from, at, extent, scale } in boxes {
            let part = view(&self.tensor(&source), &from, &extent);
            let part = if scale == 1.0 { part } else { part * scale };
            let _ = view(&sum, &at, &extent).f_add_(&part)?;
        }
        Ok(host(&sum))
    }
}
