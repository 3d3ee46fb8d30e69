//! What the integration tests share. Cargo runs tests in the repository root, so every path here is relative to it.
//!
//! Each test program compiles this module for itself and uses only a part of it, hence the `allow`.

#![allow(dead_code)]

pub mod compare;
pub mod files;
pub mod golden;
pub mod gpu;
pub mod memory;
pub mod program;
pub mod sentencepiece;
pub mod small_model;
pub mod synthetic;
pub mod torch_file;

use std::path::{Path, PathBuf};

/// `tests/fixtures/<name>`; panics where there is no such file or folder.
pub fn fixture(name: &str) -> PathBuf {
    let path = Path::new("tests/fixtures").join(name);
    assert!(path.exists(), "{} is missing: run the tests in the repository root, from a whole checkout", path.display());
    path
}

/// The folder `name` of full-size reference models, or `None` where the caller has not set `MINILM_REFERENCE`.
///
/// Where the variable is set, a folder that is not there fails the test instead of skipping it.
pub fn reference(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("MINILM_REFERENCE")?;
    let path = Path::new(&root).join(name);
    assert!(path.is_dir(), "{} is not a folder: MINILM_REFERENCE must name a folder of reference models", path.display());
    Some(path)
}
