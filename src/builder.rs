//! Options first, then a model folder: one builder for every task.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::kernels::{Arithmetic, Operands, WeightFormat};
use crate::memory::MemoryPlan;
use crate::tuning::Tuning;

/// What every task can be asked for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub(crate) gpu: Option<Gpu>,
    pub(crate) max_length: Option<usize>,
    pub(crate) token_budget: Option<usize>,
    pub(crate) language: Option<String>,
    pub(crate) weights: Option<WeightFormat>,
    pub(crate) arithmetic: Arithmetic,
    pub(crate) max_gpu_memory: Option<u64>,
    pub(crate) fail_on_lost_device: bool,
    pub(crate) tuning: Tuning,
    /// Where the plan goes when nothing is to be loaded.
    pub(crate) plan_only: Option<Arc<OnceLock<MemoryPlan>>>,
}

impl Options {
    /// What the encoder's products are made of.
    ///
    /// # Errors
    /// As [`Operands::new`].
    pub(crate) fn operands(&self, gpu: &Gpu) -> Result<Operands> {
        Operands::new(gpu, self.weights, self.arithmetic)
    }
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

    /// How weights are kept on the GPU: [`WeightFormat::F32`], as exact as the file, where neither this nor [`Builder::arithmetic`] is said.
    /// What is computed with them is f32 in any case.
    pub fn weights(mut self, format: WeightFormat) -> Self {
        self.options.weights = Some(format);
        self
    }

    /// What the encoder multiplies with: [`Arithmetic::F32`] where nothing is said. The others take weights in their own format, are less
    /// exact, and meant for adapters with matrix units or packed products of bytes; elsewhere they are slower.
    pub fn arithmetic(mut self, arithmetic: Arithmetic) -> Self {
        self.options.arithmetic = arithmetic;
        self
    }

    /// Most bytes of GPU memory for weights, activations and results together. The token budget shrinks until they fit; where not even one
    /// text of the maximum length does, loading is refused with what it would take.
    pub fn max_gpu_memory(mut self, bytes: u64) -> Self {
        self.options.max_gpu_memory = Some(bytes);
        self
    }

    /// How kernels are chosen: [`Tuning::Auto`] where nothing is said.
    pub fn tuning(mut self, tuning: Tuning) -> Self {
        self.options.tuning = tuning;
        self
    }

    /// Whether a model whose device was lost (a driver reset, an unplugged GPU) opens the adapter again, uploads its weights again and
    /// repeats what was under way, which is the default, or gives [`Error::DeviceLost`]. A device that the caller handed in with
    /// [`Gpu::from_device`] cannot be opened again.
    pub fn recover(mut self, recover: bool) -> Self {
        self.options.fail_on_lost_device = !recover;
        self
    }

    /// What [`Builder::from_dir`] would take of the GPU's memory with the same options, without taking it.
    ///
    /// # Errors
    /// As [`Builder::from_dir`].
    pub fn memory_plan(mut self, dir: impl AsRef<Path>) -> Result<MemoryPlan> {
        let plan = Arc::new(OnceLock::new());
        self.options.plan_only = Some(plan.clone());
        match (self.from_dir(dir), plan.get()) {
            (_, Some(plan)) => Ok(*plan),
            (Err(error), None) => Err(error),
            (Ok(_), None) => Err(Error::input("the task made no plan of its memory")),
        }
    }

    /// Loads the model folder: `config.json`, weights, a tokenizer, and what sentence-transformers keeps beside them.
    ///
    /// # Errors
    /// What is wrong with the folder, with an option, or with the GPU.
    pub fn from_dir(self, dir: impl AsRef<Path>) -> Result<T> {
        T::load(Checkpoint::open(dir)?, self.options, self.settings)
    }
}
