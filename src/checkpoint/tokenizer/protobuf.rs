//! The wire format of protocol buffers, read field by field; nothing is allocated and no message is entered on its own.

use std::fmt::Display;

/// The fields of a message, in the order of the file. Ends after the first error.
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    /// Where the rest of the message starts in the file.
    offset: usize,
}

/// One field of a message.
pub(super) struct Field<'a> {
    pub number: u64,
    value: Value<'a>,
    /// Where the value starts in the file.
    offset: usize,
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Integer(u64),
    Word(u32),
    /// A type of number that is not needed here.
    LongWord,
    Bytes(&'a [u8]),
}

impl<'a> Fields<'a> {
    pub(super) fn new(file: &'a [u8]) -> Self {
        Self { bytes: file, offset: 0 }
    }

    fn read(&mut self) -> Result<Field<'a>, String> {
        let start = self.offset;
        let tag = self.integer()?;
        let offset = self.offset;
        let value = match tag & 7 {
            0 => Value::Integer(self.integer()?),
            1 => self.take(8).map(|_| Value::LongWord)?,
            2 => {
                let length = self.integer()?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Value::Word(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            }
            other => return Err(format!("expected a field of type 0, 1, 2 or 5 at byte {start}, found type {other}")),
        };
        let offset = if let Value::Bytes(bytes) = value { self.offset - bytes.len() } else { offset };
        Ok(Field { number: tag >> 3, value, offset })
    }

    /// Seven bits a byte, the lowest first; the last byte has its top bit clear.
    fn integer(&mut self) -> Result<u64, String> {
        let start = self.offset;
        let mut integer = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            integer |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(integer);
            }
        }
        Err(format!("expected a whole number of at most 10 bytes at byte {start}, found a longer one"))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], String> {
        let (left, offset) = (self.bytes.len(), self.offset);
        let cut = || format!("expected {length} bytes from byte {offset} on, found only {left}: the file was cut");
        let length = usize::try_from(length).ok().filter(|&length| length <= left).ok_or_else(cut)?;
        let (taken, rest) = self.bytes.split_at(length);
        (self.bytes, self.offset) = (rest, self.offset + length);
        Ok(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.bytes = &[];
        }
        Some(field)
    }
}

impl<'a> Field<'a> {
    pub(super) fn integer(&self) -> Result<u64, String> {
        match self.value {
            Value::Integer(integer) => Ok(integer),
            _ => Err(self.wrong("a whole number")),
        }
    }

    pub(super) fn float(&self) -> Result<f32, String> {
        match self.value {
            Value::Word(bits) => Ok(f32::from_bits(bits)),
            _ => Err(self.wrong("a number of four bytes")),
        }
    }

    pub(super) fn bytes(&self) -> Result<&'a [u8], String> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(self.wrong("bytes")),
        }
    }

    pub(super) fn text(&self) -> Result<&'a str, String> {
        let not_text = |error: std::str::Utf8Error| {
            format!("expected UTF-8 text at byte {}, found another byte at {}", self.offset, self.offset + error.valid_up_to())
        };
        std::str::from_utf8(self.bytes()?).map_err(not_text)
    }

    /// The fields of a message in this field.
    pub(super) fn message(&self) -> Result<Fields<'a>, String> {
        Ok(Fields { bytes: self.bytes()?, offset: self.offset })
    }

    fn wrong(&self, expected: impl Display) -> String {
        let found = match self.value {
            Value::Integer(_) => "a whole number",
            Value::Word(_) => "a number of four bytes",
            Value::LongWord => "a number of eight bytes",
            Value::Bytes(_) => "bytes",
        };
        format!("expected {expected} in field {} at byte {}, found {found}", self.number, self.offset)
    }
}
