use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use t5_model::{Computation, Precision, backends};

use super::model::Model;
use super::protocol::WARM_UP;

/// What trains, on which device, in which precision.
#[derive(Clone, Debug)]
pub struct Contestant {
    framework: Framework,
    how: Computation,
}

#[derive(Clone, Debug, PartialEq)]
enum Framework {
    /// By name.
    Backend(&'static str),
    /// Hugging Face's T5 under PyTorch, perhaps under `torch.compile`.
    Transformers { compiled: bool },
}

impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.framework, self.how.device.as_str()) {
            (Framework::Backend(name), device) => write!(f, "{name} {device}")?,
            (Framework::Transformers { .. }, "cpu") => f.write_str("transformers")?,
            (Framework::Transformers { .. }, device) => write!(f, "transformers {device}")?,
        }
        if self.how.precision != Precision::default() {
            write!(f, " {}", self.how.precision)?;
        }
        match self.framework {
            Framework::Transformers { compiled: true } => f.write_str(" compiled"),
            _ => Ok(()),
        }
    }
}

impl Contestant {
    /// All there are: backends in each precision on each device, and transformers on the CPU and where a backend has CUDA.
    pub fn all() -> Vec<Contestant> {
        let mut all = Vec::new();
        let mut places = vec![("cpu".to_owned(), false)];
        for backend in backends() {
            for device in backend.devices() {
                if device.name.starts_with("cuda") {
                    places.extend([false, true].map(|compiled| (device.name.clone(), compiled)));
                }
                all.extend(device.precisions.iter().map(|&precision| Contestant {
                    framework: Framework::Backend(backend.name()),
                    how: Computation { precision, ..Computation::on(&device.name) },
                }));
            }
        }
        places.sort();
        places.dedup();
        for (device, compiled) in places {
            all.extend([Precision::F32, Precision::Bf16].map(|precision| Contestant {
                framework: Framework::Transformers { compiled },
                how: Computation { precision, ..Computation::on(&device) },
            }));
        }
        all
    }

    /// Those of these names, or all.
    pub fn chosen(names: &[String]) -> Result<Vec<Contestant>> {
        let all = Contestant::all();
        let known: Vec<String> = all.iter().map(ToString::to_string).collect();
        if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
            bail!("there is no contestant {unknown:?}; there are: {}", known.join(", "));
        }
        let wanted = |name: &String| names.is_empty() || names.contains(name);
        Ok(all.into_iter().zip(&known).filter(|(_, name)| wanted(name)).map(|(one, _)| one).collect())
    }

    pub fn needs_python(&self) -> bool {
        matches!(self.framework, Framework::Transformers { .. })
    }

    pub fn on_cpu(&self) -> bool {
        self.how.device.starts_with("cpu")
    }

    /// What starts its worker.
    pub fn command(&self, model: Model, threads: usize, python: Option<&Path>) -> Result<Command> {
        let mut command = match self.framework {
            Framework::Backend(name) => {
                let program = std::env::current_exe().context("this program's file is not known")?;
                let mut command = Command::new(program);
                command.args(["bench", "train-worker", "--model", &model.name(), "--backend", name]);
                command.args(["--precision", &self.how.precision.to_string()]);
                command
            }
            Framework::Transformers { compiled } => {
                let mut command = Command::new(python.context("transformers needs a Python")?);
                command.arg(concat!(
                    env!("CARGO_MANIFEST_DIR"),
                    "/../t5-model/tests/python/bench_transformers.py"
                ));
                command.args(sizes(model)).args(["--optimizer", "fused"]);
                command.args((self.how.precision == Precision::Bf16).then_some("--bf16"));
                command.args(compiled.then_some("--compile"));
                command
            }
        };
        command.args(["--device", &self.how.device, "--threads", &threads.to_string()]);
        Ok(command)
    }
}

/// The model and its batch as options of `bench_transformers.py`.
fn sizes(model: Model) -> Vec<String> {
    let (config, [batch, input, target]) = (model.config(), model.sizes());
    [
        ("vocabulary", config.vocab_size),
        ("d-model", config.d_model),
        ("d-kv", config.d_kv),
        ("heads", config.num_heads),
        ("d-ff", config.d_ff),
        ("layers", config.num_layers),
        ("decoder-layers", config.num_decoder_layers()),
        ("batch", batch),
        ("input-length", input),
        ("target-length", target),
        ("warm-up", WARM_UP as usize),
    ]
    .into_iter()
    .flat_map(|(name, value)| [format!("--{name}"), value.to_string()])
    .collect()
}

#[cfg(test)]
mod tests {
    use t5_model::{Computation, Precision};

    use super::{Contestant, Framework};

    #[test]
    fn names_say_what_is_not_usual() {
        let name = |framework, device: &str, precision| {
            Contestant { framework, how: Computation { precision, ..Computation::on(device) } }.to_string()
        };
        let transformers = |compiled| Framework::Transformers { compiled };
        assert_eq!(name(Framework::Backend("burn"), "cpu", Precision::F32), "burn cpu");
        assert_eq!(name(Framework::Backend("tch"), "cpu", Precision::Bf16), "tch cpu bf16");
        assert_eq!(name(transformers(false), "cpu", Precision::F32), "transformers");
        assert_eq!(name(transformers(false), "cpu", Precision::Bf16), "transformers bf16");
        assert_eq!(name(transformers(true), "cuda:0", Precision::F32), "transformers cuda:0 compiled");
    }
}
