//! Cuts the tokens of a long text into windows that overlap.

use std::ops::Range;

/// The tokens of one text without special tokens, slices of which can be joined to inputs.
pub(super) struct Tokens(tokenizers::Encoding);

impl Tokens {
    /// `tokens` have their final places: a processor has trimmed them already.
    pub(super) fn new(tokens: tokenizers::Encoding) -> Self {
        Self(tokens)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Some of the tokens, without their pieces: a processor trims places by these, and would do so once more.
    pub(super) fn slice(&self, range: Range<usize>) -> tokenizers::Encoding {
        let (tokens, length) = (&self.0, range.len());
        tokenizers::Encoding::new(
            tokens.get_ids()[range.clone()].to_vec(),
            vec![0; length],
            vec![String::new(); length],
            tokens.get_word_ids()[range.clone()].to_vec(),
            tokens.get_offsets()[range].to_vec(),
            vec![0; length],
            vec![1; length],
            Vec::new(),
            Default::default(),
        )
    }
}

/// Windows of at most `room` tokens over `length` tokens, each sharing `stride` tokens with the next; `stride` is less than `room`, unless
/// one window suffices.
pub(super) fn ranges(length: usize, room: usize, stride: usize) -> impl Iterator<Item = Range<usize>> {
    let further = length.saturating_sub(room).div_ceil(room.saturating_sub(stride).max(1));
    (0..=further).map(move |window| window * (room - stride.min(room))).map(move |start| start..length.min(start + room))
}
