//! A model folder on disk: configuration, tensors by role, tokenizer and sentence-transformers settings, all checked.
//!
//! Nothing here knows of a GPU. Weights stay in the mapped file until they are read; families of models are rows of data in [`family`].

pub mod config;
mod convert;
pub mod family;
mod header;
mod json;
mod mapped;
pub mod quantize;
pub mod sentence;
pub mod tensors;
pub mod tokenizer;
mod torch_file;
pub mod weights;
mod wordpiece;

use std::path::{Path, PathBuf};

pub use config::{Activation, EncoderConfig};
pub use family::Family;
pub use quantize::{QuantizeReport, quantize};
pub use sentence::{Pooling, SentenceSettings};
pub use tensors::{Dtype, Tensor, Tensors};
pub use tokenizer::{Encoding, TokenSource, Tokenizer};
pub use weights::{EncoderWeights, LayerWeights, Linear, Norm};

use crate::{Error, Result};

/// A model folder, opened and checked, nothing on the GPU yet.
#[derive(Debug)]
pub struct Checkpoint {
    pub path: PathBuf,
    pub config: EncoderConfig,
    pub tokenizer: Tokenizer,
    pub sentence: SentenceSettings,
    tensors: Tensors,
    prefix: &'static str,
    max_length: usize,
}

impl Checkpoint {
    /// Opens a model folder in Hugging Face layout.
    ///
    /// # Errors
    /// A file is missing or damaged, files contradict each other, or the model needs something that is not implemented.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let path = folder.as_ref().to_owned();
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(Error::checkpoint(path, "expected a model folder, found a file: name the folder that holds config.json")),
            Err(source) => return Err(Error::Io { path, problem: "the model folder cannot be read", source }),
        }
        let sentence = SentenceSettings::open(&path)?;
        let folder = path.join(&sentence.transformer);
        let config = EncoderConfig::open(folder.join("config.json"))?;
        if let Some(width) = sentence.width.filter(|&width| width != config.hidden) {
            let problem = format!("the pooling module expects {width} numbers a token, found a hidden size of {}", config.hidden);
            return Err(Error::checkpoint(path, problem + ": the files belong to different models"));
        }
        let tokenizer = Tokenizer::open(&folder)?.for_model(&config, sentence.lower_case);
        let tensors = Tensors::open(&folder)?;
        let prefix = weights::find_prefix(&tensors, &config)?;
        let max_length = max_length(&path, &config, &tokenizer, &sentence);
        Ok(Self { path, config, tokenizer, sentence, tensors, prefix, max_length })
    }

    /// Every tensor of the encoder by role.
    ///
    /// # Errors
    /// A tensor is missing, or has another shape or type than the configuration asks for.
    pub fn encoder(&self) -> Result<EncoderWeights<'_>> {
        weights::resolve(&self.tensors, &self.config, self.prefix)
    }

    /// All tensors by the names in the files.
    pub fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    /// Tokens that a text may have, specials included: what sentence-transformers' files say, else the tokenizer's, and never more than
    /// the model has positions for.
    pub fn max_length(&self) -> usize {
        self.max_length
    }
}

fn max_length(path: &Path, config: &EncoderConfig, tokenizer: &Tokenizer, sentence: &SentenceSettings) -> usize {
    let positions = config.max_tokens();
    if let Some(wanted) = sentence.max_length.filter(|&wanted| wanted > positions) {
        let path = path.display();
        log::warn!("{path}: `max_seq_length` is {wanted}, but the model has positions for {positions} tokens; texts are cut there");
    }
    sentence.max_length.or(tokenizer.max_length()).map_or(positions, |length| length.min(positions))
}
