//! JSON objects on disk, read field by field, so that an error can name the file, the field, what was expected and what was found.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::link;
use crate::{Error, Result};

/// No size in a model's configuration comes near this; products of two sizes stay far from overflow.
const LARGEST_SIZE: u64 = 1 << 24;

/// Bytes of a file that is read as a whole; the tokenizer of XLM-RoBERTa has 17 million.
const LONGEST_FILE: u64 = 256 << 20;

/// The contents of a file, or `None` where there is no such file.
pub(super) fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>> {
    let failed = |source| Error::Io { path: path.to_owned(), problem: "cannot be read", source };
    link::check(path)?;
    // Asked before opening: opening a named pipe would wait for a writer, and a device may have no end.
    let length = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        Ok(_) => return Err(Error::checkpoint(path, "cannot be read: expected a file, found a folder or a device: download it again")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(source)),
    };
    if length > LONGEST_FILE {
        return Err(Error::checkpoint(path, format!("expected at most {LONGEST_FILE} bytes, found {length}: download the file again")));
    }
    std::fs::read(path).map(Some).map_err(failed)
}

/// The text of a file, or `None` where there is no such file.
pub(super) fn read_text(path: &Path) -> Result<Option<String>> {
    let Some(bytes) = read_bytes(path)? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|error| {
        let position = error.utf8_error().valid_up_to();
        Error::checkpoint(path, format!("expected UTF-8 text, found another byte at offset {position}: download the file again"))
    })
}

/// A JSON file, or `None` where there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<Value>> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    check_memory(path, &text, 2)?;
    let value = serde_json::from_str(&text);
    value.map(Some).map_err(|error| Error::checkpoint(path, format!("expected JSON, found {error}: download the file again")))
}

/// Refuses a JSON text whose values may take more than 32 MiB and so many times its own memory: a few bytes, such as `[{}]`, may take
/// hundreds.
pub(super) fn check_memory(path: &Path, text: &str, times: usize) -> Result<()> {
    let (most, allowed) = (most_memory(text), times * text.len() + (32 << 20));
    if most > allowed {
        let problem = format!("its values may take {most} bytes of memory, expected at most {allowed} for {} bytes of JSON", text.len());
        return Err(Error::checkpoint(path, problem + ": download the file again"));
    }
    Ok(())
}

/// What a JSON text takes at most as a [`Value`], beside its strings.
fn most_memory(text: &str) -> usize {
    let bytes = |byte: u8| match byte {
        // The first node of a map, room for four values in a list, a field of a map with half-full nodes.
        b'{' => 640,
        b'[' => 128,
        b',' => 128,
        _ => 0,
    };
    text.bytes().map(bytes).sum()
}

/// A JSON object and the file that it comes from. A field that is `null` counts as absent, as it does in Python's readers.
#[derive(Debug)]
pub(super) struct Object {
    path: PathBuf,
    fields: Map<String, Value>,
}

impl Object {
    pub(super) fn new(path: &Path, value: Value) -> Result<Self> {
        match value {
            Value::Object(fields) => Ok(Self { path: path.to_owned(), fields }),
            other => Err(Error::checkpoint(path, format!("expected a JSON object, found {}: download the file again", shown(&other)))),
        }
    }

    /// The object in a file, or `None` where there is no such file.
    pub(super) fn open(path: &Path) -> Result<Option<Self>> {
        read(path)?.map(|value| Self::new(path, value)).transpose()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.fields.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.as_str(), value))
    }

    pub(super) fn get(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    /// A count: a whole number from 0 to 2^24.
    pub(super) fn size(&self, field: &str) -> Result<Option<usize>> {
        let size = |value: &Value| value.as_u64().filter(|&size| size <= LARGEST_SIZE).map(|size| size as usize);
        self.read(field, size, "a whole number from 0 to 16777216")
    }

    pub(super) fn number(&self, field: &str) -> Result<Option<f64>> {
        self.read(field, Value::as_f64, "a number")
    }

    pub(super) fn flag(&self, field: &str) -> Result<Option<bool>> {
        self.read(field, Value::as_bool, "true or false")
    }

    pub(super) fn text(&self, field: &str) -> Result<Option<&str>> {
        self.read(field, Value::as_str, "a text")
    }

    fn read<'a, T>(&'a self, field: &str, convert: impl Fn(&'a Value) -> Option<T>, expected: &str) -> Result<Option<T>> {
        let Some(value) = self.get(field) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| self.wrong(field, expected, shown(value), "correct the file or download it again"))
    }

    /// The error for a field whose value cannot be right.
    pub(super) fn wrong(&self, field: &str, expected: impl Display, found: impl Display, advice: &str) -> Error {
        Error::checkpoint(&self.path, format!("`{field}`: expected {expected}, found {found}: {advice}"))
    }

    /// The error for a field that asks for something that is not implemented.
    pub(super) fn unsupported(&self, field: &str, expected: impl Display, found: impl Display) -> Error {
        Error::unsupported(&self.path, format!("`{field}`: expected {expected}, found {found}, which is not supported: use another model"))
    }
}

/// A value as an error shows it: short, however much there is.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(fields) => format!("an object of {} fields", fields.len()),
        Value::String(text) => format!("\"{}\"", shortened(text)),
        other => other.to_string(),
    }
}

/// A text from the file as an error shows it: short and on one line, whatever it holds.
pub(super) fn shortened(text: &str) -> String {
    beginning(text, 60).escape_debug().to_string()
}

/// At most this many characters of a text, and dots where there are more.
pub(super) fn beginning(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
