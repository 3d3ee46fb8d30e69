//! What every task shares: a model folder loaded with some head, texts made into tokens, tokens run in batches.

use std::borrow::Cow;
use std::time::Instant;

use crate::assembler::{Assembler, Inputs};
use crate::batch::{Bounds, Capacity, MAX_POSITIONS, MAX_TOKEN_TYPES, Sequence};
use crate::builder::Options;
use crate::checkpoint::{Checkpoint, EncoderConfig, Encoding, HeadConfig, SentenceSettings, Tokenizer};
use crate::encoder::{self, Encoded, widest_row};
use crate::error::{Error, Result};
use crate::gpu::{Arena, Gpu, GpuOptions, Plan};
use crate::kernels::Variant;
use crate::parallel;
use crate::runner::{Output, Runner, Wait};
use crate::stats::Stats;
use crate::weights::Upload;

/// Tokens of a batch where the caller does not say.
const DEFAULT_TOKEN_BUDGET: usize = 8192;

/// About what a token stands for.
const BYTES_PER_TOKEN: usize = 4;

/// Batches whose tokens are made at a time. Fewer than a few would often leave the last one half full; many more, and the GPU would be
/// done with those in flight before the next are there.
const WINDOW_BATCHES: usize = 8;

/// Bytes of text that are worth a thread: it takes some 20 us to start, and these a millisecond to tokenize.
const BYTES_PER_THREAD: usize = 4096;

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

impl Input<'_> {
    /// What there is to tokenize; an empty text has its specials.
    fn bytes(&self) -> usize {
        self.text.len() + self.pair.map_or(0, str::len) + 2 * BYTES_PER_TOKEN
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
        let runner = gpu.checked(&what, || {
            let tensors = checkpoint.encoder()?;
            let (mut weights, mut activations) = (Arena::new(&gpu, "weights"), Arena::new(&gpu, "activations"));
            let inputs = Inputs::new(&mut activations, capacity)?;
            let mut pass = Assembler {
                gpu: &gpu,
                config: &config,
                inputs: &inputs,
                capacity,
                variant: Variant::choose(&gpu),
                upload: Upload::new(&gpu, &mut weights, &config),
                activations: &mut activations,
                steps: Vec::new(),
            };
            let encoded = encoder::assemble(&mut pass, &tensors, needs.all_layers)?;
            let outputs = head(&checkpoint, &mut pass, &encoded)?;
            let (plan, uploaded) = (Plan { steps: pass.steps }, pass.upload.uploaded);
            gpu.flush()?;
            let runner = Runner::new(gpu.clone(), plan, inputs, outputs, capacity, bounds, &mut activations)?;
            runner.set_memory(uploaded, weights.bytes(), activations.bytes());
            Ok(runner)
        })?;
        let Checkpoint { tokenizer, sentence, heads, .. } = checkpoint;
        Ok(Self { gpu, config, heads, sentence, runner, max_length, tokenizer })
    }

    /// Makes tokens of texts on all cores, each text behind `prompt`, specials included, cut at the maximum length.
    ///
    /// # Errors
    /// [`Error::Input`] when the tokenizer cannot take a text: the first such text's.
    pub fn encode<'a, I: Into<Input<'a>>>(&self, inputs: impl IntoIterator<Item = I>, prompt: &str) -> Result<Vec<Encoding>> {
        let inputs: Vec<Input> = inputs.into_iter().map(Into::into).collect();
        self.encode_inputs(&inputs, prompt)
    }

    fn encode_inputs(&self, inputs: &[Input], prompt: &str) -> Result<Vec<Encoding>> {
        let bytes: usize = inputs.iter().map(Input::bytes).sum();
        let threads = (bytes / BYTES_PER_THREAD).clamp(1, parallel::cores());
        let encode = |Input { text, pair }: &Input| {
            let text = if prompt.is_empty() { Cow::Borrowed(*text) } else { Cow::Owned(format!("{prompt}{text}")) };
            self.tokenizer.encode(&text, *pair, self.max_length)
        };
        parallel::map(inputs, threads, encode).into_iter().collect()
    }

    /// Runs texts: hands each one's rows to `take` as [`Runner::call`] does, and gives their lengths. Tokens are made of one window of
    /// texts after another, each while the GPU runs the one before.
    pub(crate) async fn run_texts(
        &self,
        inputs: &[Input<'_>],
        prompt: &str,
        wait: Wait,
        take: impl FnMut(usize, usize, &[f32]),
    ) -> Result<Vec<Length>> {
        let mut call = self.runner.call(wait, take);
        let mut all = Vec::with_capacity(inputs.len());
        for window in windows(inputs, WINDOW_BATCHES * self.runner.capacity().tokens * BYTES_PER_TOKEN) {
            let begin = Instant::now();
            let encodings = self.encode_inputs(window, prompt)?;
            call.counters.tokenize_nanoseconds += begin.elapsed().as_nanos() as u64;
            let (first, sequences) = (all.len(), sequences(&encodings));
            self.check(first, &sequences)?;
            call.run(first, &sequences).await?;
            all.extend(lengths(&encodings));
        }
        some(all.len())?;
        call.finish().await?;
        Ok(all)
    }

    /// Runs sequences after a check; see [`Runner::call`].
    pub(crate) async fn run(&self, sequences: &[Sequence<'_>], wait: Wait, take: impl FnMut(usize, usize, &[f32])) -> Result<()> {
        some(sequences.len())?;
        self.check(0, sequences)?;
        let mut call = self.runner.call(wait, take);
        call.run(0, sequences).await?;
        call.finish().await
    }

    /// As [`Model::run`], for heads with one output: the values that count of each text's rows, row after row.
    pub(crate) async fn rows(&self, sequences: &[Sequence<'_>], wait: Wait) -> Result<Vec<Vec<f32>>> {
        let output = &self.runner.outputs()[0];
        let mut all = vec![Vec::new(); sequences.len()];
        self.run(sequences, wait, |text, _, rows| all[text] = output.columns_of(rows).flatten().copied().collect()).await?;
        Ok(all)
    }

    /// Checks the call's texts from `first` on.
    ///
    /// # Errors
    /// [`Error::Input`] that names the text that the model cannot take.
    pub(crate) fn check(&self, first: usize, sequences: &[Sequence]) -> Result<()> {
        (first..).zip(sequences).try_for_each(|(text, sequence)| self.runner.bounds().check(text, sequence))
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
        self.check(0, sequences)?;
        self.runner.profile(sequences, runs)
    }

    /// The kernels of a batch, in order.
    pub fn kernels(&self) -> Vec<&'static str> {
        self.runner.plan().kernels().collect()
    }
}

/// # Errors
/// [`Error::Input`] for no texts.
pub(crate) fn some(texts: usize) -> Result<()> {
    if texts == 0 { Err(Error::input("no texts were given: give at least one")) } else { Ok(()) }
}

/// Cuts `inputs` into windows of at most `bytes`, or of one text.
fn windows<'i, 'a>(mut inputs: &'i [Input<'a>], bytes: usize) -> impl Iterator<Item = &'i [Input<'a>]> {
    std::iter::from_fn(move || {
        let mut sum = 0;
        let fits = |input: &&Input| {
            sum += input.bytes();
            sum <= bytes
        };
        let (window, rest) = inputs.split_at_checked(inputs.iter().take_while(fits).count().max(1))?;
        inputs = rest;
        Some(window)
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_hold_every_input_once_and_no_more_than_fits() {
        let texts: Vec<String> = (0..100).map(|i| "x".repeat(i * 37 % 200)).collect();
        let inputs: Vec<Input> = texts.iter().map(Input::from).collect();
        for bytes in [0, 50, 300, 1_000_000] {
            let windows: Vec<&[Input]> = windows(&inputs, bytes).collect();
            assert_eq!(windows.concat(), inputs);
            let size = |window: &[Input]| window.iter().map(Input::bytes).sum::<usize>();
            assert!(windows.iter().all(|window| window.len() == 1 || size(window) <= bytes));
            // None could have taken the first of the next.
            assert!(windows.windows(2).all(|pair| size(pair[0]) + pair[1][0].bytes() > bytes));
        }
        assert!(windows(&[], 300).next().is_none());
    }
}
