//! The one error type. Every message is a sentence that names the file, tensor, kernel or option, what was expected, what was
//! found, and what to do about it.

use std::path::{Path, PathBuf};

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong, from a file on disk to the driver.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be opened, read or written.
    #[error("{}: {problem}: {source}", path.display())]
    Io { path: PathBuf, problem: &'static str, source: std::io::Error },

    /// A file of a model folder is missing, damaged, or does not add up with the others.
    #[error("{}: {problem}", path.display())]
    Checkpoint { path: PathBuf, problem: String },

    /// A tensor is missing, or has another shape, type or content than the configuration asks for.
    #[error("{}: tensor `{tensor}` {problem}", path.display())]
    Tensor { path: PathBuf, tensor: String, problem: String },

    /// The model asks for something that has no kernel here; it is refused rather than approximated.
    #[error("{}: {problem}", path.display())]
    Unsupported { path: PathBuf, problem: String },

    /// What the caller passed in cannot be used.
    #[error("{problem}")]
    Input { problem: String },

    /// No adapter can be used, or none matches what was asked for.
    #[error("{problem}")]
    Adapter { problem: String },

    /// A shader was refused, or does not agree with the host code around it.
    #[error("kernel `{kernel}`: {problem}")]
    Kernel { kernel: &'static str, problem: String },

    /// The adapter's limits or memory do not suffice.
    #[error("{problem}")]
    Memory { problem: String },

    /// The driver refused something that it should not have: most likely its bug or ours.
    #[error("{problem}")]
    Device { problem: String },

    /// A result that is no number. It is never handed out.
    #[error(
        "text {text}: value {at} of its result is {value}, expected a finite number: the model's numbers are too large for f32, or the \
         driver computes wrong; `minilm doctor` tells which"
    )]
    NotFinite { text: usize, at: usize, value: f32 },

    /// The device stopped working: a driver reset, an unplugged GPU, or `Device::destroy`.
    #[error("the GPU device was lost ({reason}): {advice}")]
    DeviceLost { reason: String, advice: &'static str },
}

impl Error {
    pub(crate) fn checkpoint(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::Checkpoint { path: path.as_ref().to_owned(), problem: problem.into() }
    }

    pub(crate) fn unsupported(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::Unsupported { path: path.as_ref().to_owned(), problem: problem.into() }
    }

    pub(crate) fn tensor(path: impl AsRef<Path>, tensor: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Tensor { path: path.as_ref().to_owned(), tensor: tensor.into(), problem: problem.into() }
    }

    pub(crate) fn input(problem: impl Into<String>) -> Self {
        Self::Input { problem: problem.into() }
    }
}
