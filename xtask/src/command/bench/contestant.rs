use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use t5_model::{Computation, Precision, backends};

use super::python;
use crate::resources::{SCRIPTS, resource};

/// What computes, on which device, in which precision.
#[derive(Clone, Debug)]
pub struct Contestant {
    framework: Framework,
    how: Computation,
}

#[derive(Clone, Debug, PartialEq)]
enum Framework {
    /// By name.
    Backend(&'static str),
    /// Hugging Face's T5 under PyTorch, in a way that has a name, if it is not the usual one.
    Transformers { variant: &'static str },
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
            Framework::Transformers { variant } if !variant.is_empty() => write!(f, " {variant}"),
            _ => Ok(()),
        }
    }
}

impl Contestant {
    /// All there are: backends in each precision on each device, and transformers in its variants on the CPU and where a
    /// backend has CUDA.
    pub fn all(on_cpu: &[&'static str], on_cuda: &[&'static str]) -> Vec<Contestant> {
        let mut all = Vec::new();
        let place = |device: &str, variants: &[&'static str]| -> Vec<(String, &'static str)> {
            variants.iter().map(|variant| (device.to_owned(), *variant)).collect()
        };
        let mut places = place("cpu", on_cpu);
        for backend in backends() {
            for device in backend.devices() {
                if device.name.starts_with("cuda") {
                    places.extend(place(&device.name, on_cuda));
                }
                all.extend(device.precisions.iter().map(|&precision| Contestant {
                    framework: Framework::Backend(backend.name()),
                    how: Computation { precision, ..Computation::on(&device.name) },
                }));
            }
        }
        places.sort();
        places.dedup();
        for (device, variant) in places {
            all.extend([Precision::F32, Precision::Bf16].map(|precision| Contestant {
                framework: Framework::Transformers { variant },
                how: Computation { precision, ..Computation::on(&device) },
            }));
        }
        all
    }

    /// Those of these names, or all.
    pub fn chosen(all: Vec<Contestant>, names: &[String]) -> Result<Vec<Contestant>> {
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

    /// What starts a worker that computes as this one does: this program's command of that name, or a Python script.
    pub fn command(&self, worker: &str, script: &str, python: Option<&Path>) -> Result<Command> {
        let mut command = match self.framework {
            Framework::Backend(name) => {
                let program = std::env::current_exe().context("this program's file is not known")?;
                let mut command = Command::new(program);
                command.args(["bench", worker, "--backend", name]);
                command.args(["--precision", &self.how.precision.to_string()]);
                command
            }
            Framework::Transformers { variant } => {
                let mut command = python::call(python.context("transformers needs a Python")?);
                command.arg(resource(SCRIPTS).join(script));
                command.args((self.how.precision == Precision::Bf16).then_some("--bf16"));
                command.args((!variant.is_empty()).then(|| format!("--{variant}")));
                command
            }
        };
        command.args(["--device", &self.how.device, "--threads", &rayon::current_num_threads().to_string()]);
        Ok(command)
    }
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
        let transformers = |variant| Framework::Transformers { variant };
        assert_eq!(name(Framework::Backend("burn"), "cpu", Precision::F32), "burn cpu");
        assert_eq!(name(Framework::Backend("tch"), "cpu", Precision::Bf16), "tch cpu bf16");
        assert_eq!(name(transformers(""), "cpu", Precision::F32), "transformers");
        assert_eq!(name(transformers(""), "cpu", Precision::Bf16), "transformers bf16");
        assert_eq!(name(transformers("compiled"), "cuda:0", Precision::F32), "transformers cuda:0 compiled");
    }
}
