//! Python's unpickling machine. A pickle is a program; this runs the few instructions that state dicts consist of, over
//! the few functions that they call. Everything else is an error that names it: nothing is imported or executed.

use std::collections::HashMap;

use super::pickle::{Global, Handle, Storage, StridedTensor, Value};

/// A longer pickle is no state dict: T5 11B's takes some hundred KB.
const MAX_PICKLE: usize = 1 << 22;
/// More values than a state dict has: T5 11B's has some ten thousand. Some instructions of two bytes make a large one.
const MAX_VALUES: usize = 1 << 19;
/// More dimensions than a tensor has, and more arguments than a function takes.
const MAX_TUPLE: usize = 16;

/// A stack, marks on it, and a memo.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Handle>,
    marks: Vec<usize>,
    memo: HashMap<u32, Handle>,
}

impl<'a> Machine<'a> {
    pub fn new(bytes: &'a [u8], start: usize) -> Self {
        let limit = bytes.len().min(start.saturating_add(MAX_PICKLE));
        let bytes = bytes.get(..limit).unwrap_or_default();
        Machine {
            bytes,
            at: start,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        }
    }

    /// The next instruction's byte.
    pub fn at(&self) -> usize {
        self.at
    }

    pub fn into_values(self) -> Vec<Value<'a>> {
        self.values
    }

    /// Runs an instruction; the last one gives the result. The names are Python's.
    pub fn step(&mut self) -> Result<Option<Handle>, String> {
        if self.values.len() > MAX_VALUES {
            return Err(format!("it has more than {MAX_VALUES} values, which no state dict has"));
        }
        match self.byte()? {
            b'.' => return self.pop().map(Some),       // STOP
            0x80 => drop(self.take(1)?),               // PROTO
            0x95 => drop(self.take(8)?),               // FRAME
            b'(' => self.marks.push(self.stack.len()), // MARK
            b'0' => drop(self.pop()?),                 // POP

            b'N' => self.push(Value::None),              // NONE
            0x88 => self.push(Value::Bool(true)),        // NEWTRUE
            0x89 => self.push(Value::Bool(false)),       // NEWFALSE
            b'K' => self.unsigned_integer(1)?,           // BININT1
            b'M' => self.unsigned_integer(2)?,           // BININT2
            b'J' => self.signed_integer(4)?,             // BININT
            0x8a => self.long()?,                        // LONG1
            b'G' => self.float()?,                       // BINFLOAT
            b'X' => self.text(4)?,                       // BINUNICODE
            0x8c | b'U' => self.text(1)?,                // SHORT_BINUNICODE, SHORT_BINSTRING
            b')' => self.push(Value::Tuple(Vec::new())), // EMPTY_TUPLE
            b']' => self.push(Value::List(Vec::new())),  // EMPTY_LIST
            b'}' => self.push(Value::Dict(Vec::new())),  // EMPTY_DICT

            length @ 0x85..=0x87 => self.tuple(usize::from(length) - 0x84)?, // TUPLE1, TUPLE2, TUPLE3
            b't' => self.pop_mark().map(|items| self.push(Value::Tuple(items)))?, // TUPLE
            b'a' => self.pop().and_then(|item| self.append(vec![item]))?,    // APPEND
            b'e' => self.pop_mark().and_then(|items| self.append(items))?,   // APPENDS
            b's' => self.pop_many(2).and_then(|items| self.set(&items))?,    // SETITEM
            b'u' => self.pop_mark().and_then(|items| self.set(&items))?,     // SETITEMS

            b'q' => self.unsigned(1).and_then(|index| self.memorise(index))?, // BINPUT
            b'r' => self.unsigned(4).and_then(|index| self.memorise(index))?, // LONG_BINPUT
            0x94 => self.memorise(self.memo.len() as u32)?,                   // MEMOIZE
            b'h' => self.unsigned(1).and_then(|index| self.recall(index))?,   // BINGET
            b'j' => self.unsigned(4).and_then(|index| self.recall(index))?,   // LONG_BINGET

            b'c' => self.global()?,         // GLOBAL
            0x93 => self.stacked_global()?, // STACK_GLOBAL
            b'Q' => self.persistent()?,     // BINPERSID
            b'R' => self.call()?,           // REDUCE
            b'b' => self.build()?,          // BUILD
            other => return Err(format!("state dicts have no instruction {other:#04x}")),
        }
        Ok(None)
    }

    fn byte(&mut self) -> Result<u8, String> {
        let byte = self.take(1)?.first().copied();
        byte.ok_or_else(cut_short)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.get(..length)).ok_or_else(cut_short)?;
        self.at += length;
        Ok(taken)
    }

    /// A little-endian number of at most 4 bytes.
    fn unsigned(&mut self, bytes: usize) -> Result<u32, String> {
        let taken = self.take(bytes)?;
        Ok(taken.iter().rev().fold(0, |number, byte| (number << 8) | u32::from(*byte)))
    }

    fn unsigned_integer(&mut self, bytes: usize) -> Result<(), String> {
        let value = self.unsigned(bytes)?;
        self.push(Value::Integer(value.into()));
        Ok(())
    }

    /// A little-endian number in two's complement.
    fn signed_integer(&mut self, bytes: usize) -> Result<(), String> {
        let taken = self.take(bytes)?;
        let sign = if taken.last().is_some_and(|last| *last >= 0x80) { 0xff } else { 0 };
        let mut padded = [sign; 8];
        let value = match padded.get_mut(..bytes) {
            Some(low) => {
                low.copy_from_slice(taken);
                Value::Integer(i64::from_le_bytes(padded))
            }
            None => Value::Number,
        };
        self.push(value);
        Ok(())
    }

    fn long(&mut self) -> Result<(), String> {
        let length = self.byte()?;
        self.signed_integer(length.into())
    }

    fn float(&mut self) -> Result<(), String> {
        self.take(8)?;
        self.push(Value::Number);
        Ok(())
    }

    /// A text behind its length of so many bytes.
    fn text(&mut self, length: usize) -> Result<(), String> {
        let length = self.unsigned(length)? as usize;
        let text = str::from_utf8(self.take(length)?).map_err(|_| "a text is not UTF-8")?;
        self.push(Value::Text(text));
        Ok(())
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|byte| *byte == b'\n').ok_or_else(cut_short)?;
        let line = self.take(length)?;
        self.take(1)?;
        str::from_utf8(line).map_err(|_| "a function's name is not UTF-8".into())
    }

    fn value(&self, handle: Handle) -> &Value<'a> {
        self.values.get(handle.0).unwrap_or(&Value::None)
    }

    fn push(&mut self, value: Value<'a>) {
        self.stack.push(Handle(self.values.len()));
        self.values.push(value);
    }

    /// A value stays above the last mark until that is taken.
    fn pop(&mut self) -> Result<Handle, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let popped = if self.stack.len() > floor { self.stack.pop() } else { None };
        popped.ok_or_else(|| "it takes a value where none is left".into())
    }

    /// In the order in which they were pushed.
    fn pop_many(&mut self, count: usize) -> Result<Vec<Handle>, String> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        Ok(items)
    }

    fn pop_mark(&mut self) -> Result<Vec<Handle>, String> {
        let mark = self.marks.pop().ok_or("it takes a mark where none is left")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    /// The value on top, which stays there.
    fn top(&mut self) -> Result<&mut Value<'a>, String> {
        let top = self.stack.last().and_then(|top| self.values.get_mut(top.0));
        top.ok_or_else(|| "it needs a value where none is left".into())
    }

    fn tuple(&mut self, length: usize) -> Result<(), String> {
        let items = self.pop_many(length)?;
        self.push(Value::Tuple(items));
        Ok(())
    }

    fn append(&mut self, items: Vec<Handle>) -> Result<(), String> {
        match self.top()? {
            Value::List(list) => list.extend(items),
            other => return Err(format!("it appends to {}", other.kind())),
        }
        Ok(())
    }

    /// Keys and values in turn.
    fn set(&mut self, items: &[Handle]) -> Result<(), String> {
        let (pairs, rest) = items.as_chunks();
        match self.top()? {
            Value::Dict(dict) if rest.is_empty() => {
                dict.extend(pairs.iter().map(|[key, value]| (*key, *value)));
            }
            Value::Dict(_) => return Err("a key has no value".into()),
            other => return Err(format!("it sets items of {}", other.kind())),
        }
        Ok(())
    }

    fn memorise(&mut self, index: u32) -> Result<(), String> {
        let top = *self.stack.last().ok_or("there is nothing to memorise")?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<(), String> {
        let value = self.memo.get(&index).ok_or_else(|| format!("the memo has nothing at {index}"))?;
        self.stack.push(*value);
        Ok(())
    }

    fn global(&mut self) -> Result<(), String> {
        let (module, name) = (self.line()?, self.line()?);
        self.push(Value::Global(Global::of(module, name)?));
        Ok(())
    }

    fn stacked_global(&mut self) -> Result<(), String> {
        let (name, module) = (self.pop()?, self.pop()?);
        let (Value::Text(module), Value::Text(name)) = (self.value(module), self.value(name)) else {
            return Err("a function's name is not a text".into());
        };
        self.push(Value::Global(Global::of(module, name)?));
        Ok(())
    }

    /// `('storage', type, key, device, elements)`, in old files with a view of it behind.
    fn persistent(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let parts: Vec<&Value<'a>> = self.items(self.value(id))?;
        let [Value::Text("storage"), kind, Value::Text(key), _, Value::Integer(elements), view @ ..] =
            parts.as_slice()
        else {
            return Err("it refers to something other than a storage".into());
        };
        let (Value::Global(Global::StorageType(dtype)), [] | [Value::None]) = (kind, view) else {
            return Err(format!("storage {key:?} is of a kind that cannot be read"));
        };
        let elements =
            usize::try_from(*elements).map_err(|_| format!("storage {key:?} has {elements} elements"))?;
        let storage = Storage { key, dtype: *dtype, elements };
        self.push(Value::Storage(storage));
        Ok(())
    }

    fn call(&mut self) -> Result<(), String> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Value::Global(function) = self.value(function) else {
            return Err(format!("it calls {}", self.value(function).kind()));
        };
        let made = match (function, self.items(self.value(arguments))?.as_slice()) {
            (Global::OrderedDict, []) => Value::Dict(Vec::new()),
            (Global::RebuildParameter, [Value::Tensor(tensor), ..]) => Value::Tensor(tensor.clone()),
            (
                Global::RebuildTensor,
                [Value::Storage(storage), Value::Integer(offset), shape, strides, ..],
            ) => {
                let offset = usize::try_from(*offset).map_err(|_| "a tensor's offset is negative")?;
                let (shape, strides) = (self.sizes(shape)?, self.sizes(strides)?);
                Value::Tensor(StridedTensor { storage: *storage, offset, shape, strides })
            }
            _ => return Err("it calls a function with arguments that state dicts do not give".into()),
        };
        self.push(made);
        Ok(())
    }

    /// The items of a tuple that is short: a long one might be read again and again.
    fn items(&self, tuple: &Value<'a>) -> Result<Vec<&Value<'a>>, String> {
        match tuple {
            Value::Tuple(items) if items.len() <= MAX_TUPLE => {
                Ok(items.iter().map(|item| self.value(*item)).collect())
            }
            Value::Tuple(items) => {
                Err(format!("a tuple of {} items, where state dicts have few", items.len()))
            }
            other => Err(format!("{} instead of a tuple", other.kind())),
        }
    }

    fn sizes(&self, tuple: &Value<'a>) -> Result<Vec<usize>, String> {
        let size = |item: &Value<'a>| match item {
            Value::Integer(size) => usize::try_from(*size).ok(),
            _ => None,
        };
        let sizes: Option<_> = self.items(tuple)?.into_iter().map(size).collect();
        sizes.ok_or_else(|| "a tensor's shape or strides are not positive integers".into())
    }

    /// Attributes, of which state dicts have `_metadata`: versions of modules.
    fn build(&mut self) -> Result<(), String> {
        self.pop()?;
        match self.top()? {
            Value::Dict(_) => Ok(()),
            other => Err(format!("it gives attributes to {}", other.kind())),
        }
    }
}

fn cut_short() -> String {
    "the pickle is cut short".into()
}
