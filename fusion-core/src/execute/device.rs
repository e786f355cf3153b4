//! Executes plans on a device: the host draws what is random; the device places, scales and adds.

use super::produce::Production;
use crate::plan::{PlannedParam, shape};
use crate::{Error, HostTensor, Result};

/// A box of a tensor that is added to a box of another. Both tensors have the plan's logical dimensions:
/// `[heads, kv, embed]` for a projection.
#[derive(Clone, Debug, PartialEq)]
pub struct PlacedBox {
    /// The tensor that is added.
    pub source: HostTensor,
    /// Where the box begins in the source.
    pub from: Vec<usize>,
    /// Where it begins in the sum.
    pub at: Vec<usize>,
    /// The size of the box.
    pub extent: Vec<usize>,
    /// What the values are multiplied by.
    pub scale: f64,
}

/// A device that executes plans, in f32.
pub trait PlanDevice: Sync {
    /// Adds the boxes, one after the other, to `base`, or to zeros of that shape.
    ///
    /// # Errors
    /// Whatever the device reports.
    fn add_boxes(
        &self,
        shape: &[usize],
        base: Option<HostTensor>,
        boxes: Vec<PlacedBox>,
    ) -> Result<HostTensor, Box<dyn std::error::Error + Send + Sync>>;
}

/// All elements of a parameter. The draws are those of the host; sums and products are rounded at every step.
pub(crate) fn produce_on(device: &dyn PlanDevice, production: &Production<'_>) -> Result<HostTensor> {
    let param = production.param();
    let sizes: Vec<usize> = param.factors().map(|factor| factor.size).collect();
    let base = production.has_rest().then(|| production.rest()).transpose()?;
    let base = base.map(|data| HostTensor { shape: sizes.clone(), data });
    let boxes = (0..param.placements.len()).flat_map(|index| boxes(production, param, index)).collect();
    let failed = |source| Error::Device { parameter: param.name.clone(), source };
    let HostTensor { data, .. } = device.add_boxes(&sizes, base, boxes).map_err(failed)?;
    Ok(HostTensor { shape: shape(&sizes, &param.dims), data })
}

/// A placement's values, followed by its noise.
fn boxes(production: &Production<'_>, param: &PlannedParam, index: usize) -> Vec<PlacedBox> {
    let Some(placement) = param.placements.get(index) else { return Vec::new() };
    let from = placement.from.as_ref().map_or(vec![0; placement.offset.len()], |from| from.offset.clone());
    let placed = |data: Vec<f32>, scale: f64| PlacedBox {
        source: HostTensor { shape: placement.source_sizes().to_vec(), data },
        from: from.clone(),
        at: placement.offset.clone(),
        extent: placement.extent.clone(),
        scale,
    };
    let values = placed(production.source(index), placement.scale);
    let noise = production.noise(index).map(|noise| placed(noise, 1.0));
    [Some(values), noise].into_iter().flatten().collect()
}
