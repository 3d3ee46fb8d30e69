//! What every task shares: a model folder loaded with some head, texts made into tokens, tokens run in batches.

use std::borrow::Cow;

use crate::assembler::{Assembler, Inputs};
use crate::batch::{Bounds, Capacity, MAX_POSITIONS, MAX_TOKEN_TYPES, Sequence};
use crate::builder::Options;
use crate::checkpoint::{Checkpoint, EncoderConfig, Encoding, HeadConfig, SentenceSettings, Tokenizer};
use crate::encoder::{self, Encoded, widest_row};
use crate::error::{Error, Result};
use crate::gpu::{Arena, Gpu, GpuOptions, Plan};
use crate::runner::{Output, Runner, Wait};
use crate::stats::Stats;
use crate::tuning::Tuning;
use crate::weights::Upload;

/// Tokens of a batch where the caller does not say.
const DEFAULT_TOKEN_BUDGET: usize = 8192;

/// Bytes that rows of selected tokens may take.
const SELECTED_BYTES: u64 = 16 << 20;

/// Selected tokens that fit in any case, where the adapter's bindings are large enough.
const FEWEST_SELECTED: u64 = 64;

/// One text, or a pair that the model takes as one input with a separator between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input<'a> {
    pub text: &'a str,
    pub pair: Option<&'a str>,
}

impl<'a, S: AsRef<str> + ?Sized> From<&'a S> for Input<'a> {
    fn from(text: &'a S) -> Self {
        Self { text: text.as_ref(), pair: None }
    }
}

impl<'a> From<(&'a str, &'a str)> for Input<'a> {
    fn from((text, pair): (&'a str, &'a str)) -> Self {
        Self { text, pair: Some(pair) }
    }
}

/// How many tokens a text has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    /// All of them, specials included.
    pub total: usize,
    /// Those that the model saw: at most its maximum length.
    pub used: usize,
}

impl Length {
    /// Whether the text was cut.
    pub fn truncated(&self) -> bool {
        self.used < self.total
    }
}

/// What a head needs before the encoder is laid out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Needs {
    /// The embeddings and every layer's hidden state, not only the last.
    pub all_layers: bool,
    /// Values that each selected token takes; 0 where nothing is selected.
    pub selected_row: usize,
}

/// A model on the GPU with its tokenizer. Every task has one.
pub struct Model {
    gpu: Gpu,
    config: EncoderConfig,
    heads: HeadConfig,
    sentence: SentenceSettings,
    tokenizer: Tokenizer,
    max_length: usize,
    pub(crate) runner: Runner,
}

impl Model {
    /// Loads an opened folder, and lets `head` add the steps that make results of the hidden states.
    pub(crate) fn load(
        mut checkpoint: Checkpoint,
        options: Options,
        needs: Needs,
        head: impl FnOnce(&Checkpoint, &mut Assembler, &Encoded) -> Result<Vec<Output>>,
    ) -> Result<Self> {
        let gpu = match options.gpu {
            Some(gpu) => gpu,
            None => Gpu::new(GpuOptions::default())?,
        };
        if let Some(code) = &options.language {
            checkpoint.choose_language(code)?;
        }
        let config = checkpoint.config.clone();
        let max_tokens = config.max_tokens().min(MAX_POSITIONS - config.position_offset);
        let max_length = match options.max_length {
            None => checkpoint.max_length(),
            Some(length) if (1..=max_tokens).contains(&length) => length,
            Some(length) => {
                return Err(Error::input(format!(
                    "the maximum length {length} is not between 1 and {max_tokens}, the positions that the model in {} has",
                    checkpoint.path.display()
                )));
            }
        };
        let capacity = capacity(&gpu, &config, options.token_budget, max_length, needs.selected_row)?;
        let bounds = Bounds {
            vocabulary: config.vocabulary,
            token_types: config.types().min(MAX_TOKEN_TYPES),
            default_type: config.default_type() as u32,
            position_offset: config.position_offset,
            padding: config.padding().map(|id| id as u32),
            max_tokens,
            max_selected: capacity.selected,
        };

        let what = format!("loading {}", checkpoint.path.display());
        let tuning = Tuning::defaults(&gpu);
        let runner = gpu.checked(&what, || {
            let tensors = checkpoint.encoder()?;
            let (mut weights, mut activations) = (Arena::new(&gpu, "weights"), Arena::new(&gpu, "activations"));
            let inputs = Inputs::new(&mut activations, capacity)?;
            let mut pass = Assembler {
                gpu: &gpu,
                config: &config,
                inputs: &inputs,
                capacity,
                tuning: &tuning,
                upload: Upload::new(&gpu, &mut weights, &config, options.weights),
                activations: &mut activations,
                steps: Vec::new(),
            };
            let encoded = encoder::assemble(&mut pass, &tensors, needs.all_layers)?;
            let outputs = head(&checkpoint, &mut pass, &encoded)?;
            let (plan, uploaded) = (Plan::new(&gpu, pass.steps)?, pass.upload.uploaded);
            gpu.flush()?;
            let runner = Runner::new(gpu.clone(), plan, inputs, outputs, capacity, bounds, &mut activations)?;
            runner.set_memory(uploaded, weights.bytes(), activations.bytes());
            Ok(runner)
        })?;
        let Checkpoint { tokenizer, sentence, heads, .. } = checkpoint;
        Ok(Self { gpu, config, heads, sentence, runner, max_length, tokenizer })
    }

    /// Makes tokens of texts, each behind `prompt`, specials included, cut at the maximum length.
    ///
    /// # Errors
    /// [`Error::Input`] when the tokenizer cannot take a text.
    pub fn encode<'a, I: Into<Input<'a>>>(&self, inputs: impl IntoIterator<Item = I>, prompt: &str) -> Result<Vec<Encoding>> {
        let encode = |input: I| {
            let Input { text, pair } = input.into();
            let text = if prompt.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(format!("{prompt}{text}")) };
            self.tokenizer.encode(&text, pair, self.max_length)
        };
        inputs.into_iter().map(encode).collect()
    }

    /// Runs checked sequences; see [`Runner::run`].
    pub(crate) async fn run(&self, sequences: &[Sequence<'_>], wait: Wait, take: impl FnMut(usize, usize, &[f32])) -> Result<()> {
        self.check(sequences)?;
        self.runner.run(sequences, wait, take).await
    }

    /// As [`Model::run`], for heads with one output: the values that count of each text's rows, row after row.
    pub(crate) async fn rows(&self, sequences: &[Sequence<'_>], wait: Wait) -> Result<Vec<Vec<f32>>> {
        let output = &self.runner.outputs()[0];
        let mut all = vec![Vec::new(); sequences.len()];
        self.run(sequences, wait, |text, _, rows| all[text] = output.columns_of(rows).flatten().copied().collect()).await?;
        Ok(all)
    }

    /// # Errors
    /// [`Error::Input`] that names the text that the model cannot take.
    pub(crate) fn check(&self, sequences: &[Sequence]) -> Result<()> {
        if sequences.is_empty() {
            return Err(Error::input("no texts were given: give at least one"));
        }
        sequences.iter().enumerate().try_for_each(|(text, sequence)| self.runner.bounds().check(text, sequence))
    }

    /// Tokens beyond which a text is cut.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The model's shape.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// What `config.json` says about labels and scores.
    pub fn heads(&self) -> &HeadConfig {
        &self.heads
    }

    /// What sentence-transformers keeps beside the model.
    pub fn sentence(&self) -> &SentenceSettings {
        &self.sentence
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The device that it runs on.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Memory held and bytes moved so far.
    pub fn stats(&self) -> Stats {
        self.runner.stats()
    }

    /// Every step of the first batch of `sequences`, timed.
    #[cfg(feature = "bench")]
    pub(crate) fn profile(&self, sequences: &[Sequence], runs: usize) -> Result<Vec<crate::runner::Timed>> {
        self.check(sequences)?;
        self.runner.profile(sequences, runs)
    }

    /// The kernels of a batch, in order.
    pub fn kernels(&self) -> Vec<&'static str> {
        self.runner.plan().kernels().collect()
    }
}

/// The sequences and lengths of encoded texts.
pub(crate) fn sequences(encodings: &[Encoding]) -> Vec<Sequence<'_>> {
    encodings.iter().map(Encoding::sequence).collect()
}

pub(crate) fn lengths(encodings: &[Encoding]) -> Vec<Length> {
    encodings.iter().map(Encoding::length).collect()
}

impl Encoding {
    /// As the model takes it.
    pub fn sequence(&self) -> Sequence<'_> {
        Sequence { ids: &self.ids, type_ids: &self.type_ids, selected: &[] }
    }

    /// How many tokens there were, and how many are left.
    pub fn length(&self) -> Length {
        Length { total: self.total_tokens, used: self.ids.len() }
    }
}

/// What the adapter can hold in one batch, and at least one text of the maximum length.
fn capacity(gpu: &Gpu, config: &EncoderConfig, budget: Option<usize>, max_length: usize, selected_row: usize) -> Result<Capacity> {
    let row = widest_row(config) as u64 * 4;
    let limit = (gpu.max_binding() / row).min(gpu.limits().max_compute_workgroups_per_dimension as u64) as usize;
    if max_length > limit {
        return Err(Error::Memory {
            problem: format!(
                "a text of {max_length} tokens does not fit in this adapter's largest binding, which holds {limit}: set a smaller maximum \
                 length"
            ),
        });
    }
    let tokens = match budget {
        None => DEFAULT_TOKEN_BUDGET.max(max_length).min(limit),
        Some(budget) if (max_length..=limit).contains(&budget) => budget,
        Some(budget) => {
            return Err(Error::input(format!(
                "the token budget {budget} is not between {max_length}, the maximum length of a text, and {limit}, what this adapter can hold"
            )));
        }
    };
    // Shorter texts than this on average fill a batch by their number.
    const SHORT_TEXT: usize = 8;
    let selected = match selected_row as u64 * 4 {
        0 => 0,
        row => (SELECTED_BYTES / row).max(FEWEST_SELECTED).min(gpu.max_binding() / row).clamp(1, tokens as u64) as usize,
    };
    Ok(Capacity { tokens, texts: tokens.div_ceil(SHORT_TEXT), selected })
}
