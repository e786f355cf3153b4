//! How many operations libtorch runs.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_void};

unsafe extern "C" {
    fn deep_fusion_profile_begin();
    fn deep_fusion_profile_end(
        context: *mut c_void,
        each: extern "C" fn(*mut c_void, *const c_char, usize, u64),
    );
}

/// Operations by their names, such as `aten::mm`, of a whole process: one call of [`Operations::of`] at a time.
#[derive(Clone, Debug, Default)]
pub struct Operations(BTreeMap<String, u64>);

/// Operations that only look at memory in another way or make room, and those that do their work by calling others, which count.
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
    /// Those that `run` takes.
    pub fn of<T>(run: impl FnOnce() -> T) -> (T, Operations) {
        extern "C" fn add(context: *mut c_void, name: *const c_char, length: usize, times: u64) {
            // SAFETY: the context is the one below, and the name a string that lives during this call.
            let (operations, name) = unsafe {
                let name = std::slice::from_raw_parts(name.cast::<u8>(), length);
                (&mut *context.cast::<Operations>(), name)
            };
            operations.0.insert(String::from_utf8_lossy(name).into_owned(), times);
        }
        let mut operations = Operations::default();
        // SAFETY: `end` calls `add` with the pointer to `operations`, and keeps nothing.
        unsafe { deep_fusion_profile_begin() };
        let result = run();
        unsafe { deep_fusion_profile_end((&raw mut operations).cast(), add) };
        (result, operations)
    }

    /// How many there were that compute or copy. On a GPU each is a kernel or more.
    pub fn work(&self) -> u64 {
        let works = |name: &str| !NO_WORK.contains(&name.strip_prefix("aten::").unwrap_or(name));
        self.0.iter().filter(|(name, _)| works(name)).map(|(_, times)| times).sum()
    }

    /// How often the host asked for a number, for which it waits on a GPU.
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
