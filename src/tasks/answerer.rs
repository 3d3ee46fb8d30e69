//! Answers to questions, as pieces of a context.

use std::path::Path;

use crate::builder::{Builder, Options, Task};
use crate::checkpoint::{Checkpoint, Side};
use crate::decode::spans::{AnswerOptions, Answers, Window, answers};
use crate::error::{Error, Result};
use crate::heads::classification;
use crate::loader::Needs;
use crate::model::Model;
use crate::runner::Wait;
use crate::tasks::tagger::Sourced;
use crate::texts::{Input, Tokens};

/// Tokens of the context that neighbouring windows share where the caller does not say, and where the context has room for more.
const DEFAULT_STRIDE: usize = 128;

/// An extractive question answering model on the GPU. All calls take `&self`; any number of threads may share one.
///
/// ```no_run
/// let answerer = minilm::Answerer::from_dir("squad-model")?;
/// let found = answerer.answer([("Where is the cat?", "The cat sleeps on the sofa.")])?;
/// println!("{}", found[0].answers[0].text);
/// # Ok::<(), minilm::Error>(())
/// ```
pub struct Answerer {
    model: Model,
    options: AnswerOptions,
    stride: Option<usize>,
}

/// What an [`Answerer`] can be asked for.
#[derive(Clone, Debug, Default)]
pub struct AnswererSettings {
    options: AnswerOptions,
    stride: Option<usize>,
}

impl Builder<Answerer> {
    /// How many answers, how long, and whether "no answer" is one.
    pub fn answers(mut self, options: AnswerOptions) -> Self {
        self.settings.options = options;
        self
    }

    /// Tokens of the context that neighbouring windows share, where it is too long for one; 128 by default, less where a window has no
    /// room for them.
    pub fn stride(mut self, tokens: usize) -> Self {
        self.settings.stride = Some(tokens);
        self
    }
}

impl Task for Answerer {
    type Settings = AnswererSettings;

    fn load(checkpoint: Checkpoint, options: Options, settings: AnswererSettings) -> Result<Self> {
        let model = Model::load(checkpoint, options, Needs::default(), move |checkpoint, pass, encoded| {
            Ok(vec![classification::of_tokens(pass, encoded, &checkpoint.span()?)?])
        })?;
        Ok(Self { model, options: settings.options, stride: settings.stride })
    }
}

impl Answerer {
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

    /// Answers questions, each from its own context, in the caller's order. A context that is too long is read in windows. Waits for the
    /// GPU.
    ///
    /// # Errors
    /// [`Error::Input`] for an empty question, or one that leaves no room for a context; as [`Embedder::embed`](crate::Embedder::embed)
    /// otherwise.
    pub fn answer<'a>(&self, questions: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Vec<Answers>> {
        pollster::block_on(self.run(questions, Wait::Here))
    }

    /// As [`Answerer::answer`], for callers that must not block while the GPU works.
    ///
    /// # Errors
    /// As [`Answerer::answer`].
    pub async fn answer_async<'a>(&self, questions: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Vec<Answers>> {
        self.run(questions, Wait::InBackground).await
    }

    /// As [`Answerer::answer`], for questions that were made into tokens with [`Answerer::windows`].
    ///
    /// # Errors
    /// As [`Answerer::answer`].
    pub fn answer_windows(&self, contexts: &[&str], windows: &[Vec<Sourced>]) -> Result<Vec<Answers>> {
        let sequences: Vec<_> = windows.iter().flat_map(Tokens::sequences).collect();
        let rows = pollster::block_on(self.model.rows(&sequences, Wait::Here))?;
        self.answers(contexts, rows, windows)
    }

    /// A question and its context as tokens, in as many windows as the context needs.
    ///
    /// # Errors
    /// As [`Answerer::answer`].
    pub fn windows(&self, question: &str, context: &str) -> Result<Vec<Sourced>> {
        if question.trim().is_empty() {
            return Err(Error::input("the question is empty: ask something"));
        }
        let (tokenizer, max_length) = (self.model.tokenizer(), self.model.max_length());
        let stride = match self.stride {
            Some(stride) => stride,
            None => {
                // What the question leaves for the context; half of it may be shared.
                let taken = tokenizer.encode(question, Some(""), usize::MAX)?.ids.len();
                DEFAULT_STRIDE.min(max_length.saturating_sub(taken) / 2)
            }
        };
        let windows = tokenizer.windows(question, Some(context), max_length, stride, Side::Second)?;
        Ok(windows.into_iter().map(|(encoding, sources)| Sourced { encoding, sources }).collect())
    }

    async fn run<'a>(&self, questions: impl IntoIterator<Item = (&'a str, &'a str)>, wait: Wait) -> Result<Vec<Answers>> {
        let inputs: Vec<Input> = questions.into_iter().map(Into::into).collect();
        let contexts: Vec<&str> = inputs.iter().map(|input| input.pair.unwrap_or_default()).collect();
        let encode = |input: &Input| self.windows(input.text, input.pair.unwrap_or_default());
        let (rows, windows) = self.model.rows_of_texts(&inputs, wait, encode, |windows| windows).await?;
        self.answers(&contexts, rows, &windows)
    }

    fn answers(&self, contexts: &[&str], rows: Vec<Vec<f32>>, windows: &[Vec<Sourced>]) -> Result<Vec<Answers>> {
        // A row is the logits of start and end; all windows of all questions run together.
        let logits: Vec<[Vec<f32>; 2]> =
            rows.iter().map(|rows| [0, 1].map(|column| rows.iter().skip(column).step_by(2).copied().collect())).collect();
        let mut logits = logits.iter();
        let answer = |(context, windows): (&&str, &Vec<Sourced>)| {
            let windows: Vec<_> = windows
                .iter()
                .zip(logits.by_ref())
                .map(|(window, [start_logits, end_logits])| Window { start_logits, end_logits, sources: &window.sources, cls: 0 })
                .collect();
            answers(&windows, context, &self.options)
        };
        contexts.iter().zip(windows).map(answer).collect()
    }

    /// The model: its shape, its tokenizer, its device, what it has cost.
    pub fn model(&self) -> &Model {
        &self.model
    }
}
