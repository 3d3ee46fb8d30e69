//! Passages in the order in which they answer a query, by a cross-encoder that reads both together.

use std::path::Path;

use crate::builder::{Builder, Options, Task};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::tasks::classifier::{Classification, Classifier, ClassifierSettings};

/// A cross-encoder on the GPU. All calls take `&self`; any number of threads may share one.
pub struct Reranker {
    classifier: Classifier,
}

impl Task for Reranker {
    type Settings = ClassifierSettings;

    fn load(checkpoint: Checkpoint, options: Options, settings: ClassifierSettings) -> Result<Self> {
        let rows = checkpoint.classifier()?.output.weight.rows();
        if rows != 1 {
            return Err(Error::unsupported(
                &checkpoint.path,
                format!(
                    "a reranker gives one score, but this classifier has {rows} labels; this folder can do: {}",
                    checkpoint.tasks().join(", ")
                ),
            ));
        }
        Ok(Self { classifier: Classifier::load(checkpoint, options, settings)? })
    }
}

/// A passage in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranked {
    /// Its index among the caller's passages.
    pub index: usize,
    pub score: f64,
    pub logit: f32,
    pub length: crate::Length,
}

impl Reranker {
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

    /// Sorts passages by how well each goes with the query, best first; of equals, the caller's first. Waits for the GPU.
    ///
    /// # Errors
    /// As [`Embedder::embed`](crate::Embedder::embed).
    pub fn rerank<S: AsRef<str>>(&self, query: &str, passages: &[S]) -> Result<Vec<Ranked>> {
        let pairs = passages.iter().map(|passage| (query, passage.as_ref()));
        self.classifier.classify(pairs).map(ranked)
    }

    /// As [`Reranker::rerank`], for callers that must not block while the GPU works.
    ///
    /// # Errors
    /// As [`Reranker::rerank`].
    pub async fn rerank_async<S: AsRef<str>>(&self, query: &str, passages: &[S]) -> Result<Vec<Ranked>> {
        let pairs = passages.iter().map(|passage| (query, passage.as_ref()));
        self.classifier.classify_async(pairs).await.map(ranked)
    }

    /// The classifier underneath, with one label.
    pub fn classifier(&self) -> &Classifier {
        &self.classifier
    }

    /// The model: its shape, its tokenizer, its device, what it has cost.
    pub fn model(&self) -> &Model {
        self.classifier.model()
    }
}

fn ranked(found: Vec<Classification>) -> Vec<Ranked> {
    let one =
        |(index, found): (usize, Classification)| Ranked { index, score: found.scores[0], logit: found.logits[0], length: found.length };
    let mut ranked: Vec<_> = found.into_iter().enumerate().map(one).collect();
    // A stable sort. By logits: two large ones may have the same score.
    ranked.sort_by(|a, b| b.logit.total_cmp(&a.logit));
    ranked
}
