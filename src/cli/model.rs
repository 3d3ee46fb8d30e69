//! Which model and which adapter, and how texts become tokens: options that several commands share.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use minilm::checkpoint::{SentenceSettings, Tokenizer};
use minilm::kernels::Operands;
use minilm::tuning::{Table, Tuning};
use minilm::{
    Arithmetic, Builder, Checkpoint, Embedder, Encoding, Gpu, GpuOptions, Pooling, Result, Task, WeightFormat, default_model, wgpu,
};

use super::input::Item;

#[derive(Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArguments {
    /// Model folder in Hugging Face layout [env: MINILM_MODEL; default: the model of the project's examples, for embeddings]
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Cut texts after so many tokens, specials included [default: what the model says]
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
    /// The language of all texts, for models with an embedding for each language (some of XLM)
    #[arg(long, value_name = "CODE")]
    pub language: Option<String>,
}

/// A model, and how it runs on which GPU.
#[derive(Args)]
pub struct LoadArguments {
    #[command(flatten)]
    pub model: ModelArguments,
    #[command(flatten)]
    pub batch: BatchArguments,
    #[command(flatten)]
    pub gpu: GpuArguments,
}

/// For sentence embeddings, whose models are trained with prompts.
#[derive(Args)]
#[command(next_help_heading = "Model")]
pub struct PromptArguments {
    /// Put the model's prompt of this name before every text [default: the model's default prompt, if it has one]
    #[arg(long, value_name = "NAME")]
    pub prompt: Option<String>,
}

#[derive(Args)]
#[command(next_help_heading = "Model")]
pub struct PoolingArguments {
    /// How the tokens' states become one vector; several, separated by commas, lie next to one another [default: what the model says,
    /// else mean]
    #[arg(long, value_enum, value_name = "KIND", value_delimiter = ',')]
    pub pooling: Vec<PoolingKind>,
    /// Keep only the first N numbers of each row, for models that were trained for it (Matryoshka)
    #[arg(long, value_name = "N")]
    pub dimensions: Option<usize>,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum PoolingKind {
    Mean,
    Cls,
    Max,
    #[value(name = "mean_sqrt_len", aliases = ["mean-sqrt-len", "mean_sqrt_len_tokens"])]
    MeanSqrtLen,
    Weightedmean,
    Lasttoken,
}

impl PoolingKind {
    fn pooling(self) -> Pooling {
        match self {
            Self::Mean => Pooling::Mean,
            Self::Cls => Pooling::Cls,
            Self::Max => Pooling::Max,
            Self::MeanSqrtLen => Pooling::MeanSqrtLen,
            Self::Weightedmean => Pooling::WeightedMean,
            Self::Lasttoken => Pooling::LastToken,
        }
    }
}

#[derive(Args)]
#[command(next_help_heading = "GPU")]
pub struct GpuArguments {
    /// Use only these backends, separated by commas [env: WGPU_BACKEND]
    #[arg(long, value_enum, value_name = "BACKEND", value_delimiter = ',')]
    pub backend: Vec<Backend>,
    /// Use the adapter whose name contains this; `minilm info` lists them [env: WGPU_ADAPTER_NAME]
    #[arg(long, value_name = "NAME")]
    pub adapter: Option<String>,
    /// Prefer an integrated (low) or a discrete GPU (high) [env: WGPU_POWER_PREF; default: high]
    #[arg(long, value_enum, value_name = "POWER")]
    pub power_preference: Option<Power>,
}

#[derive(Args)]
#[command(next_help_heading = "GPU")]
pub struct BatchArguments {
    /// Most tokens that the GPU takes at once; fewer need less memory [default: 8192]
    #[arg(long, value_name = "N")]
    pub token_budget: Option<usize>,
    #[command(flatten)]
    pub operands: OperandArguments,
    /// How kernels are chosen: `auto` by what was measured here (see `minilm tune`), `off` by the kind of adapter, or a table of
    /// `minilm tune --output`
    #[arg(long, value_name = "auto|off|FILE", default_value = "auto")]
    pub tuning: PathBuf,
    /// Most GPU memory for weights and batches together, in megabytes: batches shrink until they fit
    #[arg(long, value_name = "MB")]
    pub max_gpu_memory: Option<u64>,
}

/// What matrix products are made of.
#[derive(Args)]
pub struct OperandArguments {
    /// Keep weights on the GPU in this format: f16 halves their memory, int8 quarters it; what is computed with them is f32
    /// [default: f32, or that of --arithmetic]
    #[arg(long, value_enum, value_name = "FORMAT", help_heading = "GPU")]
    pub weights: Option<Numbers>,
    /// Multiply in this format, with weights in the same: less exact, and meant for GPUs that have units for it
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "f32", help_heading = "GPU")]
    pub arithmetic: Numbers,
}

impl OperandArguments {
    pub fn of(&self, gpu: &Gpu) -> Result<Operands> {
        Operands::new(gpu, self.weights.map(Numbers::weights), self.arithmetic.arithmetic())
    }

    pub fn apply<T: Task>(&self, builder: Builder<T>) -> Builder<T> {
        let builder = match self.weights {
            Some(weights) => builder.weights(weights.weights()),
            None => builder,
        };
        builder.arithmetic(self.arithmetic.arithmetic())
    }
}

impl BatchArguments {
    fn tuning(&self) -> Result<Tuning> {
        match self.tuning.to_str() {
            Some("auto") => Ok(Tuning::Auto),
            Some("off") => Ok(Tuning::Off),
            _ => Table::read(&self.tuning).map(Tuning::Given),
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Numbers {
    F32,
    F16,
    Int8,
}

impl Numbers {
    fn weights(self) -> WeightFormat {
        match self {
            Self::F32 => WeightFormat::F32,
            Self::F16 => WeightFormat::F16,
            Self::Int8 => WeightFormat::Int8,
        }
    }

    fn arithmetic(self) -> Arithmetic {
        match self {
            Self::F32 => Arithmetic::F32,
            Self::F16 => Arithmetic::F16,
            Self::Int8 => Arithmetic::Int8,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Backend {
    Vulkan,
    Metal,
    Dx12,
    Gl,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Power {
    Low,
    High,
}

impl GpuArguments {
    pub fn options(&self) -> GpuOptions {
        let backends = self.backend.iter().map(|backend| match backend {
            Backend::Vulkan => wgpu::Backends::VULKAN,
            Backend::Metal => wgpu::Backends::METAL,
            Backend::Dx12 => wgpu::Backends::DX12,
            Backend::Gl => wgpu::Backends::GL,
        });
        GpuOptions {
            backends: backends.reduce(|all, backend| all | backend),
            adapter_name: self.adapter.clone(),
            power_preference: self.power_preference.map(|power| match power {
                Power::Low => wgpu::PowerPreference::LowPower,
                Power::High => wgpu::PowerPreference::HighPerformance,
            }),
            ..Default::default()
        }
    }

    fn is_default(&self) -> bool {
        self.backend.is_empty() && self.adapter.is_none() && self.power_preference.is_none()
    }
}

impl ModelArguments {
    /// The model's folder, with its prompts read, before anything large is loaded.
    pub fn open(&self) -> Result<Folder> {
        let path = match &self.model {
            Some(path) => path.clone(),
            None => default_model()?,
        };
        if !path.is_dir() {
            Checkpoint::open(&path)?; // Says what is wrong.
        }
        let settings = SentenceSettings::open(&path)?;
        Ok(Folder { path, settings })
    }
}

impl LoadArguments {
    /// As [`ModelArguments::open`].
    pub fn open(&self) -> Result<Folder> {
        self.model.open()
    }

    /// Loads the model on the GPU, to stay there until the program ends: a thread that still makes tokens may be the last to let go of it,
    /// and some drivers crash when a device is dropped while they are unloaded.
    pub fn load<T: Task>(&self, folder: &Folder, mut builder: Builder<T>) -> Result<&'static T> {
        let Self { model: ModelArguments { max_length, language, .. }, batch, gpu } = self;
        // Otherwise the library opens the GPU, after it has looked at the folder.
        if !gpu.is_default() {
            builder = builder.gpu(Gpu::new(gpu.options())?);
        }
        builder = batch.operands.apply(builder).tuning(batch.tuning()?);
        if let Some(megabytes) = batch.max_gpu_memory {
            builder = builder.max_gpu_memory(megabytes.saturating_mul(1_000_000));
        }
        if let Some(length) = max_length {
            builder = builder.max_length(*length);
        }
        if let Some(code) = language {
            builder = builder.language(code);
        }
        if let Some(budget) = batch.token_budget {
            builder = builder.token_budget(budget);
        }
        builder.from_dir(&folder.path).map(|task| &*Box::leak(Box::new(task)))
    }
}

impl PromptArguments {
    /// What goes before every text.
    pub fn prefix(&self, folder: &Folder) -> Result<String> {
        match self.prompt.as_ref().or(folder.settings.default_prompt.as_ref()) {
            Some(name) => folder.settings.prompt(name, &folder.path).map(str::to_owned),
            None => Ok(String::new()),
        }
    }
}

impl PoolingArguments {
    pub fn builder(&self) -> Builder<Embedder> {
        let mut builder = Embedder::builder();
        if !self.pooling.is_empty() {
            builder = builder.pooling(self.pooling.iter().map(|kind| kind.pooling()).collect::<Vec<_>>());
        }
        match self.dimensions {
            Some(dimensions) => builder.dimensions(dimensions),
            None => builder,
        }
    }
}

/// A model folder and what sentence-transformers' files in it say.
pub struct Folder {
    pub path: PathBuf,
    pub settings: SentenceSettings,
}

/// How a model makes tokens of an item.
pub struct Encode<'a> {
    pub tokenizer: &'a Tokenizer,
    pub max_length: usize,
    pub prefix: &'a str,
}

impl<'a> Encode<'a> {
    pub fn of(model: &'a minilm::Model, prefix: &'a str) -> Self {
        Self { tokenizer: model.tokenizer(), max_length: model.max_length(), prefix }
    }

    pub fn encode(&self, item: &Item) -> Result<Encoding> {
        self.tokenizer.encode(&format!("{}{}", self.prefix, item.text), item.pair.as_deref(), self.max_length)
    }
}

/// The name of a model for people: its folder's.
pub fn name(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    whole.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}
