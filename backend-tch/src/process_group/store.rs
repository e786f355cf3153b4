//! The store in which ranks meet, and the heartbeats that they leave in it.

use std::ffi::c_void;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use t5_model::backend::Rendezvous;

use super::shim::{
    checked, deep_fusion_leave, deep_fusion_store, deep_fusion_store_get, deep_fusion_store_set,
    milliseconds, string,
};

/// How often each rank says that it is there, and how long to listen for that after a failure.
pub const BEAT: Duration = Duration::from_secs(1);

/// What all ranks can read and write.
pub struct Store(pub *mut c_void);

// SAFETY: c10d's stores and process groups are made for several threads.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Store {
    pub fn open(rendezvous: &Rendezvous) -> Result<Self, String> {
        let Rendezvous { address, port, prefix, options, .. } = rendezvous;
        let (host, prefix) = (string(address), string(prefix));
        let serves = rendezvous.is_served_here();
        let mut store = std::ptr::null_mut();
        // SAFETY: the strings live during the call, which fills in the handle if it succeeds.
        let error = unsafe {
            let timeout = milliseconds(options.timeout);
            deep_fusion_store(host.as_ptr(), *port, serves, prefix.as_ptr(), timeout, &raw mut store)
        };
        checked(error).map(|()| Store(store))
    }

    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
        let key = string(key);
        // SAFETY: key and value live during the call.
        checked(unsafe { deep_fusion_store_set(self.0, key.as_ptr(), value.as_ptr(), value.len()) })
    }

    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        let (key, mut value, mut size) = (string(key), std::ptr::null_mut(), 0);
        // SAFETY: the key lives during the call, which fills in value and size.
        checked(unsafe { deep_fusion_store_get(self.0, key.as_ptr(), &raw mut value, &raw mut size) })?;
        if value.is_null() {
            return Ok(None);
        }
        // SAFETY: the shim has allocated so many bytes with `malloc`, and does not keep them.
        unsafe {
            let owned = std::slice::from_raw_parts(value, size).to_vec();
            libc::free(value.cast());
            Ok(Some(owned))
        }
    }

    pub fn text(&self, key: &str) -> Result<Option<String>, String> {
        Ok(self.get(key)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: nobody else has the handle.
        unsafe { deep_fusion_leave(self.0) }
    }
}

/// A thread that says time and again that its rank is there.
pub struct Beats {
    ended: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Beats {
    pub fn begin(store: Arc<Store>, rank: usize) -> Self {
        let ended = Arc::new((Mutex::new(false), Condvar::new()));
        let until = ended.clone();
        let thread = thread::spawn(move || {
            for beat in 0_u64.. {
                // A store that has ended is seen by the next exchange.
                let _ = store.set(&beat_of(rank), &beat.to_le_bytes());
                let guard = until.0.lock().unwrap_or_else(PoisonError::into_inner);
                let waited = until.1.wait_timeout_while(guard, BEAT, |ended| !*ended);
                if *waited.unwrap_or_else(PoisonError::into_inner).0 {
                    break;
                }
            }
        });
        Beats { ended, thread: Some(thread) }
    }
}

impl Drop for Beats {
    fn drop(&mut self) {
        *self.ended.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.ended.1.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The key of a rank's heartbeat.
pub fn beat_of(rank: usize) -> String {
    format!("beat {rank}")
}
