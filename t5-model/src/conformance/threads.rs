//! A process group whose processes are threads, for checks and tests.

use std::any::Any;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::backend::{GroupError, GroupOptions, ProcessGroup, Reducing};

/// A thread of a group.
pub struct ThreadGroup {
    rank: usize,
    shared: Arc<Shared>,
}

struct Shared {
    options: GroupOptions,
    exchange: Mutex<Exchange>,
    complete: Condvar,
}

#[derive(Default)]
struct Exchange {
    /// How many there have been.
    number: u64,
    /// What each rank gives to the one in progress.
    given: Vec<Option<Vec<u8>>>,
    /// The result of the last.
    last: Arc<Vec<Vec<u8>>>,
    failed: Option<GroupError>,
}

impl ThreadGroup {
    /// Runs something on so many threads, each of which is a process of one group; the results in order of
    /// the ranks. One that fails or panics ends the others.
    pub fn run<T: Send, E: ToString + Send>(
        world_size: usize,
        work: impl Fn(Arc<dyn ProcessGroup>) -> Result<T, E> + Sync,
    ) -> Vec<Result<T, E>> {
        ThreadGroup::run_with(world_size, GroupOptions::default(), work)
    }

    /// The same with options; the threads exchange numbers in f32 whatever these say.
    pub fn run_with<T: Send, E: ToString + Send>(
        world_size: usize,
        options: GroupOptions,
        work: impl Fn(Arc<dyn ProcessGroup>) -> Result<T, E> + Sync,
    ) -> Vec<Result<T, E>> {
        let exchange = Mutex::new(Exchange { given: vec![None; world_size], ..Exchange::default() });
        let shared = Arc::new(Shared { options, exchange, complete: Condvar::new() });
        let (work, shared) = (&work, &shared);
        let run = |rank: usize| {
            let group = Arc::new(ThreadGroup { rank, shared: shared.clone() });
            let result = work(group.clone());
            if let Err(error) = &result {
                group.fail(&error.to_string());
            }
            result
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..world_size).map(|rank| scope.spawn(move || run(rank))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread panicked")).collect()
        })
    }

    fn exchange(&self) -> MutexGuard<'_, Exchange> {
        self.shared.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ThreadGroup {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.fail("it panicked");
        }
    }
}

impl ProcessGroup for ThreadGroup {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.exchange().given.len()
    }

    fn options(&self) -> &GroupOptions {
        &self.shared.options
    }

    fn all_reduce(&self, values: Vec<f32>) -> Result<Reducing<'_, Vec<f32>>, GroupError> {
        let all = self.all_gather(values.iter().flat_map(|value| value.to_le_bytes()).collect())?;
        let mut sums = vec![0.0; values.len()];
        for bytes in all {
            let values = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
        Ok(Box::new(move || Ok(sums)))
    }

    fn all_gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, GroupError> {
        let mut exchange = self.exchange();
        let number = exchange.number;
        exchange.given[self.rank] = Some(bytes);
        if exchange.given.iter().all(Option::is_some) {
            exchange.last = Arc::new(exchange.given.iter_mut().filter_map(Option::take).collect());
            exchange.number += 1;
            self.shared.complete.notify_all();
        }
        while exchange.number == number && exchange.failed.is_none() {
            exchange = self.shared.complete.wait(exchange).unwrap_or_else(PoisonError::into_inner);
        }
        match &exchange.failed {
            Some(error) if exchange.number == number => Err(error.clone()),
            _ => Ok(exchange.last.to_vec()),
        }
    }

    fn broadcast(&self, own: Option<Vec<u8>>) -> Result<Vec<u8>, GroupError> {
        self.all_gather(own.unwrap_or_default()).map(|mut all| all.swap_remove(0))
    }

    fn fail(&self, problem: &str) {
        self.exchange()
            .failed
            .get_or_insert_with(|| GroupError::new(format!("rank {}: {problem}", self.rank)));
        self.shared.complete.notify_all();
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
