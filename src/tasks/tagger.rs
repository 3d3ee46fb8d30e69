//! Labels for the words of texts: names, places, parts of speech.

use std::path::Path;

use crate::batch::Sequence;
use crate::builder::{Builder, Options, Task};
use crate::checkpoint::{Checkpoint, Encoding, Side, TokenSource};
use crate::decode::entities::{Entity, EntityOptions, entities, merge_windows};
use crate::error::Result;
use crate::heads::classification;
use crate::loader::Needs;
use crate::model::Model;
use crate::runner::Wait;
use crate::texts::{Input, Length, Tokens};

/// A classifier of tokens on the GPU. All calls take `&self`; any number of threads may share one.
pub struct Tagger {
    model: Model,
    labels: Vec<String>,
    options: EntityOptions,
}

/// What a [`Tagger`] can be asked for.
#[derive(Clone, Debug, Default)]
pub struct TaggerSettings {
    options: EntityOptions,
}

impl Builder<Tagger> {
    /// How tokens become entities; each for itself by default.
    pub fn entities(mut self, options: EntityOptions) -> Self {
        self.settings.options = options;
        self
    }
}

impl Task for Tagger {
    type Settings = TaggerSettings;

    fn load(checkpoint: Checkpoint, options: Options, settings: TaggerSettings) -> Result<Self> {
        let model = Model::load(checkpoint, options, Needs::default(), move |checkpoint, pass, encoded| {
            Ok(vec![classification::of_tokens(pass, encoded, &checkpoint.token_classifier()?)?])
        })?;
        let labels = (0..model.runner().outputs()[0].columns).map(|index| model.heads().label(index)).collect();
        Ok(Self { model, labels, options: settings.options })
    }
}

/// A text as tokens, with the place of each in the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Sourced {
    pub encoding: Encoding,
    /// `[tokens]`
    pub sources: Vec<TokenSource>,
}

impl Tokens for Sourced {
    fn sequences(&self) -> impl Iterator<Item = Sequence<'_>> {
        self.encoding.sequences()
    }
}

/// What a [`Tagger`] says of one text.
#[derive(Clone, Debug, PartialEq)]
pub struct Tagged {
    /// In the order of the text.
    pub entities: Vec<Entity>,
    /// `[tokens, labels]`, specials included.
    pub logits: Vec<f32>,
    pub length: Length,
}

impl Tagger {
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

    /// Finds the entities of texts, in the caller's order. A text that is too long is cut. Waits for the GPU.
    ///
    /// # Errors
    /// As [`Embedder::embed`](crate::Embedder::embed).
    pub fn tag<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<Tagged>> {
        pollster::block_on(self.run(texts, Wait::Here))
    }

    /// As [`Tagger::tag`], for callers that must not block while the GPU works.
    ///
    /// # Errors
    /// As [`Tagger::tag`].
    pub async fn tag_async<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<Tagged>> {
        self.run(texts, Wait::InBackground).await
    }

    /// As [`Tagger::tag`], for texts that were made into tokens with [`Tagger::encode`].
    ///
    /// # Errors
    /// As [`Tagger::tag`].
    pub fn tag_encoded<S: AsRef<str>>(&self, texts: &[S], sourced: &[Sourced]) -> Result<Vec<Tagged>> {
        let sequences: Vec<_> = sourced.iter().map(|sourced| sourced.encoding.sequence()).collect();
        let rows = pollster::block_on(self.model.rows(&sequences, Wait::Here))?;
        self.tagged(texts, rows, sourced)
    }

    /// Finds the entities of one long text, read in windows that share `stride` tokens; where entities of two windows overlap, the
    /// longer one counts, and of two as long the surer one.
    ///
    /// # Errors
    /// As [`Tagger::tag`], and when `stride` leaves no room for new tokens.
    pub fn tag_long(&self, text: &str, stride: usize) -> Result<Vec<Entity>> {
        let tagged = self.tag_windows(&[text], &[self.windows(text, stride)?])?;
        Ok(tagged.into_iter().flat_map(|tagged| tagged.entities).collect())
    }

    /// As [`Tagger::tag_long`], for texts that were made into tokens with [`Tagger::windows`]. Logits are those of all windows, one after
    /// another, and lengths count what windows share in each of them.
    ///
    /// # Errors
    /// As [`Tagger::tag`].
    pub fn tag_windows<S: AsRef<str>>(&self, texts: &[S], windows: &[Vec<Sourced>]) -> Result<Vec<Tagged>> {
        let sequences: Vec<_> = windows.iter().flat_map(Tokens::sequences).collect();
        let mut rows = pollster::block_on(self.model.rows(&sequences, Wait::Here))?.into_iter();
        let of_text = |(text, windows): (&S, &Vec<Sourced>)| {
            let rows = rows.by_ref().take(windows.len()).collect();
            let tagged = self.tagged(&vec![text.as_ref(); windows.len()], rows, windows)?;
            let sum = |count: fn(&Length) -> usize| tagged.iter().map(|tagged| count(&tagged.length)).sum();
            let length = Length { total: sum(|length| length.total), used: sum(|length| length.used) };
            let logits = tagged.iter().flat_map(|tagged| &tagged.logits).copied().collect();
            Ok(Tagged { entities: merge_windows(tagged.into_iter().map(|tagged| tagged.entities)), logits, length })
        };
        texts.iter().zip(windows).map(of_text).collect()
    }

    /// Makes tokens of a text of any length, in as many windows as it needs, each with the specials; neighbours share `stride` tokens.
    ///
    /// # Errors
    /// As [`Tokenizer::windows`](crate::checkpoint::Tokenizer::windows).
    pub fn windows(&self, text: &str, stride: usize) -> Result<Vec<Sourced>> {
        let windows = self.model.tokenizer().windows(text, None, self.model.max_length(), stride, Side::First)?;
        Ok(windows.into_iter().map(|(encoding, sources)| Sourced { encoding, sources }).collect())
    }

    /// Makes tokens of a text and finds the place of each.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) when the tokenizer cannot take the text.
    pub fn encode(&self, text: &str) -> Result<Sourced> {
        let (encoding, sources) = self.model.tokenizer().encode_with_sources(text, None, self.model.max_length())?;
        Ok(Sourced { encoding, sources })
    }

    async fn run<S: AsRef<str>>(&self, texts: &[S], wait: Wait) -> Result<Vec<Tagged>> {
        let inputs: Vec<Input> = texts.iter().map(Into::into).collect();
        let (rows, sourced) = self.model.rows_of_texts(&inputs, wait, |input| self.encode(input.text), |sourced| sourced).await?;
        self.tagged(texts, rows, &sourced)
    }

    fn tagged<S: AsRef<str>>(&self, texts: &[S], rows: Vec<Vec<f32>>, sourced: &[Sourced]) -> Result<Vec<Tagged>> {
        let tagged = rows.into_iter().zip(texts).zip(sourced).map(|((logits, text), Sourced { encoding, sources })| {
            let entities = entities(&logits, sources, text.as_ref(), &self.labels, &self.options)?;
            Ok(Tagged { entities, logits, length: encoding.length() })
        });
        tagged.collect()
    }

    /// What each logit stands for.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The model: its shape, its tokenizer, its device, what it has cost.
    pub fn model(&self) -> &Model {
        &self.model
    }
}
