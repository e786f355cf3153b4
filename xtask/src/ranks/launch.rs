//! Starts several processes of this program on this machine that compute together.

use std::ffi::OsString;
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::cli;
use crate::ranks;
use crate::terminal::interrupt;

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask launch --processes 2 -- pretrain --text texts --d-model 256 ... --output small\n",
    "  torchrun --nproc-per-node 2 --no-python deep-fusion pretrain ... --output small"
);

/// Run a command in several processes that compute together
///
/// Each of the processes on this machine computes its share of every batch, and they add up their gradients:
/// the results are those of one process, to within rounding. Where there are several machines, torchrun, srun
/// and mpirun do the same. Takes the commands pretrain, evaluate, glue and run.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The number of processes
    #[arg(short, long, value_name = "N")]
    processes: NonZeroUsize,
    /// Start all of them again, up to so many times, if one fails; training goes on from its newest checkpoint
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_restarts: u32,
    /// A command of this program, with its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// How often to look whether a process has ended.
const LOOK: Duration = Duration::from_millis(50);
/// How long processes get to end by themselves once one has failed, so that they can say what they know.
const GRACE: Duration = Duration::from_secs(10);

impl Arguments {
    pub fn run(self) -> Result<()> {
        ensure!(
            ranks::place().is_none(),
            "this is already one of several processes, which another launcher has started"
        );
        // What is wrong with the command is said once.
        let words = [OsString::from(cli::NAME)].into_iter().chain(self.command.iter().cloned());
        cli::Cli::read(words).check_together()?;
        ranks::collective()?;
        interrupt::listen_for_others()?;
        let mut restarts = 0;
        loop {
            let Some((rank, status)) = self.once(restarts)? else { return Ok(()) };
            if interrupt::flag().load(Ordering::Relaxed) {
                std::process::exit(status.code().unwrap_or(interrupt::EXIT_CODE.into()));
            }
            if restarts == self.max_restarts {
                bail!("rank {rank} has ended with {status}");
            }
            restarts += 1;
            eprintln!(
                "rank {rank} has ended with {status}; starting again ({restarts} of {})",
                self.max_restarts
            );
        }
    }

    /// Runs the processes to their end; returns the first that failed.
    fn once(&self, restart: u32) -> Result<Option<(usize, ExitStatus)>> {
        let program = std::env::current_exe().context("this program's file is not known")?;
        let port = free_port()?;
        let size = self.processes.get().to_string();
        let start = |rank: usize| {
            let (rank, port) = (rank.to_string(), port.to_string());
            Command::new(&program)
                .args(&self.command)
                .envs([
                    ("RANK", &rank),
                    ("LOCAL_RANK", &rank),
                    ("WORLD_SIZE", &size),
                    ("LOCAL_WORLD_SIZE", &size),
                ])
                .env("MASTER_ADDR", "127.0.0.1")
                .env("MASTER_PORT", port)
                .env("TORCHELASTIC_RESTART_COUNT", restart.to_string())
                .env_remove("TORCHELASTIC_USE_AGENT_STORE")
                .stdin(Stdio::null())
                .spawn()
        };
        let mut processes = Processes(Vec::new());
        for rank in 0..self.processes.get() {
            processes.0.push(start(rank).context("cannot start a process")?);
        }
        processes.wait()
    }
}

/// Processes that end with this one.
struct Processes(Vec<Child>);

impl Processes {
    /// Waits until all have ended. If one fails, the others get some time to follow. The first that failed.
    fn wait(&mut self) -> Result<Option<(usize, ExitStatus)>> {
        let mut failed: Option<(usize, ExitStatus, Instant)> = None;
        let mut told = false;
        loop {
            // A terminal tells all of them, and so they take both for one wish.
            if !told && interrupt::flag().load(Ordering::Relaxed) {
                told = true;
                self.0.iter().for_each(ask_to_stop);
            }
            let mut running = false;
            for (rank, process) in self.0.iter_mut().enumerate() {
                match process.try_wait().context("cannot wait for a process")? {
                    None => running = true,
                    Some(status) if !status.success() && failed.is_none() => {
                        failed = Some((rank, status, Instant::now()));
                    }
                    Some(_) => {}
                }
            }
            if !running {
                return Ok(failed.map(|(rank, status, _)| (rank, status)));
            }
            if failed.is_some_and(|(_, _, since)| since.elapsed() > GRACE) {
                self.end();
            }
            thread::sleep(LOOK);
        }
    }

    fn end(&mut self) {
        for process in &mut self.0 {
            // One that has ended cannot be killed, which is as well.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.end();
    }
}

/// Asks a process to save its state and end.
fn ask_to_stop(process: &Child) {
    #[cfg(unix)]
    if let Some(process) = i32::try_from(process.id()).ok().and_then(rustix::process::Pid::from_raw) {
        // One that has ended need not be asked.
        let _ = rustix::process::kill_process(process, rustix::process::Signal::TERM);
    }
}

/// A port that nobody uses now.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("there is no free port")?;
    Ok(listener.local_addr().context("there is no free port")?.port())
}
