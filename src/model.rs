//! What every task shares: a model folder loaded with some head, texts made into tokens, tokens run in batches.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use crate::assembler::Assembler;
use crate::batch::Sequence;
use crate::builder::Options;
use crate::checkpoint::{Checkpoint, EncoderConfig, Encoding, HeadConfig, SentenceSettings, Tokenizer};
use crate::encoder::Encoded;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, GpuOptions};
use crate::loader::{Loader, Needs};
use crate::runner::{Output, Runner, Wait};
use crate::stats::Stats;
use crate::texts::{BYTES_PER_TOKEN, Input, Tokens, encode_all, of_its_text, of_text, some, windows};

/// Batches whose tokens are made at a time. Fewer than a few would often leave the last one half full; many more, and the GPU would be
/// done with those in flight before the next are there.
const WINDOW_BATCHES: usize = 8;

/// A model on the GPU with its tokenizer. Every task has one.
pub struct Model {
    loader: Loader,
    runner: RwLock<Arc<Runner>>,
    /// Held while a lost device is replaced.
    recovering: Mutex<()>,
}

/// Times that one call may lose its device before it gives up.
const RECOVERIES: usize = 2;

impl Model {
    /// Loads an opened folder, and lets `head` add the steps that make results of the hidden states.
    pub(crate) fn load(
        checkpoint: Checkpoint,
        mut options: Options,
        needs: Needs,
        head: impl Fn(&Checkpoint, &mut Assembler, &Encoded) -> Result<Vec<Output>> + Send + Sync + 'static,
    ) -> Result<Self> {
        let gpu = match options.gpu.take() {
            Some(gpu) => gpu,
            None => Gpu::new(GpuOptions::default())?,
        };
        let loader = Loader::new(checkpoint, options, needs, Box::new(head))?;
        let runner = RwLock::new(Arc::new(loader.load(&gpu)?));
        Ok(Self { loader, runner, recovering: Mutex::default() })
    }

    /// What runs now.
    pub(crate) fn runner(&self) -> Arc<Runner> {
        self.runner.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a call that ended so is to be repeated: `failed` lost its device, and there is another now.
    fn recovered<T>(&self, failed: &Arc<Runner>, outcome: &Result<T>, attempt: usize) -> Result<bool> {
        let reason = match outcome {
            Err(Error::DeviceLost { reason, .. }) if attempt < RECOVERIES && !self.loader.options.fail_on_lost_device => reason,
            _ => return Ok(false),
        };
        let _one_at_a_time = self.recovering.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(failed, &self.runner()) {
            return Ok(true); // another call has seen to it
        }
        let gpu = failed.gpu().replacement()?;
        log::warn!("the GPU device was lost ({reason}): loading {} again", self.loader.checkpoint.path.display());
        let (runner, before) = (self.loader.load(&gpu)?, failed.stats());
        runner.set_stats(Stats { last: before.last, total: before.total, recoveries: before.recoveries + 1, ..runner.stats() });
        *self.runner.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(runner);
        Ok(true)
    }

    /// Makes tokens of texts on all cores, each text behind `prompt`, specials included, cut at the maximum length.
    ///
    /// # Errors
    /// [`Error::Input`] when the tokenizer cannot take a text: the first such text's.
    pub fn encode<'a, I: Into<Input<'a>>>(&self, inputs: impl IntoIterator<Item = I>, prompt: &str) -> Result<Vec<Encoding>> {
        let inputs: Vec<Input> = inputs.into_iter().map(Into::into).collect();
        encode_all(&inputs, |input| self.encode_input(input, prompt)).into_iter().collect()
    }

    /// Makes tokens of one text, as [`Model::encode`] does.
    pub(crate) fn encode_input(&self, Input { text, pair }: &Input, prompt: &str) -> Result<Encoding> {
        let text = if prompt.is_empty() { Cow::Borrowed(*text) } else { Cow::Owned(format!("{prompt}{text}")) };
        self.tokenizer().encode(&text, *pair, self.loader.max_length)
    }

    /// Runs texts: `encode` makes tokens of each, on all cores, of one window of texts after another while the GPU runs the one before. The
    /// rows of each sequence go to `take` as [`Runner::call`] hands them out, and what `keep` makes of each text's tokens is returned.
    /// After a lost device rows may be handed out a second time.
    ///
    /// # Errors
    /// [`Error::Input`] for no texts, or with the number of the text that `encode` or the model cannot take.
    pub(crate) async fn run_texts<T: Tokens, K>(
        &self,
        inputs: &[Input<'_>],
        wait: Wait,
        encode: impl Fn(&Input<'_>) -> Result<T> + Sync,
        keep: impl Fn(T) -> K,
        mut take: impl FnMut(usize, usize, &[f32]),
    ) -> Result<Vec<K>> {
        some(inputs.len())?;
        let mut attempt = 0;
        loop {
            let runner = self.runner();
            let outcome = self.run_texts_on(&runner, inputs, wait, &encode, &keep, &mut take).await;
            if !self.recovered(&runner, &outcome, attempt)? {
                return outcome;
            }
            attempt += 1;
        }
    }

    async fn run_texts_on<T: Tokens, K>(
        &self,
        runner: &Runner,
        inputs: &[Input<'_>],
        wait: Wait,
        encode: &(impl Fn(&Input<'_>) -> Result<T> + Sync),
        keep: &impl Fn(T) -> K,
        take: &mut impl FnMut(usize, usize, &[f32]),
    ) -> Result<Vec<K>> {
        let mut call = runner.call(wait, take);
        let (mut kept, mut ends) = (Vec::with_capacity(inputs.len()), Vec::with_capacity(inputs.len()));
        let outcome = async {
            for window in windows(inputs, WINDOW_BATCHES * runner.capacity().tokens * BYTES_PER_TOKEN) {
                let begin = Instant::now();
                let numbered = encode_all(window, encode).into_iter().zip(kept.len()..);
                let tokens = numbered.map(|(tokens, text)| tokens.map_err(|error| of_text(text, error))).collect::<Result<Vec<T>>>()?;
                call.counters.tokenize_nanoseconds += begin.elapsed().as_nanos() as u64;
                let first = ends.last().copied().unwrap_or(0);
                let mut sequences = Vec::with_capacity(tokens.len());
                for tokens in &tokens {
                    sequences.extend(tokens.sequences());
                    ends.push(first + sequences.len());
                }
                self.check(first, &sequences)?;
                call.run(first, &sequences).await?;
                kept.extend(tokens.into_iter().map(keep));
            }
            call.finish().await
        };
        outcome.await.map_err(|error| of_its_text(&ends, error))?;
        Ok(kept)
    }

    /// As [`Model::run_texts`], for heads with one output: the values that count of each sequence's rows, row after row, and what was kept.
    pub(crate) async fn rows_of_texts<T: Tokens, K>(
        &self,
        inputs: &[Input<'_>],
        wait: Wait,
        encode: impl Fn(&Input<'_>) -> Result<T> + Sync,
        keep: impl Fn(T) -> K,
    ) -> Result<(Vec<Vec<f32>>, Vec<K>)> {
        let runner = self.runner();
        let output = &runner.outputs()[0];
        let mut all = Vec::with_capacity(inputs.len());
        let take = |sequence: usize, _: usize, rows: &[f32]| {
            // As many as there are texts or more, and in any order.
            all.resize(all.len().max(sequence + 1), Vec::new());
            all[sequence] = output.columns_of(rows).flatten().copied().collect();
        };
        let kept = self.run_texts(inputs, wait, encode, keep, take).await?;
        Ok((all, kept))
    }

    /// Runs sequences after a check; see [`Runner::call`]. After a lost device rows may be handed out a second time.
    pub(crate) async fn run(&self, sequences: &[Sequence<'_>], wait: Wait, mut take: impl FnMut(usize, usize, &[f32])) -> Result<()> {
        some(sequences.len())?;
        self.check(0, sequences)?;
        let mut attempt = 0;
        loop {
            let runner = self.runner();
            let outcome = Self::run_on(&runner, sequences, wait, &mut take).await;
            if !self.recovered(&runner, &outcome, attempt)? {
                return outcome;
            }
            attempt += 1;
        }
    }

    async fn run_on(runner: &Runner, sequences: &[Sequence<'_>], wait: Wait, take: &mut impl FnMut(usize, usize, &[f32])) -> Result<()> {
        let mut call = runner.call(wait, take);
        call.run(0, sequences).await?;
        call.finish().await
    }

    /// Runs sequences and leaves the first output on the GPU; see [`Runner::run_to_buffer`].
    pub(crate) fn run_to_buffer(&self, sequences: &[Sequence]) -> Result<wgpu::Buffer> {
        let mut attempt = 0;
        loop {
            let runner = self.runner();
            let outcome = runner.run_to_buffer(sequences);
            if !self.recovered(&runner, &outcome, attempt)? {
                return outcome;
            }
            attempt += 1;
        }
    }

    /// As [`Model::run`], for heads with one output: the values that count of each text's rows, row after row.
    pub(crate) async fn rows(&self, sequences: &[Sequence<'_>], wait: Wait) -> Result<Vec<Vec<f32>>> {
        let runner = self.runner();
        let output = &runner.outputs()[0];
        let mut all = vec![Vec::new(); sequences.len()];
        self.run(sequences, wait, |text, _, rows| all[text] = output.columns_of(rows).flatten().copied().collect()).await?;
        Ok(all)
    }

    /// Checks the call's texts from `first` on.
    ///
    /// # Errors
    /// [`Error::Input`] that names the text that the model cannot take.
    pub(crate) fn check(&self, first: usize, sequences: &[Sequence]) -> Result<()> {
        let runner = self.runner();
        (first..).zip(sequences).try_for_each(|(text, sequence)| runner.bounds().check(text, sequence))
    }

    /// Tokens beyond which a text is cut.
    pub fn max_length(&self) -> usize {
        self.loader.max_length
    }

    /// The model's shape.
    pub fn config(&self) -> &EncoderConfig {
        &self.loader.checkpoint.config
    }

    /// What `config.json` says about labels and scores.
    pub fn heads(&self) -> &HeadConfig {
        &self.loader.checkpoint.heads
    }

    /// What sentence-transformers keeps beside the model.
    pub fn sentence(&self) -> &SentenceSettings {
        &self.loader.checkpoint.sentence
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.loader.checkpoint.tokenizer
    }

    /// The device that it runs on; after that one was lost, the next.
    pub fn gpu(&self) -> Gpu {
        self.runner().gpu().clone()
    }

    /// Tokens of one batch.
    pub fn token_budget(&self) -> usize {
        self.runner().capacity().tokens
    }

    /// Memory held and bytes moved so far.
    pub fn stats(&self) -> Stats {
        self.runner().stats()
    }

    /// Sets the seconds that one dispatch may take, for tests on adapters that are faster than the limit is meant for.
    #[doc(hidden)]
    pub fn set_longest_dispatch(&self, seconds: f64) {
        self.runner().pace().set_longest_dispatch(seconds);
    }

    /// Every step of the first batch of `sequences`, timed.
    #[cfg(feature = "bench")]
    #[doc(hidden)]
    pub fn profile(&self, sequences: &[Sequence], runs: usize) -> Result<Vec<crate::runner::Timed>> {
        self.check(0, sequences)?;
        self.runner().profile(sequences, runs)
    }

    /// The kernels of a batch, in order.
    pub fn kernels(&self) -> Vec<&'static str> {
        self.runner().plan().kernels().collect()
    }
}
