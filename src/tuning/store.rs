//! The table of an adapter in the user's cache folder. Whatever is wrong with a file there, it is only measured again.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use etcetera::base_strategy::{BaseStrategy, choose_native_strategy};

use super::Table;
use crate::error::{Error, Result};
use crate::gpu::Gpu;

/// A folder in the place of the user's cache folder.
const VARIABLE: &str = "MINILM_CACHE";

/// Larger files are not read: a table of a hundred shapes has some 100 KB.
const MOST_BYTES: u64 = 4 << 20;

impl Table {
    /// Reads a table that [`Table::write`] wrote.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Input`] that names the file and what is wrong with it.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let io = |source| Error::Io { path: path.to_owned(), problem: "the tuning table cannot be read", source };
        let wrong = |found: String| {
            Error::input(format!("{}: expected a tuning table of `minilm tune`, found {found}: write it again", path.display()))
        };
        // A pipe would be waited for, a device read without end.
        if !fs::metadata(path).map_err(io)?.is_file() {
            return Err(wrong("a folder or a device".into()));
        }
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes));
        if read.map_err(io)? as u64 > MOST_BYTES {
            return Err(wrong(format!("more than {} MiB", MOST_BYTES >> 20)));
        }
        serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))
    }

    /// Writes it where an app or another machine with the same adapter can read it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let io = |source| Error::Io { path: path.to_owned(), problem: "the tuning table cannot be written", source };
        let json = serde_json::to_vec_pretty(self).map_err(|error| Error::input(format!("{}: {error}", path.display())))?;
        // Others never see half a file, nor write to the same.
        static WRITTEN: AtomicUsize = AtomicUsize::new(0);
        let beside = path.with_extension(format!("{}-{}.new", std::process::id(), WRITTEN.fetch_add(1, Ordering::Relaxed)));
        let written = fs::write(&beside, json).and_then(|()| fs::rename(&beside, path));
        written.map_err(|source| {
            _ = fs::remove_file(&beside);
            io(source)
        })
    }

    /// Keeps it in the user's cache folder, and says where.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Input`] where the system names no such folder.
    pub fn store(&self) -> Result<PathBuf> {
        let folder =
            folder().ok_or_else(|| Error::input(format!("there is no cache folder for a tuning table: name one by {VARIABLE}")))?;
        let io = |source| Error::Io { path: folder.clone(), problem: "the cache folder cannot be made", source };
        fs::create_dir_all(&folder).map_err(io)?;
        let path = folder.join(self.file_name());
        self.write(&path)?;
        Ok(path)
    }

    fn file_name(&self) -> String {
        let mut hasher = DefaultHasher::new();
        (&self.adapter, &self.backend, &self.driver, &self.version).hash(&mut hasher);
        format!("tuning-{:016x}.json", hasher.finish())
    }
}

fn folder() -> Option<PathBuf> {
    match std::env::var_os(VARIABLE).filter(|folder| !folder.is_empty()) {
        Some(folder) => Some(folder.into()),
        None => choose_native_strategy().ok().map(|strategy| strategy.cache_dir().join("minilm")),
    }
}

/// The table that is kept for this adapter; one that is damaged or of another is ignored with a warning.
pub fn load(gpu: &Gpu) -> Option<Table> {
    let path = folder()?.join(Table::of(gpu).file_name());
    if !path.exists() {
        return None;
    }
    match Table::read(&path) {
        Ok(table) if table.is_of(gpu) => Some(table),
        Ok(table) => {
            log::warn!("{}: the tuning table is of {}: it is ignored", path.display(), table.describe());
            None
        }
        Err(error) => {
            log::warn!("{error}; until then it is ignored");
            None
        }
    }
}
