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
        Self::Checkpoint { path: path.as_ref().to_owned(), problem: readable(problem.into()) }
    }

    pub(crate) fn unsupported(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::Unsupported { path: path.as_ref().to_owned(), problem: readable(problem.into()) }
    }

    pub(crate) fn tensor(path: impl AsRef<Path>, tensor: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Tensor { path: path.as_ref().to_owned(), tensor: readable(tensor.into()), problem: readable(problem.into()) }
    }

    pub(crate) fn input(problem: impl Into<String>) -> Self {
        Self::Input { problem: readable(problem.into()) }
    }
}

/// Names and values in a file may be of any length, a message may not: its middle is left out.
fn readable(text: String) -> String {
    const HALF: usize = 500;
    let mut characters = text.char_indices().map(|(start, _)| start);
    let (Some(first), Some(last)) = (characters.nth(HALF), characters.nth_back(HALF - 1)) else { return text };
    format!("{} ... {}", &text[..first], &text[last..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_lose_their_middle() {
        let text = |length: usize| (0..length).map(|i| if i % 2 == 0 { 'a' } else { '\u{e4}' }).collect::<String>();
        for (length, expected) in [(0, 0), (10, 10), (501, 501), (1000, 1000), (1001, 1005)] {
            assert_eq!(readable(text(length)).chars().count(), expected);
        }
        let long = readable(format!("start{}end", text(1 << 20)));
        assert!(long.starts_with("starta") && long.ends_with("\u{e4}end") && long.contains(" ... ") && long.chars().count() == 1005);
    }
}
