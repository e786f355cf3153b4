//! Flax's MessagePack, which T5X keeps its checkpoints in: nested maps with arrays as leaves. An array is an extension of
//! type 1 that holds another message, `[shape, type, bytes]`. Leaves of other kinds are passed over.

use rmp::Marker;
use rmp::decode;

use super::{Extent, Tensors};
use crate::Dtype;

const ARRAY: i8 = 1;
/// What T5X's checkpoints begin with: a map, whose first key is one of these.
const FIRST_KEYS: [&str; 4] = ["version", "optimizer", "target", "state"];
/// Deeper maps, longer keys, and more and longer names than parameters have. A name is made of all keys on the way.
const MAX_DEPTH: usize = 32;
const MAX_KEY: usize = 256;
const MAX_NAME: usize = 512;
const MAX_ARRAYS: usize = 1 << 16;
/// More dimensions than an array has.
const MAX_RANK: u32 = 16;

/// Whether a file begins like one.
pub(super) fn is_checkpoint(bytes: &[u8]) -> bool {
    let mut reader = Reader { bytes, at: 0 };
    match reader.marker() {
        Ok(Marker::FixMap(_) | Marker::Map16 | Marker::Map32) => {
            reader.at = 0;
            reader.map().is_ok() && reader.text().is_ok_and(|key| FIRST_KEYS.contains(&key))
        }
        _ => false,
    }
}

pub(super) fn read(bytes: &[u8]) -> Result<Tensors, String> {
    let mut reader = Reader { bytes, at: 0 };
    let mut tensors = Tensors::new();
    reader.value(&mut Vec::new(), &mut tensors)?;
    if reader.at < bytes.len() {
        return Err(format!("{} bytes follow the last value", bytes.len() - reader.at));
    }
    Ok(tensors)
}

/// A message that is read from front to back.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads a value, the leaf or the map at `path`.
    fn value(&mut self, path: &mut Vec<&'a str>, tensors: &mut Tensors) -> Result<(), String> {
        if path.len() > MAX_DEPTH {
            return Err(at(path)(format!("more than {MAX_DEPTH} maps in each other")));
        }
        let start = self.at;
        let marker = self.marker().map_err(at(path))?;
        self.at = start;
        if let Marker::FixMap(_) | Marker::Map16 | Marker::Map32 = marker {
            let length = self.map().map_err(at(path))?;
            for _ in 0..length {
                let key = self.text().map_err(at(path))?;
                path.push(key);
                self.value(path, tensors)?;
                path.pop();
            }
        } else if let Some(array) = self.leaf().map_err(at(path))? {
            let name = path.join("/");
            if name.len() > MAX_NAME || tensors.len() == MAX_ARRAYS {
                return Err(format!(
                    "more than {MAX_ARRAYS} arrays, or one with a name of {} bytes",
                    name.len()
                ));
            }
            if tensors.insert(name, array).is_some() {
                return Err(at(path)("a second array of this name".into()));
            }
        }
        Ok(())
    }

    /// A value that is no map; an array's place.
    fn leaf(&mut self) -> Result<Option<Extent>, String> {
        let start = self.at;
        let length = match self.marker()? {
            Marker::Null | Marker::True | Marker::False | Marker::FixPos(_) | Marker::FixNeg(_) => 0,
            Marker::U8 | Marker::I8 => 1,
            Marker::U16 | Marker::I16 => 2,
            Marker::U32 | Marker::I32 | Marker::F32 => 4,
            Marker::U64 | Marker::I64 | Marker::F64 => 8,
            Marker::FixStr(length) => length.into(),
            Marker::Str8 | Marker::Bin8 => self.number(1)?,
            Marker::Str16 | Marker::Bin16 => self.number(2)?,
            Marker::Str32 | Marker::Bin32 => self.number(4)?,
            Marker::FixExt1
            | Marker::FixExt2
            | Marker::FixExt4
            | Marker::FixExt8
            | Marker::FixExt16
            | Marker::Ext8
            | Marker::Ext16
            | Marker::Ext32 => {
                self.at = start;
                return self.extension();
            }
            Marker::FixArray(_) | Marker::Array16 | Marker::Array32 => {
                return Err("a list, where T5X has maps and arrays".into());
            }
            _ => return Err("no MessagePack".into()),
        };
        self.take(length)?;
        Ok(None)
    }

    fn extension(&mut self) -> Result<Option<Extent>, String> {
        let meta = self.decode(decode::read_ext_meta)?;
        let start = self.at;
        self.take(meta.size as usize)?;
        if meta.typeid != ARRAY {
            return Ok(None);
        }
        let mut array = Reader { bytes: self.bytes.get(..self.at).unwrap_or_default(), at: start };
        array.array().map(Some)
    }

    /// `[shape, type, bytes]`.
    fn array(&mut self) -> Result<Extent, String> {
        if self.decode(decode::read_array_len)? != 3 {
            return Err("an array is not made of shape, type and bytes".into());
        }
        let rank = self.decode(decode::read_array_len)?;
        if rank > MAX_RANK {
            return Err(format!("an array of {rank} dimensions"));
        }
        let sizes = (0..rank).map(|_| self.size());
        let shape = sizes.collect::<Result<Vec<usize>, String>>()?;
        let dtype = match self.text()? {
            "float64" => Dtype::F64,
            "float32" => Dtype::F32,
            "float16" => Dtype::F16,
            "bfloat16" => Dtype::BF16,
            "int64" => Dtype::I64,
            "int32" => Dtype::I32,
            "int16" => Dtype::I16,
            "int8" => Dtype::I8,
            "uint64" => Dtype::U64,
            "uint32" => Dtype::U32,
            "uint16" => Dtype::U16,
            "uint8" => Dtype::U8,
            "bool" => Dtype::BOOL,
            other => return Err(format!("an array of type {other:?}, which cannot be read")),
        };
        let length = self.decode(decode::read_bin_len)?;
        let start = self.at;
        let expected = shape.iter().try_fold(dtype.bitsize() / 8, |bytes, size| bytes.checked_mul(*size));
        if expected != Some(length as usize) {
            return Err(format!("an array of shape {shape:?} and type {dtype} has {length} bytes"));
        }
        self.take(length as usize)?;
        Ok(Extent { dtype, shape, start, end: self.at })
    }

    fn map(&mut self) -> Result<u32, String> {
        self.decode(decode::read_map_len)
    }

    fn size(&mut self) -> Result<usize, String> {
        self.decode(decode::read_int)
    }

    fn text(&mut self) -> Result<&'a str, String> {
        let length = self.decode(decode::read_str_len)? as usize;
        if length > MAX_KEY {
            return Err(format!("a name of {length} bytes"));
        }
        str::from_utf8(self.take(length)?).map_err(|_| "a name is not UTF-8".into())
    }

    fn marker(&mut self) -> Result<Marker, String> {
        self.take(1)?.first().map(|byte| Marker::from_u8(*byte)).ok_or_else(truncated)
    }

    /// A big-endian number of at most 4 bytes.
    fn number(&mut self, bytes: usize) -> Result<usize, String> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| (number << 8) | usize::from(*byte)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let taken = self.rest().get(..length).ok_or_else(truncated)?;
        self.at += length;
        Ok(taken)
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn decode<T, E: std::fmt::Display>(
        &mut self,
        read: impl FnOnce(&mut &'a [u8]) -> Result<T, E>,
    ) -> Result<T, String> {
        let mut rest = self.rest();
        let value = read(&mut rest).map_err(|error| error.to_string())?;
        self.at = self.bytes.len() - rest.len();
        Ok(value)
    }
}

/// For `map_err`: where in the maps something is wrong.
fn at(path: &[&str]) -> impl FnOnce(String) -> String {
    move |problem| format!("at {:?}: {problem}", path.join("/"))
}

fn truncated() -> String {
    "truncated".into()
}
