//! Token classification: labels of tokens into entities, as the `token-classification` pipeline of transformers groups them.
//!
//! It differs from the pipeline in three ways:
//! * Words are those that the tokenizer counts. The pipeline compares the length of a piece with the length of its text, which takes a
//!   word with a combining mark for the rest of the word before it, and for BPE and Unigram tokenizers splits at spaces only.
//! * A group's label loses a prefix of one capital letter, as `B-` or the `E-` of the BIOES scheme. The pipeline cuts at the first
//!   hyphen whatever stands before it, which makes `time` of `date-time`.
//! * Probabilities are computed in f64, there in f32.

use std::ops::Range;

use super::{CodePoints, softmax};
use crate::checkpoint::TokenSource;
use crate::error::{Error, Result};

/// How the tokens of a word, and the words of an entity, become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Aggregation {
    /// Each token stands for itself, with its full label.
    #[default]
    None,
    /// Neighbouring tokens of the same label are an entity; a word may fall apart.
    Simple,
    /// As `Simple` for words; a word has the label and the score of its first token.
    First,
    /// As `Simple` for words; a word's probabilities are the means over its tokens.
    Average,
    /// As `Simple` for words; a word has the label and the score of its surest token.
    Max,
}

/// How to make entities, and which to leave out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityOptions {
    pub aggregation: Aggregation,
    /// Labels to leave out, as entities bear them: with prefix for [`Aggregation::None`], without for all others. `O` if not set.
    pub ignore_labels: Vec<String>,
}

impl Default for EntityOptions {
    fn default() -> Self {
        Self { aggregation: Aggregation::default(), ignore_labels: vec!["O".to_owned()] }
    }
}

/// A labelled part of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Entity {
    /// As the model names it for [`Aggregation::None`], without its prefix for all others.
    pub label: String,
    /// The probability of the label, the mean of it over the tokens or words of the entity.
    pub score: f64,
    /// Bytes of the text, as the tokenizer gives them: with a Unigram tokenizer they may begin with a space.
    pub bytes: Range<usize>,
    /// The same in Unicode code points.
    pub code_points: Range<usize>,
    /// The same as text.
    pub text: String,
    /// The number of the token, specials counted, for [`Aggregation::None`].
    pub token: Option<usize>,
}

/// The entities of a text, in its order. Special tokens are left out.
///
/// A token or word goes on with the entity before it if it bears the same label and does not begin with `B-`. A label without prefix
/// counts as one with `I-`, and `I-` may begin an entity, so that models of IOB1 and IOB2 labels are read alike.
///
/// `logits` are `[tokens, labels]`, `sources` `[tokens]`; `labels` are the model's, by number.
///
/// # Errors
/// [`Error::Input`] for logits that do not fit the tokens and labels or are not finite, and for tokens that are not of this text.
pub fn entities(logits: &[f32], sources: &[TokenSource], text: &str, labels: &[String], options: &EntityOptions) -> Result<Vec<Entity>> {
    let code_points = CodePoints::of(text);
    check(logits, sources, &code_points, labels)?;
    let rows = logits.chunks_exact(labels.len()).zip(sources).enumerate();
    let texts = rows.filter(|(_, (_, source))| source.sequence.is_some());
    let tokens: Vec<Token> = texts.map(|(index, (row, source))| Token { index, source, probabilities: softmax(row) }).collect();

    let single = options.aggregation == Aggregation::None;
    let same_word = |a: &Token, b: &Token| a.source.word.is_some() && a.source.word == b.source.word;
    let parts: Vec<Part> = match options.aggregation {
        Aggregation::None | Aggregation::Simple => tokens.iter().map(Part::of).collect(),
        aggregation => tokens.chunk_by(same_word).map(|word| merge(word, aggregation)).collect(),
    };
    let goes_on = |last: &Part, next: &Part| {
        let ((_, last), (begins, next)) = (tag(&labels[last.label]), tag(&labels[next.label]));
        !single && !begins && last == next
    };
    let mut entities = Vec::new();
    for group in parts.chunk_by(goes_on) {
        let label = &labels[group[0].label];
        let label = if single { label } else { without_prefix(label) };
        if options.ignore_labels.iter().any(|ignored| ignored == label) {
            continue;
        }
        let bytes = hull(group.iter().map(|part| &part.bytes));
        entities.push(Entity {
            label: label.to_owned(),
            score: group.iter().map(|part| part.score).sum::<f64>() / group.len() as f64,
            code_points: code_points.range(&bytes)?,
            text: text[bytes.clone()].to_owned(),
            bytes,
            token: single.then_some(group[0].token),
        });
    }
    Ok(entities)
}

/// The entities of a long text from those of overlapping windows of it, whose bytes are those of the whole text: of two from different
/// windows that overlap the longer one stays, of two as long the surer one.
pub fn merge_windows(windows: impl IntoIterator<Item = Vec<Entity>>) -> Vec<Entity> {
    let numbered = windows.into_iter().enumerate().flat_map(|(window, entities)| entities.into_iter().map(move |entity| (window, entity)));
    let mut entities: Vec<(usize, Entity)> = numbered.collect();
    entities.sort_by_key(|(_, entity)| entity.bytes.start);
    let mut merged: Vec<(usize, Entity)> = Vec::new();
    for (window, entity) in entities {
        match merged.last_mut() {
            // Within a window several tokens may stand for one character.
            Some(kept) if kept.0 != window && entity.bytes.start < kept.1.bytes.end => {
                let (length, kept_length) = (entity.code_points.len(), kept.1.code_points.len());
                if length > kept_length || (length == kept_length && entity.score > kept.1.score) {
                    *kept = (window, entity);
                }
            }
            _ => merged.push((window, entity)),
        }
    }
    merged.into_iter().map(|(_, entity)| entity).collect()
}

fn check(logits: &[f32], sources: &[TokenSource], text: &CodePoints, labels: &[String]) -> Result<()> {
    let (values, tokens, columns) = (logits.len(), sources.len(), labels.len());
    if columns == 0 {
        return Err(Error::input("there are no labels: give those of the model"));
    }
    if tokens.checked_mul(columns) != Some(values) {
        let problem = format!("expected a logit for each of {tokens} tokens and {columns} labels, found {values} logits");
        return Err(Error::input(problem + ": give the logits of these tokens and the labels of this model"));
    }
    for (token, (row, source)) in logits.chunks_exact(columns).zip(sources).enumerate() {
        if let Some(value) = row.iter().find(|value| !value.is_finite()) {
            return Err(Error::input(format!("token {token}: expected finite logits, found {value}: check the model's weights")));
        }
        if let Some(sequence @ 1..) = source.sequence {
            return Err(Error::input(format!(
                "token {token}: expected a token of text 0, found one of text {sequence}: give one text alone"
            )));
        }
        text.range(&source.bytes).map_err(|error| Error::input(format!("token {token}: {error}")))?;
    }
    Ok(())
}

/// A token of the text.
struct Token<'a> {
    index: usize,
    source: &'a TokenSource,
    /// `[labels]`.
    probabilities: Vec<f64>,
}

/// What has one label before neighbours are joined: a token or a word.
struct Part {
    label: usize,
    score: f64,
    bytes: Range<usize>,
    /// The first token.
    token: usize,
}

impl Part {
    fn of(token: &Token) -> Self {
        let (label, score) = likeliest(&token.probabilities);
        Self { label, score, bytes: token.source.bytes.clone(), token: token.index }
    }
}

/// The tokens of a word as one.
fn merge(word: &[Token], aggregation: Aggregation) -> Part {
    let (label, score) = match aggregation {
        Aggregation::Average => {
            let mean = |label| word.iter().map(|token| token.probabilities[label]).sum::<f64>() / word.len() as f64;
            likeliest(&(0..word[0].probabilities.len()).map(mean).collect::<Vec<_>>())
        }
        Aggregation::Max => {
            let tokens = word.iter().map(|token| likeliest(&token.probabilities));
            tokens.reduce(|best, next| if next.1 > best.1 { next } else { best }).expect("a word has a token")
        }
        Aggregation::None | Aggregation::Simple | Aggregation::First => likeliest(&word[0].probabilities),
    };
    Part { label, score, bytes: hull(word.iter().map(|token| &token.source.bytes)), token: word[0].index }
}

/// The label with the largest probability, the first of several, and the probability.
fn likeliest(probabilities: &[f64]) -> (usize, f64) {
    let labels = probabilities.iter().copied().enumerate();
    labels.reduce(|best, next| if next.1 > best.1 { next } else { best }).expect("there are labels")
}

/// From the first byte of any to the last byte of any.
fn hull<'a>(ranges: impl Iterator<Item = &'a Range<usize>> + Clone) -> Range<usize> {
    let start = ranges.clone().map(|range| range.start).min();
    let end = ranges.map(|range| range.end).max();
    start.unwrap_or(0)..end.unwrap_or(0)
}

/// Whether a label begins an entity whatever came before, and what makes labels the same.
fn tag(label: &str) -> (bool, &str) {
    match label.strip_prefix("B-") {
        Some(tag) => (true, tag),
        None => (false, label.strip_prefix("I-").unwrap_or(label)),
    }
}

/// A label as a group of tokens bears it.
fn without_prefix(label: &str) -> &str {
    match label.as_bytes() {
        [b'A'..=b'Z', b'-', _, ..] => &label[2..],
        _ => label,
    }
}
