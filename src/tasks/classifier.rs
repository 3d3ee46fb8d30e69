//! Labels for texts, or for pairs of texts.

use std::path::Path;

use crate::builder::{Builder, Options, Task};
use crate::checkpoint::{Checkpoint, Encoding, Score};
use crate::decode::{sigmoid, softmax};
use crate::error::Result;
use crate::heads::classification;
use crate::loader::Needs;
use crate::model::Model;
use crate::runner::Wait;
use crate::texts::{Input, Length, lengths, sequences};

/// A classifier of texts on the GPU. All calls take `&self`; any number of threads may share one.
///
/// ```no_run
/// let classifier = minilm::Classifier::from_dir("xnli-model")?;
/// let found = classifier.classify([("It is raining.", "The street is wet.")])?;
/// println!("{} {:.3}", classifier.labels()[found[0].best()], found[0].scores[found[0].best()]);
/// # Ok::<(), minilm::Error>(())
/// ```
pub struct Classifier {
    model: Model,
    labels: Vec<String>,
    score: Score,
}

/// What a [`Classifier`] can be asked for, over what the folder says.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClassifierSettings {
    score: Option<Score>,
}

impl<T: Task<Settings = ClassifierSettings>> Builder<T> {
    /// How logits become scores, over what the folder says. Without either it is [`Score::Sigmoid`] for one label and
    /// [`Score::Softmax`] for several, as in transformers.
    pub fn score(mut self, score: Score) -> Self {
        self.settings.score = Some(score);
        self
    }
}

impl Task for Classifier {
    type Settings = ClassifierSettings;

    fn load(checkpoint: Checkpoint, options: Options, settings: ClassifierSettings) -> Result<Self> {
        let configured = settings.score.or(checkpoint.sentence.score).or(checkpoint.heads.score);
        let model = Model::load(checkpoint, options, Needs::default(), move |checkpoint, pass, encoded| {
            Ok(vec![classification::of_texts(pass, encoded, &checkpoint.classifier()?)?])
        })?;
        let count = model.runner().outputs()[0].columns;
        let labels = (0..count).map(|index| model.heads().label(index)).collect();
        let score = match configured {
            // The softmax of one label is always 1.
            Some(Score::Softmax) if count == 1 && settings.score.is_none() => Score::Sigmoid,
            Some(score) => score,
            None if count == 1 => Score::Sigmoid,
            None => Score::Softmax,
        };
        Ok(Self { model, labels, score })
    }
}

/// What a [`Classifier`] says of one text.
#[derive(Clone, Debug, PartialEq)]
pub struct Classification {
    /// `[labels]`
    pub logits: Vec<f32>,
    /// `[labels]`
    pub scores: Vec<f64>,
    pub length: Length,
}

impl Classification {
    /// The label with the largest logit, and of equals the first.
    pub fn best(&self) -> usize {
        (0..self.logits.len()).rev().max_by(|&a, &b| self.logits[a].total_cmp(&self.logits[b])).unwrap_or(0)
    }
}

impl Classifier {
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

    /// Classifies texts, or pairs of texts, in the caller's order. Waits for the GPU.
    ///
    /// # Errors
    /// As [`Embedder::embed`](crate::Embedder::embed).
    pub fn classify<'a, I: Into<Input<'a>>>(&self, texts: impl IntoIterator<Item = I>) -> Result<Vec<Classification>> {
        pollster::block_on(self.run(texts, Wait::Here, |input| self.model.encode_input(input, "")))
    }

    /// As [`Classifier::classify`], for callers that must not block while the GPU works.
    ///
    /// # Errors
    /// As [`Classifier::classify`].
    pub async fn classify_async<'a, I: Into<Input<'a>>>(&self, texts: impl IntoIterator<Item = I>) -> Result<Vec<Classification>> {
        self.run(texts, Wait::InBackground, |input| self.model.encode_input(input, "")).await
    }

    /// Classifies texts that are tokens already.
    ///
    /// # Errors
    /// As [`Embedder::embed_tokens`](crate::Embedder::embed_tokens).
    pub fn classify_encodings(&self, encodings: &[Encoding]) -> Result<Vec<Classification>> {
        let rows = pollster::block_on(self.model.rows(&sequences(encodings), Wait::Here))?;
        Ok(self.classifications(rows, lengths(encodings)))
    }

    /// Classifies texts of which `encode` makes tokens.
    pub(crate) async fn run<'a, I: Into<Input<'a>>>(
        &self,
        texts: impl IntoIterator<Item = I>,
        wait: Wait,
        encode: impl Fn(&Input) -> Result<Encoding> + Sync,
    ) -> Result<Vec<Classification>> {
        let inputs: Vec<Input> = texts.into_iter().map(Into::into).collect();
        let (rows, lengths) = self.model.rows_of_texts(&inputs, wait, encode, |encoding| encoding.length()).await?;
        Ok(self.classifications(rows, lengths))
    }

    fn classifications(&self, rows: Vec<Vec<f32>>, lengths: Vec<Length>) -> Vec<Classification> {
        let classification = |(logits, length): (Vec<f32>, Length)| Classification { scores: self.scores(&logits), logits, length };
        rows.into_iter().zip(lengths).map(classification).collect()
    }

    fn scores(&self, logits: &[f32]) -> Vec<f64> {
        match self.score {
            Score::Softmax => softmax(logits),
            Score::Sigmoid => logits.iter().map(|&logit| sigmoid(f64::from(logit))).collect(),
            Score::Raw => logits.iter().copied().map(f64::from).collect(),
        }
    }

    /// What each logit stands for.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// How logits become scores.
    pub fn score(&self) -> Score {
        self.score
    }

    /// The model: its shape, its tokenizer, its device, what it has cost.
    pub fn model(&self) -> &Model {
        &self.model
    }
}
