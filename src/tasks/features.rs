//! Hidden states: one row for each token of each text.

use std::path::Path;

use crate::batch::Sequence;
use crate::builder::{Builder, Options, Task};
use crate::checkpoint::{Checkpoint, Encoding};
use crate::error::Result;
use crate::heads::hidden_states;
use crate::loader::Needs;
use crate::model::Model;
use crate::runner::Wait;
use crate::texts::{Input, Length};

/// An encoder on the GPU that gives its hidden states. All calls take `&self`; any number of threads may share one.
pub struct FeatureExtractor {
    model: Model,
    has_pooler: bool,
}

/// What a [`FeatureExtractor`] gives beside the last hidden state.
#[derive(Clone, Copy, Debug, Default)]
pub struct FeatureSettings {
    all_layers: bool,
    pooler: bool,
}

impl Builder<FeatureExtractor> {
    /// The embeddings and every layer's hidden state too. Each takes GPU memory and time to read.
    pub fn all_layers(mut self, all_layers: bool) -> Self {
        self.settings.all_layers = all_layers;
        self
    }

    /// The pooler's output too: its matrix with tanh over the first token's state.
    pub fn pooler(mut self, pooler: bool) -> Self {
        self.settings.pooler = pooler;
        self
    }
}

impl Task for FeatureExtractor {
    type Settings = FeatureSettings;

    fn load(checkpoint: Checkpoint, options: Options, settings: FeatureSettings) -> Result<Self> {
        let FeatureSettings { all_layers, pooler: has_pooler } = settings;
        let model = Model::load(checkpoint, options, Needs { all_layers, ..Needs::default() }, move |checkpoint, pass, encoded| {
            let mut outputs = hidden_states::outputs(pass, encoded);
            if has_pooler {
                outputs.push(hidden_states::pooler(pass, encoded, &checkpoint.pooler()?)?);
            }
            Ok(outputs)
        })?;
        Ok(Self { model, has_pooler })
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

    /// The hidden states of each text, in the caller's order. Waits for the GPU.
    ///
    /// # Errors
    /// As [`Embedder::embed`](crate::Embedder::embed).
    pub fn features<'a, I: Into<Input<'a>>>(&self, texts: impl IntoIterator<Item = I>) -> Result<Vec<Features>> {
        pollster::block_on(self.run(texts, Wait::Here))
    }

    /// As [`FeatureExtractor::features`], for callers that must not block while the GPU works.
    ///
    /// # Errors
    /// As [`FeatureExtractor::features`].
    pub async fn features_async<'a, I: Into<Input<'a>>>(&self, texts: impl IntoIterator<Item = I>) -> Result<Vec<Features>> {
        self.run(texts, Wait::InBackground).await
    }

    /// The hidden states of texts that are tokens already, with all specials in place.
    ///
    /// # Errors
    /// As [`Embedder::embed_tokens`](crate::Embedder::embed_tokens).
    pub fn features_of_tokens(&self, texts: &[Sequence]) -> Result<Vec<Features>> {
        let mut features = self.empty(texts.len());
        pollster::block_on(self.model.run(texts, Wait::Here, self.take_to(&mut features)))?;
        let length = |text: &Sequence| Length { total: text.ids.len(), used: text.ids.len() };
        features.iter_mut().zip(texts).for_each(|(features, text)| features.length = length(text));
        Ok(features)
    }

    /// Makes tokens of texts, specials included, as [`FeatureExtractor::features`] does.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) when the tokenizer cannot take a text.
    pub fn encode<'a, I: Into<Input<'a>>>(&self, texts: impl IntoIterator<Item = I>) -> Result<Vec<Encoding>> {
        self.model.encode(texts, "")
    }

    async fn run<'a, I: Into<Input<'a>>>(&self, texts: impl IntoIterator<Item = I>, wait: Wait) -> Result<Vec<Features>> {
        let inputs: Vec<Input> = texts.into_iter().map(Into::into).collect();
        let mut features = self.empty(inputs.len());
        let encode = |input: &Input| self.model.encode_input(input, "");
        let lengths = self.model.run_texts(&inputs, wait, encode, |encoding| encoding.length(), self.take_to(&mut features)).await?;
        features.iter_mut().zip(lengths).for_each(|(features, length)| features.length = length);
        Ok(features)
    }

    /// Room for what the GPU gives.
    fn empty(&self, texts: usize) -> Vec<Features> {
        let runner = self.model.runner();
        let (columns, states) = (runner.outputs()[0].columns, runner.outputs().len() - usize::from(self.has_pooler));
        let length = Length { total: 0, used: 0 };
        vec![Features { states: vec![Vec::new(); states], pooler_output: None, columns, length }; texts]
    }

    /// Takes each output of each text to its place.
    fn take_to<'a>(&self, features: &'a mut [Features]) -> impl FnMut(usize, usize, &[f32]) + use<'a> {
        let runner = self.model.runner();
        move |text, output, rows| {
            let values = runner.outputs()[output].columns_of(rows).flatten().copied().collect();
            match features[text].states.get_mut(output) {
                Some(state) => *state = values,
                None => features[text].pooler_output = Some(values),
            }
        }
    }

    /// The model: its shape, its tokenizer, its device, what it has cost.
    pub fn model(&self) -> &Model {
        &self.model
    }
}

/// The hidden states of one text, `[tokens, columns]` each, row after row.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    states: Vec<Vec<f32>>,
    pooler_output: Option<Vec<f32>>,
    columns: usize,
    length: Length,
}

impl Features {
    /// The last hidden state, one row for each token.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.as_slice().chunks_exact(self.columns)
    }

    /// Values of a row.
    pub fn dimension(&self) -> usize {
        self.columns
    }

    /// All values of the last hidden state, row after row.
    pub fn as_slice(&self) -> &[f32] {
        self.states.last().map_or(&[], Vec::as_slice)
    }

    /// The states that were asked for, `[tokens, columns]` each: the last alone, or the embeddings and every layer's.
    pub fn states(&self) -> &[Vec<f32>] {
        &self.states
    }

    /// The pooler's output, `[columns]`, where it was asked for.
    pub fn pooler_output(&self) -> Option<&[f32]> {
        self.pooler_output.as_deref()
    }

    /// How many tokens the text has, and how many the model saw.
    pub fn length(&self) -> Length {
        self.length
    }
}
