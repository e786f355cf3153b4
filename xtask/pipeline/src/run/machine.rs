//! What a stage was computed on, as recorded beside the time it took.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::Compute;

/// A machine, and what of it a process used.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Machine {
    /// This program's version.
    pub version: String,
    /// The operating system and the processor's architecture: `linux x86_64`.
    pub system: String,
    /// The processor's name, where the system tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processor: Option<String>,
    /// Memory in bytes, where the system tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Threads that the host computes with.
    pub threads: usize,
    /// The backend, its device and the precision: `burn cpu f32`.
    pub compute: String,
}

impl Machine {
    /// This machine.
    pub fn this(compute: &Compute, threads: usize) -> Self {
        let how = compute.how();
        Machine {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            processor: value_in("/proc/cpuinfo", "model name").map(|name| name.trim().to_owned()),
            memory: value_in("/proc/meminfo", "MemTotal").and_then(|text| kibibytes(&text)),
            threads,
            compute: format!("{} {} {}", compute.backend().name(), how.device, how.precision),
        }
    }

    /// The most memory that this process has taken, in bytes, since that was last forgotten.
    pub fn peak_memory() -> Option<u64> {
        value_in("/proc/self/status", "VmHWM").and_then(|text| kibibytes(&text))
    }

    /// Has [`Machine::peak_memory`] begin anew, where the system can.
    pub fn forget_peak_memory() {
        // Linux's way (proc_pid_clear_refs(5)). Elsewhere there is no peak to forget.
        let _ = fs::write("/proc/self/clear_refs", "5");
    }
}

/// `24660016 kB`, in bytes.
fn kibibytes(text: &str) -> Option<u64> {
    let number: u64 = text.split_whitespace().next()?.parse().ok()?;
    number.checked_mul(1024)
}

/// What follows `key:` in one of Linux's files about the system.
fn value_in(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    })
}
