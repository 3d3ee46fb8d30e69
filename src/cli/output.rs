//! Standard output in whole lines, files that appear only when they are whole, and what Ctrl-C does to both.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::Duration;
use std::{process, thread};

use clap::ValueEnum;
use minilm::{Error, Result};
use serde::Serialize;

/// How results are written where there is a choice of two.
#[derive(Clone, Copy, Default, PartialEq, ValueEnum)]
pub enum Format {
    /// Lines for people and simple tools
    #[default]
    Text,
    /// One JSON object a line
    Jsonl,
}

/// Held while something is written; whoever interrupts the program waits for it.
static WRITING: Mutex<()> = Mutex::new(());

/// A file that would be left behind.
static PARTIAL: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Writes whole lines (or rows) to standard output, at once.
pub fn write(lines: &[u8]) -> Result<()> {
    let _whole = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(lines).and_then(|()| stdout.flush());
    written.map_err(|source| Error::Io { path: STANDARD_OUTPUT.into(), problem: "the results cannot be written", source })
}

const STANDARD_OUTPUT: &str = "standard output";

/// Whether the reader of standard output has gone, as `head` does when it has seen enough.
pub fn is_closed_pipe(error: &Error) -> bool {
    matches!(error, Error::Io { path, source, .. } if path == Path::new(STANDARD_OUTPUT) && source.kind() == ErrorKind::BrokenPipe)
}

/// Appends a value as one line of JSON.
pub fn push_json(lines: &mut Vec<u8>, value: &impl Serialize) -> Result<()> {
    serde_json::to_writer(&mut *lines, value).map_err(|error| Error::Input { problem: format!("a result cannot be written: {error}") })?;
    lines.push(b'\n');
    Ok(())
}

/// Scores by label, in the order of the labels.
pub struct ByLabel<'a> {
    pub labels: &'a [String],
    pub scores: &'a [f64],
}

impl Serialize for ByLabel<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.labels.iter().zip(self.scores))
    }
}

/// Text that would break a line, made harmless.
pub fn on_one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Ends the program on Ctrl-C between two writes, so that what was written is whole, and removes a file that is not.
pub fn handle_interrupts() {
    let handled = ctrlc::set_handler(|| {
        // A reader that has stopped reading must not make the program deaf.
        let mut whole = WRITING.try_lock();
        for _ in 0..100 {
            if !matches!(whole, Err(TryLockError::WouldBlock)) {
                break;
            }
            thread::sleep(Duration::from_millis(10));
            whole = WRITING.try_lock();
        }
        if let Some(path) = PARTIAL.lock().unwrap_or_else(PoisonError::into_inner).take() {
            _ = std::fs::remove_file(path);
        }
        _ = writeln!(io::stderr(), "\nminilm: interrupted");
        process::exit(130);
    });
    if let Err(error) = handled {
        log::debug!("Ctrl-C ends the program at once: {error}");
    }
}

/// The name of a file that may take the place of what is there: the rename at the end would put a file where a device is.
///
/// # Errors
/// There is something else than a file.
pub fn replaceable(path: &Path) -> Result<&OsStr> {
    let name = path.file_name().filter(|_| path.is_file() || !path.exists());
    name.ok_or_else(|| Error::Input { problem: format!("{}: the output is a folder or a device: name a file", path.display()) })
}

/// A file that has its name only when it is whole. Until then it has another one beside it, and is removed when dropped.
pub struct WholeFile {
    file: BufWriter<File>,
    partial: PathBuf,
    path: PathBuf,
}

impl WholeFile {
    pub fn create(path: &Path) -> Result<Self> {
        let name = replaceable(path)?;
        let mut partial_name = OsString::from(".");
        partial_name.push(name);
        partial_name.push(format!(".{}.partial", process::id()));
        let partial = path.with_file_name(partial_name);
        let file = File::create(&partial).map_err(|source| wrong(path, source))?;
        *PARTIAL.lock().unwrap_or_else(PoisonError::into_inner) = Some(partial.clone());
        Ok(Self { file: BufWriter::new(file), partial, path: path.to_owned() })
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|source| wrong(&self.path, source))
    }

    /// Gives the file its name.
    pub fn finish(mut self) -> Result<()> {
        let written = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        written.and_then(|()| std::fs::rename(&self.partial, &self.path)).map_err(|source| wrong(&self.path, source))
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        // After `finish` there is nothing of this name.
        _ = std::fs::remove_file(&self.partial);
        PARTIAL.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

fn wrong(path: &Path, source: io::Error) -> Error {
    Error::Io { path: path.to_owned(), problem: "the file cannot be written", source }
}

/// A number of bytes for people.
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}
