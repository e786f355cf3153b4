//! Counts the operations that libtorch runs.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_void};

unsafe extern "C" {
    fn deep_fusion_profile_begin();
    fn deep_fusion_profile_end(
        context: *mut c_void,
        each: extern "C" fn(*mut c_void, *const c_char, usize, u64),
    );
}

/// Operation counts by name, such as `aten::mm`. They are counted for the whole process, so only one
/// [`Operations::of`] may run at a time.
#[derive(Clone, Debug, Default)]
pub struct Operations(BTreeMap<String, u64>);

/// Operations that do no work themselves: views, allocations, and composites whose parts are counted.
const NO_WORK: [&str; 38] = [
    "_reshape_alias",
    "_to_copy",
    "_unsafe_view",
    "alias",
    "as_strided",
    "clone",
    "contiguous",
    "detach",
    "empty",
    "empty_like",
    "empty_strided",
    "expand",
    "item",
    "lift_fresh",
    "log_softmax",
    "matmul",
    "mean",
    "narrow",
    "norm",
    "numpy_T",
    "ones",
    "reshape",
    "resize_",
    "resolve_conj",
    "result_type",
    "select",
    "slice",
    "softmax",
    "split_with_sizes",
    "square",
    "stack",
    "t",
    "to",
    "transpose",
    "unsqueeze",
    "view",
    "view_as",
    "zeros",
];

impl Operations {
    /// Counts the operations of `run`.
    pub fn of<T>(run: impl FnOnce() -> T) -> (T, Operations) {
        extern "C" fn add(context: *mut c_void, name: *const c_char, length: usize, times: u64) {
            // SAFETY: the context is the one below, and the name is a string that lives during this call.
            let (operations, name) = unsafe {
                let name = std::slice::from_raw_parts(name.cast::<u8>(), length);
                (&mut *context.cast::<Operations>(), name)
            };
            operations.0.insert(String::from_utf8_lossy(name).into_owned(), times);
        }
        let mut operations = Operations::default();
        // SAFETY: `end` calls `add` with the pointer to `operations`, and does not keep it.
        unsafe { deep_fusion_profile_begin() };
        let result = run();
        unsafe { deep_fusion_profile_end((&raw mut operations).cast(), add) };
        (result, operations)
    }

    /// The number of operations that compute or copy. On a GPU each is at least one kernel.
    pub fn work(&self) -> u64 {
        let works = |name: &str| !NO_WORK.contains(&name.strip_prefix("aten::").unwrap_or(name));
        self.0.iter().filter(|(name, _)| works(name)).map(|(_, times)| times).sum()
    }

    /// How often the host read a number, which synchronises with a GPU.
    pub fn reads(&self) -> u64 {
        self.0.get("aten::_local_scalar_dense").copied().unwrap_or(0)
    }

    /// The most frequent first.
    pub fn by_frequency(&self) -> Vec<(&str, u64)> {
        let mut all: Vec<(&str, u64)> = self.0.iter().map(|(name, times)| (name.as_str(), *times)).collect();
        all.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
        all
    }
}
