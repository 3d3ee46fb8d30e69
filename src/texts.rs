//! Texts and pairs of texts on their way to the GPU: what is given, its tokens, and windows of many.

use crate::batch::Sequence;
use crate::checkpoint::Encoding;
use crate::error::{Error, Result};
use crate::parallel;

/// About what a token stands for.
pub(crate) const BYTES_PER_TOKEN: usize = 4;

/// Bytes of text that are worth a thread: it takes some 20 us to start, and these a millisecond to tokenize.
const BYTES_PER_THREAD: usize = 4096;

/// One text, or a pair that the model takes as one input with a separator between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input<'a> {
    pub text: &'a str,
    pub pair: Option<&'a str>,
}

impl<'a, S: AsRef<str> + ?Sized> From<&'a S> for Input<'a> {
    fn from(text: &'a S) -> Self {
        Self { text: text.as_ref(), pair: None }
    }
}

impl<'a> From<(&'a str, &'a str)> for Input<'a> {
    fn from((text, pair): (&'a str, &'a str)) -> Self {
        Self { text, pair: Some(pair) }
    }
}

impl Input<'_> {
    /// What there is to tokenize; an empty text has its specials.
    fn bytes(&self) -> usize {
        self.text.len() + self.pair.map_or(0, str::len) + 2 * BYTES_PER_TOKEN
    }
}

/// How many tokens a text has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    /// All of them, specials included.
    pub total: usize,
    /// Those that the model saw: at most its maximum length.
    pub used: usize,
}

impl Length {
    /// Whether the text was cut.
    pub fn truncated(&self) -> bool {
        self.used < self.total
    }
}

/// # Errors
/// [`Error::Input`] for no texts.
pub(crate) fn some(texts: usize) -> Result<()> {
    if texts == 0 { Err(Error::input("no texts were given: give at least one")) } else { Ok(()) }
}

/// Cuts `inputs` into windows of at most `bytes`, or of one text.
pub(crate) fn windows<'i, 'a>(mut inputs: &'i [Input<'a>], bytes: usize) -> impl Iterator<Item = &'i [Input<'a>]> {
    std::iter::from_fn(move || {
        let mut sum = 0;
        let fits = |input: &&Input| {
            sum += input.bytes();
            sum <= bytes
        };
        let (window, rest) = inputs.split_at_checked(inputs.iter().take_while(fits).count().max(1))?;
        inputs = rest;
        Some(window)
    })
}

/// What `encode` makes of each input, on as many cores as they are worth.
pub(crate) fn encode_all<'a, T: Send>(inputs: &[Input<'a>], encode: impl Fn(&Input<'a>) -> Result<T> + Sync) -> Vec<Result<T>> {
    let bytes: usize = inputs.iter().map(Input::bytes).sum();
    parallel::map(inputs, (bytes / BYTES_PER_THREAD).clamp(1, parallel::cores()), encode)
}

/// The error of a call, with the number of the text that cannot be taken.
pub(crate) fn of_text(text: usize, error: Error) -> Error {
    match error {
        Error::Input { problem } => Error::input(format!("text {text}: {problem}")),
        other => other,
    }
}

/// The error of a call, with the number of a text instead of that of its sequence, where each text's sequences end at one of `ends`.
pub(crate) fn of_its_text(ends: &[usize], error: Error) -> Error {
    match error {
        Error::NotFinite { text, at, value } => Error::NotFinite { text: ends.partition_point(|end| *end <= text), at, value },
        other => other,
    }
}

/// A text as the GPU runs it: one sequence, or some where it is long.
pub(crate) trait Tokens: Send {
    fn sequences(&self) -> impl Iterator<Item = Sequence<'_>>;
}

impl Tokens for Encoding {
    fn sequences(&self) -> impl Iterator<Item = Sequence<'_>> {
        std::iter::once(self.sequence())
    }
}

impl<T: Tokens> Tokens for Vec<T> {
    fn sequences(&self) -> impl Iterator<Item = Sequence<'_>> {
        self.iter().flat_map(Tokens::sequences)
    }
}

/// The sequences and lengths of encoded texts.
pub(crate) fn sequences(encodings: &[Encoding]) -> Vec<Sequence<'_>> {
    encodings.iter().map(Encoding::sequence).collect()
}

pub(crate) fn lengths(encodings: &[Encoding]) -> Vec<Length> {
    encodings.iter().map(Encoding::length).collect()
}

impl Encoding {
    /// As the model takes it.
    pub fn sequence(&self) -> Sequence<'_> {
        Sequence { ids: &self.ids, type_ids: &self.type_ids, selected: &[] }
    }

    /// How many tokens there were, and how many are left.
    pub fn length(&self) -> Length {
        Length { total: self.total_tokens, used: self.ids.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_hold_every_input_once_and_no_more_than_fits() {
        let texts: Vec<String> = (0..100).map(|i| "x".repeat(i * 37 % 200)).collect();
        let inputs: Vec<Input> = texts.iter().map(Input::from).collect();
        for bytes in [0, 50, 300, 1_000_000] {
            let windows: Vec<&[Input]> = windows(&inputs, bytes).collect();
            assert_eq!(windows.concat(), inputs);
            let size = |window: &[Input]| window.iter().map(Input::bytes).sum::<usize>();
            assert!(windows.iter().all(|window| window.len() == 1 || size(window) <= bytes));
            // None could have taken the first of the next.
            assert!(windows.windows(2).all(|pair| size(pair[0]) + pair[1][0].bytes() > bytes));
        }
        assert!(windows(&[], 300).next().is_none());
    }

    #[test]
    fn a_result_that_is_no_number_is_of_a_text() {
        // The second text has no sequence, the third has three.
        let text_of = |text| match of_its_text(&[1, 1, 4, 5], Error::NotFinite { text, at: 7, value: 0.0 }) {
            Error::NotFinite { text, at: 7, .. } => text,
            error => panic!("{error}"),
        };
        assert_eq!([0, 1, 2, 3, 4].map(text_of), [0, 2, 2, 2, 3]);
    }
}
