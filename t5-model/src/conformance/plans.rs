//! Executing plans on a device, against the host.

use fusion_core::execute::{Executor, PlanDevice};
use fusion_core::grow::DirectSum;
use fusion_core::plan::{Direction, Fill, Normalisation, StandardDeviation};
use fusion_core::{HostTensor, HostTensors, TensorSource};

use super::references::deviations;
use super::{Check, random_weights};
use crate::method::{
    Arrangement, DepthAlignment, Fuse, FusionParent, Grown, GrowthMethod, HyperClone, Lemon, Net2Net,
    NewBlocks, SelfFusion, Stack, Widths,
};
use crate::{Result, SessionError, T5Config};

/// Two roundings more than the host's one.
const ALLOWED: f64 = 2e-7;

/// A small fusion: its plan, and a source for each of its parents.
struct FusionCase {
    name: &'static str,
    grown: Grown,
    sources: Vec<HostTensors>,
}

impl FusionCase {
    /// The child; the host's, if there is no device.
    fn execute(&self, device: Option<&dyn PlanDevice>) -> Result<HostTensors> {
        let sources: Vec<_> = self.sources.iter().map(|source| source as &dyn TensorSource).collect();
        let executor = Executor::new(&self.grown.plan, &sources)?;
        Ok(match device {
            Some(device) => executor.on(device).in_memory()?,
            None => executor.in_memory()?,
        })
    }
}

/// Executes small plans of every method on a device and on the host.
pub fn plan_execution(device: &dyn PlanDevice) -> Result<Vec<Check>, SessionError> {
    let check = |case: FusionCase| {
        Check::run(format!("plan: {}", case.name), ALLOWED, || {
            let (expected, found) = (case.execute(None)?, case.execute(Some(device))?);
            Ok(deviations(&found, &expected))
        })
    };
    fusion_cases()?.into_iter().map(check).collect()
}

/// The text that snapshots hold of these plans and their children. It is the same for the host (no device)
/// and for every device.
pub fn fused_models(device: Option<&dyn PlanDevice>) -> Result<String> {
    let model = |case: FusionCase| {
        Ok(format!("# {}\n\n{}\n{}\n", case.name, case.grown.plan, digest(&case.execute(device)?)))
    };
    fusion_cases()?.into_iter().map(model).collect()
}

/// A tensor a line: its name, shape, mean and root mean square to five digits.
fn digest(model: &HostTensors) -> String {
    let line = |(name, tensor): (&String, &HostTensor)| {
        let mean = |power: i32| {
            tensor.data.iter().map(|value| f64::from(*value).powi(power)).sum::<f64>()
                / tensor.data.len() as f64
        };
        format!("{name} {:?} mean {:.4e} rms {:.4e}\n", tensor.shape, mean(1), mean(2).sqrt())
    };
    model.iter().map(line).collect()
}

/// Fusions of every method, of unequal parents, and with every kind of filling.
fn fusion_cases() -> Result<Vec<FusionCase>> {
    let small = parent("small", [6, 2, 3, 5, 1, 2]);
    let large = parent("large", [8, 1, 4, 7, 2, 1]);
    let pair = [small, large];
    let (small, large) = pair.split_at(1);
    let noise = StandardDeviation::Relative(0.1);
    let direct_sum = |cross, weights| DirectSum { normalisation: Normalisation::Property, cross, weights };
    let joined = |sum, depth| Fuse { sum, depth }.grow(&pair);
    let one_way = |direction| Fill::Normal { std: noise, seed: 3, direction };
    let widths = Widths { d_model: Some(12), num_heads: Some(5), d_ff: Some(13) };
    let silent = Stack { times: 2, arrangement: Arrangement::Interleave, new_blocks: NewBlocks::Silent };
    let grown = [
        ("fuse", 2, joined(DirectSum::default(), DepthAlignment::Bottom)?),
        ("fuse, normal", 2, joined(direct_sum(Fill::normal(noise, 7), None), DepthAlignment::Top)?),
        ("fuse, forward", 2, joined(direct_sum(one_way(Direction::Forward), None), DepthAlignment::Top)?),
        ("fuse, backward", 2, joined(direct_sum(one_way(Direction::Backward), None), DepthAlignment::Top)?),
        ("fuse, weighted", 2, joined(direct_sum(Fill::Zero, Some(vec![0.3, 0.7])), DepthAlignment::Spread)?),
        ("self", 1, SelfFusion { times: 3, sum: direct_sum(Fill::normal(noise, 1), None) }.grow(small)?),
        ("hyperclone", 1, HyperClone { times: 3, noise: Some((noise, 5)) }.grow(small)?),
        ("net2net", 1, Net2Net { widths, seed: 2, noise: Some((noise, 6)) }.grow(small)?),
        ("lemon", 1, Lemon { widths, seed: 2 }.grow(small)?),
        ("stack", 1, silent.grow(small)?),
    ];
    let own = [random_weights(&small[0].config, 11)?, random_weights(&large[0].config, 12)?];
    let case = |(name, models, grown): (&'static str, usize, Grown)| {
        let parents = grown.plan.parents.len();
        let sources = (0..parents).filter_map(|index| own.get(index.min(models - 1)).cloned()).collect();
        FusionCase { name, grown, sources }
    };
    Ok(grown.into_iter().map(case).collect())
}

/// d_model, heads, d_kv, d_ff, encoder and decoder layers.
fn parent(label: &str, [d_model, heads, d_kv, d_ff, encoder, decoder]: [usize; 6]) -> FusionParent {
    let mut config = T5Config::v1_1(19, d_model, heads, d_kv, d_ff, encoder);
    config.set_num_decoder_layers(decoder);
    FusionParent { label: label.into(), config, blake3: None, path: label.into() }
}
