//! Text to token ids, as the `tokenizers` library of Hugging Face does it.
//!
//! Truncation and padding that are baked into `tokenizer.json` are switched off: how long a text may be is the caller's decision, and
//! nothing is ever padded.

mod byte_level;
mod files;
mod outline;
mod protobuf;
mod sentencepiece;
mod settings;
mod sources;
mod tokenizer_json;
mod unigram;
mod windows;
mod wordpiece;

use std::ops::Range;
use std::path::{Path, PathBuf};

use tokenizers::{EncodeInput, PostProcessor, PostProcessorWrapper, TruncationDirection, TruncationParams, TruncationStrategy};

use crate::checkpoint::config::EncoderConfig;
use crate::checkpoint::json::{Object, shortened};
use sources::Characters;
use tokenizer_json::guarded;
use windows::Tokens;

use crate::{Error, Result};

/// A text or a pair of texts as token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoding {
    /// Special tokens included.
    pub ids: Vec<u32>,
    /// 0 for the first text and 1 for the second, if the tokenizer tells them apart; as many as `ids`.
    pub type_ids: Vec<u32>,
    /// Tokens before truncation, specials included.
    pub total_tokens: usize,
    pub truncated: bool,
}

/// Where a token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSource {
    /// 0 for the first text, 1 for the second; `None` for a special token that was added.
    pub sequence: Option<usize>,
    /// Number of the word in its text, as the tokenizer splits words.
    pub word: Option<u32>,
    /// Bytes of the text; empty for a special token that was added.
    pub bytes: Range<usize>,
}

/// A text of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    First,
    Second,
}

/// The tokenizer of a model folder.
#[derive(Debug)]
pub struct Tokenizer {
    path: PathBuf,
    /// Without its post-processor, which is applied after truncation.
    texts: tokenizers::Tokenizer,
    /// Adds special tokens and joins pairs.
    join: Option<PostProcessorWrapper>,
    max_length: Option<usize>,
    /// The side of a text that is too long where it is cut.
    cut: TruncationDirection,
    /// Rows of the model's word embeddings.
    vocabulary: usize,
    /// Whether the model is to see the tokenizer's types.
    types: bool,
    /// The type of every token, where the model does not tell the texts of a pair apart as the tokenizer may.
    one_type: Option<u32>,
    lower_case: bool,
    /// What stands for a missing word, where the folder says.
    mask_token: Option<String>,
}

impl Tokenizer {
    /// Opens `tokenizer.json`, or builds the tokenizer from the files of its class: `vocab.txt` (BERT, MPNet), `vocab.json` and
    /// `merges.txt` (RoBERTa), or a SentencePiece model (XLM-RoBERTa, CamemBERT), with what `tokenizer_config.json`,
    /// `special_tokens_map.json` and `added_tokens.json` say. Where transformers' class makes its tokenizer anew, case, accents, Chinese
    /// characters and the blank before a text are as in `tokenizer_config.json` rather than `tokenizer.json`.
    ///
    /// # Errors
    /// There is no tokenizer or only one of another kind, or its files are damaged.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let config = Object::open(&folder.join("tokenizer_config.json"))?;
        let max_length = match &config {
            // Where there is no limit, transformers writes 1e30.
            Some(config) => config.number("model_max_length")?.filter(|length| (1.0..1e9).contains(length)).map(|length| length as usize),
            None => None,
        };
        let mask_token = mask_token(folder, config.as_ref())?;
        let side = config.as_ref().map_or(Ok(None), truncation_side)?;
        let files::Opened { tokenizer: mut texts, path, types } = files::open(folder, config)?;
        let cut = side.or(texts.get_truncation().map(|truncation| truncation.direction)).unwrap_or(TruncationDirection::Right);
        let unset = texts.with_padding(None).with_truncation(None).map(|_| ());
        unset.map_err(|error| Error::checkpoint(&path, format!("cannot be used without truncation: {error}")))?;
        let join = texts.get_post_processor().cloned();
        texts.with_post_processor(None::<PostProcessorWrapper>);
        Ok(Self { path, texts, join, max_length, cut, vocabulary: usize::MAX, types, one_type: None, lower_case: false, mask_token })
    }

    /// Fitted to a model: ids beyond its vocabulary are refused, types are all the same where it has none, texts are lowercased first
    /// where sentence-transformers says so.
    ///
    /// # Errors
    /// The tokenizer knows far fewer tokens than the model has rows for: it was cut, or belongs to another model.
    pub(super) fn for_model(self, config: &EncoderConfig, lower_case: bool) -> Result<Self> {
        let (vocabulary, size) = (config.vocabulary, self.size());
        // Tables are often padded to a round number of rows, by less than this.
        if size + vocabulary / 100 < vocabulary {
            let problem = format!(
                "expected about {vocabulary} tokens, one for each row of the word embeddings, found {size}: the file is cut, or belongs to \
                 another model"
            );
            return Err(Error::checkpoint(&self.path, problem));
        }
        let one_type = (config.token_types < 2 || !self.types).then_some(config.default_type() as u32);
        Ok(Self { vocabulary, one_type, lower_case, ..self })
    }

    /// Every token gets this type, such as the row of a language.
    pub(crate) fn set_type(&mut self, token_type: u32) {
        self.one_type = Some(token_type);
    }

    /// `model_max_length` of `tokenizer_config.json`, where it sets a limit.
    pub fn max_length(&self) -> Option<usize> {
        self.max_length
    }

    /// Ids that the tokenizer knows, added tokens included. A model's table may have more rows or fewer.
    pub fn size(&self) -> usize {
        self.texts.get_vocab_size(true)
    }

    /// Tokenizes a text, or a pair as one input, cut to `max_length` tokens with the specials: from the end of the longer text until
    /// both are equally long, then from both; from the beginning where the folder's `truncation_side` says so.
    ///
    /// # Errors
    /// `max_length` has no room for the special tokens, the tokenizer cannot express the text, or the model has no such token.
    pub fn encode(&self, text: &str, pair: Option<&str>, max_length: usize) -> Result<Encoding> {
        self.encode_cut(text, pair, max_length, TruncationStrategy::LongestFirst)
    }

    /// As [`Tokenizer::encode`] for a pair of which only the first text is cut, as premises are in zero-shot classification. Where the second
    /// one leaves no room for it, both are.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_beside(&self, text: &str, whole: &str, max_length: usize) -> Result<Encoding> {
        self.encode_cut(text, Some(whole), max_length, TruncationStrategy::OnlyFirst)
    }

    fn encode_cut(&self, text: &str, pair: Option<&str>, max_length: usize, strategy: TruncationStrategy) -> Result<Encoding> {
        let (lower_text, lower_pair);
        let (mut text, mut pair) = (text, pair);
        if self.lower_case {
            (lower_text, lower_pair) = (text.to_lowercase(), pair.map(str::to_lowercase));
            (text, pair) = (&lower_text, lower_pair.as_deref());
        }
        // Where tokens come from takes longer to find than the tokens.
        let encode = |text| self.texts.encode_fast(text, false);
        self.encode_by(text, pair, max_length, strategy, encode).map(|(encoding, _)| encoding)
    }

    /// As [`Tokenizer::encode`], and where each token comes from. The text is taken as it is, since lowercasing would move its bytes.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_with_sources(&self, text: &str, pair: Option<&str>, max_length: usize) -> Result<(Encoding, Vec<TokenSource>)> {
        let (strategy, encode) = (TruncationStrategy::LongestFirst, |text| self.texts.encode_char_offsets(text, false));
        let (encoding, tokens) = self.encode_by(text, pair, max_length, strategy, encode)?;
        let texts: Vec<_> = [text].into_iter().chain(pair).map(Characters::new).collect();
        Ok((encoding, sources::of_tokens(&tokens, &texts)))
    }

    /// Tokenizes a text of any length as inputs of at most `max_length` tokens, of which neighbours share `stride` tokens of the text;
    /// every window has the special tokens. Of a pair, the text `cut` is cut into windows and the other one is whole in each, as the
    /// question in question answering; without a pair, `cut` does not matter. A text that fits is one window.
    ///
    /// Each window is an input of its own: `total_tokens` are its tokens, and it is not `truncated`. Sources are places in the texts as
    /// they are given; as in [`Tokenizer::encode_with_sources`], they are not lowercased.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`], and where `max_length` leaves no room for the text that is cut, or none that is larger than `stride`.
    pub fn windows(
        &self,
        text: &str,
        pair: Option<&str>,
        max_length: usize,
        stride: usize,
        cut: Side,
    ) -> Result<Vec<(Encoding, Vec<TokenSource>)>> {
        let room = self.room(max_length, pair.is_some())?;
        // Places are trimmed here, where the tokens still stand in their text.
        let tokenize = |text: &str| self.join(self.texts.encode_char_offsets(text, false)?, None, false).map(Tokens::new);
        let tokens = guarded(|| Ok((tokenize(text)?, pair.map(tokenize).transpose()?)));
        let (first, second) = tokens.map_err(|error| self.wrong(&error))?;
        let (long, whole) = match (&first, &second, cut) {
            (first, Some(second), Side::First) => (first, Some(second)),
            (first, Some(second), Side::Second) => (second, Some(first)),
            (first, None, _) => (first, None),
        };
        let beside = whole.map_or(0, Tokens::len);
        let left = room.checked_sub(beside).filter(|&left| left > 0 || long.len() == 0).ok_or_else(|| {
            let problem =
                format!("a maximum length of {max_length} tokens has no room for a text beside {} special tokens", max_length - room);
            Error::input(match beside {
                0 => format!("{problem}: raise it"),
                _ => format!("{problem} and {beside} tokens of the text that is not cut: raise it, or shorten that text"),
            })
        })?;
        let most = if long.len() > left { left } else { room };
        if stride > 0 && stride >= most {
            return Err(Error::input(format!(
                "a stride of {stride} tokens is not less than the {most} tokens of a text that a window of {max_length} tokens has room for: \
                 lower the stride"
            )));
        }
        let texts: Vec<_> = [text].into_iter().chain(pair).map(Characters::new).collect();
        let encode = |range| {
            let (window, whole) = (long.slice(range), whole.map(|whole| whole.slice(0..beside)));
            let (first, second) = match (whole, cut) {
                (Some(whole), Side::Second) => (whole, Some(window)),
                (whole, _) => (window, whole),
            };
            let tokens = guarded(|| self.join(first, second, true)).map_err(|error| self.wrong(&error))?;
            let (ids, type_ids) = self.ids(&tokens)?;
            Ok((Encoding { total_tokens: ids.len(), truncated: false, ids, type_ids }, sources::of_tokens(&tokens, &texts)))
        };
        windows::ranges(long.len(), left, stride).map(encode).collect()
    }

    fn encode_by<'s>(
        &self,
        text: &'s str,
        pair: Option<&'s str>,
        max_length: usize,
        strategy: TruncationStrategy,
        encode: impl Fn(EncodeInput<'s>) -> tokenizers::Result<tokenizers::Encoding>,
    ) -> Result<(Encoding, tokenizers::Encoding)> {
        let room = self.room(max_length, pair.is_some())?;
        let tokens = guarded(|| {
            let first = encode(text.into())?;
            let second = pair.map(|pair| encode(pair.into())).transpose()?;
            let total = first.len() + second.as_ref().map_or(0, tokenizers::Encoding::len) + max_length - room;
            let left = second.as_ref().map_or(room, |second| room.saturating_sub(second.len()));
            let strategy = if left > 0 { strategy } else { TruncationStrategy::LongestFirst };
            let params = TruncationParams { max_length: room, strategy, direction: self.cut, stride: 0 };
            let (first, second) = truncate(first, second, &params)?;
            Ok((total, self.join(first, second, true)?))
        });
        let (total_tokens, tokens) = tokens.map_err(|error| self.wrong(&error))?;
        let (ids, type_ids) = self.ids(&tokens)?;
        Ok((Encoding { ids, type_ids, total_tokens, truncated: total_tokens > max_length }, tokens))
    }

    /// Tokens that `max_length` leaves beside the special ones.
    fn room(&self, max_length: usize, pair: bool) -> Result<usize> {
        let specials = self.join.as_ref().map_or(0, |join| join.added_tokens(pair));
        let problem = || format!("a maximum length of {max_length} tokens has no room for the {specials} special tokens: raise it");
        max_length.checked_sub(specials).ok_or_else(|| Error::input(problem()))
    }

    fn join(
        &self,
        first: tokenizers::Encoding,
        second: Option<tokenizers::Encoding>,
        specials: bool,
    ) -> tokenizers::Result<tokenizers::Encoding> {
        match &self.join {
            Some(join) => join.process(first, second, specials),
            None => self.texts.post_process(first, second, specials),
        }
    }

    /// Ids and types of an input, as the model knows them.
    fn ids(&self, tokens: &tokenizers::Encoding) -> Result<(Vec<u32>, Vec<u32>)> {
        let (ids, mut type_ids) = (tokens.get_ids().to_vec(), tokens.get_type_ids().to_vec());
        if let Some(token_type) = self.one_type {
            type_ids.fill(token_type);
        }
        self.check_ids(&ids)?;
        Ok((ids, type_ids))
    }

    fn wrong(&self, error: &str) -> Error {
        Error::checkpoint(&self.path, format!("the text could not be tokenized: {error}"))
    }

    /// The pieces that ids stand for; an id that the tokenizer does not know is shown as a number.
    pub fn pieces(&self, ids: &[u32]) -> Vec<String> {
        ids.iter().map(|&id| self.texts.id_to_token(id).unwrap_or_else(|| format!("[{id}]"))).collect()
    }

    /// The id of a piece, such as `[MASK]`.
    pub fn id(&self, piece: &str) -> Option<u32> {
        self.texts.token_to_id(piece)
    }

    /// The token that stands for a missing word.
    pub(crate) fn mask(&self) -> Option<u32> {
        let known = ["[MASK]", "<mask>"].into_iter();
        self.mask_token.as_deref().into_iter().chain(known).find_map(|piece| self.id(piece))
    }

    /// Refuses ids that have no row in the model's table.
    fn check_ids(&self, ids: &[u32]) -> Result<()> {
        let vocabulary = self.vocabulary;
        let Some(index) = ids.iter().position(|&id| id as usize >= vocabulary) else { return Ok(()) };
        let (id, piece) = (ids[index], self.pieces(&ids[index..=index]).concat());
        Err(Error::input(format!(
            "token {index}, `{piece}`, has id {id}, expected an id below the model's vocabulary of {vocabulary}: \
             leave the token out, or use the tokenizer that belongs to the model"
        )))
    }
}

/// The side that `tokenizer_config.json` says texts are cut at.
fn truncation_side(config: &Object) -> Result<Option<TruncationDirection>> {
    let field = "truncation_side";
    match config.text(field)? {
        None => Ok(None),
        Some("right") => Ok(Some(TruncationDirection::Right)),
        Some("left") => Ok(Some(TruncationDirection::Left)),
        Some(other) => Err(config.wrong(field, "right or left", format!("\"{}\"", shortened(other)), "correct the file")),
    }
}

/// `mask_token`, as a text or as an object with `content`.
fn mask_token(folder: &Path, config: Option<&Object>) -> Result<Option<String>> {
    let specials = Object::open(&folder.join("special_tokens_map.json"))?;
    let values = [specials.as_ref(), config].into_iter().flatten().filter_map(|object| object.get("mask_token"));
    let content = |value: &serde_json::Value| value.get("content").unwrap_or(value).as_str().map(str::to_owned);
    Ok(values.filter_map(content).next())
}

/// Cuts a text or a pair. The parts that are cut off would be kept as further windows; they are dropped here,
/// since joining each with each takes time quadratic in the length of a long pair.
fn truncate(
    first: tokenizers::Encoding,
    second: Option<tokenizers::Encoding>,
    params: &TruncationParams,
) -> tokenizers::Result<(tokenizers::Encoding, Option<tokenizers::Encoding>)> {
    let (mut first, mut second) = tokenizers::utils::truncation::truncate_encodings(first, second, params)?;
    first.take_overflowing();
    if let Some(second) = &mut second {
        second.take_overflowing();
    }
    Ok((first, second))
}
