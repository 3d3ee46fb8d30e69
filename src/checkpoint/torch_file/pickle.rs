//! The pickle inside a file of `torch.save`, as far as it describes tensors.
//!
//! A pickle is a program for a small stack machine, and Python's own machine may import and call anything. This one knows only the
//! instructions with which torch writes dicts of tensors, and only the few names in [`Callable`]; whatever else a pickle asks for is an
//! error that names it, so that nothing of it ever runs. Values refer to each other by index and not by ownership: a pickle that nests
//! a million deep is as flat as any other, and what the machine holds is bounded by the pickle's length.

use std::collections::HashMap;

use safetensors::Dtype;

use super::opcodes::*;
use crate::checkpoint::json::shortened;

/// Two thousand tensors fit in. A byte of a pickle makes at most a hundred and twenty bytes of values.
pub(super) const LONGEST: u64 = 512 << 10;

/// A value, with what it holds in [`Pickle`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool,
    Int(i64),
    Float,
    Text(&'a str),
    Tuple(Tuple),
    /// What is in lists (of optimizers and the like) is not kept.
    List,
    Dict(Dict),
    Callable(Callable),
    /// A storage, by the tuple that says where it is.
    Storage(Tuple),
    /// A tensor, by the arguments of `_rebuild_tensor_v2`.
    Tensor(Tuple),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tuple {
    first: u32,
    length: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Dict(u32);

/// Everything that a pickle may import.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Callable {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    /// The class of a storage of such numbers.
    Storage(Dtype),
}

impl Callable {
    fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", "FloatStorage") => Self::Storage(Dtype::F32),
            ("torch", "HalfStorage") => Self::Storage(Dtype::F16),
            ("torch", "BFloat16Storage") => Self::Storage(Dtype::BF16),
            ("torch", "DoubleStorage") => Self::Storage(Dtype::F64),
            ("torch", "LongStorage") => Self::Storage(Dtype::I64),
            ("torch", "IntStorage") => Self::Storage(Dtype::I32),
            ("torch", "ShortStorage") => Self::Storage(Dtype::I16),
            ("torch", "CharStorage") => Self::Storage(Dtype::I8),
            ("torch", "ByteStorage") => Self::Storage(Dtype::U8),
            ("torch", "BoolStorage") => Self::Storage(Dtype::BOOL),
            _ => return None,
        })
    }
}

/// A pickle that has been run.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    root: Value<'a>,
    items: Vec<Value<'a>>,
    dicts: Vec<Vec<[Value<'a>; 2]>>,
}

impl<'a> Pickle<'a> {
    /// What the pickle describes.
    pub(super) fn root(&self) -> Value<'a> {
        self.root
    }

    pub(super) fn items(&self, tuple: Tuple) -> &[Value<'a>] {
        &self.items[tuple.first as usize..][..tuple.length as usize]
    }

    /// Keys and values in the order in which they were set; a key may come twice.
    pub(super) fn entries(&self, dict: Dict) -> &[[Value<'a>; 2]] {
        &self.dicts[dict.0 as usize]
    }
}

/// Runs a pickle of at most [`LONGEST`] bytes.
///
/// # Errors
/// The problem in words, without the file: the pickle is cut or damaged, or asks for more than tensors.
pub(super) fn load(bytes: &[u8]) -> Result<Pickle<'_>, String> {
    let mut machine = Machine {
        bytes,
        at: 0,
        start: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        items: Vec::new(),
        dicts: Vec::new(),
    };
    loop {
        if let Some(root) = machine.step()? {
            return Ok(Pickle { root, items: machine.items, dicts: machine.dicts });
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    /// The next byte.
    at: usize,
    /// The instruction that is being run, for messages.
    start: usize,
    stack: Vec<Value<'a>>,
    /// Lengths of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    items: Vec<Value<'a>>,
    dicts: Vec<Vec<[Value<'a>; 2]>>,
}

impl<'a> Machine<'a> {
    /// Runs an instruction; the last one gives the value of the whole pickle.
    fn step(&mut self) -> Result<Option<Value<'a>>, String> {
        self.start = self.at;
        match self.byte()? {
            PROTO => self.take(1).map(drop)?,
            FRAME => self.take(8).map(drop)?,
            STOP => return self.pop().map(Some),

            NONE => self.stack.push(Value::None),
            NEWTRUE | NEWFALSE => self.stack.push(Value::Bool),
            BININT => self.u32().map(|value| self.push_int(value as i32))?,
            BININT1 => self.byte().map(|value| self.push_int(value))?,
            BININT2 => self.array().map(|value| self.push_int(u16::from_le_bytes(value)))?,
            LONG1 => self.long()?,
            BINFLOAT => self.take(8).map(|_| self.stack.push(Value::Float))?,
            BINUNICODE => self.u32().and_then(|length| self.text(length as usize))?,
            SHORT_BINUNICODE => self.byte().and_then(|length| self.text(length.into()))?,

            MARK => self.marks.push(self.stack.len()),
            EMPTY_TUPLE => self.tuple(self.stack.len()),
            TUPLE1 => self.last(1).map(|first| self.tuple(first))?,
            TUPLE2 => self.last(2).map(|first| self.tuple(first))?,
            TUPLE3 => self.last(3).map(|first| self.tuple(first))?,
            TUPLE => self.pop_mark().map(|first| self.tuple(first))?,
            EMPTY_LIST => self.stack.push(Value::List),
            APPEND => self.last(1).and_then(|first| self.append(first))?,
            APPENDS => self.pop_mark().and_then(|first| self.append(first))?,
            EMPTY_DICT => self.push_dict(),
            SETITEM => self.last(2).and_then(|first| self.set_items(first))?,
            SETITEMS => self.pop_mark().and_then(|first| self.set_items(first))?,

            BINPUT => self.byte().and_then(|index| self.remember(index.into()))?,
            LONG_BINPUT => self.u32().and_then(|index| self.remember(index))?,
            MEMOIZE => self.remember(self.memo.len() as u32)?,
            BINGET => self.byte().and_then(|index| self.recall(index.into()))?,
            LONG_BINGET => self.u32().and_then(|index| self.recall(index))?,

            GLOBAL => {
                let (module, name) = (self.line()?, self.line()?);
                self.import(module, name)?;
            }
            STACK_GLOBAL => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => self.import(module, name)?,
                _ => return Err(self.damaged("an import by something else than a name")),
            },
            BINPERSID => match self.pop()? {
                Value::Tuple(place) => self.stack.push(Value::Storage(place)),
                _ => return Err(self.damaged("a storage that is not described by a tuple")),
            },
            REDUCE => self.call()?,
            BUILD => match (self.pop()?, self.top()?) {
                // The `_metadata` of a state dict.
                (Value::Dict(_), Value::Dict(_)) => {}
                _ => return Err(self.damaged("attributes of something else than a dict")),
            },
            other => {
                let start = self.start;
                return Err(format!(
                    "the pickle has the instruction 0x{other:02x} at byte {start}, expected only those that make tensors: \
                     save the model's `state_dict()` alone, and do not use files from a source that you do not trust"
                ));
            }
        }
        Ok(None)
    }

    fn call(&mut self) -> Result<(), String> {
        let (Value::Tuple(arguments), callable) = (self.pop()?, self.pop()?) else {
            return Err(self.damaged("a call without a tuple of arguments"));
        };
        let first = self.items.get(arguments.first as usize).filter(|_| arguments.length > 0).copied();
        match (callable, first) {
            (Value::Callable(Callable::OrderedDict), None) => self.push_dict(),
            (Value::Callable(Callable::RebuildTensor), _) => self.stack.push(Value::Tensor(arguments)),
            // A tensor and whether it is trained.
            (Value::Callable(Callable::RebuildParameter), Some(tensor @ Value::Tensor(_))) => self.stack.push(tensor),
            _ => return Err(self.damaged("a call that makes no tensor")),
        }
        Ok(())
    }

    fn import(&mut self, module: &str, name: &str) -> Result<(), String> {
        let callable = Callable::find(module, name).ok_or_else(|| {
            let (name, start) = (shortened(&format!("{module}.{name}")), self.start);
            format!(
                "the pickle imports `{name}` at byte {start}, expected only plain tensors: \
                 save the model's `state_dict()` alone, and do not use files from a source that you do not trust"
            )
        })?;
        self.stack.push(Value::Callable(callable));
        Ok(())
    }

    fn push_int(&mut self, value: impl Into<i64>) {
        self.stack.push(Value::Int(value.into()));
    }

    /// An integer of up to 8 bytes in two's complement.
    fn long(&mut self) -> Result<(), String> {
        let length = self.byte()?;
        let bytes = self.take(length.into())?;
        let negative = bytes.last().is_some_and(|&last| last >= 0x80);
        let mut value = [if negative { 0xff } else { 0 }; 8];
        let Some(low) = value.get_mut(..bytes.len()) else {
            return Err(self.damaged(&format!("an integer of {length} bytes")));
        };
        low.copy_from_slice(bytes);
        self.push_int(i64::from_le_bytes(value));
        Ok(())
    }

    fn text(&mut self, length: usize) -> Result<(), String> {
        let bytes = self.take(length)?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.damaged("a text that is not UTF-8"))?;
        self.stack.push(Value::Text(text));
        Ok(())
    }

    fn push_dict(&mut self) {
        self.stack.push(Value::Dict(Dict(self.dicts.len() as u32)));
        self.dicts.push(Vec::new());
    }

    /// Makes a tuple of what lies on the stack from `first` on.
    fn tuple(&mut self, first: usize) {
        let tuple = Tuple { first: self.items.len() as u32, length: (self.stack.len() - first) as u32 };
        self.items.extend(self.stack.drain(first..));
        self.stack.push(Value::Tuple(tuple));
    }

    fn append(&mut self, first: usize) -> Result<(), String> {
        self.stack.truncate(first);
        match self.top()? {
            Value::List => Ok(()),
            _ => Err(self.damaged("items of something else than a list")),
        }
    }

    fn set_items(&mut self, first: usize) -> Result<(), String> {
        let items = self.stack.split_off(first);
        let (Value::Dict(dict), (pairs, [])) = (self.top()?, items.as_chunks::<2>()) else {
            return Err(self.damaged("keys and values of something else than a dict"));
        };
        self.dicts[dict.0 as usize].extend(pairs);
        Ok(())
    }

    fn remember(&mut self, index: u32) -> Result<(), String> {
        let value = self.top()?;
        self.memo.insert(index, value);
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<(), String> {
        let value = self.memo.get(&index).copied();
        self.stack.push(value.ok_or_else(|| self.damaged(&format!("the value {index}, which was never kept")))?);
        Ok(())
    }

    /// The last value since the last mark, which stays.
    fn top(&self) -> Result<Value<'a>, String> {
        self.last(1).map(|first| self.stack[first])
    }

    fn pop(&mut self) -> Result<Value<'a>, String> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    /// Where the last `count` values start; they lie behind the last mark.
    fn last(&self, count: usize) -> Result<usize, String> {
        let first = self.stack.len().checked_sub(count).filter(|&first| first >= self.marks.last().copied().unwrap_or(0));
        first.ok_or_else(|| self.damaged("too few values"))
    }

    fn pop_mark(&mut self) -> Result<usize, String> {
        self.marks.pop().ok_or_else(|| self.damaged("no mark"))
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let length = self.bytes[self.at..].iter().position(|&byte| byte == b'\n');
        let line = self.take(length.ok_or_else(|| self.cut())? + 1)?;
        std::str::from_utf8(&line[..line.len() - 1]).map_err(|_| self.damaged("a name that is not UTF-8"))
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.array().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], String> {
        let array = self.bytes[self.at..].first_chunk().copied().ok_or_else(|| self.cut())?;
        self.at += LENGTH;
        Ok(array)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let bytes = self.bytes[self.at..].get(..length).ok_or_else(|| self.cut())?;
        self.at += length;
        Ok(bytes)
    }

    fn cut(&self) -> String {
        format!("the pickle is cut after {} bytes: download the file again", self.bytes.len())
    }

    fn damaged(&self, found: &str) -> String {
        format!("the pickle is damaged, it has {found} at byte {}: download the file again", self.start)
    }
}
