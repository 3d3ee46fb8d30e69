//! Places of tokens in texts, from characters to bytes.
//!
//! The library is asked for characters: where a processor trims a token's bytes, it takes every blank for one byte.

use super::TokenSource;

/// Where the characters of a text start, in bytes, and where the last one ends.
pub(super) struct Characters(Vec<usize>);

impl Characters {
    pub(super) fn new(text: &str) -> Self {
        Self(text.char_indices().map(|(start, _)| start).chain([text.len()]).collect())
    }

    fn byte(&self, character: usize) -> usize {
        self.0[character.min(self.0.len() - 1)]
    }
}

/// The source of each token of an input that was made from `texts`, with places in characters.
pub(super) fn of_tokens(tokens: &tokenizers::Encoding, texts: &[Characters]) -> Vec<TokenSource> {
    let parts = tokens.get_sequence_ids().into_iter().zip(tokens.get_word_ids()).zip(tokens.get_offsets());
    parts
        .map(|((sequence, &word), &(start, end))| {
            let text = sequence.and_then(|sequence| texts.get(sequence));
            let bytes = text.map_or(0..0, |text| text.byte(start)..text.byte(end.max(start)));
            TokenSource { sequence, word, bytes }
        })
        .collect()
}
