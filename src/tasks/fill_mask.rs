//! The likeliest words for each mask in a text.

use std::path::Path;

use crate::batch::Sequence;
use crate::builder::{Builder, Options, Task};
use crate::checkpoint::{Checkpoint, Encoding};
use crate::error::{Error, Result};
use crate::heads::masked;
use crate::loader::Needs;
use crate::model::Model;
use crate::runner::Wait;
use crate::texts::{Input, Length, Tokens, of_text};

/// Words for a mask where the caller does not say, and at most.
const DEFAULT_TOP: usize = 5;
const MOST_TOP: usize = 1000;

/// A masked language model on the GPU. All calls take `&self`; any number of threads may share one.
pub struct FillMask {
    model: Model,
    mask: u32,
    top: usize,
}

/// What a [`FillMask`] can be asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct FillMaskSettings {
    top: Option<usize>,
}

impl Builder<FillMask> {
    /// How many words each mask gets; 5 by default, at most 1000.
    pub fn top(mut self, top: usize) -> Self {
        self.settings.top = Some(top);
        self
    }
}

impl Task for FillMask {
    type Settings = FillMaskSettings;

    fn load(checkpoint: Checkpoint, options: Options, settings: FillMaskSettings) -> Result<Self> {
        let vocabulary = checkpoint.config.vocabulary;
        let top = match settings.top {
            None => DEFAULT_TOP.min(vocabulary),
            Some(top) if (1..=MOST_TOP.min(vocabulary)).contains(&top) => top,
            Some(top) => {
                let most = MOST_TOP.min(vocabulary);
                return Err(Error::input(format!("{top} words for each mask were asked for: ask for 1 to {most}")));
            }
        };
        checkpoint.masked()?;
        let mask = checkpoint.tokenizer.mask().ok_or_else(|| {
            let problem = "the tokenizer has no mask token, which filling masks needs: add `mask_token` to tokenizer_config.json";
            Error::checkpoint(&checkpoint.path, problem)
        })?;
        let needs = Needs { selected_row: vocabulary, ..Needs::default() };
        let model = Model::load(checkpoint, options, needs, move |checkpoint, pass, encoded| {
            Ok(vec![masked::add(pass, encoded, &checkpoint.masked()?, top)?])
        })?;
        Ok(Self { model, mask, top })
    }
}

/// The words for one mask.
#[derive(Clone, Debug, PartialEq)]
pub struct Mask {
    /// Its place among the tokens of the text.
    pub position: usize,
    /// Best first.
    pub words: Vec<Word>,
}

/// A word of the vocabulary.
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    pub id: u32,
    /// As the vocabulary has it, with its marks of blanks or of pieces of words.
    pub token: String,
    pub logit: f32,
    /// The softmax over the whole vocabulary.
    pub score: f64,
}

/// What a [`FillMask`] says of one text.
#[derive(Clone, Debug, PartialEq)]
pub struct Filled {
    /// In the order of the text.
    pub masks: Vec<Mask>,
    pub length: Length,
}

/// A text as tokens, and where its masks are.
struct Masked {
    encoding: Encoding,
    places: Vec<u32>,
}

impl Tokens for Masked {
    fn sequences(&self) -> impl Iterator<Item = Sequence<'_>> {
        std::iter::once(Sequence { selected: &self.places, ..self.encoding.sequence() })
    }
}

impl FillMask {
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

    /// Finds words for every mask of every text, in the caller's order. Waits for the GPU.
    ///
    /// # Errors
    /// [`Error::Input`] for a text without a mask, or whose masks were cut off; as [`Embedder::embed`](crate::Embedder::embed) otherwise.
    pub fn fill<'a, I: Into<Input<'a>>>(&self, texts: impl IntoIterator<Item = I>) -> Result<Vec<Filled>> {
        pollster::block_on(self.run(texts, Wait::Here))
    }

    /// As [`FillMask::fill`], for callers that must not block while the GPU works.
    ///
    /// # Errors
    /// As [`FillMask::fill`].
    pub async fn fill_async<'a, I: Into<Input<'a>>>(&self, texts: impl IntoIterator<Item = I>) -> Result<Vec<Filled>> {
        self.run(texts, Wait::InBackground).await
    }

    /// Finds words for the masks of texts that are tokens already.
    ///
    /// # Errors
    /// As [`FillMask::fill`].
    pub fn fill_encodings(&self, encodings: &[Encoding]) -> Result<Vec<Filled>> {
        let masked = |(text, encoding): (usize, &Encoding)| self.masked(encoding.clone()).map_err(|error| of_text(text, error));
        let masked = encodings.iter().enumerate().map(masked).collect::<Result<Vec<_>>>()?;
        let sequences: Vec<_> = masked.iter().flat_map(Tokens::sequences).collect();
        let rows = pollster::block_on(self.model.rows(&sequences, Wait::Here))?;
        Ok(self.filled(rows, masked))
    }

    /// The places of the masks among a text's tokens.
    ///
    /// # Errors
    /// There is none, or they were cut off.
    pub fn masks(&self, encoding: &Encoding) -> Result<Vec<u32>> {
        let masks: Vec<u32> = (0..).zip(&encoding.ids).filter(|(_, id)| **id == self.mask).map(|(at, _)| at).collect();
        match (masks.is_empty(), encoding.truncated) {
            (false, _) => Ok(masks),
            (true, false) => Err(Error::input(format!("it has no mask: write {} where a word is missing", self.mask_token()))),
            (true, true) => Err(Error::input(format!(
                "it has no mask in its first {} tokens, to which it was cut: put {} further ahead",
                encoding.ids.len(),
                self.mask_token()
            ))),
        }
    }

    async fn run<'a, I: Into<Input<'a>>>(&self, texts: impl IntoIterator<Item = I>, wait: Wait) -> Result<Vec<Filled>> {
        let inputs: Vec<Input> = texts.into_iter().map(Into::into).collect();
        let encode = |input: &Input| self.masked(self.model.encode_input(input, "")?);
        let (rows, masked) = self.model.rows_of_texts(&inputs, wait, encode, |masked| masked).await?;
        Ok(self.filled(rows, masked))
    }

    fn masked(&self, encoding: Encoding) -> Result<Masked> {
        Ok(Masked { places: self.masks(&encoding)?, encoding })
    }

    fn filled(&self, rows: Vec<Vec<f32>>, masked: Vec<Masked>) -> Vec<Filled> {
        let filled = |(rows, Masked { encoding, places }): (Vec<f32>, Masked)| {
            let masks = rows.chunks_exact(2 * self.top + 1).zip(places);
            let masks = masks.map(|(row, place)| Mask { position: place as usize, words: self.words(row) }).collect();
            Filled { masks, length: encoding.length() }
        };
        rows.into_iter().zip(masked).map(filled).collect()
    }

    /// A row is the columns, their logits, the largest first, and the sum of exp(logit - largest) over all words.
    fn words(&self, row: &[f32]) -> Vec<Word> {
        let (columns, logits) = row.split_at(self.top);
        let (logits, total) = logits.split_at(self.top);
        let ids: Vec<u32> = columns.iter().map(|&column| column as u32).collect();
        let tokens = self.model.tokenizer().pieces(&ids);
        let score = |logit: f32| (f64::from(logit) - f64::from(logits[0])).exp() / f64::from(total[0]);
        let words = ids.into_iter().zip(tokens).zip(logits);
        words.map(|((id, token), &logit)| Word { id, token, logit, score: score(logit) }).collect()
    }

    /// The token that stands for a missing word.
    pub fn mask_token(&self) -> String {
        self.model.tokenizer().pieces(&[self.mask]).concat()
    }

    /// How many words each mask gets.
    pub fn top(&self) -> usize {
        self.top
    }

    /// The model: its shape, its tokenizer, its device, what it has cost.
    pub fn model(&self) -> &Model {
        &self.model
    }
}
