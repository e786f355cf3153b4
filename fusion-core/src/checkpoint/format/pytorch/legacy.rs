//! Files from before PyTorch 1.6: five pickles (a magic number, the protocol, the machine, the state dict, the storages'
//! keys), then for each key the number of elements as i64 and the elements.

use std::collections::HashMap;
use std::ops::Range;

use super::super::Tensors;
use super::pickle::{Pickle, Value};
use super::state_dict;

/// `PROTO 2`, `LONG1` and the magic number.
const MAGIC: [u8; 14] = [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const PROTOCOL: i64 = 1001;

/// Whether a file begins like one.
pub(in super::super) fn is_legacy(bytes: &[u8]) -> bool {
    let begin = bytes.get(..MAGIC.len().min(bytes.len())).unwrap_or_default();
    begin.len() > 2 && MAGIC.starts_with(begin)
}

pub(in super::super) fn read(bytes: &[u8]) -> Result<Tensors, String> {
    let mut at = 0;
    let mut next = |what: &str| {
        let pickle = Pickle::read(bytes, at).map_err(|problem| format!("{what}: {problem}"))?;
        at = pickle.end();
        Ok::<_, String>(pickle)
    };
    next("the magic number")?;
    let protocol = next("the protocol")?;
    let Value::Integer(PROTOCOL) = protocol.root() else {
        return Err(format!("the protocol is not {PROTOCOL}"));
    };
    let machine = next("the machine")?;
    let is_big = |(key, value): &(_, _)| {
        matches!(
            (machine.value(*key), machine.value(*value)),
            (Value::Text("little_endian"), Value::Bool(false))
        )
    };
    if matches!(machine.root(), Value::Dict(items) if items.iter().any(is_big)) {
        return Err("its bytes are in big-endian order".into());
    }
    let state = next("the state dict")?;
    let keys = next("the storages' keys")?;
    let places = places(bytes, at, &state, &keys)?;
    let storage = |key: &str, size: usize| match places.get(key) {
        Some(range) if range.len() >= size => Ok(range.clone()),
        Some(range) => Err(format!("storage {key} should have {size} bytes, but has {}", range.len())),
        None => Err(format!("there is no storage {key}")),
    };
    state_dict::tensors(&state, storage)
}

/// Where the elements of each storage lie. They follow each other from `at` on.
fn places<'a>(
    bytes: &[u8],
    mut at: usize,
    state: &Pickle<'_>,
    keys: &Pickle<'a>,
) -> Result<HashMap<&'a str, Range<usize>>, String> {
    let sizes: HashMap<&str, usize> =
        state.storages().map(|storage| (storage.key, storage.dtype.bitsize() / 8)).collect();
    let Value::List(list) = keys.root() else { return Err("the storages' keys are not a list".into()) };
    let mut places = HashMap::new();
    for key in list {
        let Value::Text(key) = keys.value(*key) else { return Err("a storage's key is not a text".into()) };
        let size = sizes.get(key).ok_or_else(|| format!("no tensor uses storage {key}"))?;
        let truncated = || format!("truncated in storage {key}");
        let count = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or_else(truncated)?;
        let length = usize::try_from(i64::from_le_bytes(*count)).ok().and_then(|n| n.checked_mul(*size));
        let start = at + size_of::<i64>();
        let end = length.and_then(|length| start.checked_add(length));
        at = end.filter(|end| *end <= bytes.len()).ok_or_else(truncated)?;
        places.insert(*key, start..at);
    }
    Ok(places)
}
