//! Text to token ids, as the `tokenizers` library of Hugging Face does it.
//!
//! Truncation and padding that are baked into `tokenizer.json` are switched off: how long a text may be is the caller's decision, and
//! nothing is ever padded.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::{EncodeInput, PostProcessor, PostProcessorWrapper, TruncationDirection, TruncationParams, TruncationStrategy};

use super::config::EncoderConfig;
use super::json::Object;
use super::wordpiece;
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

/// The tokenizer of a model folder.
#[derive(Debug)]
pub struct Tokenizer {
    path: PathBuf,
    /// Without its post-processor, which is applied after truncation.
    texts: tokenizers::Tokenizer,
    /// Adds special tokens and joins pairs.
    join: Option<PostProcessorWrapper>,
    max_length: Option<usize>,
    /// Rows of the model's word embeddings.
    vocabulary: usize,
    /// The type of every token, where the model does not tell the texts of a pair apart as the tokenizer may.
    one_type: Option<u32>,
    lower_case: bool,
}

impl Tokenizer {
    /// Opens `tokenizer.json`, or builds the tokenizer from `vocab.txt` and `tokenizer_config.json`.
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
        let path = folder.join("tokenizer.json");
        let (path, mut texts) = match std::fs::read(&path) {
            Ok(bytes) => {
                let texts = guarded(|| tokenizers::Tokenizer::from_bytes(bytes));
                let wrong = |error| {
                    Error::checkpoint(&path, format!("expected a tokenizer of Hugging Face, found {error}: download the file again"))
                };
                let texts = texts.map_err(wrong)?;
                (path, texts)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => wordpiece::open(folder, config.as_ref())?,
            Err(source) => return Err(Error::Io { path, problem: "cannot be read", source }),
        };
        let unset = texts.with_padding(None).with_truncation(None).map(|_| ());
        unset.map_err(|error| Error::checkpoint(&path, format!("cannot be used without truncation: {error}")))?;
        let join = texts.get_post_processor().cloned();
        if let Some(join) = &join {
            check_post_processor(&path, &serde_json::to_value(join).unwrap_or_default())?;
        }
        texts.with_post_processor(None::<PostProcessorWrapper>);
        Ok(Self { path, texts, join, max_length, vocabulary: usize::MAX, one_type: None, lower_case: false })
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
        let one_type = (config.token_types < 2).then_some(config.default_type() as u32);
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
    /// both are equally long, then from both.
    ///
    /// # Errors
    /// `max_length` has no room for the special tokens, the tokenizer cannot express the text, or the model has no such token.
    pub fn encode(&self, text: &str, pair: Option<&str>, max_length: usize) -> Result<Encoding> {
        let (lower_text, lower_pair);
        let (mut text, mut pair) = (text, pair);
        if self.lower_case {
            (lower_text, lower_pair) = (text.to_lowercase(), pair.map(str::to_lowercase));
            (text, pair) = (&lower_text, lower_pair.as_deref());
        }
        // Where tokens come from takes longer to find than the tokens.
        self.encode_by(text, pair, max_length, |text| self.texts.encode_fast(text, false)).map(|(encoding, _)| encoding)
    }

    /// As [`Tokenizer::encode`], and where each token comes from. The text is taken as it is, since lowercasing would move its bytes.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_with_sources(&self, text: &str, pair: Option<&str>, max_length: usize) -> Result<(Encoding, Vec<TokenSource>)> {
        let (encoding, tokens) = self.encode_by(text, pair, max_length, |text| self.texts.encode(text, false))?;
        let parts = tokens.get_sequence_ids().into_iter().zip(tokens.get_word_ids()).zip(tokens.get_offsets());
        let sources = parts.map(|((sequence, &word), &(start, end))| TokenSource { sequence, word, bytes: start..end });
        Ok((encoding, sources.collect()))
    }

    fn encode_by<'s>(
        &self,
        text: &'s str,
        pair: Option<&'s str>,
        max_length: usize,
        encode: impl Fn(EncodeInput<'s>) -> tokenizers::Result<tokenizers::Encoding>,
    ) -> Result<(Encoding, tokenizers::Encoding)> {
        let specials = self.join.as_ref().map_or(0, |join| join.added_tokens(pair.is_some()));
        let Some(room) = max_length.checked_sub(specials) else {
            let problem = format!("a maximum length of {max_length} tokens has no room for the {specials} special tokens: raise it");
            return Err(Error::input(problem));
        };
        let tokens = guarded(|| {
            let first = encode(text.into())?;
            let second = pair.map(|pair| encode(pair.into())).transpose()?;
            let total = first.len() + second.as_ref().map_or(0, tokenizers::Encoding::len) + specials;
            let (first, second) = truncate(first, second, room)?;
            Ok((total, self.join(first, second)?))
        });
        let wrong = |error| Error::checkpoint(&self.path, format!("the text could not be tokenized: {error}"));
        let (total_tokens, tokens) = tokens.map_err(wrong)?;
        let (ids, mut type_ids) = (tokens.get_ids().to_vec(), tokens.get_type_ids().to_vec());
        if let Some(token_type) = self.one_type {
            type_ids.fill(token_type);
        }
        self.check_ids(&ids)?;
        Ok((Encoding { ids, type_ids, total_tokens, truncated: total_tokens > max_length }, tokens))
    }

    fn join(&self, first: tokenizers::Encoding, second: Option<tokenizers::Encoding>) -> tokenizers::Result<tokenizers::Encoding> {
        match &self.join {
            Some(join) => join.process(first, second, true),
            None => self.texts.post_process(first, second, true),
        }
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
        ["[MASK]", "<mask>", "<special1>"].iter().find_map(|piece| self.id(piece))
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

/// Cuts a text or a pair to `room` tokens in all. The parts that are cut off would be kept as further windows; they are dropped here,
/// since joining each with each takes time quadratic in the length of a long pair.
fn truncate(
    first: tokenizers::Encoding,
    second: Option<tokenizers::Encoding>,
    room: usize,
) -> tokenizers::Result<(tokenizers::Encoding, Option<tokenizers::Encoding>)> {
    let params =
        TruncationParams { max_length: room, strategy: TruncationStrategy::LongestFirst, direction: TruncationDirection::Right, stride: 0 };
    let (mut first, mut second) = tokenizers::utils::truncation::truncate_encodings(first, second, &params)?;
    first.take_overflowing();
    if let Some(second) = &mut second {
        second.take_overflowing();
    }
    Ok((first, second))
}

/// Runs code of the `tokenizers` crate, which takes some faults of its files for impossible and panics on them.
fn guarded<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("contents that the tokenizers library cannot handle".to_owned()),
    }
}

/// The library takes a template at its word and panics on a special token that is not defined, or on a second text among single ones.
fn check_post_processor(path: &Path, processor: &Value) -> Result<()> {
    let parts = processor["processors"].as_array().map_or(std::slice::from_ref(processor), Vec::as_slice);
    let wrong = |found: String| Error::checkpoint(path, format!("`post_processor`: {found}: download the file again"));
    let mut templates = 0;
    for part in parts {
        match part["type"].as_str() {
            Some("TemplateProcessing") => templates += 1,
            Some("Sequence") => return Err(wrong("expected one list of processors, found lists in a list".into())),
            _ => continue,
        }
        let sides: [(&str, &[&str]); 2] = [("single", &["A"]), ("pair", &["A", "B"])];
        for (side, allowed) in sides {
            for piece in part[side].as_array().into_iter().flatten() {
                let sequence = piece["Sequence"]["id"].as_str();
                if let Some(sequence) = sequence.filter(|sequence| !allowed.contains(sequence)) {
                    return Err(wrong(format!("expected the texts {allowed:?} in the template `{side}`, found `{sequence}`")));
                }
                let Some(special) = piece["SpecialToken"]["id"].as_str() else { continue };
                let defined = &part["special_tokens"][special];
                let lengths = (defined["ids"].as_array().map(Vec::len), defined["tokens"].as_array().map(Vec::len));
                if lengths.0.is_none() || lengths.0 != lengths.1 {
                    return Err(wrong(format!(
                        "expected an id for each special token, found none for `{special}` of the template `{side}`"
                    )));
                }
            }
        }
    }
    if templates > 1 {
        return Err(wrong(format!("expected at most one template, found {templates}")));
    }
    Ok(())
}
