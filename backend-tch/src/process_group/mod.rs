//! Processes that compute together, over torch's own engine: c10d's store, in which they meet, and Gloo.

mod nccl;
mod shim;
mod store;

use std::any::Any;
use std::ffi::c_void;
use std::net::{IpAddr, ToSocketAddrs, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use t5_model::Precision;
use t5_model::backend::{Collective, GroupError, GroupOptions, ProcessGroup, Reducing, Rendezvous};
use tch::{Device, Kind, Tensor};

use crate::tensor::host;
use nccl::Nccl;
use shim::{
    Exchange, checked, deep_fusion_all_gather, deep_fusion_all_reduce, deep_fusion_all_reduce_tensor,
    deep_fusion_connect, milliseconds, string,
};
use store::{BEAT, Beats, Store, beat_of};

struct C10d;

inventory::submit!(&C10d as &'static dyn Collective);

/// How long whoever serves the store waits for the others to leave.
const LEAVE: Duration = Duration::from_secs(10);
/// How often to look for what rank 0 gives.
const POLL: Duration = Duration::from_millis(20);
/// What is exchanged at once when the lengths are not known: its length, and as much of it as fits.
const HEAD: usize = 64;
const LENGTH: usize = size_of::<u64>();

impl Collective for C10d {
    fn join(&self, rendezvous: &Rendezvous) -> Result<Arc<dyn ProcessGroup>, GroupError> {
        let Rendezvous { address, port, rank, world_size, options, .. } = rendezvous;
        let store = Store::open(rendezvous).map_err(|said| {
            let meeting = if rendezvous.is_served_here() { "open" } else { "reach" };
            GroupError::new(format!(
                "rank {rank} cannot {meeting} {address}:{port}, where all ranks meet: {said}"
            ))
        })?;
        let store = Arc::new(store);
        let said = |said: String| GroupError::new(format!("rank {rank}: {said}"));
        store.set(&format!("host {rank}"), host_name().as_bytes()).map_err(said)?;
        let beats = Beats::begin(store.clone(), *rank);
        let group = Gloo {
            rank: *rank,
            world_size: *world_size,
            broadcasts: AtomicU64::new(0),
            is_broken: AtomicBool::new(false),
            serves: rendezvous.is_served_here(),
            store,
            options: *options,
            nccl: Mutex::default(),
            _beats: beats,
        };
        group.connect(address, *port)?;
        Ok(Arc::new(group))
    }
}

/// The ranks of a group.
pub struct Gloo {
    rank: usize,
    world_size: usize,
    options: GroupOptions,
    /// How often rank 0 has given something.
    broadcasts: AtomicU64,
    /// Whether an exchange has failed.
    is_broken: AtomicBool,
    /// Whether the store ends with this process.
    serves: bool,
    store: Arc<Store>,
    /// This process's GPU among the others', once one was needed.
    nccl: Mutex<Option<Nccl>>,
    _beats: Beats,
}

impl Gloo {
    /// The group, if it is one of these.
    pub fn of(group: &dyn ProcessGroup) -> Option<&Gloo> {
        group.as_any().downcast_ref()
    }

    /// Begins to add up an f32 tensor over all ranks, on its device.
    pub fn all_reduce_tensor(&self, tensor: Tensor) -> Result<Reducing<'_, Tensor>, GroupError> {
        let tensor = match self.options.reduce_in {
            Precision::F32 => tensor.contiguous(),
            Precision::Bf16 => tensor.to_kind(Kind::BFloat16).contiguous(),
        };
        if let Device::Cuda(_) = tensor.device() {
            self.on_gpus(&tensor)?;
            return Ok(Box::new(move || Ok(tensor.to_kind(Kind::Float))));
        }
        let mut exchange = std::ptr::null_mut();
        // SAFETY: the exchange holds the tensor as well.
        let error = unsafe {
            let tensor = tensor.as_ptr().cast::<c_void>().cast_mut();
            deep_fusion_all_reduce_tensor(self.store.0, tensor, &raw mut exchange)
        };
        checked(error).map_err(|said| self.explained(&said))?;
        let exchange = Exchange { handle: exchange, values: Vec::new() };
        Ok(Box::new(move || {
            exchange.wait().map_err(|said| self.explained(&said))?;
            Ok(tensor.to_kind(Kind::Float))
        }))
    }

    fn on_gpus(&self, tensor: &Tensor) -> Result<(), GroupError> {
        let mut nccl = self.nccl.lock().unwrap_or_else(PoisonError::into_inner);
        let group: &dyn ProcessGroup = self;
        let said = |said: String| self.explained(&said);
        if nccl.is_none() {
            let meeting = group.from_first(|| Nccl::meeting().map_err(GroupError::new))?;
            *nccl = Some(Nccl::join(&meeting, self.rank, self.world_size).map_err(said)?);
        }
        let Some(nccl) = nccl.as_mut() else { return Ok(()) };
        nccl.all_reduce(tensor).map_err(said)
    }

    fn connect(&self, address: &str, port: u16) -> Result<(), GroupError> {
        // As `torch.distributed` has it: an interface by its name. Without, the address from which the meeting
        // point is reached: that of the host's name is often one of this machine alone.
        let interface = string(&std::env::var("GLOO_SOCKET_IFNAME").unwrap_or_default());
        let here = string(&own_address(address, port).map_or(String::new(), |own| own.to_string()));
        let (rank, world_size) = (self.rank as i32, self.world_size as i32);
        // SAFETY: the strings live during the call, and the handle is valid.
        let error = unsafe {
            let milliseconds = milliseconds(self.options.timeout);
            deep_fusion_connect(
                self.store.0,
                rank,
                world_size,
                interface.as_ptr(),
                here.as_ptr(),
                milliseconds,
            )
        };
        checked(error).map_err(|said| self.explained(&said))
    }

    /// An error of an exchange, with the ranks that are to blame as far as that can be found out.
    fn explained(&self, said: &str) -> GroupError {
        self.is_broken.store(true, Ordering::Relaxed);
        let mut silent = Vec::new();
        let beat = |rank: usize| self.store.get(&beat_of(rank));
        let before: Vec<_> = (0..self.world_size).map(beat).collect();
        thread::sleep(3 * BEAT);
        for (rank, before) in before.into_iter().enumerate().filter(|(rank, _)| *rank != self.rank) {
            let host = self.store.text(&format!("host {rank}")).ok().flatten();
            let host = host.map_or("it has never come".into(), |host| format!("on {host}"));
            match self.store.text(&format!("failed {rank}")) {
                Ok(Some(problem)) => {
                    return GroupError::new(format!("rank {rank} ({host}) has failed: {problem}"));
                }
                Ok(None) if beat(rank).ok() == before.clone().ok() => {
                    silent.push(format!("rank {rank} ({host})"))
                }
                Ok(None) => {}
                // The store ends with the process that serves it.
                Err(_) => return GroupError::new(format!("rank 0 or its host has ended ({said})")),
            }
        }
        match silent.as_slice() {
            [] => GroupError::new(format!("rank {}: {said}", self.rank)),
            ranks => GroupError::new(format!("{} has ended or hangs ({said})", ranks.join(", "))),
        }
    }

    /// Exchanges as many bytes with every rank.
    fn gather_equal(&self, own: &[u8]) -> Result<Vec<u8>, GroupError> {
        let mut all = vec![0; own.len() * self.world_size];
        // SAFETY: both places have the sizes that they are said to have, and are not used elsewhere during the call.
        let error =
            unsafe { deep_fusion_all_gather(self.store.0, own.as_ptr(), own.len() as i64, all.as_mut_ptr()) };
        checked(error).map_err(|said| self.explained(&said))?;
        Ok(all)
    }
}

impl ProcessGroup for Gloo {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.world_size
    }

    fn options(&self) -> &GroupOptions {
        &self.options
    }

    fn all_reduce(&self, mut values: Vec<f32>) -> Result<Reducing<'_, Vec<f32>>, GroupError> {
        if self.options.reduce_in == Precision::Bf16 {
            let sums = self.all_reduce_tensor(Tensor::from_slice(&values))?;
            return Ok(Box::new(move || Ok(host(&sums()?).data)));
        }
        let mut exchange = std::ptr::null_mut();
        // SAFETY: the numbers stay where they are until the exchange has been waited for.
        let error = unsafe {
            deep_fusion_all_reduce(self.store.0, values.as_mut_ptr(), values.len() as i64, &raw mut exchange)
        };
        checked(error).map_err(|said| self.explained(&said))?;
        let exchange = Exchange { handle: exchange, values };
        Ok(Box::new(move || exchange.wait().map_err(|said| self.explained(&said))))
    }

    fn all_gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, GroupError> {
        let mut head = [0; HEAD];
        head[..LENGTH].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        let first = bytes.len().min(HEAD - LENGTH);
        head[LENGTH..LENGTH + first].copy_from_slice(&bytes[..first]);
        let heads = self.gather_equal(&head)?;
        let heads: Vec<(usize, &[u8])> = heads
            .as_chunks::<HEAD>()
            .0
            .iter()
            .map(|head| {
                let (length, rest) = head.split_first_chunk::<LENGTH>().expect("a head has a length");
                (u64::from_le_bytes(*length) as usize, rest)
            })
            .collect();
        let longest = heads.iter().map(|(length, _)| *length).max().unwrap_or(0);
        if longest <= HEAD - LENGTH {
            return Ok(heads.into_iter().map(|(length, rest)| rest[..length].to_vec()).collect());
        }
        let mut padded = bytes;
        padded.resize(longest, 0);
        let all = self.gather_equal(&padded)?;
        Ok(all.chunks(longest).zip(heads).map(|(bytes, (length, _))| bytes[..length].to_vec()).collect())
    }

    fn broadcast(&self, own: Option<Vec<u8>>) -> Result<Vec<u8>, GroupError> {
        let key = format!("first {}", self.broadcasts.fetch_add(1, Ordering::Relaxed));
        let failed = |said: String| self.explained(&said);
        if let Some(own) = own {
            self.store.set(&key, &own).map_err(failed)?;
            return Ok(own);
        }
        let (mut beat, mut since) = (None, Instant::now());
        loop {
            if let Some(value) = self.store.get(&key).map_err(failed)? {
                return Ok(value);
            }
            let now = self.store.get(&beat_of(0)).map_err(failed)?;
            if now != beat {
                (beat, since) = (now, Instant::now());
            }
            if since.elapsed() > self.options.timeout {
                return Err(self.explained("it has not been heard of"));
            }
            thread::sleep(POLL);
        }
    }

    fn fail(&self, problem: &str) {
        // The others are to blame for what follows from a failed exchange.
        if self.is_broken.load(Ordering::Relaxed) {
            return;
        }
        // Whoever reads it is told; who cannot be told learns from the connection.
        let _ = self.store.set(&format!("failed {}", self.rank), problem.as_bytes());
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for Gloo {
    /// Whoever serves the store stays until the others have read what they need.
    fn drop(&mut self) {
        let left = |rank: usize| format!("left {rank}");
        let said = self.store.set(&left(self.rank), &[]);
        let stays = self.serves && said.is_ok() && !self.is_broken.load(Ordering::Relaxed);
        let since = Instant::now();
        let is_here = |rank: &usize| matches!(self.store.get(&left(*rank)), Ok(None));
        while stays && since.elapsed() < LEAVE && (1..self.world_size).any(|rank| is_here(&rank)) {
            thread::sleep(POLL);
        }
    }
}

/// This machine's address as whoever listens there sees it. Nothing is sent.
fn own_address(address: &str, port: u16) -> Option<IpAddr> {
    let mut others = (address, port).to_socket_addrs().ok()?;
    others.find_map(|other| {
        let any = if other.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(other).ok()?;
        Some(socket.local_addr().ok()?.ip())
    })
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "an unnamed host".into() } else { format!("host {name}") }
}
