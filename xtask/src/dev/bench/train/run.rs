use std::process::Command;

use anyhow::{Result, ensure};

use super::protocol::{Request, Summary, Times};
use super::report::Measured;
use crate::dev::bench::contestant::Contestant;
use crate::dev::bench::entrant::Entrant;
use crate::dev::bench::gpu::Gpu;

/// A contestant's way through the measurement.
pub struct Run {
    entrant: Entrant,
    /// What it computes on, if that is one of NVIDIA's that can be asked.
    gpu: Option<Gpu>,
    /// Milliseconds of the steps of each round.
    rounds: Vec<Vec<f64>>,
}

impl Run {
    /// Starts the worker and waits until it is ready.
    pub fn start(contestant: Contestant, command: Command, parameters: u64) -> Result<Run> {
        let gpu = Gpu::of(contestant.device());
        Ok(Run { entrant: Entrant::start(contestant, command, parameters)?, gpu, rounds: Vec::new() })
    }

    /// Lets the worker take some steps.
    pub fn turn(&mut self, steps: u32) -> Result<()> {
        let times = self.entrant.ask(Request::Step(steps), |Times { ms }| {
            let sound = ms.len() == steps as usize && ms.iter().all(|ms| ms.is_finite() && *ms > 0.0);
            ensure!(sound, "its times of {steps} steps are {ms:?}");
            Ok(())
        })?;
        self.rounds.extend(times.map(|Times { ms }| ms));
        Ok(())
    }

    pub fn finish(self) -> Result<Measured> {
        let contestant = self.entrant.contestant.clone();
        // The worker waits for its next request, and holds what it needed for the last.
        let process = self.entrant.process();
        let on_device = self.gpu.as_ref().zip(process).and_then(|(gpu, process)| gpu.memory_of(process));
        let summary: Result<Summary, String> = self.entrant.finish()?;
        let resident = summary.as_ref().ok().and_then(|summary| summary.peak_rss_bytes);
        let peak_memory = if contestant.on_cpu() { resident } else { on_device };
        Ok(Measured { contestant, gpu: self.gpu, rounds: self.rounds, summary, peak_memory })
    }
}
