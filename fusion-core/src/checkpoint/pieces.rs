//! Produces, hashes and writes tensors in pieces, with several threads.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use blake3::hazmat::ChainingValue;

use super::hash::{PIECE, hash_piece, join_pieces};
use super::lazy::{Content, LazyTensor, Producer};
use crate::{Error, Result};

/// Called from any thread with the number of bytes written since the last call. Returning a break ends the writing with
/// [`Error::Stopped`].
pub type Progress<'a> = dyn Fn(u64) -> ControlFlow<()> + Sync + 'a;

/// The number of bytes after which data is flushed to disk. Left alone, the system gathers gigabytes first.
const FLUSH: usize = 128 << 20;

/// A tensor and its place in a file.
pub(super) struct Destination<'a, 't> {
    pub tensor: &'a LazyTensor<'t>,
    pub path: &'a Path,
    pub file: &'a File,
    /// In bytes from the start of the file.
    pub offset: u64,
}

/// Writes tensors and returns their hashes. Keeps in memory one piece for each thread, and what the tensors that are
/// being written have prepared.
pub(super) fn write_pieces(
    destinations: &[Destination<'_, '_>],
    progress: Option<&Progress<'_>>,
) -> Result<Vec<[u8; 32]>> {
    let works: Vec<Work<'_, '_>> = destinations.iter().map(Work::new).collect();
    let pieces: Vec<(usize, usize)> = (0..works.len())
        .flat_map(|tensor| (0..pieces_of(works[tensor].to.tensor)).map(move |piece| (tensor, piece)))
        .collect();
    let writing = Writing {
        works: &works,
        pieces: &pieces,
        next: AtomicUsize::new(0),
        written: AtomicUsize::new(0),
        stopped: AtomicBool::new(false),
        failure: Mutex::new(None),
        progress,
    };
    let (flush, to_flush) = sync_channel(1);
    thread::scope(|scope| {
        let writing = &writing;
        // A flusher and more threads help, but all works without them if the system denies them.
        let flushing = move || to_flush.into_iter().for_each(|tensor| writing.flush(tensor));
        let _ = thread::Builder::new().spawn_scoped(scope, flushing);
        for _ in 1..rayon::current_num_threads().min(pieces.len()) {
            let flush = flush.clone();
            let _ = thread::Builder::new().spawn_scoped(scope, move || writing.run(&flush));
        }
        writing.run(&flush);
        drop(flush);
    });
    match writing.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(works.iter().map(|work| join_pieces(&lock(&work.values))).collect()),
    }
}

/// The memory, in bytes, that writing this many bytes takes: a piece for each thread, and the place and hash of every
/// piece.
pub(crate) fn writing_memory(bytes: u64) -> u64 {
    let kept = size_of::<(usize, usize)>() + size_of::<ChainingValue>();
    let threads = rayon::current_num_threads() as u64;
    threads * PIECE as u64 + bytes.div_ceil(PIECE as u64) * kept as u64
}

/// At least one, even for an empty tensor.
fn pieces_of(tensor: &LazyTensor<'_>) -> usize {
    tensor.size().div_ceil(PIECE).max(1)
}

/// A tensor while it is written.
struct Work<'a, 't> {
    to: &'a Destination<'a, 't>,
    /// Present from the first piece to the last.
    producer: Mutex<Option<Arc<Producer<'t>>>>,
    /// The number of pieces that are not written yet.
    left: AtomicUsize,
    values: Mutex<Vec<ChainingValue>>,
}

impl<'a, 't> Work<'a, 't> {
    fn new(to: &'a Destination<'a, 't>) -> Self {
        let pieces = pieces_of(to.tensor);
        Work {
            to,
            producer: Mutex::new(None),
            left: AtomicUsize::new(pieces),
            values: Mutex::new(vec![[0; 32]; pieces]),
        }
    }

    /// Produces, hashes and writes a piece; returns its length.
    fn write(&self, piece: usize, buffer: &mut Vec<u8>) -> Result<usize> {
        let Destination { tensor, path, file, offset } = self.to;
        let start = piece * PIECE;
        let length = PIECE.min(tensor.size() - start);
        let bytes = match &tensor.content {
            Content::Bytes(bytes) => &bytes[start..][..length],
            Content::Produced(prepare) => {
                buffer.resize(length, 0);
                self.producer(prepare)?(start, buffer)?;
                &buffer[..]
            }
        };
        let value = hash_piece(start, bytes, length == tensor.size());
        file.write_all_at(bytes, offset + start as u64).map_err(Error::io("write", path))?;
        lock(&self.values)[piece] = value;
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            *lock(&self.producer) = None;
        }
        Ok(length)
    }

    fn producer(&self, prepare: &dyn Fn() -> Result<Producer<'t>>) -> Result<Arc<Producer<'t>>> {
        let mut producer = lock(&self.producer);
        match &*producer {
            Some(producer) => Ok(Arc::clone(producer)),
            None => Ok(Arc::clone(producer.insert(Arc::new(prepare()?)))),
        }
    }
}

/// What the threads share.
struct Writing<'a, 't> {
    works: &'a [Work<'a, 't>],
    /// All pieces in the order of the files, as (tensor, piece).
    pieces: &'a [(usize, usize)],
    next: AtomicUsize,
    /// In bytes.
    written: AtomicUsize,
    stopped: AtomicBool,
    /// The first error.
    failure: Mutex<Option<Error>>,
    progress: Option<&'a Progress<'a>>,
}

impl Writing<'_, '_> {
    /// Writes the next piece until none is left.
    fn run(&self, flush: &SyncSender<usize>) {
        let mut buffer = Vec::new();
        while !self.stopped.load(Ordering::Relaxed) {
            let Some(&(tensor, piece)) = self.pieces.get(self.next.fetch_add(1, Ordering::Relaxed)) else {
                return;
            };
            match self.works[tensor].write(piece, &mut buffer) {
                Ok(length) => self.account(tensor, length, flush),
                Err(error) => self.fail(error),
            }
        }
    }

    fn account(&self, tensor: usize, length: usize, flush: &SyncSender<usize>) {
        let before = self.written.fetch_add(length, Ordering::Relaxed);
        if before / FLUSH < (before + length) / FLUSH {
            // While one flush is on its way and one waits, more would change nothing.
            let _ = flush.try_send(tensor);
        }
        if self.progress.is_some_and(|progress| progress(length as u64).is_break()) {
            self.fail(Error::Stopped);
        }
    }

    /// Waits until what was written to a tensor's file is on disk.
    fn flush(&self, tensor: usize) {
        let Destination { file, path, .. } = self.works[tensor].to;
        if !self.stopped.load(Ordering::Relaxed)
            && let Err(error) = file.sync_data()
        {
            self.fail(Error::io("sync", path)(error));
        }
    }

    fn fail(&self, error: Error) {
        self.stopped.store(true, Ordering::Relaxed);
        lock(&self.failure).get_or_insert(error);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
