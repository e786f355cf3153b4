use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use fusion_core::checkpoint::{LazyTensor, Writer};
use pipeline::numbers::bytes;
use pipeline::{Stoppable, write_json};
use serde::Serialize;
use serde_json::{Value, json};
use t5_model::method::Cross;
use t5_model::{Initialization, T5Config, initialize};

use super::{median, memory};
use crate::terminal::output::{print, print_json};
use crate::terminal::{Terminal, interrupt};

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask bench fuse\n",
    "  cargo xtask bench fuse --model t5-small --directory /mnt/disk --rounds 9 --json",
);

/// Time fusing two random T5s and copying a file of the child's size, in turns
///
/// A fusion runs `fuse` in its own process: it reads and hashes the parents, writes and hashes the child, and
/// syncs it to disk. A copy is `cp`, timed with and without a sync. Prints medians.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The size of each parent, as in the paper
    #[arg(long, value_enum, default_value = "t5-m")]
    model: Size,
    /// The directory to work in, on the disk to measure [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Number of rounds
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// The child's cross-connections, as in `fuse`
    #[arg(long, value_name = "CROSS", default_value = "zero")]
    cross: Cross,
    /// Print every round as JSON
    #[arg(long)]
    json: bool,
}

/// Models from the paper's Tables 6 and 7.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Size {
    /// Of no table: for tests
    #[value(hide = true)]
    Tiny,
    T5Small,
    T5Medium,
    #[value(name = "t5-s")]
    T5S,
    #[value(name = "t5-m")]
    T5M,
}

impl Size {
    fn config(self) -> T5Config {
        let (d_model, heads, d_kv, d_ff) = match self {
            Size::Tiny => return T5Config::v1_1(64, 16, 2, 8, 32, 1),
            Size::T5Small => (512, 6, 64, 1024),
            Size::T5Medium => (1024, 12, 64, 2048),
            Size::T5S => (512, 6, 128, 1024),
            Size::T5M => (1024, 12, 128, 2048),
        };
        T5Config::v1_1(32_128, d_model, heads, d_kv, d_ff, 8)
    }
}

/// The times of one round in seconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    fuse: f64,
    copy: f64,
    copy_and_sync: f64,
    /// The fusion's peak anonymous memory in bytes, where the system reports it.
    peak_memory: Option<u64>,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        let place = self.directory.clone().unwrap_or_else(std::env::temp_dir);
        let folder = tempfile::Builder::new().prefix("bench-fuse-").tempdir_in(&place);
        let folder = folder.with_context(|| format!("cannot create a directory in {}", place.display()))?;
        interrupt::listen()?;
        let _graceful = Stoppable::new(&Terminal); // an interrupted bench still removes its files
        let mut parents = Vec::new();
        for (seed, name) in ["a", "b"].into_iter().enumerate() {
            eprintln!("parent {name}");
            let parent = folder.path().join(name);
            write_random(&parent, &self.model.config(), seed as u64)?;
            parents.push(parent);
        }
        let mut rounds = Vec::new();
        for round in 1..=self.rounds {
            interrupt::check("the measurement is given up")?;
            eprintln!("round {round} of {}", self.rounds);
            rounds.push(self.round(&parents, folder.path())?);
        }
        let size = |name: &str| Ok::<_, anyhow::Error>(fs::metadata(folder.path().join(name))?.len());
        let read: u64 =
            ["a", "b"].iter().map(|name| size(&format!("{name}/{WEIGHTS}"))).sum::<Result<_>>()?;
        self.report(&rounds, read, size(COPY)?)
    }

    /// Leaves the copy in place; the next round replaces it.
    fn round(&self, parents: &[PathBuf], folder: &Path) -> Result<Round> {
        let (child, copy) = (folder.join("child"), folder.join(COPY));
        let mut fuse = Command::new(std::env::current_exe().context("this program's file is not known")?);
        fuse.arg("fuse").args(parents).arg("--output").arg(&child);
        fuse.args(["--norm", "property", "--cross", &self.cross.to_string()]);
        let start = Instant::now();
        let peak_memory = watch(&mut fuse)?;
        let fuse = start.elapsed().as_secs_f64();

        if copy.exists() {
            fs::remove_file(&copy).context("cannot remove the copy")?;
        }
        let start = Instant::now();
        watch(Command::new("cp").args([&child.join(WEIGHTS), &copy]))?;
        let copied = start.elapsed().as_secs_f64();
        File::open(&copy).and_then(|file| file.sync_all()).context("cannot sync the copy")?;
        let synced = start.elapsed().as_secs_f64();
        fs::remove_dir_all(&child).context("cannot remove the child")?;
        Ok(Round { fuse, copy: copied, copy_and_sync: synced, peak_memory })
    }

    fn report(&self, rounds: &[Round], read: u64, written: u64) -> Result<()> {
        let middle = |of: fn(&Round) -> f64| median(rounds.iter().map(of));
        let (fuse, copy) = (middle(|round| round.fuse), middle(|round| round.copy));
        let synced = middle(|round| round.copy_and_sync);
        let peak = rounds.iter().filter_map(|round| round.peak_memory).max();
        let (to_copy, to_synced) =
            (middle(|round| round.fuse / round.copy), middle(|round| round.fuse / round.copy_and_sync));
        if self.json {
            let model = self.model.to_possible_value().map(|value| value.get_name().to_owned());
            return print_json(&json!({
                "model": model,
                "cross": self.cross,
                "bytes": { "parents": read, "child": written },
                "rounds": rounds,
                "median": { "fuse": fuse, "copy": copy, "copy_and_sync": synced },
                "ratio": { "copy": to_copy, "copy_and_sync": to_synced },
                "peak_memory": peak.map_or(Value::Null, Value::from),
            }));
        }
        let row = |what: &str, seconds: f64, ratio: String| {
            let speed = bytes(written as f64 / seconds);
            format!("{what:<18} {seconds:>8.2}  {:>12}  {ratio:>6}\n", format!("{speed}/s"))
        };
        let mut text = format!(
            "{} of parents, {} written, {} rounds\n\n{:<18} {:>8}  {:>12}  {:>6}\n",
            bytes(read as f64),
            bytes(written as f64),
            rounds.len(),
            "",
            "seconds",
            "",
            "ratio"
        );
        text += &row("fuse", fuse, String::new());
        text += &row("cp", copy, format!("{to_copy:.2}"));
        text += &row("cp and sync", synced, format!("{to_synced:.2}"));
        if let Some(peak) = peak {
            text += &format!("\npeak anonymous memory of fuse: {}\n", bytes(peak as f64));
        }
        print(&text)
    }
}

const WEIGHTS: &str = "model.safetensors";
const COPY: &str = "copy.safetensors";

/// Writes a checkpoint with random weights.
fn write_random(directory: &Path, config: &T5Config, seed: u64) -> Result<()> {
    Writer::default().weights(directory, LazyTensor::all(&initialize(config, Initialization::T5, seed)?)?)?;
    write_json(&directory.join("config.json"), &config.to_json())
}

/// Runs a command that must succeed, and returns the most anonymous memory it was seen to use.
fn watch(command: &mut Command) -> Result<Option<u64>> {
    let program = command.get_program().to_string_lossy().into_owned();
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("cannot start {program}"))?;
    let mut peak = None;
    while child.try_wait().context("the process's end is not known")?.is_none() {
        peak = peak.max(memory(&child.id().to_string(), "RssAnon"));
        std::thread::sleep(Duration::from_millis(1));
    }
    let output = child.wait_with_output()?;
    interrupt::check("the measurement is given up")?;
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{program} ended with {}: {}", output.status, message.trim());
    Ok(peak)
}
