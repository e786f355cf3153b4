//! Damaged files, and the memory that reading them takes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

/// Notes the largest piece of memory that each thread asks for.
struct Guard;

#[global_allocator]
static GUARD: Guard = Guard;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn note(size: usize) {
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
}

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Guard {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Runs what reads a small file, which takes small pieces of memory.
pub fn within_memory<T>(read: impl FnOnce() -> T) -> T {
    LARGEST.set(0);
    let result = read();
    let largest = LARGEST.get();
    assert!(largest <= 16 << 20, "{largest} bytes were asked for at once");
    result
}

/// What happens to a file's bytes: a piece is repeated elsewhere, some are set, the end is cut off.
#[derive(Clone, Debug)]
pub struct Damage {
    repeated: Option<(Index, Index, usize)>,
    set: Vec<(Index, u8)>,
    length: Option<Index>,
}

pub fn damage() -> impl Strategy<Value = Damage> {
    let repeated = prop::option::of((any::<Index>(), any::<Index>(), 1..40usize));
    let set = prop::collection::vec((any::<Index>(), any::<u8>()), 0..4);
    (repeated, set, prop::option::weighted(0.3, any::<Index>())).prop_map(|(repeated, set, length)| Damage {
        repeated,
        set,
        length,
    })
}

impl Damage {
    pub fn apply(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        if let Some((from, to, length)) = self.repeated {
            let length = length.min(bytes.len());
            let from = from.index(bytes.len() - length + 1);
            let piece = bytes[from..from + length].to_vec();
            let to = to.index(bytes.len() + 1);
            bytes.splice(to..to, piece);
        }
        for (at, byte) in &self.set {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        if let Some(length) = self.length {
            bytes.truncate(length.index(bytes.len()));
        }
        bytes
    }
}

/// A value of a JSON document is replaced by another, or by nothing.
#[derive(Clone, Debug)]
pub struct Replacement {
    place: Index,
    value: Option<Value>,
}

pub fn replacement() -> impl Strategy<Value = Replacement> {
    let values = [
        json!(null),
        json!(0),
        json!(1),
        json!(-1),
        json!(2.5),
        json!(1e300),
        json!(u32::MAX),
        json!(1u64 << 52),
        json!(u64::MAX),
        json!(""),
        json!("../../etc/passwd"),
        json!("a\u{0}b"),
        json!([]),
        json!([0, u64::MAX]),
        json!({}),
        json!(true),
    ];
    let value = prop::option::weighted(0.9, prop::sample::select(values.to_vec()));
    (any::<Index>(), value).prop_map(|(place, value)| Replacement { place, value })
}

impl Replacement {
    pub fn apply(&self, document: &Value) -> Value {
        let mut places = Vec::new();
        walk(document, String::new(), &mut places);
        let place = &places[self.place.index(places.len())];
        let mut document = document.clone();
        match (&self.value, place.rsplit_once('/')) {
            (Some(value), _) => *document.pointer_mut(place).expect("a place") = value.clone(),
            (None, Some((parent, key))) => match document.pointer_mut(parent).expect("a parent") {
                Value::Object(object) => drop(object.remove(&unescaped(key))),
                Value::Array(array) => drop(array.pop()),
                _ => {}
            },
            (None, None) => {}
        }
        document
    }
}

/// The pointers (RFC 6901) of all values.
fn walk(value: &Value, at: String, places: &mut Vec<String>) {
    match value {
        Value::Object(object) => object.iter().for_each(|(key, value)| {
            walk(value, format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), places)
        }),
        Value::Array(array) => (0..).zip(array).for_each(|(index, value): (usize, _)| {
            walk(value, format!("{at}/{index}"), places);
        }),
        _ => {}
    }
    places.push(at);
}

fn unescaped(key: &str) -> String {
    key.replace("~1", "/").replace("~0", "~")
}
