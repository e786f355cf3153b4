//! What a pickle of a state dict holds.

use super::machine::Machine;
use crate::Dtype;

/// An unpickled object. Values refer to each other by index, so that one that contains itself does no harm, and none
/// takes more memory than the instructions that made it account for.
pub(super) struct Pickle<'a> {
    values: Vec<Value<'a>>,
    root: Handle,
    end: usize,
}

/// The index of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Handle(pub usize);

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Integer(i64),
    /// A number that no tensor is described by.
    Number,
    Text(&'a str),
    Tuple(Vec<Handle>),
    List(Vec<Handle>),
    Dict(Vec<(Handle, Handle)>),
    Global(Global),
    Storage(Storage<'a>),
    Tensor(StridedTensor<'a>),
}

/// What a state dict may refer to by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    StorageType(Dtype),
}

/// A row of elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Storage<'a> {
    pub key: &'a str,
    pub dtype: Dtype,
    pub elements: usize,
}

/// A view of a storage. `offset` and `strides` count elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StridedTensor<'a> {
    pub storage: Storage<'a>,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

impl Global {
    pub fn of(module: &str, name: &str) -> Result<Self, String> {
        let dtype = match (module, name) {
            ("collections", "OrderedDict") => return Ok(Global::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => return Ok(Global::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => return Ok(Global::RebuildParameter),
            ("torch", "DoubleStorage") => Dtype::F64,
            ("torch", "FloatStorage") => Dtype::F32,
            ("torch", "HalfStorage") => Dtype::F16,
            ("torch", "BFloat16Storage") => Dtype::BF16,
            ("torch", "LongStorage") => Dtype::I64,
            ("torch", "IntStorage") => Dtype::I32,
            ("torch", "ShortStorage") => Dtype::I16,
            ("torch", "CharStorage") => Dtype::I8,
            ("torch", "ByteStorage") => Dtype::U8,
            ("torch", "BoolStorage") => Dtype::BOOL,
            _ => {
                let global = format!("{module}.{name}").escape_debug().to_string();
                return Err(format!("it refers to {global}, which no state dict needs, and is not run"));
            }
        };
        Ok(Global::StorageType(dtype))
    }
}

impl Value<'_> {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::None => "None",
            Value::Bool(_) => "a bool",
            Value::Integer(_) | Value::Number => "a number",
            Value::Text(_) => "a text",
            Value::Tuple(_) => "a tuple",
            Value::List(_) => "a list",
            Value::Dict(_) => "a dict",
            Value::Global(_) => "a function",
            Value::Storage(_) => "a storage",
            Value::Tensor(_) => "a tensor",
        }
    }
}

impl<'a> Pickle<'a> {
    /// Unpickles what begins at `start`; the error says what is wrong, and at which byte.
    pub fn read(bytes: &'a [u8], start: usize) -> Result<Self, String> {
        let mut machine = Machine::new(bytes, start);
        loop {
            let at = machine.at();
            match machine.step() {
                Ok(None) => {}
                Ok(Some(root)) => {
                    return Ok(Pickle { end: machine.at(), values: machine.into_values(), root });
                }
                Err(problem) => return Err(format!("the pickle's instruction at byte {at}: {problem}")),
            }
        }
    }

    pub fn root(&self) -> &Value<'a> {
        self.value(self.root)
    }

    pub fn value(&self, handle: Handle) -> &Value<'a> {
        self.values.get(handle.0).unwrap_or(&Value::None)
    }

    /// Where the pickle ends.
    pub fn end(&self) -> usize {
        self.end
    }

    /// All storages that it refers to.
    pub fn storages(&self) -> impl Iterator<Item = Storage<'a>> {
        self.values.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some(*storage),
            _ => None,
        })
    }
}
