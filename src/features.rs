//! Hidden states: one row for each token of each text.

use std::path::Path;

use crate::batch::Sequence;
use crate::builder::{Builder, Options, Task};
use crate::checkpoint::Encoding;
use crate::error::Result;
use crate::heads;
use crate::model::{Input, Length, Model, lengths, sequences};
use crate::runner::Wait;

/// An encoder on the GPU that gives its last hidden state. All calls take `&self`; any number of threads may share one.
pub struct FeatureExtractor {
    model: Model,
}

impl Task for FeatureExtractor {
    type Settings = ();

    fn load(dir: &Path, options: Options, _: ()) -> Result<Self> {
        Ok(Self { model: Model::load(dir, options, |_, head| Ok(heads::hidden_states::add(head)))? })
    }
}

impl FeatureExtractor {
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

    /// The last hidden state of each text, in the caller's order. Waits for the GPU.
    ///
    /// # Errors
    /// As [`Embedder::embed`](crate::Embedder::embed).
    pub fn features<'a, I: Into<Input<'a>>>(&self, texts: impl IntoIterator<Item = I>) -> Result<Vec<Features>> {
        let encodings = self.encode(texts)?;
        pollster::block_on(self.run(&sequences(&encodings), lengths(&encodings), Wait::Here))
    }

    /// As [`FeatureExtractor::features`], for callers that must not block while the GPU works.
    ///
    /// # Errors
    /// As [`FeatureExtractor::features`].
    pub async fn features_async<'a, I: Into<Input<'a>>>(&self, texts: impl IntoIterator<Item = I>) -> Result<Vec<Features>> {
        let encodings = self.encode(texts)?;
        self.run(&sequences(&encodings), lengths(&encodings), Wait::InBackground).await
    }

    /// The last hidden state of texts that are tokens already, with all specials in place.
    ///
    /// # Errors
    /// As [`Embedder::embed_tokens`](crate::Embedder::embed_tokens).
    pub fn features_of_tokens(&self, texts: &[Sequence]) -> Result<Vec<Features>> {
        let lengths = texts.iter().map(|text| Length { total: text.ids.len(), used: text.ids.len() }).collect();
        pollster::block_on(self.run(texts, lengths, Wait::Here))
    }

    /// Makes tokens of texts, specials included, as [`FeatureExtractor::features`] does.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) when the tokenizer cannot take a text.
    pub fn encode<'a, I: Into<Input<'a>>>(&self, texts: impl IntoIterator<Item = I>) -> Result<Vec<Encoding>> {
        self.model.encode(texts, "")
    }

    async fn run(&self, sequences: &[Sequence<'_>], lengths: Vec<Length>, wait: Wait) -> Result<Vec<Features>> {
        let (columns, stride) = (self.model.runner.output().columns, self.model.runner.output().stride);
        let mut features: Vec<Features> = lengths.into_iter().map(|length| Features { data: Vec::new(), columns, length }).collect();
        let take = |text: usize, rows: &[f32]| {
            features[text].data = rows.chunks_exact(stride).flat_map(|row| &row[..columns]).copied().collect();
        };
        self.model.run(sequences, wait, take).await?;
        Ok(features)
    }

    /// The model: its shape, its tokenizer, its device, what it has cost.
    pub fn model(&self) -> &Model {
        &self.model
    }
}

/// The hidden state of one text, `[tokens, columns]`, row after row.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    data: Vec<f32>,
    columns: usize,
    length: Length,
}

impl Features {
    /// One row for each token.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.data.chunks_exact(self.columns)
    }

    /// Values of a row.
    pub fn dimension(&self) -> usize {
        self.columns
    }

    /// All values, row after row.
    pub fn as_slice(&self) -> &[f32] {
        &self.data
    }

    /// How many tokens the text has, and how many the model saw.
    pub fn length(&self) -> Length {
        self.length
    }
}
