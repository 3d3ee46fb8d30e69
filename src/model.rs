//! What every task shares: a model folder loaded with some head, texts made into tokens, tokens run in batches.

use std::borrow::Cow;
use std::path::Path;

use crate::batch::{Bounds, MAX_POSITIONS, MAX_TOKEN_TYPES, Sequence};
use crate::builder::Options;
use crate::checkpoint::{Checkpoint, EncoderConfig, Encoding, SentenceSettings, Tokenizer};
use crate::encoder::{Capacity, Encoder, Inputs, widest_row};
use crate::error::{Error, Result};
use crate::gpu::{Arena, Gpu, GpuOptions, Plan, Step};
use crate::runner::{Output, Runner, Wait};
use crate::stats::Stats;

/// Tokens of a batch where the caller does not say.
const DEFAULT_TOKEN_BUDGET: usize = 8192;

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

/// A model on the GPU with its tokenizer. Every task has one.
pub struct Model {
    gpu: Gpu,
    config: EncoderConfig,
    sentence: SentenceSettings,
    tokenizer: Tokenizer,
    max_length: usize,
    bounds: Bounds,
    pub(crate) runner: Runner,
}

impl Model {
    /// Opens the folder, and lets `head` add the steps that make a result of the hidden states.
    pub(crate) fn load(dir: &Path, options: Options, head: impl FnOnce(&SentenceSettings, &mut Head) -> Result<Output>) -> Result<Self> {
        let checkpoint = Checkpoint::open(dir)?;
        let gpu = match options.gpu {
            Some(gpu) => gpu,
            None => Gpu::new(GpuOptions::default())?,
        };
        let config = checkpoint.config.clone();
        let bounds = Bounds {
            vocabulary: config.vocabulary,
            token_types: config.token_types.clamp(1, MAX_TOKEN_TYPES),
            position_offset: config.position_offset,
            max_tokens: config.max_tokens().min(MAX_POSITIONS - config.position_offset),
        };
        let max_length = match options.max_length {
            None => checkpoint.max_length(),
            Some(length) if (1..=bounds.max_tokens).contains(&length) => length,
            Some(length) => {
                return Err(Error::input(format!(
                    "the maximum length {length} is not between 1 and {}, the positions that the model in {} has",
                    bounds.max_tokens,
                    dir.display()
                )));
            }
        };
        let capacity = capacity(&gpu, &config, options.token_budget, max_length)?;

        let what = format!("loading {}", dir.display());
        let runner = gpu.checked(&what, || {
            let tensors = checkpoint.encoder()?;
            let (mut weights, mut activations) = (Arena::new(&gpu, "weights"), Arena::new(&gpu, "activations"));
            let inputs = Inputs::new(&mut activations, capacity)?;
            let encoder = Encoder::load(&gpu, &config, &tensors, &inputs, capacity, &mut weights, &mut activations)?;
            let uploaded = encoder.uploaded;
            let mut head_context = Head {
                gpu: &gpu,
                config: &config,
                inputs: &inputs,
                hidden: encoder.hidden,
                capacity,
                arena: &mut activations,
                steps: encoder.steps,
            };
            let output = head(&checkpoint.sentence, &mut head_context)?;
            let plan = Plan { steps: head_context.steps };
            let runner = Runner::new(gpu.clone(), plan, inputs, output, capacity, config.position_offset, &mut activations)?;
            runner.set_memory(uploaded, weights.bytes(), activations.bytes());
            Ok(runner)
        })?;
        let Checkpoint { tokenizer, sentence, .. } = checkpoint;
        Ok(Self { gpu, config, sentence, runner, max_length, tokenizer, bounds })
    }

    /// Makes tokens of texts, each behind `prompt`, specials included, cut at the maximum length.
    ///
    /// # Errors
    /// [`Error::Input`] when the tokenizer cannot take a text.
    pub fn encode<'a, I: Into<Input<'a>>>(&self, inputs: impl IntoIterator<Item = I>, prompt: &str) -> Result<Vec<Encoding>> {
        let mut encodings = Vec::new();
        for input in inputs {
            let Input { text, pair } = input.into();
            let text = if prompt.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(format!("{prompt}{text}")) };
            encodings.push(self.tokenizer.encode(&text, pair, self.max_length)?);
        }
        Ok(encodings)
    }

    /// Runs checked sequences; see [`Runner::run`].
    pub(crate) async fn run(&self, sequences: &[Sequence<'_>], wait: Wait, take: impl FnMut(usize, &[f32])) -> Result<()> {
        self.check(sequences)?;
        self.runner.run(sequences, wait, take).await
    }

    /// # Errors
    /// [`Error::Input`] that names the text that the model cannot take.
    pub(crate) fn check(&self, sequences: &[Sequence]) -> Result<()> {
        if sequences.is_empty() {
            return Err(Error::input("no texts were given: give at least one"));
        }
        sequences.iter().enumerate().try_for_each(|(text, sequence)| self.bounds.check(text, sequence))
    }

    /// Tokens beyond which a text is cut.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The model's shape.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
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

    /// The kernels of a batch, in order.
    pub fn kernels(&self) -> Vec<&'static str> {
        self.runner.plan().kernels().collect()
    }
}

/// The sequences and lengths of encoded texts.
pub(crate) fn sequences(encodings: &[Encoding]) -> Vec<Sequence<'_>> {
    encodings.iter().map(|encoding| Sequence { ids: &encoding.ids, type_ids: &encoding.type_ids }).collect()
}

pub(crate) fn lengths(encodings: &[Encoding]) -> Vec<Length> {
    encodings.iter().map(|encoding| Length { total: encoding.total_tokens, used: encoding.ids.len() }).collect()
}

/// Where a head adds its steps and makes its buffers.
pub(crate) struct Head<'a, 'g> {
    pub gpu: &'a Gpu,
    pub config: &'a EncoderConfig,
    pub inputs: &'a Inputs,
    /// The last hidden state, `[tokens, hidden]`, rows padded.
    pub hidden: wgpu::Buffer,
    pub capacity: Capacity,
    pub arena: &'a mut Arena<'g>,
    pub steps: Vec<Step>,
}

/// What the adapter can hold in one batch, and at least one text of the maximum length.
fn capacity(gpu: &Gpu, config: &EncoderConfig, budget: Option<usize>, max_length: usize) -> Result<Capacity> {
    let row = widest_row(config) as u64 * 4;
    let limit = (gpu.max_binding() / row).min(gpu.limits().max_compute_workgroups_per_dimension as u64) as usize;
    if max_length > limit {
        return Err(Error::Memory {
            problem: format!(
                "a text of {max_length} tokens does not fit in this adapter's largest binding, which holds {limit}: set a smaller maximum length"
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
    Ok(Capacity { tokens, texts: tokens.div_ceil(SHORT_TEXT) })
}
