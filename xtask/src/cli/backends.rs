use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::dev::build::install;
use crate::dev::feature;
use crate::dev::resources::{is_bundle, is_in_checkout};
use crate::terminal::output::{print, print_json};

/// List the compiled-in backends and their devices
///
/// The names are the values that `--backend` and `--device` take. Each backend's default device comes first.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        let backends = t5_model::backends();
        if self.json {
            let backend = |backend: &&'static dyn t5_model::Backend| json!({ "name": backend.name(), "description": backend.description(), "devices": backend.devices() });
            return print_json(&backends.iter().map(backend).collect::<Vec<_>>());
        }
        let mut text = String::new();
        for backend in backends {
            text += &format!("{}  {}\n", backend.name(), backend.description());
            for device in backend.devices() {
                let precisions: Vec<_> = device.precisions.iter().map(ToString::to_string).collect();
                let (name, description, precisions) =
                    (device.name, device.description, precisions.join(", "));
                text += &format!("    --device {name:<10}  {description}, {precisions}\n");
            }
        }
        for feature in feature::missing() {
            let (Some(backend), name) = (feature.backend, feature.name) else { continue };
            let (what, flags) = match feature.devices {
                None => (backend.to_owned(), format!("--backend {backend}")),
                Some(devices) => {
                    (format!("{backend} on {devices}"), format!("--backend {backend} --device {devices}:0"))
                }
            };
            let needs = feature.needs.unwrap_or("nothing else");
            text += &if is_bundle() {
                format!(
                    "{what}  not in this bundle; `cargo xtask bundle --features {name}` makes one with it\n"
                )
            } else if is_in_checkout() {
                format!("{what}  not compiled in; `{flags} --build` builds it, and it needs {needs}\n")
            } else {
                format!("{what}  not compiled in; `{}` in a checkout installs it\n", install(&[name]))
            };
        }
        print(&text)
    }
}
