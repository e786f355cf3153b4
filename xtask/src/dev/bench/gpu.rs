//! NVIDIA GPUs, as reported by `nvidia-smi`.

use std::process::Command;

/// A GPU that a worker computes on.
pub struct Gpu {
    /// Its index, or whatever identifies it instead.
    id: String,
    pub name: String,
    /// Bytes in use before the worker started.
    before: u64,
}

impl Gpu {
    /// The GPU that `cuda:0` stands for, if it can be queried.
    pub fn of(device: &str) -> Option<Gpu> {
        let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
        let id = id(device, visible.as_deref())?;
        let (name, before) = name_and_memory(&ask(&id, "--query-gpu=name,memory.used")?)?;
        Some(Gpu { id, name, before })
    }

    /// Bytes that a process holds there. Frameworks keep the memory they free, so at the end this is the most
    /// they needed.
    ///
    /// Many containers hide which process owns memory. There, this is the increase since [`Gpu::of`].
    pub fn memory_of(&self, process: u32) -> Option<u64> {
        let processes = ask(&self.id, "--query-compute-apps=pid,used_memory");
        let own = processes.and_then(|processes| memory_of(&processes, process));
        own.or_else(|| {
            let (_, now) = name_and_memory(&ask(&self.id, "--query-gpu=name,memory.used")?)?;
            Some(now.saturating_sub(self.before))
        })
    }
}

/// How nvidia-smi identifies a CUDA device: by its index, unless the environment selects GPUs by index or
/// UUID.
fn id(device: &str, visible: Option<&str>) -> Option<String> {
    let index: usize = device.strip_prefix("cuda:")?.parse().ok()?;
    match visible {
        Some(visible) => visible.split(',').nth(index).map(|id| id.trim().to_owned()),
        None => Some(index.to_string()),
    }
}

fn ask(id: &str, query: &str) -> Option<String> {
    let mut command = Command::new("nvidia-smi");
    let output = command.args(["-i", id, query, "--format=csv,noheader,nounits"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Parses a line such as `NVIDIA H200, 4`.
fn name_and_memory(line: &str) -> Option<(String, u64)> {
    let (name, used) = line.trim().rsplit_once(',')?;
    Some((name.trim().to_owned(), mebibytes(used)?))
}

/// Parses lines such as `1234, 5678`.
fn memory_of(processes: &str, process: u32) -> Option<u64> {
    let mut lines = processes.lines().filter_map(|line| line.split_once(','));
    let (_, used) = lines.find(|(id, _)| id.trim().parse() == Ok(process))?;
    mebibytes(used)
}

fn mebibytes(text: &str) -> Option<u64> {
    Some(text.trim().parse::<u64>().ok()? << 20)
}

/// Peak rate of dense bf16 matrix products in operations per second, from NVIDIA's data sheets. An H100 or
/// H200 on a PCIe card has another name and another peak; all A100s have the same. `None` for other GPUs.
pub fn peak(name: &str) -> Option<f64> {
    match name {
        "NVIDIA H100 80GB HBM3" | "NVIDIA H200" => Some(989.4e12),
        _ if name.starts_with("NVIDIA A100") => Some(312e12),
        _ => None,
    }
}

#[cfg(test)]
impl Gpu {
    pub fn named(name: &str) -> Self {
        Gpu { id: "0".to_owned(), name: name.to_owned(), before: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::{id, memory_of, name_and_memory, peak};

    #[test]
    fn the_environment_chooses() {
        let of = |device, visible| id(device, visible);
        assert_eq!(of("cuda:1", None).as_deref(), Some("1"));
        assert_eq!(of("cuda:1", Some("3, GPU-1a2b")).as_deref(), Some("GPU-1a2b"));
        assert_eq!(of("cuda:1", Some("3")), None);
        assert_eq!(of("wgpu:0", None), None);
    }

    #[test]
    fn answers() {
        let h100 = ("NVIDIA H100 80GB HBM3".to_owned(), 3 << 20);
        assert_eq!(name_and_memory("NVIDIA H100 80GB HBM3, 3\n"), Some(h100));
        assert_eq!(name_and_memory("No devices were found\n"), None);
        let processes = "17, 100\n1234, 5678\n99, [N/A]\n";
        assert_eq!(memory_of(processes, 1234), Some(5678 << 20));
        assert_eq!(memory_of(processes, 99), None);
        assert_eq!(memory_of(processes, 123), None);
        assert_eq!(memory_of("", 1), None);
    }

    #[test]
    fn peaks_are_those_of_the_data_sheets() {
        let known =
            ["NVIDIA H100 80GB HBM3", "NVIDIA H200", "NVIDIA A100-SXM4-40GB", "NVIDIA A100 80GB PCIe"];
        assert_eq!(known.map(peak), [989.4e12, 989.4e12, 312e12, 312e12].map(Some));
        let others = ["NVIDIA H100 PCIe", "NVIDIA H100 NVL", "NVIDIA H200 NVL", "NVIDIA GeForce RTX 4090"];
        assert_eq!(others.map(peak), [None; 4]);
    }
}
