//! Sentence embeddings: one row for each text.

use std::path::Path;

use crate::batch::Sequence;
use crate::builder::{Builder, Options, Task};
use crate::checkpoint::{Checkpoint, Encoding, Module, Pooling, Side};
use crate::error::{Error, Result};
use crate::heads::sentence::{self, Recipe};
use crate::loader::Needs;
use crate::model::Model;
use crate::runner::Wait;
use crate::texts::{Input, Length, lengths, sequences, some};

/// A sentence embedding model on the GPU. All calls take `&self`; any number of threads may share one.
///
/// ```no_run
/// let embedder = minilm::Embedder::from_dir("all-MiniLM-L6-v2")?;
/// let embeddings = embedder.embed(["A cat sits on the mat.", "Eine Katze sitzt auf der Matte."])?;
/// assert_eq!(embeddings.rows().count(), 2);
/// # Ok::<(), minilm::Error>(())
/// ```
pub struct Embedder {
    model: Model,
    recipe: Recipe,
    prompt: String,
}

/// What an [`Embedder`] can be asked for, over what the folder says.
#[derive(Clone, Debug, Default)]
pub struct EmbedderSettings {
    pooling: Option<Vec<Pooling>>,
    normalize: Option<bool>,
    dimensions: Option<usize>,
    prompt: Option<String>,
}

impl Builder<Embedder> {
    /// How a text's tokens become one row, over what the folder says; several lie next to one another. Without either it is the mean.
    pub fn pooling(mut self, pooling: impl Into<Vec<Pooling>>) -> Self {
        self.settings.pooling = Some(pooling.into());
        self
    }

    /// Whether rows have an L2 norm of 1, over what the folder says.
    pub fn normalize(mut self, normalize: bool) -> Self {
        self.settings.normalize = Some(normalize);
        self
    }

    /// Only the first so many columns, for models trained so that these suffice (Matryoshka, arXiv 2205.13147); where rows have an L2
    /// norm of 1, it is 1 again.
    pub fn dimensions(mut self, dimensions: usize) -> Self {
        self.settings.dimensions = Some(dimensions);
        self
    }

    /// The prompt of this name in `config_sentence_transformers.json` goes before every text, rather than the folder's default one.
    pub fn prompt(mut self, name: impl Into<String>) -> Self {
        self.settings.prompt = Some(name.into());
        self
    }
}

impl Task for Embedder {
    type Settings = EmbedderSettings;

    fn load(checkpoint: Checkpoint, options: Options, settings: EmbedderSettings) -> Result<Self> {
        let recipe = recipe(&checkpoint, &settings)?;
        let prompt = match settings.prompt.as_ref().or(checkpoint.sentence.default_prompt.as_ref()) {
            None => String::new(),
            Some(name) => checkpoint.prompt(name)?.to_owned(),
        };
        let steps = recipe.clone();
        let model = Model::load(checkpoint, options, Needs::default(), move |checkpoint, pass, encoded| {
            Ok(vec![sentence::add(pass, encoded, checkpoint, &steps)?])
        })?;
        Ok(Self { model, recipe, prompt })
    }
}

/// What the folder says, and what the caller says over it.
fn recipe(checkpoint: &Checkpoint, settings: &EmbedderSettings) -> Result<Recipe> {
    let sentence = &checkpoint.sentence;
    let pooling = settings.pooling.clone().or_else(|| sentence.pooling.clone()).unwrap_or_else(|| Pooling::Mean.into());
    let mut modules = sentence.modules.clone();
    if pooling.is_empty() {
        return Err(Error::input("no pooling was given: give at least one"));
    }
    let widths = [Some(&pooling), sentence.pooling.as_ref()].map(|pooling| pooling.map_or(1, Vec::len));
    if widths[0] != widths[1] && modules.iter().any(|module| *module != Module::Normalize) {
        return Err(Error::input(format!(
            "{} poolings give another width than the {} that the modules of {} expect: choose as many",
            widths[0],
            widths[1],
            checkpoint.path.display()
        )));
    }
    match settings.normalize {
        Some(true) if modules.last() != Some(&Module::Normalize) => modules.push(Module::Normalize),
        Some(false) => modules.truncate(modules.iter().rposition(|module| *module != Module::Normalize).map_or(0, |last| last + 1)),
        _ => {}
    }
    let dimensions_asked = settings.dimensions.is_some() || settings.normalize == Some(true);
    Ok(Recipe { pooling, modules, dimensions: settings.dimensions.or(sentence.dimensions), dimensions_asked })
}

impl Embedder {
    /// Loads a model folder on the GPU that [`Gpu::new`](crate::Gpu::new) chooses.
    ///
    /// # Errors
    /// As [`Builder::from_dir`].
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self> {
        Self::builder().from_dir(dir)
    }

    /// Options first, then [`Builder::from_dir`].
    pub fn builder() -> Builder<Self> {
        Builder::default()
    }

    /// Embeds texts, or pairs of texts, in the caller's order. Waits for the GPU.
    ///
    /// # Errors
    /// [`Error::Input`] for no texts or a text that the model cannot take, [`Error::DeviceLost`] when the GPU is gone.
    pub fn embed<'a, I: Into<Input<'a>>>(&self, texts: impl IntoIterator<Item = I>) -> Result<Embeddings> {
        pollster::block_on(self.run(texts, Wait::Here))
    }

    /// As [`Embedder::embed`], for callers that must not block while the GPU works. Dropping the future gives up the work. Tokens are
    /// made when it is polled, on all cores where there are many texts, for a few batches at a time.
    ///
    /// # Errors
    /// As [`Embedder::embed`].
    pub async fn embed_async<'a, I: Into<Input<'a>>>(&self, texts: impl IntoIterator<Item = I>) -> Result<Embeddings> {
        self.run(texts, Wait::InBackground).await
    }

    /// Embeds texts that are tokens already, with all specials in place.
    ///
    /// # Errors
    /// As [`Embedder::embed`]; ids outside the vocabulary and texts longer than the model's positions are refused, never cut.
    pub fn embed_tokens(&self, texts: &[Sequence]) -> Result<Embeddings> {
        let columns = self.dimension();
        let mut data = vec![0.0; texts.len() * columns];
        self.embed_tokens_into(texts, &mut data)?;
        let lengths = texts.iter().map(|text| Length { total: text.ids.len(), used: text.ids.len() }).collect();
        Ok(Embeddings { data, columns, lengths })
    }

    /// As [`Embedder::embed_tokens`], into memory of the caller's, `[texts, dimension]`: with that of earlier calls, it is all that a
    /// call needs. Only the driver and its wrapper allocate.
    ///
    /// # Errors
    /// As [`Embedder::embed_tokens`], and [`Error::Input`] when `rows` has not just as many values.
    pub fn embed_tokens_into(&self, texts: &[Sequence], rows: &mut [f32]) -> Result<()> {
        let columns = self.dimension();
        if rows.len() != texts.len() * columns {
            return Err(Error::input(format!(
                "{} texts have {} values in rows of {columns}, but there is room for {}: give a slice of that length",
                texts.len(),
                texts.len() * columns,
                rows.len()
            )));
        }
        pollster::block_on(self.model.run(texts, Wait::Here, copy_to(rows, columns)))
    }

    /// Embeds texts that are windows already (see [`Embedder::windows`]): for each text, a row for each of its windows.
    ///
    /// # Errors
    /// As [`Embedder::embed_tokens`].
    pub fn embed_windows(&self, texts: &[&[Encoding]]) -> Result<Vec<Embeddings>> {
        let windows: Vec<Sequence> = texts.iter().copied().flatten().map(Encoding::sequence).collect();
        let columns = self.dimension();
        let all = self.embed_tokens(&windows)?;
        let mut first = 0;
        let of_text = |windows: &&[Encoding]| {
            let data = all.data[first * columns..][..windows.len() * columns].to_vec();
            first += windows.len();
            Embeddings { data, columns, lengths: lengths(windows) }
        };
        Ok(texts.iter().map(of_text).collect())
    }

    /// One row for a text of several windows: their mean, weighted by tokens, with an L2 norm of 1 where rows have it.
    pub fn mean_of_windows(&self, windows: &Embeddings) -> Embeddings {
        let columns = windows.columns;
        let mut mean = vec![0.0f64; columns];
        for (row, length) in windows.rows().zip(&windows.lengths) {
            mean.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value) * length.used as f64);
        }
        let total = windows.lengths.iter().map(|length| length.used).sum::<usize>();
        let norm = mean.iter().map(|value| value * value).sum::<f64>().sqrt();
        let divisor = if self.normalizes() { norm.max(1e-12) } else { total.max(1) as f64 };
        let data = mean.iter().map(|value| (value / divisor) as f32).collect();
        Embeddings { data, columns, lengths: vec![Length { total, used: total }] }
    }

    /// Embeds texts and leaves the rows on the GPU. Returns as soon as the work is submitted: what the caller submits to the same
    /// queue afterwards sees the rows.
    ///
    /// # Errors
    /// As [`Embedder::embed`], and [`Error::Memory`] when the rows need a larger buffer than the adapter allows.
    pub fn embed_to_buffer<'a, I: Into<Input<'a>>>(&self, texts: impl IntoIterator<Item = I>) -> Result<GpuEmbeddings> {
        let encodings = self.encode(texts)?;
        let sequences = sequences(&encodings);
        some(sequences.len())?;
        self.model.check(0, &sequences)?;
        let buffer = self.model.run_to_buffer(&sequences)?;
        Ok(GpuEmbeddings { buffer, columns: self.dimension(), lengths: lengths(&encodings) })
    }

    /// Makes tokens of texts, prompt and specials included, as [`Embedder::embed`] does.
    ///
    /// # Errors
    /// [`Error::Input`] when the tokenizer cannot take a text.
    pub fn encode<'a, I: Into<Input<'a>>>(&self, texts: impl IntoIterator<Item = I>) -> Result<Vec<Encoding>> {
        self.model.encode(texts, &self.prompt)
    }

    /// Makes tokens of a text of any length, in as many windows as it needs, each with the specials; neighbours share `stride` tokens. The
    /// prompt stands before the text, in the first window. Of a pair, the second text is cut into windows.
    ///
    /// # Errors
    /// As [`Tokenizer::windows`](crate::checkpoint::Tokenizer::windows).
    pub fn windows<'a>(&self, text: impl Into<Input<'a>>, stride: usize) -> Result<Vec<Encoding>> {
        let input = text.into();
        let whole = self.encode([input])?;
        if !whole[0].truncated {
            return Ok(whole);
        }
        let lower = |text: String| if self.model.sentence().lower_case { text.to_lowercase() } else { text };
        let (text, pair) = (lower(format!("{}{}", self.prompt, input.text)), input.pair.map(|pair| lower(pair.to_owned())));
        let cut = if pair.is_some() { Side::Second } else { Side::First };
        let windows = self.model.tokenizer().windows(&text, pair.as_deref(), self.model.max_length(), stride, cut)?;
        Ok(windows.into_iter().map(|(encoding, _)| encoding).collect())
    }

    async fn run<'a, I: Into<Input<'a>>>(&self, texts: impl IntoIterator<Item = I>, wait: Wait) -> Result<Embeddings> {
        let inputs: Vec<Input> = texts.into_iter().map(Into::into).collect();
        let columns = self.dimension();
        let mut data = vec![0.0; inputs.len() * columns];
        let encode = |input: &Input| self.model.encode_input(input, &self.prompt);
        let lengths = self.model.run_texts(&inputs, wait, encode, |encoding| encoding.length(), copy_to(&mut data, columns)).await?;
        Ok(Embeddings { data, columns, lengths })
    }

    /// Values of a row.
    pub fn dimension(&self) -> usize {
        self.model.runner().outputs()[0].columns
    }

    /// How tokens become a row; several lie next to one another.
    pub fn pooling(&self) -> &[Pooling] {
        &self.recipe.pooling
    }

    /// Whether rows have an L2 norm of 1.
    pub fn normalizes(&self) -> bool {
        self.recipe.modules.last() == Some(&Module::Normalize)
    }

    /// The model: its shape, its tokenizer, its device, what it has cost.
    pub fn model(&self) -> &Model {
        &self.model
    }
}

/// Takes each text's row to its place in `data`.
fn copy_to(data: &mut [f32], columns: usize) -> impl FnMut(usize, usize, &[f32]) {
    move |text, _, row| data[text * columns..][..columns].copy_from_slice(&row[..columns])
}

/// Rows of values, `[texts, columns]`, row after row.
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    data: Vec<f32>,
    columns: usize,
    lengths: Vec<Length>,
}

impl Embeddings {
    /// How many rows there are, one for each text.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Never true for what [`Embedder::embed`] returns.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Values of a row.
    pub fn dimension(&self) -> usize {
        self.columns
    }

    /// One row for each text, in the caller's order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.data.chunks_exact(self.columns)
    }

    /// The row of one text, if there is one.
    pub fn row(&self, text: usize) -> Option<&[f32]> {
        self.data.chunks_exact(self.columns).nth(text)
    }

    /// All values, row after row.
    pub fn as_slice(&self) -> &[f32] {
        &self.data
    }

    /// All values, row after row.
    pub fn into_vec(self) -> Vec<f32> {
        self.data
    }

    /// How many tokens each text has, and how many the model saw.
    pub fn lengths(&self) -> &[Length] {
        &self.lengths
    }
}

/// Rows that stay on the GPU, `[texts, columns]` in f32, row after row.
#[derive(Clone, Debug)]
pub struct GpuEmbeddings {
    /// For use as a storage buffer or as the source of a copy.
    pub buffer: wgpu::Buffer,
    /// Values of a row.
    pub columns: usize,
    /// How many tokens each text has, and how many the model saw.
    pub lengths: Vec<Length>,
}

/// The cosine of the angle between two rows, computed in f64; 0 when one of them is zero.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| a as f64 * b as f64).sum::<f64>();
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms == 0.0 { 0.0 } else { dot(a, b) / norms }
}
