//! Files of weights, of which only what is asked for is read, at its place.
//!
//! They are not mapped into memory. A mapping would save a copy of each byte, but where another process cuts a mapped file short, reading
//! the lost pages ends this process (SIGBUS), which no safe code can catch. Here such a file is an error that names it, and what a load
//! takes of memory are the few buffers that it reads into.

use std::fs::File;
use std::io::{Error as IoError, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};

use rawzip::{FileReader, ReaderAt};

use super::link;
use crate::{Error, Result};

/// A file that is open to be read.
#[derive(Debug)]
pub(super) struct WeightFile {
    path: PathBuf,
    /// Bytes when it was opened.
    length: u64,
    reader: FileReader,
}

impl WeightFile {
    /// Opens a regular file (or a link to one) that is not empty.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |problem| move |source| Error::Io { path: path.to_owned(), problem, source };
        link::check(path)?;
        // Asked before opening: opening a named pipe would wait for a writer, and a folder can be opened on some systems.
        let metadata = std::fs::metadata(path).map_err(failed("cannot be read"))?;
        if !metadata.is_file() {
            return Err(Error::checkpoint(path, "expected a file of weights, found a folder or a device: download the model again"));
        }
        if metadata.len() == 0 {
            return Err(Error::checkpoint(path, "expected weights, found an empty file (0 bytes): download it again"));
        }
        let reader = File::open(path).map_err(failed("cannot be opened"))?.into();
        Ok(Self { path: path.to_owned(), length: metadata.len(), reader })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Fills `out` with the bytes from `start` on.
    ///
    /// # Errors
    /// The problem in words, without the file.
    pub(super) fn fill(&self, start: u64, out: &mut [u8]) -> Result<(), String> {
        self.reader.read_exact_at(out, start).map_err(|error| self.why(start + out.len() as u64, &error))
    }

    /// Some bytes, which the caller has found to be few.
    pub(super) fn bytes(&self, range: Range<u64>) -> Result<Vec<u8>> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.fill(range.start, &mut bytes).map_err(|problem| Error::checkpoint(&self.path, problem))?;
        Ok(bytes)
    }

    fn why(&self, end: u64, error: &IoError) -> String {
        match error.kind() {
            ErrorKind::UnexpectedEof => {
                format!("cannot be read up to byte {end}: the file had {} bytes and was cut since: download it again", self.length)
            }
            _ => format!("cannot be read up to byte {end}: {error}"),
        }
    }
}

impl ReaderAt for WeightFile {
    fn read_at(&self, out: &mut [u8], start: u64) -> std::io::Result<usize> {
        self.reader.read_at(out, start)
    }
}
