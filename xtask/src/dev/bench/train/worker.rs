use std::slice::from_ref;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use pipeline::Compute;
use t5_model::{Batch, Dropout, Initialization, Optimizer, Session, Update, initialize, parameter_table};

use super::model::Workload;
use super::protocol::{STEP, Summary, Times, WARM_UP};
use crate::cli::compute::ComputeArguments;
use crate::dev::bench::memory;
use crate::dev::bench::protocol::{say, serve};

/// Train as requested by `bench train` on standard input
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    workload: Workload,
    #[command(flatten)]
    compute: ComputeArguments,
    /// The optimiser
    #[arg(long, value_enum, default_value = "adamw")]
    optimizer: Optimizer,
    /// The rate of dropout
    #[arg(long, value_name = "RATE", default_value_t = 0.0)]
    dropout: f64,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        self.compute.run(|compute| self.serve(compute))
    }

    fn serve(&self, compute: &Compute) -> Result<()> {
        let config = self.workload.config();
        let session = compute.open(&config, &initialize(&config, Initialization::T5, 1)?)?;
        let each = compute.how().is_on_cpu();
        let mut optimizer = self.optimizer;
        if let Optimizer::Adamw { weight_decay, .. } = &mut optimizer {
            *weight_decay = 0.01; // as in bench_transformers.py
        }
        let mut training = Training {
            session,
            batch: self.workload.batch(),
            optimizer,
            dropout: self.dropout,
            step: 0,
            loss: f64::NAN,
        };
        for _ in 0..WARM_UP {
            training.step()?;
        }
        serve(parameter_table(&config)?.parameter_count(), STEP, |steps| {
            Ok(Times { ms: if each { training.steps(steps)? } else { training.turn(steps)? } })
        })?;
        say(&Summary { loss: training.loss, peak_rss_bytes: memory("self", "VmHWM") })
    }
}

struct Training {
    session: Box<dyn Session>,
    batch: Batch,
    optimizer: Optimizer,
    dropout: f64,
    step: u64,
    /// The last step's loss.
    loss: f64,
}

impl Training {
    /// Takes steps, and returns the milliseconds of each.
    fn steps(&mut self, count: usize) -> Result<Vec<f64>> {
        let timed = |_| {
            let start = Instant::now();
            self.step()?;
            Ok(milliseconds(start))
        };
        (0..count).map(timed).collect()
    }

    /// Takes steps, and returns their mean in milliseconds, once for each. A GPU may compute one step while
    /// the host prepares the next, so only all of them together can be timed.
    fn turn(&mut self, count: usize) -> Result<Vec<f64>> {
        let start = Instant::now();
        for _ in 0..count {
            let update = self.next();
            self.session.begin_step(from_ref(&self.batch), &update)?;
        }
        self.loss = self.session.finish_steps()?.last().map_or(f64::NAN, |step| step.loss);
        Ok(vec![milliseconds(start) / count as f64; count])
    }

    /// Takes one step and waits for its end.
    fn step(&mut self) -> Result<()> {
        let update = self.next();
        self.loss = self.session.train_step(from_ref(&self.batch), &update)?.loss;
        Ok(())
    }

    /// The parameters of the next update.
    fn next(&mut self) -> Update {
        self.step += 1;
        Update {
            optimizer: self.optimizer,
            learning_rate: 1e-3,
            step: self.step,
            optimizer_step: self.step,
            clip_norm: None,
            z_loss: 0.0,
            dropout: Dropout { rate: self.dropout, seed: 1 },
        }
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
