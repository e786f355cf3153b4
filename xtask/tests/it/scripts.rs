//! The contestants in a bench.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use tempfile::TempDir;

use crate::program::{call, directory};

/// A script that poses as a Python with everything.
pub fn python(worker: &str) -> TempDir {
    let script = format!("#!/bin/sh\ncase $1 in -c) exit 0 ;; esac\n{worker}");
    let folder = directory(&[("python", &script)]);
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder.path().join("python"), executable).expect("a permission");
    folder
}

/// Every backend on every device in every precision, as the table names them.
pub fn backends() -> Vec<String> {
    let backends: Value = serde_json::from_str(&call(&["backends", "--json"]).success()).expect("JSON");
    let mut names = Vec::new();
    for backend in backends.as_array().expect("backends") {
        for device in backend["devices"].as_array().expect("devices") {
            for precision in device["precisions"].as_array().expect("precisions") {
                let [backend, device, precision] =
                    [&backend["name"], &device["name"], precision].map(|name| name.as_str().expect("a name"));
                let suffix = if precision == "f32" { String::new() } else { format!(" {precision}") };
                names.push(format!("{backend} {device}{suffix}"));
            }
        }
    }
    names
}
