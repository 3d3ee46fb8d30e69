//! Memory mapping of weight files: the only unsafe code of this module.
//!
//! A mapping lets weights go from the page cache to the GPU without a second copy in memory. What makes it unsafe is that the file
//! belongs to the whole system: if another process rewrites it while it is mapped, bytes change under a `&[u8]`, and if it is cut
//! short, reading the lost pages ends the process (SIGBUS). Model files are written once and then only read, and programs that
//! replace them (the Hugging Face cache, package managers, this crate) write a new file and rename it, which leaves a mapping intact.
#![allow(unsafe_code)]

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::{Error, Result};

/// A whole file, read-only.
#[derive(Debug)]
pub(super) struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

impl MappedFile {
    /// Maps a regular file (or a link to one) that is not empty.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |problem| move |source| Error::Io { path: path.to_owned(), problem, source };
        // Asked before opening: opening a named pipe would wait for a writer, and a folder can be opened on some systems.
        let metadata = std::fs::metadata(path).map_err(failed("cannot be read"))?;
        if !metadata.is_file() {
            return Err(Error::checkpoint(path, "expected a file of weights, found a folder or a device: download the model again"));
        }
        if metadata.len() == 0 {
            return Err(Error::checkpoint(path, "expected weights, found an empty file (0 bytes): download it again"));
        }
        let file = File::open(path).map_err(failed("cannot be opened"))?;
        // SAFETY: the map is read-only and lives as long as the bytes borrowed from it. That nobody changes the file meanwhile cannot
        // be enforced; the module's documentation says why it is relied on.
        let map = unsafe { Mmap::map(&file) }.map_err(failed("cannot be mapped into memory"))?;
        Ok(Self { path: path.to_owned(), map })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.map
    }
}
