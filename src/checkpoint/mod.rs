//! A model folder on disk: configuration, tensors by role, tokenizer and sentence-transformers settings, all checked.
//!
//! Nothing here knows of a GPU. Weights stay in their files until they are read; families of models are rows of data in [`family`].

pub mod config;
mod convert;
pub mod family;
mod file;
mod header;
pub mod heads;
mod json;
mod link;
pub mod quantize;
pub mod sentence;
pub mod tensors;
pub mod tokenizer;
mod torch_file;
pub mod weights;

use std::path::{Path, PathBuf};

pub use config::{Activation, EncoderConfig, Languages};
pub use family::Family;
pub use heads::{ClassifierWeights, HeadConfig, MaskedWeights, Score};
pub use quantize::{QuantizeReport, quantize};
pub use sentence::{DenseModule, Module, Pooling, SentenceSettings};
pub use tensors::{Dtype, Tensor, Tensors};
pub use tokenizer::{Encoding, Side, TokenSource, Tokenizer};
pub use weights::{EncoderWeights, LayerWeights, Linear, Norm};

use heads::Resolver;

use crate::{Error, Result};

/// A model folder, opened and checked, nothing on the GPU yet.
#[derive(Debug)]
pub struct Checkpoint {
    pub path: PathBuf,
    pub config: EncoderConfig,
    pub heads: HeadConfig,
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
        let file = config::open(&folder.join("config.json"))?;
        let config = EncoderConfig::read(&file)?;
        let heads = HeadConfig::read(&file, config.family)?;
        if let Some(width) = sentence.width.filter(|&width| width != config.hidden) {
            let problem = format!("the pooling module expects {width} numbers a token, found a hidden size of {}", config.hidden);
            return Err(Error::checkpoint(path, problem + ": the files belong to different models"));
        }
        sentence.check_widths(&path, config.hidden)?;
        let tokenizer = Tokenizer::open(&folder)?.for_model(&config, sentence.lower_case)?;
        let tensors = Tensors::open(&folder)?;
        let prefix = weights::find_prefix(&tensors, &config)?;
        let max_length = max_length(&path, &config, &tokenizer, &sentence);
        Ok(Self { path, config, heads, tokenizer, sentence, tensors, prefix, max_length })
    }

    /// The text of a prompt.
    ///
    /// # Errors
    /// There is none of this name; the message says which there are.
    pub fn prompt(&self, name: &str) -> Result<&str> {
        self.sentence.prompt(name, &self.path)
    }

    /// Makes this the language of all texts, for models with an embedding for each language (some of XLM).
    ///
    /// # Errors
    /// [`Error::Input`] where the model has no languages, or not this one; the message says which there are.
    pub fn choose_language(&mut self, code: &str) -> Result<()> {
        let folder = self.path.display();
        let Some(languages) = &self.config.languages else {
            return Err(Error::input(format!(
                "the language `{code}` was asked for, but the model in {folder} has no languages: leave it out"
            )));
        };
        let Some(&row) = languages.by_code.get(code) else {
            let known = languages.by_code.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(Error::input(format!("there is no language `{code}`: the model in {folder} has {known}")));
        };
        self.tokenizer.set_type(row as u32);
        Ok(())
    }

    /// Every tensor of the encoder by role.
    ///
    /// # Errors
    /// A tensor is missing, or has another shape or type than the configuration asks for.
    pub fn encoder(&self) -> Result<EncoderWeights<'_>> {
        weights::resolve(&self.tensors, &self.config, self.prefix)
    }

    fn resolver(&self) -> Resolver<'_, '_> {
        Resolver { tensors: &self.tensors, config: &self.config, heads: &self.heads, prefix: self.prefix, folder: &self.path }
    }

    /// The program's commands that this folder can do: `embed`, `fill-mask`, ...
    pub fn tasks(&self) -> Vec<&'static str> {
        self.resolver().tasks()
    }

    /// A classifier of texts.
    ///
    /// # Errors
    /// The folder has none (the message says what it can do), or a tensor has another shape than it must.
    pub fn classifier(&self) -> Result<ClassifierWeights<'_>> {
        self.resolver().classifier()
    }

    /// A classifier of tokens, `[labels, hidden]`.
    ///
    /// # Errors
    /// As [`Checkpoint::classifier`].
    pub fn token_classifier(&self) -> Result<Linear<'_>> {
        self.resolver().token_classifier()
    }

    /// What gives each token logits for being the start and the end of an answer, `[2, hidden]`.
    ///
    /// # Errors
    /// As [`Checkpoint::classifier`].
    pub fn span(&self) -> Result<Linear<'_>> {
        self.resolver().span()
    }

    /// What gives each word of the vocabulary a logit.
    ///
    /// # Errors
    /// As [`Checkpoint::classifier`].
    pub fn masked(&self) -> Result<MaskedWeights<'_>> {
        self.resolver().masked()
    }

    /// The encoder's pooler, `[hidden, hidden]` with tanh over the first token's state.
    ///
    /// # Errors
    /// As [`Checkpoint::classifier`].
    pub fn pooler(&self) -> Result<Linear<'_>> {
        self.resolver().encoder_pooler()
    }

    /// The tensors of a module after pooling, which has a folder of its own.
    ///
    /// # Errors
    /// They are missing or damaged.
    pub fn module_tensors(&self, folder: &Path) -> Result<Tensors> {
        Tensors::open(self.path.join(folder))
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
