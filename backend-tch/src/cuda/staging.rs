//! A pinned staging buffer for uploads. Copies are asynchronous; the buffer is reused only after they have
//! completed.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, result};

/// Size of each half of the buffer, in bytes.
const HALF: usize = 4 << 20;

/// Pinned memory in two halves that are filled alternately.
pub struct Staging {
    memory: *mut u8,
    /// Recorded on the stream when a half is full.
    events: [CudaEvent; 2],
    half: usize,
    used: usize,
}

impl Staging {
    pub fn new(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        let event = || context.new_event(None);
        let events = [event()?, event()?];
        // SAFETY: freed when this is dropped.
        let memory = unsafe { result::malloc_host(2 * HALF, 0) }?.cast();
        Ok(Staging { memory, events, half: 0, used: 0 })
    }

    /// Starts a copy to the device. Returns false if the bytes do not fit into a half.
    pub fn send(&mut self, bytes: &[u8], to: u64, stream: &CudaStream) -> Result<bool, DriverError> {
        if bytes.len() > HALF {
            return Ok(false);
        }
        if self.used + bytes.len() > HALF {
            self.events[self.half].record(stream)?;
            self.half = 1 - self.half;
            self.used = 0;
            // An event that was never recorded is complete.
            self.events[self.half].synchronize()?;
        }
        // SAFETY: the bytes fit into this half, whose last copies have completed; the device memory is as
        // large.
        unsafe {
            let place = self.memory.add(self.half * HALF + self.used);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len());
            let staged = std::slice::from_raw_parts(place, bytes.len());
            result::memcpy_htod_async(to, staged, stream.cu_stream())?;
        }
        self.used += bytes.len().next_multiple_of(256);
        Ok(true)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`; copies complete before CUDA frees it.
        let _ = unsafe { result::free_host(self.memory.cast::<c_void>()) };
    }
}
