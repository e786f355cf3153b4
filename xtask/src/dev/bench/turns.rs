//! The measurement: each contestant has a worker, and workers compute in turns.

use std::process::Command;

use anyhow::{Result, ensure};
use pipeline::Interrupted;
use serde::de::DeserializeOwned;

use super::contestant::Contestant;
use super::gpu::Gpu;
use super::process::Worker;
use super::protocol::{QUIT, Ready};

/// What contestants are timed at.
pub trait Measurement {
    /// What a worker says when it is asked.
    type Answer: DeserializeOwned;
    /// What is kept of an answer.
    type Turn;
    /// A worker's last message.
    type Summary: DeserializeOwned;
    /// The word that requests begin with.
    const REQUEST: &'static str;

    /// The command that starts a contestant's worker.
    fn command(&self, contestant: &Contestant) -> Result<Command>;

    /// Begins a round; returns the numbers of its requests. All contestants get one before any gets the next.
    fn round(&mut self) -> Vec<usize>;

    /// Judges an answer to the request of that number; fails if it cannot be one.
    fn turn(&self, number: usize, answer: Self::Answer) -> Result<Self::Turn>;

    /// Starts the contestants, whose models must have that many weights, and lets them take their turns.
    fn measure(
        &mut self,
        contestants: Vec<Contestant>,
        parameters: u64,
        rounds: u32,
    ) -> Result<Vec<Measured<Self::Turn, Self::Summary>>> {
        let mut entrants = Vec::new();
        for contestant in contestants {
            eprintln!("start {contestant}");
            let command = self.command(&contestant)?;
            entrants.push(Entrant::start(contestant, command, parameters)?);
        }
        for round in 1..=rounds {
            if !entrants.is_empty() {
                eprintln!("round {round} of {rounds}");
            }
            entrants.iter_mut().for_each(|entrant| entrant.rounds.push(Vec::new()));
            for number in self.round() {
                entrants.iter_mut().try_for_each(|entrant| entrant.turn(self, number))?;
            }
        }
        entrants.into_iter().map(Entrant::finish).collect()
    }
}

/// A contestant's outcome.
pub struct Measured<Turn, Summary> {
    pub contestant: Contestant,
    /// The GPU it computed on, if it is an NVIDIA GPU that can be queried.
    pub gpu: Option<Gpu>,
    /// Of each round, by request.
    pub rounds: Vec<Vec<Turn>>,
    /// Or why it did not finish.
    pub summary: Result<Summary, String>,
    /// Bytes that it held on the GPU.
    pub on_gpu: Option<u64>,
}

/// A contestant with its worker.
struct Entrant<Turn> {
    contestant: Contestant,
    gpu: Option<Gpu>,
    /// Or why there is none any more.
    worker: Result<Worker, String>,
    rounds: Vec<Vec<Turn>>,
}

impl<Turn> Entrant<Turn> {
    /// Starts the worker and waits until it is ready.
    fn start(contestant: Contestant, command: Command, parameters: u64) -> Result<Self> {
        let gpu = Gpu::of(contestant.device());
        let worker = Worker::start(command).and_then(|mut worker| {
            let ready: Ready = worker.hear()?;
            ensure!(ready.parameters == parameters, "it has {} weights, not {parameters}", ready.parameters);
            Ok(worker)
        });
        Ok(Entrant { contestant, gpu, worker: unless_interrupted(worker)?, rounds: Vec::new() })
    }

    /// Asks the worker, if it has not failed yet.
    fn turn<M: Measurement<Turn = Turn> + ?Sized>(&mut self, measurement: &M, number: usize) -> Result<()> {
        let Ok(worker) = &mut self.worker else { return Ok(()) };
        let answer = worker.ask(format_args!("{} {number}", M::REQUEST));
        match unless_interrupted(answer.and_then(|answer| measurement.turn(number, answer)))? {
            Ok(turn) => self.rounds.last_mut().map_or((), |round| round.push(turn)),
            Err(error) => self.worker = Err(error),
        }
        Ok(())
    }

    fn finish<Summary: DeserializeOwned>(self) -> Result<Measured<Turn, Summary>> {
        let Entrant { contestant, gpu, worker, rounds } = self;
        // The worker is waiting for its next request, and still holds the memory of the last one.
        let process = worker.as_ref().ok().map(Worker::id);
        let on_gpu = gpu.as_ref().zip(process).and_then(|(gpu, process)| gpu.memory_of(process));
        let summary = match worker {
            Ok(mut worker) => unless_interrupted(worker.ask(QUIT))?,
            Err(error) => Err(error),
        };
        Ok(Measured { contestant, gpu, rounds, summary, on_gpu })
    }
}

/// The last line of an error, which concerns one contestant only; an interruption ends the whole bench.
fn unless_interrupted<T>(result: Result<T>) -> Result<Result<T, String>> {
    match result {
        Err(error) if error.is::<Interrupted>() => Err(error),
        Err(error) => Ok(Err(format!("{error:#}").lines().last().unwrap_or_default().trim().to_owned())),
        Ok(value) => Ok(Ok(value)),
    }
}
