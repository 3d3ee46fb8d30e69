//! Where texts come from: the command line, a file, or standard input, read line by line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use minilm::{Error, Input, Result};
use serde::Deserialize;

#[derive(Args)]
#[command(next_help_heading = "Input")]
pub struct InputArguments {
    /// Texts; without any, each line of --input or of standard input is one. After `--` they may begin with a dash
    #[arg(value_name = "TEXT", conflicts_with = "input", help_heading = "Arguments")]
    pub texts: Vec<String>,
    #[command(flatten)]
    pub file: FileArguments,
}

#[derive(Args)]
#[command(next_help_heading = "Input")]
pub struct FileArguments {
    /// Read from this file, in UTF-8; `-` is standard input, which is also read where there is nothing else
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// What the lines of --input or standard input are
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub input_format: InputFormat,
}

#[derive(Clone, Copy, Default, PartialEq, ValueEnum)]
pub enum InputFormat {
    /// Each line is a text; so is an empty one
    #[default]
    Text,
    /// Each line is a JSON object: {"text": "..."}, or {"text": "...", "text_pair": "..."} where a command takes pairs
    Jsonl,
}

/// A text, or a pair.
pub struct Item {
    pub text: String,
    pub pair: Option<String>,
    /// From 1.
    pub line: u64,
    /// For messages.
    pub place: Place,
}

impl Item {
    /// As the library takes it.
    pub fn input(&self) -> Input<'_> {
        Input { text: &self.text, pair: self.pair.as_deref() }
    }

    /// The text, for a task that takes one.
    ///
    /// # Errors
    /// There are two.
    pub fn single(&self) -> Result<&str> {
        match &self.pair {
            None => Ok(&self.text),
            Some(_) => Err(Error::Input { problem: "this task takes one text, found `text_pair` too: leave it out".into() }),
        }
    }
}

/// Where an item comes from: `notes.txt, line 3`.
#[derive(Clone)]
pub struct Place {
    source: std::sync::Arc<str>,
    unit: &'static str,
    number: u64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {} {}", self.source, self.unit, self.number)
    }
}

/// What a line of JSON holds.
#[derive(Clone, Copy, PartialEq)]
pub enum Fields {
    /// `text`, and perhaps `text_pair`
    Texts,
    /// `question` and `context`
    Question,
}

/// Reads items one by one.
pub struct Reader {
    lines: Lines,
    /// Whether what comes next is the rest of a line that was refused.
    inside: bool,
    format: InputFormat,
    fields: Fields,
    place: Place,
    /// Bytes of all there is to read, where that is known.
    pub size: Option<u64>,
    /// Bytes read so far.
    pub position: u64,
}

enum Lines {
    Arguments(std::vec::IntoIter<String>),
    Bytes(Box<dyn BufRead + Send>),
}

#[derive(Deserialize)]
struct JsonTexts {
    text: String,
    text_pair: Option<String>,
}

#[derive(Deserialize)]
struct JsonQuestion {
    question: String,
    context: String,
}

impl Fields {
    /// A text, and perhaps another one.
    fn parse(self, line: &str) -> serde_json::Result<(String, Option<String>)> {
        match self {
            Self::Texts => serde_json::from_str(line).map(|JsonTexts { text, text_pair }| (text, text_pair)),
            Self::Question => serde_json::from_str(line).map(|JsonQuestion { question, context }| (question, Some(context))),
        }
    }

    fn example(self) -> &'static str {
        match self {
            Self::Texts => r#"{"text": "..."} or {"text": "...", "text_pair": "..."}"#,
            Self::Question => r#"{"question": "...", "context": "..."}"#,
        }
    }
}

impl InputArguments {
    pub fn open(self) -> Result<Reader> {
        if self.texts.is_empty() {
            return self.file.open_or("write them on the command line, ");
        }
        Ok(Reader::of_texts(self.texts))
    }
}

impl FileArguments {
    pub fn open(self) -> Result<Reader> {
        self.open_or("")
    }

    /// `elsewhere` says where texts may also come from, for who gives none.
    fn open_or(self, elsewhere: &str) -> Result<Reader> {
        match self.input.as_deref() {
            Some(path) if path != Path::new("-") => {
                let wrong = |source| Error::Io { path: path.to_owned(), problem: "the input cannot be read", source };
                let file = File::open(path).map_err(wrong)?;
                let metadata = file.metadata().map_err(wrong)?;
                if metadata.is_dir() {
                    return Err(Error::Input { problem: format!("{}: the input is a folder: name a file", path.display()) });
                }
                let size = metadata.is_file().then_some(metadata.len());
                let lines = Lines::Bytes(Box::new(BufReader::with_capacity(BUFFER, file)));
                Ok(Reader::new(lines, self.input_format, &path.display().to_string(), "line", size))
            }
            named => {
                if named.is_none() && io::stdin().is_terminal() {
                    let problem = format!(
                        "no texts were given: {elsewhere}name a file with `--input FILE`, or pipe lines in (`--input -` reads what you type)"
                    );
                    return Err(Error::Input { problem });
                }
                let lines = Lines::Bytes(Box::new(BufReader::with_capacity(BUFFER, io::stdin())));
                Ok(Reader::new(lines, self.input_format, "standard input", "line", None))
            }
        }
    }
}

const BUFFER: usize = 1 << 16;

/// Bytes of a line. No model reads as much of a text, and its tokens take a hundred times as much memory.
const LONGEST_LINE: u64 = 16 << 20;

impl Reader {
    fn new(lines: Lines, format: InputFormat, source: &str, unit: &'static str, size: Option<u64>) -> Self {
        let place = Place { source: source.into(), unit, number: 0 };
        Self { lines, inside: false, format, fields: Fields::Texts, place, size, position: 0 }
    }

    /// Texts of the command line.
    pub fn of_texts(texts: Vec<String>) -> Self {
        Self::new(Lines::Arguments(texts.into_iter()), InputFormat::Text, "the command line", "text", None)
    }

    /// A question and its context from the command line.
    pub fn of_question(question: String, context: String) -> Self {
        let line = serde_json::json!({"question": question, "context": context}).to_string();
        let lines = Lines::Arguments(vec![line].into_iter());
        Self::new(lines, InputFormat::Jsonl, "the command line", "question", None).with_fields(Fields::Question)
    }

    /// With these fields in lines of JSON.
    pub fn with_fields(self, fields: Fields) -> Self {
        Self { fields, ..self }
    }

    /// Where the texts come from, for messages.
    pub fn source(&self) -> &str {
        &self.place.source
    }

    /// The next item, or `None` at the end.
    ///
    /// # Errors
    /// The line cannot be read, is not UTF-8, or is not the JSON that was promised.
    pub fn next(&mut self) -> Result<Option<Item>> {
        let Some(text) = self.next_line()? else { return Ok(None) };
        let (line, place) = (self.place.number, self.place.clone());
        if self.format == InputFormat::Text {
            return Ok(Some(Item { text, pair: None, line, place }));
        }
        let (text, pair) = self.fields.parse(&text).map_err(|error| {
            let error = error.to_string();
            // The line of the error is always 1: it would only confuse.
            let error = error.replace(" at line 1 column ", ", at character ");
            let example = self.fields.example();
            Error::Input { problem: format!("{place}: expected a JSON object such as {example}, found something else: {error}") }
        })?;
        Ok(Some(Item { text, pair, line, place }))
    }

    fn next_line(&mut self) -> Result<Option<String>> {
        let bytes = match &mut self.lines {
            Lines::Arguments(texts) => {
                self.place.number += 1;
                return Ok(texts.next());
            }
            Lines::Bytes(reader) => {
                let mut bytes = Vec::new();
                let wrong = |source| Error::Io { path: self.place.source.as_ref().into(), problem: "the input cannot be read", source };
                if std::mem::take(&mut self.inside) {
                    self.position += reader.skip_until(b'\n').map_err(wrong)? as u64;
                }
                self.position += reader.take(LONGEST_LINE + 1).read_until(b'\n', &mut bytes).map_err(wrong)? as u64;
                bytes
            }
        };
        if bytes.is_empty() {
            return Ok(None);
        }
        self.place.number += 1;
        if bytes.len() as u64 > LONGEST_LINE && !bytes.ends_with(b"\n") {
            self.inside = true;
            let problem = format!("{}: the line has more than {} MiB: split it", self.place, LONGEST_LINE >> 20);
            return Err(Error::Input { problem });
        }
        let mut line = bytes.as_slice();
        line = line.strip_suffix(b"\n").unwrap_or(line);
        line = line.strip_suffix(b"\r").unwrap_or(line);
        if self.place.number == 1 {
            line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        }
        match std::str::from_utf8(line) {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(error) => {
                let (at, place) = (error.valid_up_to(), &self.place);
                let problem = format!("{place}: expected UTF-8, found the byte 0x{:02x} as byte {} of the line", line[at], at + 1);
                Err(Error::Input { problem: problem + ": convert the text to UTF-8 (for example with iconv)" })
            }
        }
    }
}
