//! What `shim/process_group.cpp` offers of c10d, which tch has no binding for.

use std::ffi::{CStr, CString, c_char, c_void};
use std::time::Duration;

unsafe extern "C" {
    pub fn deep_fusion_store(
        host: *const c_char,
        port: u16,
        serve: bool,
        prefix: *const c_char,
        timeout_ms: i64,
        out: *mut *mut c_void,
    ) -> *mut c_char;
    pub fn deep_fusion_connect(
        group: *mut c_void,
        rank: i32,
        world_size: i32,
        interface: *const c_char,
        address: *const c_char,
        timeout_ms: i64,
    ) -> *mut c_char;
    pub fn deep_fusion_leave(group: *mut c_void);
    pub fn deep_fusion_store_set(
        group: *mut c_void,
        key: *const c_char,
        value: *const u8,
        size: usize,
    ) -> *mut c_char;
    pub fn deep_fusion_store_get(
        group: *mut c_void,
        key: *const c_char,
        value: *mut *mut u8,
        size: *mut usize,
    ) -> *mut c_char;
    pub fn deep_fusion_all_reduce(
        group: *mut c_void,
        values: *mut f32,
        size: i64,
        out: *mut *mut c_void,
    ) -> *mut c_char;
    pub fn deep_fusion_all_reduce_tensor(
        group: *mut c_void,
        tensor: *mut c_void,
        out: *mut *mut c_void,
    ) -> *mut c_char;
    pub fn deep_fusion_wait(exchange: *mut c_void) -> *mut c_char;
    pub fn deep_fusion_all_gather(group: *mut c_void, own: *const u8, size: i64, out: *mut u8)
    -> *mut c_char;
}

/// An exchange that has begun.
pub struct Exchange {
    pub handle: *mut c_void,
    pub values: Vec<f32>,
}

impl Exchange {
    pub fn wait(mut self) -> Result<Vec<f32>, String> {
        self.finish()?;
        Ok(std::mem::take(&mut self.values))
    }

    fn finish(&mut self) -> Result<(), String> {
        let handle = std::mem::replace(&mut self.handle, std::ptr::null_mut());
        if handle.is_null() {
            return Ok(());
        }
        // SAFETY: the handle is waited for once; that frees it.
        checked(unsafe { deep_fusion_wait(handle) })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // The numbers must outlive it.
        let _ = self.finish();
    }
}

/// Without the zero bytes that it cannot have.
pub fn string(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap_or_default()
}

pub fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// What a function of the shim returns: nothing, or its error.
pub fn checked(error: *mut c_char) -> Result<(), String> {
    match owned(error) {
        None => Ok(()),
        // The rest, and what is in brackets before, is where in libtorch it happened.
        Some(said) => {
            let said = said.lines().next().unwrap_or_default().trim_end_matches('.');
            let place = said.strip_prefix('[').and_then(|rest| rest.split_once("] "));
            Err(place.map_or(said, |(_, said)| said).to_owned())
        }
    }
}

/// A string that the shim has allocated.
fn owned(text: *mut c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the shim returns strings that it has allocated with `malloc` and does not keep.
    unsafe {
        let owned = CStr::from_ptr(text).to_string_lossy().into_owned();
        libc::free(text.cast());
        Some(owned)
    }
}
