//! Labels for the words of texts: names, places, parts of speech.

use std::path::Path;

use crate::builder::{Builder, Options, Task};
use crate::checkpoint::{Checkpoint, Encoding, Side, TokenSource};
use crate::decode::entities::{Entity, EntityOptions, entities, merge_windows};
use crate::error::Result;
use crate::heads::classification;
use crate::model::{Length, Model, Needs};
use crate::runner::Wait;

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
        let sourced = texts.iter().map(|text| self.encode(text.as_ref())).collect::<Result<Vec<_>>>()?;
        pollster::block_on(self.run(texts, &sourced, Wait::Here))
    }

    /// As [`Tagger::tag`], for callers that must not block while the GPU works.
    ///
    /// # Errors
    /// As [`Tagger::tag`].
    pub async fn tag_async<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<Tagged>> {
        let sourced = texts.iter().map(|text| self.encode(text.as_ref())).collect::<Result<Vec<_>>>()?;
        self.run(texts, &sourced, Wait::InBackground).await
    }

    /// As [`Tagger::tag`], for texts that were made into tokens with [`Tagger::encode`].
    ///
    /// # Errors
    /// As [`Tagger::tag`].
    pub fn tag_encoded<S: AsRef<str>>(&self, texts: &[S], sourced: &[Sourced]) -> Result<Vec<Tagged>> {
        pollster::block_on(self.run(texts, sourced, Wait::Here))
    }

    /// Finds the entities of one long text, read in windows that share `stride` tokens; where they overlap, the likelier entity counts.
    ///
    /// # Errors
    /// As [`Tagger::tag`], and when `stride` leaves no room for new tokens.
    pub fn tag_long(&self, text: &str, stride: usize) -> Result<Vec<Entity>> {
        let windows = self.model.tokenizer().windows(text, None, self.model.max_length(), stride, Side::First)?;
        let sourced: Vec<_> = windows.into_iter().map(|(encoding, sources)| Sourced { encoding, sources }).collect();
        let tagged = self.tag_encoded(&vec![text; sourced.len()], &sourced)?;
        Ok(merge_windows(tagged.into_iter().map(|tagged| tagged.entities)))
    }

    /// Makes tokens of a text and finds the place of each.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) when the tokenizer cannot take the text.
    pub fn encode(&self, text: &str) -> Result<Sourced> {
        let (encoding, sources) = self.model.tokenizer().encode_with_sources(text, None, self.model.max_length())?;
        Ok(Sourced { encoding, sources })
    }

    async fn run<S: AsRef<str>>(&self, texts: &[S], sourced: &[Sourced], wait: Wait) -> Result<Vec<Tagged>> {
        let sequences: Vec<_> = sourced.iter().map(|sourced| sourced.encoding.sequence()).collect();
        let rows = self.model.rows(&sequences, wait).await?;
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
