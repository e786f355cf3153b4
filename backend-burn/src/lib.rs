//! The burn framework as a backend: flex on the CPU, with T5's operations as fused kernels.

mod flex;
mod kernels;

use fusion_core::TensorSource;
use t5_model::{Backend, DeviceInfo, Error, ModelSession, Session, SessionError, T5Config};

struct Burn;

inventory::submit!(&Burn as &'static dyn Backend);

impl Backend for Burn {
    fn name(&self) -> &'static str {
        "burn"
    }

    fn description(&self) -> &'static str {
        "burn 0.22.1"
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        let threads = rayon::current_num_threads();
        vec![DeviceInfo { name: "cpu".into(), description: format!("flex, f32, {threads} threads") }]
    }

    fn open(
        &self,
        device: &str,
        config: &T5Config,
        weights: &dyn TensorSource,
    ) -> Result<Box<dyn Session>, SessionError> {
        match device {
            "cpu" => Ok(Box::new(ModelSession::new(flex::FlexOps::default(), config, weights)?)),
            _ => {
                let available = self.devices().into_iter().map(|device| device.name).collect::<Vec<_>>();
                Err(Error::NoDevice {
                    backend: self.name().into(),
                    device: device.into(),
                    available: available.join(", "),
                }
                .into())
            }
        }
    }
}
