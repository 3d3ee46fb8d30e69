//! Any labels for texts, by a classifier that was trained to tell whether one sentence follows from another (XNLI, MNLI): each label is
//! put into a sentence, and what counts is whether that follows from the text.

use std::path::Path;

use crate::builder::{Builder, Options, Task};
use crate::checkpoint::{Checkpoint, Encoding};
use crate::decode::softmax;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::runner::Wait;
use crate::tasks::classifier::{Classification, Classifier, ClassifierSettings};
use crate::texts::Length;

/// Where a label goes in a hypothesis.
const PLACE: &str = "{}";

/// A zero-shot classifier on the GPU. All calls take `&self`; any number of threads may share one.
pub struct ZeroShot {
    classifier: Classifier,
    entailment: usize,
    /// What is weighed against entailment where several labels may be right.
    contradiction: usize,
}

/// Labels and how they are asked for.
#[derive(Clone, Debug)]
pub struct ZeroShotOptions<'a> {
    /// With `{}` where the label goes.
    pub template: &'a str,
    /// Whether each label is right or wrong by itself, rather than just one of them right.
    pub multi_label: bool,
}

impl Default for ZeroShotOptions<'_> {
    fn default() -> Self {
        Self { template: "This example is {}.", multi_label: false }
    }
}

impl ZeroShotOptions<'_> {
    /// The sentence that each label makes.
    ///
    /// # Errors
    /// [`Error::Input`] for no labels, an empty one, two that are equal, or a template without a place.
    pub fn hypotheses<L: AsRef<str>>(&self, labels: &[L]) -> Result<Vec<String>> {
        let template = self.template;
        if !template.contains(PLACE) {
            return Err(Error::input(format!("the template `{template}` has no `{PLACE}` where the label goes: put one in")));
        }
        if labels.is_empty() {
            return Err(Error::input("no labels were given: give at least one"));
        }
        for (index, label) in labels.iter().map(AsRef::as_ref).enumerate() {
            if label.trim().is_empty() {
                return Err(Error::input(format!("one of the {} labels is empty: leave it out", labels.len())));
            }
            if labels[..index].iter().any(|other| other.as_ref() == label) {
                return Err(Error::input(format!("the label `{label}` was given twice: give each label once")));
            }
        }
        Ok(labels.iter().map(|label| template.replacen(PLACE, label.as_ref(), 1)).collect())
    }
}

/// A label with its score.
#[derive(Clone, Debug, PartialEq)]
pub struct ZeroShotLabel {
    /// Its index among the caller's labels.
    pub index: usize,
    pub score: f64,
}

/// What a [`ZeroShot`] says of one text.
#[derive(Clone, Debug, PartialEq)]
pub struct ZeroShotResult {
    /// All labels, best first; of equals, the caller's first.
    pub labels: Vec<ZeroShotLabel>,
    /// Of the text with the longest hypothesis.
    pub length: Length,
}

impl Task for ZeroShot {
    type Settings = ClassifierSettings;

    fn load(checkpoint: Checkpoint, options: Options, settings: ClassifierSettings) -> Result<Self> {
        let (count, path) = (checkpoint.classifier()?.output.weight.rows(), checkpoint.path.clone());
        let labels: Vec<String> = (0..count).map(|index| checkpoint.heads.label(index).to_lowercase()).collect();
        // As in transformers, what is not entailment is the other end of the list unless a label says so.
        let Some(entailment) = checkpoint.heads.entailment().filter(|_| count > 1) else {
            let problem = format!(
                "zero-shot classification needs a classifier with a label `entailment`, found {labels:?}; this folder can do: {}",
                checkpoint.tasks().join(", ")
            );
            return Err(Error::unsupported(path, problem));
        };
        let contradiction = labels.iter().position(|label| label.starts_with("contradict"));
        let contradiction = contradiction.unwrap_or(if entailment == 0 { count - 1 } else { 0 });
        Ok(Self { classifier: Classifier::load(checkpoint, options, settings)?, entailment, contradiction })
    }
}

impl ZeroShot {
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

    /// Scores every label for every text, in the caller's order of texts. Waits for the GPU.
    ///
    /// # Errors
    /// [`Error::Input`] for no labels, an empty one, two that are equal, or a template without a place; as
    /// [`Embedder::embed`](crate::Embedder::embed) otherwise.
    pub fn classify<T: AsRef<str>, L: AsRef<str>>(
        &self,
        texts: &[T],
        labels: &[L],
        options: &ZeroShotOptions,
    ) -> Result<Vec<ZeroShotResult>> {
        let hypotheses = options.hypotheses(labels)?;
        let found = pollster::block_on(self.run(pairs(texts, &hypotheses), Wait::Here))?;
        Ok(found.chunks(labels.len()).map(|found| self.result(found, options)).collect())
    }

    /// As [`ZeroShot::classify`], for callers that must not block while the GPU works.
    ///
    /// # Errors
    /// As [`ZeroShot::classify`].
    pub async fn classify_async<T: AsRef<str>, L: AsRef<str>>(
        &self,
        texts: &[T],
        labels: &[L],
        options: &ZeroShotOptions<'_>,
    ) -> Result<Vec<ZeroShotResult>> {
        let hypotheses = options.hypotheses(labels)?;
        let found = self.run(pairs(texts, &hypotheses), Wait::InBackground).await?;
        Ok(found.chunks(labels.len()).map(|found| self.result(found, options)).collect())
    }

    async fn run<'a>(&self, pairs: impl Iterator<Item = (&'a str, &'a str)>, wait: Wait) -> Result<Vec<Classification>> {
        self.classifier.run(pairs, wait, |input| self.encode(input.text, input.pair.unwrap_or_default())).await
    }

    /// Makes tokens of a text and a hypothesis. Where they are too long, the text is cut, and the hypothesis as long as it leaves room is not.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`](crate::checkpoint::Tokenizer::encode).
    pub fn encode(&self, text: &str, hypothesis: &str) -> Result<Encoding> {
        self.model().tokenizer().encode_beside(text, hypothesis, self.model().max_length())
    }

    /// As [`ZeroShot::classify`], for texts that were made into tokens with [`ZeroShot::encode`]: for each text, one input for each
    /// hypothesis.
    ///
    /// # Errors
    /// As [`ZeroShot::classify`].
    pub fn classify_encodings(&self, texts: &[Vec<Encoding>], options: &ZeroShotOptions) -> Result<Vec<ZeroShotResult>> {
        let all: Vec<Encoding> = texts.iter().flatten().cloned().collect();
        let mut found = self.classifier.classify_encodings(&all)?.into_iter();
        let result = |text: &Vec<Encoding>| self.result(&found.by_ref().take(text.len()).collect::<Vec<_>>(), options);
        Ok(texts.iter().map(result).collect())
    }

    /// Of the logits of one text with each hypothesis.
    fn result(&self, found: &[Classification], options: &ZeroShotOptions) -> ZeroShotResult {
        let scores = if options.multi_label || found.len() == 1 {
            let follows = |found: &Classification| softmax(&[found.logits[self.contradiction], found.logits[self.entailment]])[1];
            found.iter().map(follows).collect()
        } else {
            softmax(&found.iter().map(|found| found.logits[self.entailment]).collect::<Vec<_>>())
        };
        let mut labels: Vec<_> = scores.into_iter().enumerate().map(|(index, score)| ZeroShotLabel { index, score }).collect();
        labels.sort_by(|a, b| b.score.total_cmp(&a.score));
        let longest = found.iter().map(|found| found.length).max_by_key(|length| length.total);
        ZeroShotResult { labels, length: longest.unwrap_or(Length { total: 0, used: 0 }) }
    }

    /// The classifier underneath.
    pub fn classifier(&self) -> &Classifier {
        &self.classifier
    }

    /// The model: its shape, its tokenizer, its device, what it has cost.
    pub fn model(&self) -> &Model {
        self.classifier.model()
    }
}

fn pairs<'a, T: AsRef<str>>(texts: &'a [T], hypotheses: &'a [String]) -> impl Iterator<Item = (&'a str, &'a str)> {
    texts.iter().flat_map(|text| hypotheses.iter().map(move |hypothesis| (text.as_ref(), hypothesis.as_str())))
}
