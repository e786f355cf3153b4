//! Processes that compute one training together: data parallelism. A communication library registers itself
//! as a [`Collective`], as a tensor framework does as a [`Backend`](super::Backend).

use std::any::Any;
use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Precision;

/// Why processes could not compute together. All of them end with one of these, soon after each other.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{problem}")]
pub struct GroupError {
    /// What failed, and where it is known which rank on which host.
    pub problem: String,
}

impl GroupError {
    /// An error with this message.
    pub fn new(problem: impl Into<String>) -> Self {
        GroupError { problem: problem.into() }
    }
}

/// A process's place among those that train together, and where they meet. The terms are those of
/// `torch.distributed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendezvous {
    /// The host of rank 0, or of the store if that is [served elsewhere](Rendezvous::store_is_served).
    pub address: String,
    /// The port of the store on that host.
    pub port: u16,
    /// Whether another process, such as torchrun's agent, serves the store; otherwise rank 0 does.
    pub store_is_served: bool,
    /// What tells this group from others that have used the same store, such as the number of a restart.
    pub prefix: String,
    /// The number of this process, from 0.
    pub rank: usize,
    /// The number of processes.
    pub world_size: usize,
    /// How they work together.
    pub options: GroupOptions,
}

impl Rendezvous {
    /// Whether this process serves the store.
    pub fn is_served_here(&self) -> bool {
        self.rank == 0 && !self.store_is_served
    }
}

/// How processes work together. It is the same for all of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupOptions {
    /// How long to wait for the others, when meeting them and in every exchange.
    pub timeout: Duration,
    /// What gradients are added up in: bf16 is half as much to send, and less exact.
    pub reduce_in: Precision,
    /// Whether each process keeps and updates a share of the optimiser's state (ZeRO-1, arXiv 1910.02054)
    /// rather than all of it.
    pub shard_optimizer: bool,
}

impl Default for GroupOptions {
    fn default() -> Self {
        GroupOptions { timeout: Duration::from_secs(300), reduce_in: Precision::F32, shard_optimizer: false }
    }
}

/// A communication library.
pub trait Collective: Sync {
    /// Meets the other processes.
    ///
    /// # Errors
    /// They do not all come within the timeout, or the store cannot be reached or served.
    fn join(&self, rendezvous: &Rendezvous) -> Result<Arc<dyn ProcessGroup>, GroupError>;
}

inventory::collect!(&'static dyn Collective);

/// The communication library linked into this binary, if there is one.
pub fn collective() -> Option<&'static dyn Collective> {
    inventory::iter::<&'static dyn Collective>.into_iter().copied().next()
}

/// What waits for the sums of an exchange that has begun.
pub type Reducing<'a, T> = Box<dyn FnOnce() -> Result<T, GroupError> + 'a>;

/// Processes that have met. All of them take part in every exchange, in the same order.
pub trait ProcessGroup: Send + Sync {
    /// The number of this process, from 0.
    fn rank(&self) -> usize;

    /// The number of processes.
    fn world_size(&self) -> usize;

    /// How they work together.
    fn options(&self) -> &GroupOptions;

    /// Begins to add up values over all ranks, element by element. Every rank gets the same bits.
    ///
    /// # Errors
    /// A rank has ended, or does not answer within the timeout; so do the other exchanges.
    fn all_reduce(&self, values: Vec<f32>) -> Result<Reducing<'_, Vec<f32>>, GroupError>;

    /// What every rank gives, of any length, in order of the ranks.
    ///
    /// # Errors
    /// See [`ProcessGroup::all_reduce`].
    fn all_gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, GroupError>;

    /// What rank 0 gives. The others wait as long as rank 0 is there, however long it takes.
    ///
    /// # Errors
    /// See [`ProcessGroup::all_reduce`].
    fn broadcast(&self, own: Option<Vec<u8>>) -> Result<Vec<u8>, GroupError>;

    /// Tells the others, as far as that is possible, that this rank ends with an error. Does nothing if that
    /// follows from a failed exchange.
    fn fail(&self, problem: &str);

    /// Itself, for backends that exchange tensors on their devices.
    fn as_any(&self) -> &dyn Any;
}

/// What is made of a group's exchanges.
impl dyn ProcessGroup {
    /// Whether this is the rank that writes files and talks to the user.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// What every rank gives, in order of the ranks.
    ///
    /// # Errors
    /// See [`ProcessGroup::all_reduce`]; or the ranks run different programs.
    pub fn gather<T: Serialize + DeserializeOwned>(&self, own: &T) -> Result<Vec<T>, GroupError> {
        self.all_gather(encoded(own)?)?.iter().map(|bytes| decoded(bytes)).collect()
    }

    /// What rank 0 computes; the others wait for it. If that fails, it fails everywhere.
    ///
    /// # Errors
    /// On rank 0 its own, on the others what that says; or see [`ProcessGroup::all_reduce`].
    pub fn from_first<T, E>(&self, compute: impl FnOnce() -> Result<T, E>) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
        E: From<GroupError> + Display,
    {
        if !self.is_first() {
            let first: Result<T, String> = decoded(&self.broadcast(None)?)?;
            return first.map_err(|problem| GroupError::new(problem).into());
        }
        let own = compute();
        self.broadcast(Some(encoded(&own.as_ref().map_err(E::to_string))?))?;
        own
    }

    /// Waits until every rank is here.
    ///
    /// # Errors
    /// See [`ProcessGroup::all_reduce`].
    pub fn barrier(&self) -> Result<(), GroupError> {
        self.all_gather(Vec::new()).map(drop)
    }

    /// The flags that any rank has set.
    ///
    /// # Errors
    /// See [`ProcessGroup::all_reduce`].
    pub fn any(&self, flags: u8) -> Result<u8, GroupError> {
        let all = self.all_gather(vec![flags])?;
        Ok(all.into_iter().flatten().fold(0, |any, flags| any | flags))
    }

    /// The part of `count` things that is this rank's. Parts are adjacent, and differ by one at most.
    pub fn share(&self, count: usize) -> Range<usize> {
        share(count, self.rank(), self.world_size())
    }
}

fn encoded<T: Serialize>(value: &T) -> Result<Vec<u8>, GroupError> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).map_err(|error| GroupError::new(error.to_string()))?;
    Ok(bytes)
}

fn decoded<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, GroupError> {
    ciborium::from_reader(bytes)
        .map_err(|error| GroupError::new(format!("the processes do not run the same program: {error}")))
}

fn share(count: usize, rank: usize, world_size: usize) -> Range<usize> {
    let start = |rank: usize| rank * count / world_size;
    start(rank)..start(rank + 1)
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn shares_are_adjacent_and_nearly_equal() {
        for world_size in 1..9 {
            for count in 0..20 {
                let shares: Vec<_> = (0..world_size).map(|rank| share(count, rank, world_size)).collect();
                assert_eq!((shares[0].start, shares[world_size - 1].end), (0, count));
                assert!(shares.windows(2).all(|pair| pair[0].end == pair[1].start));
                let lengths = || shares.iter().map(std::ops::Range::len);
                assert!(lengths().max().unwrap() - lengths().min().unwrap() <= 1, "{shares:?}");
            }
        }
    }
}
