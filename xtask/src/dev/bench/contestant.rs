use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use t5_model::{Computation, Precision, backends};

use super::python;
use crate::dev::resources::{SCRIPTS, resource};

/// A framework on a device in a precision.
#[derive(Clone, Debug)]
pub struct Contestant {
    framework: Framework,
    how: Computation,
}

#[derive(Clone, Debug, PartialEq)]
enum Framework {
    /// A backend by name.
    Backend(&'static str),
    /// Hugging Face's T5 under PyTorch. The variant's words are options of the script; it is empty for the
    /// default.
    Transformers { variant: &'static str },
    /// Only generates answers.
    CTranslate2,
}

impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.framework())?;
        if !self.needs_python() || self.how.device != "cpu" {
            write!(f, " {}", self.how.device)?;
        }
        if self.how.precision != Precision::default() {
            write!(f, " {}", self.how.precision)?;
        }
        match self.variant() {
            "" => Ok(()),
            variant => write!(f, " {variant}"),
        }
    }
}

impl Contestant {
    /// All contestants: backends in each precision on each device, and transformers in its variants on the
    /// CPU and on CUDA devices that a backend has.
    pub fn all(on_cpu: &[&'static str], on_cuda: &[&'static str]) -> Vec<Contestant> {
        let mut all = Vec::new();
        let mut places: BTreeSet<_> = on_cpu.iter().map(|variant| ("cpu".to_owned(), *variant)).collect();
        for backend in backends() {
            for device in backend.devices() {
                if device.name.starts_with("cuda") {
                    places.extend(on_cuda.iter().map(|variant| (device.name.clone(), *variant)));
                }
                all.extend(device.precisions.iter().map(|&precision| Contestant {
                    framework: Framework::Backend(backend.name()),
                    how: Computation { precision, ..Computation::on(&device.name) },
                }));
            }
        }
        for (device, variant) in places {
            all.extend([Precision::F32, Precision::Bf16].map(|precision| Contestant {
                framework: Framework::Transformers { variant },
                how: Computation { precision, ..Computation::on(&device) },
            }));
        }
        all
    }

    /// CTranslate2 on the CPU in f32.
    pub fn ctranslate2() -> Contestant {
        Contestant { framework: Framework::CTranslate2, how: Computation::on("cpu") }
    }

    /// The contestants on a device.
    pub fn on(device: &str, all: Vec<Contestant>) -> Result<Vec<Contestant>> {
        let devices: BTreeSet<&str> = all.iter().map(Contestant::device).collect();
        if !devices.contains(device) {
            let known = Vec::from_iter(devices).join(", ");
            bail!("there is no contestant on {device:?}; there are some on: {known}");
        }
        Ok(all.into_iter().filter(|one| one.how.device == device).collect())
    }

    /// The contestants with these names, or all.
    pub fn chosen(all: Vec<Contestant>, names: &[String]) -> Result<Vec<Contestant>> {
        let known: Vec<String> = all.iter().map(ToString::to_string).collect();
        if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
            bail!("there is no contestant {unknown:?}; there are: {}", known.join(", "));
        }
        let wanted = |name: &String| names.is_empty() || names.contains(name);
        Ok(all.into_iter().zip(&known).filter(|(_, name)| wanted(name)).map(|(one, _)| one).collect())
    }

    pub fn needs_python(&self) -> bool {
        !matches!(self.framework, Framework::Backend(_))
    }

    /// Needed in addition to what transformers needs, which reads the checkpoints.
    pub fn needs_ctranslate2(&self) -> bool {
        self.framework == Framework::CTranslate2
    }

    /// The framework's name.
    pub fn framework(&self) -> &'static str {
        match self.framework {
            Framework::Backend(name) => name,
            Framework::Transformers { .. } => "transformers",
            Framework::CTranslate2 => "ctranslate2",
        }
    }

    fn variant(&self) -> &'static str {
        match self.framework {
            Framework::Transformers { variant } => variant,
            Framework::Backend(_) | Framework::CTranslate2 => "",
        }
    }

    pub fn on_cpu(&self) -> bool {
        self.how.is_on_cpu()
    }

    pub fn device(&self) -> &str {
        &self.how.device
    }

    /// The command that starts this contestant's worker: this program's subcommand of that name, or a Python
    /// script.
    pub fn command(&self, worker: &str, script: &str, python: Option<&Path>) -> Result<Command> {
        let mut command = match self.framework {
            Framework::Backend(name) => {
                let program = std::env::current_exe().context("this program's file is not known")?;
                let mut command = Command::new(program);
                command.args(["bench", worker, "--backend", name]);
                command.args(["--precision", &self.how.precision.to_string()]);
                command
            }
            Framework::Transformers { .. } | Framework::CTranslate2 => {
                let mut command = python::call(python.context("there is no Python")?);
                command.arg(resource(SCRIPTS)?.join(script));
                command.args((self.how.precision == Precision::Bf16).then_some("--bf16"));
                command.args(self.variant().split_whitespace().map(|word| format!("--{word}")));
                command
            }
        };
        command.args(["--device", &self.how.device, "--threads", &rayon::current_num_threads().to_string()]);
        Ok(command)
    }
}

#[cfg(test)]
impl Contestant {
    pub fn transformers(device: &str, variant: &'static str) -> Self {
        Contestant { framework: Framework::Transformers { variant }, how: Computation::on(device) }
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
        assert_eq!(
            name(transformers("sdpa compiled"), "cuda:0", Precision::Bf16),
            "transformers cuda:0 bf16 sdpa compiled"
        );
        assert_eq!(Contestant::ctranslate2().to_string(), "ctranslate2");
    }
}
