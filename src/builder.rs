//! Options first, then a model folder: one builder for every task.

use std::path::Path;

use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::gpu::Gpu;
use crate::kernels::WeightFormat;

/// What every task can be asked for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub(crate) gpu: Option<Gpu>,
    pub(crate) max_length: Option<usize>,
    pub(crate) token_budget: Option<usize>,
    pub(crate) language: Option<String>,
    pub(crate) weights: WeightFormat,
}

/// Something that a model folder is loaded as: [`Embedder`](crate::Embedder), [`Classifier`](crate::Classifier), ...
pub trait Task: Sized {
    /// What only this task can be asked for.
    type Settings: Clone + std::fmt::Debug + Default;

    /// Loads an opened folder; called by [`Builder::from_dir`].
    ///
    /// # Errors
    /// What is wrong with the folder, with an option, or with the GPU.
    fn load(checkpoint: Checkpoint, options: Options, settings: Self::Settings) -> Result<Self>;
}

/// Collects options for a task `T`.
///
/// ```no_run
/// # let folder = "";
/// let embedder = minilm::Embedder::builder().max_length(128).pooling(minilm::Pooling::Cls).from_dir(folder)?;
/// # Ok::<(), minilm::Error>(())
/// ```
#[derive(Debug)]
pub struct Builder<T: Task> {
    options: Options,
    pub(crate) settings: T::Settings,
}

// Derived, these would ask the same of `T` itself.
impl<T: Task> Default for Builder<T> {
    fn default() -> Self {
        Self { options: Options::default(), settings: T::Settings::default() }
    }
}

impl<T: Task> Clone for Builder<T> {
    fn clone(&self) -> Self {
        Self { options: self.options.clone(), settings: self.settings.clone() }
    }
}

impl<T: Task> Builder<T> {
    /// Runs on this device rather than on one of its own.
    pub fn gpu(mut self, gpu: Gpu) -> Self {
        self.options.gpu = Some(gpu);
        self
    }

    /// Tokens of a text, specials included, beyond which it is cut; over what the folder says.
    pub fn max_length(mut self, tokens: usize) -> Self {
        self.options.max_length = Some(tokens);
        self
    }

    /// Tokens of one batch: what bounds the memory for activations. 8192 by default, less where the adapter's bindings are small.
    pub fn token_budget(mut self, tokens: usize) -> Self {
        self.options.token_budget = Some(tokens);
        self
    }

    /// The language of all texts by its code, for models with an embedding for each language (some of XLM); without it none is added.
    pub fn language(mut self, code: impl Into<String>) -> Self {
        self.options.language = Some(code.into());
        self
    }

    /// How weights are kept on the GPU: [`WeightFormat::F32`], as exact as the file, where nothing is said. What is computed with them is
    /// f32 in any case.
    pub fn weights(mut self, format: WeightFormat) -> Self {
        self.options.weights = format;
        self
    }

    /// Loads the model folder: `config.json`, weights, a tokenizer, and what sentence-transformers keeps beside them.
    ///
    /// # Errors
    /// What is wrong with the folder, with an option, or with the GPU.
    pub fn from_dir(self, dir: impl AsRef<Path>) -> Result<T> {
        T::load(Checkpoint::open(dir)?, self.options, self.settings)
    }
}
