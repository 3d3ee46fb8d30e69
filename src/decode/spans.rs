//! Extractive question answering: the spans of a context that answer a question, as the scripts of SQuAD 2.0 choose them.
//!
//! A span's score is the start logit of its first token plus the end logit of its last. The `question-answering` pipeline of transformers
//! multiplies probabilities of each window instead and widens a span to whole words: it ranks the spans of one window alike, but those of
//! different windows by how sure each window is of itself.

use std::ops::Range;

use super::{CodePoints, softmax};
use crate::checkpoint::TokenSource;
use crate::error::{Error, Result};

/// Spans, at least, among which probabilities are shared out; the scripts of SQuAD call it `n_best_size`.
const CANDIDATES: usize = 20;
/// Numbers of the texts in a pair.
const CONTEXT: Option<usize> = Some(1);

/// What the model says of one pair of the question and a part of the context, a value for each token.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    /// `[tokens]`.
    pub start_logits: &'a [f32],
    /// `[tokens]`.
    pub end_logits: &'a [f32],
    /// `[tokens]`: the question is text 0 and the context text 1. Bytes are those of the whole context in every window.
    pub sources: &'a [TokenSource],
    /// The token that stands for "no answer", which is the first one, `[CLS]` or `<s>`.
    pub cls: usize,
}

/// What to look for.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerOptions {
    /// Answers to return, at most; 1 if not set.
    pub n_best: usize,
    /// Tokens of an answer, at most; 30 if not set.
    pub max_answer_length: usize,
    /// Allows "no answer", which wins where its score is above the best span's by more than this. For models that were trained on
    /// questions without an answer, as SQuAD 2.0 has them.
    pub null_threshold: Option<f64>,
}

impl Default for AnswerOptions {
    fn default() -> Self {
        Self { n_best: 1, max_answer_length: 30, null_threshold: None }
    }
}

/// A part of the context.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Start logit plus end logit.
    pub score: f64,
    /// The softmax of the scores of the best 20 spans of all windows (of the best `n_best`, where that is more) and of "no answer",
    /// where it is allowed.
    pub probability: f64,
    /// Bytes of the context, as the tokenizer gives them: with a Unigram tokenizer they may begin with a space.
    pub bytes: Range<usize>,
    /// The same in Unicode code points.
    pub code_points: Range<usize>,
    /// The same as text.
    pub text: String,
}

/// What [`answers`] finds.
#[derive(Debug, Clone, PartialEq)]
pub struct Answers {
    /// Best first, no span twice. Empty where no window has a token of the context.
    pub answers: Vec<Answer>,
    /// The score of "no answer": the least, over the windows, of the start logit plus the end logit of the first token. A window
    /// without the answer says "no answer" with good reason, so all of them have to agree.
    pub null_score: f64,
    /// The share of "no answer" in the probabilities, where it is allowed.
    pub null_probability: Option<f64>,
    /// Whether "no answer" is allowed and wins. The spans are there all the same.
    pub is_null: bool,
}

/// The best answers to one question over all windows of its context. A span lies in one window, within the context; where windows
/// overlap, the same span counts once, with its best score. A span without any text is no answer.
///
/// Takes time in proportion to tokens times the longest answer.
///
/// # Errors
/// [`Error::Input`] for options that admit no answer, no windows, or a window whose parts do not fit each other or the context or hold
/// a logit that is no finite number.
pub fn answers(windows: &[Window<'_>], context: &str, options: &AnswerOptions) -> Result<Answers> {
    for (name, value) in [("n_best", options.n_best), ("max_answer_length", options.max_answer_length)] {
        if value == 0 {
            return Err(Error::input(format!("`{name}`: expected 1 or more, found 0: raise it")));
        }
    }
    if windows.is_empty() {
        return Err(Error::input("there are no windows: give at least one, made of the question and the context"));
    }
    let code_points = CodePoints::of(context);
    let mut best = Best::new(options.n_best.max(CANDIDATES));
    let mut null_score = f64::INFINITY;
    for (index, window) in windows.iter().enumerate() {
        window.check(&code_points).map_err(|error| Error::input(format!("window {index}: {error}")))?;
        null_score = null_score.min(window.score(window.cls, window.cls));
        window.offer(options.max_answer_length, &mut best);
    }
    let spans = best.into_sorted();
    let allowed = options.null_threshold.map(|_| null_score);
    let scores: Vec<f64> = spans.iter().map(|span| span.score).chain(allowed).collect();
    let probabilities = softmax(&scores);
    let wins = |threshold| spans.first().is_none_or(|best| null_score - best.score > threshold);
    let answer = |(span, &probability): (&Span, &f64)| {
        let (bytes, code_points) = (span.bytes.clone(), code_points.range(&span.bytes)?);
        Ok(Answer { score: span.score, probability, text: context[bytes.clone()].to_owned(), bytes, code_points })
    };
    Ok(Answers {
        answers: spans.iter().zip(&probabilities).take(options.n_best).map(answer).collect::<Result<_>>()?,
        null_score,
        null_probability: allowed.and(probabilities.last().copied()),
        is_null: options.null_threshold.is_some_and(wins),
    })
}

impl Window<'_> {
    fn score(&self, start: usize, end: usize) -> f64 {
        self.start_logits[start] as f64 + self.end_logits[end] as f64
    }

    fn check(&self, context: &CodePoints) -> Result<()> {
        let (starts, ends, tokens) = (self.start_logits.len(), self.end_logits.len(), self.sources.len());
        if starts != tokens || ends != tokens {
            let problem = format!("expected logits for each of its {tokens} tokens, found {starts} for the start and {ends} for the end");
            return Err(Error::input(problem + ": give a start logit and an end logit for each token"));
        }
        if self.cls >= tokens {
            let problem = format!("`cls`: expected one of its {tokens} tokens, found token {}", self.cls);
            return Err(Error::input(problem + ": give the index of the first special token"));
        }
        let finite = |&token: &usize| self.start_logits[token].is_finite() && self.end_logits[token].is_finite();
        if let Some(token) = (0..tokens).find(|token| !finite(token)) {
            let (start, end) = (self.start_logits[token], self.end_logits[token]);
            let problem = format!("token {token}: expected finite logits, found {start} for the start and {end} for the end");
            return Err(Error::input(problem + ": check the model's weights"));
        }
        for (token, source) in self.sources.iter().enumerate().filter(|(_, source)| source.sequence == CONTEXT) {
            context.range(&source.bytes).map_err(|error| Error::input(format!("token {token}: {error}")))?;
        }
        Ok(())
    }

    fn offer(&self, max_answer_length: usize, best: &mut Best) {
        for (start, first) in self.sources.iter().enumerate() {
            // A span ends before the first token that is not of the context.
            let run = self.sources[start..].iter().take_while(|source| source.sequence == CONTEXT);
            for (length, last) in run.take(max_answer_length).enumerate() {
                let bytes = first.bytes.start..last.bytes.end;
                if !bytes.is_empty() {
                    best.offer(Span { score: self.score(start, start + length), bytes });
                }
            }
        }
    }
}

struct Span {
    score: f64,
    bytes: Range<usize>,
}

/// The best spans so far, each range of bytes once. They pile up to twice as many as are kept and are then cut back, so that a span
/// costs constant time on average, and most cost one comparison.
struct Best {
    keep: usize,
    spans: Vec<Span>,
    /// What a span must reach to be among the best.
    floor: f64,
}

impl Best {
    fn new(keep: usize) -> Self {
        Self { keep, spans: Vec::new(), floor: f64::NEG_INFINITY }
    }

    fn offer(&mut self, span: Span) {
        if span.score < self.floor {
            return;
        }
        self.spans.push(span);
        if self.spans.len() >= self.keep.saturating_mul(2) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let place = |span: &Span| (span.bytes.start, span.bytes.end);
        self.spans.sort_unstable_by(|a, b| place(a).cmp(&place(b)).then(b.score.total_cmp(&a.score)));
        self.spans.dedup_by(|next, kept| next.bytes == kept.bytes);
        // Stable: of equal scores the first in the text comes first.
        self.spans.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.spans.truncate(self.keep);
        if self.spans.len() == self.keep {
            self.floor = self.spans[self.keep - 1].score;
        }
    }

    fn into_sorted(mut self) -> Vec<Span> {
        self.cut();
        self.spans
    }
}
