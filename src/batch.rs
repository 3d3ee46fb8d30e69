//! Texts as ids, packed one after another into batches within a token budget. Pure: no GPU here.
//!
//! ```text
//! texts    [7 tokens] [40 tokens] [3 tokens]
//! packed   [ 40 | 7 | 3 ] = 50 tokens, longest first, no padding
//! offsets  token: 0, 40, 47, 50   tile: 0, 2, 3, 4   (tiles of 32 queries)
//! ```

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};

/// Queries of one text that one workgroup of the attention kernel takes.
pub const TILE: u32 = 32;

/// Most positions, and token types, that fit in a packed place.
pub const MAX_POSITIONS: usize = 1 << 24;
pub const MAX_TOKEN_TYPES: usize = 1 << 8;

/// The uniform of a batch. WGSL: `Header` in `shaders/lib/batch.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Header {
    pub tokens: u32,
    pub texts: u32,
    pub tiles: u32,
    /// Rows that a head has asked for, see [`Sequence::selected`].
    pub selected: u32,
}

/// Where a text begins. WGSL: `Offset`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Offset {
    pub token: u32,
    pub tile: u32,
}

/// One text as the model takes it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sequence<'a> {
    /// `[tokens]`, specials included.
    pub ids: &'a [u32],
    /// `[tokens]`; empty where every token has the model's default type: 0, or no language.
    pub type_ids: &'a [u32],
    /// Places in `ids` that a head over single tokens looks at, such as those of `[MASK]`; other heads want none.
    pub selected: &'a [u32],
}

/// What a model can take, checked before anything is packed.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Ids are below this.
    pub vocabulary: usize,
    /// Token types are below this.
    pub token_types: usize,
    /// The type of a token where the caller does not say.
    pub default_type: u32,
    /// The position of a text's first token.
    pub position_offset: usize,
    /// The id of padding, where positions leave it out: it has the position before the first, also where it stands in a text.
    pub padding: Option<u32>,
    /// Most tokens of one text.
    pub max_tokens: usize,
    /// Most selected tokens of one text.
    pub max_selected: usize,
}

impl Bounds {
    /// The position of each token.
    pub fn positions(&self, ids: &[u32]) -> impl Iterator<Item = u32> {
        let (padding, mut next) = (self.padding, self.position_offset as u32);
        let before_first = next.saturating_sub(1);
        ids.iter().map(move |&id| {
            if Some(id) == padding {
                return before_first;
            }
            next += 1;
            next - 1
        })
    }

    /// # Errors
    /// [`Error::Input`] that names the text and what does not fit.
    pub fn check(&self, text: usize, sequence: &Sequence) -> Result<()> {
        let Sequence { ids, type_ids, selected } = sequence;
        let refused = |problem: String| Err(Error::input(format!("text {text}: {problem}")));
        if ids.is_empty() {
            return refused("it has no tokens: give at least one, such as the model's special tokens".into());
        }
        if ids.len() > self.max_tokens {
            return refused(format!("it has {} tokens, but the model takes at most {}: truncate or split it", ids.len(), self.max_tokens));
        }
        if let Some((at, id)) = ids.iter().enumerate().find(|(_, id)| **id as usize >= self.vocabulary) {
            return refused(format!(
                "token {at} has the id {id}, but the model's vocabulary has {} entries: use its own tokenizer",
                self.vocabulary
            ));
        }
        if !type_ids.is_empty() && type_ids.len() != ids.len() {
            return refused(format!("it has {} ids and {} token types: give one type for each id, or none", ids.len(), type_ids.len()));
        }
        if let Some((at, ty)) = type_ids.iter().enumerate().find(|(_, ty)| **ty as usize >= self.token_types) {
            return refused(format!("token {at} has the type {ty}, but the model has {} token types", self.token_types));
        }
        if selected.len() > self.max_selected {
            return refused(format!("{} of its tokens are selected, but at most {} fit: split it", selected.len(), self.max_selected));
        }
        if let Some(at) = selected.iter().find(|at| **at as usize >= ids.len()) {
            return refused(format!("its token {at} is selected, but it has {}", ids.len()));
        }
        Ok(())
    }
}

/// Texts as they go to the GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The caller's index of each text, in packed order.
    pub texts: Vec<usize>,
    pub header: Header,
    /// `[texts + 1]`
    pub offsets: Vec<Offset>,
    /// `[tokens]`
    pub ids: Vec<u32>,
    /// `[tokens]`: the position, and the token type in the highest 8 bits.
    pub places: Vec<u32>,
    /// `[selected]`: which of the packed tokens.
    pub selected: Vec<u32>,
    /// `[texts + 1]`: where a text's selected tokens begin.
    pub selected_offsets: Vec<u32>,
}

impl Batch {
    /// Packs the `members` of `sequences`, which have been checked against the model's bounds.
    pub fn pack(sequences: &[Sequence], members: &[usize], bounds: &Bounds) -> Self {
        let mut batch = Self::default();
        batch.repack(sequences, members, bounds);
        batch
    }

    /// As [`Batch::pack`], in the memory of a batch that is done.
    pub fn repack(&mut self, sequences: &[Sequence], members: &[usize], bounds: &Bounds) {
        let Self { texts, header, offsets, ids, places, selected: all_selected, selected_offsets } = self;
        texts.clear();
        texts.extend_from_slice(members);
        offsets.clear();
        offsets.push(Offset::default());
        selected_offsets.clear();
        selected_offsets.push(0);
        for values in [&mut *ids, places, all_selected] {
            values.clear();
        }
        let mut tiles = 0;
        for &member in members {
            let Sequence { ids: text, type_ids, selected } = sequences[member];
            all_selected.extend(selected.iter().map(|at| ids.len() as u32 + at));
            selected_offsets.push(all_selected.len() as u32);
            ids.extend_from_slice(text);
            let types = type_ids.iter().copied().chain(std::iter::repeat(bounds.default_type));
            places.extend(bounds.positions(text).zip(types).map(|(position, ty)| position | ty << 24));
            tiles += (text.len() as u32).div_ceil(TILE);
            offsets.push(Offset { token: ids.len() as u32, tile: tiles });
        }
        *header = Header { tokens: ids.len() as u32, texts: members.len() as u32, tiles, selected: all_selected.len() as u32 };
    }

    /// Bytes that go to the GPU: ids, places, offsets, what is selected, and the uniform, nothing else.
    pub fn bytes(&self) -> u64 {
        let arrays = [size_of_val(&*self.offsets), size_of_val(&*self.ids), size_of_val(&*self.places), size_of_val(&*self.selected)];
        (size_of::<Header>() + arrays.iter().sum::<usize>()) as u64
    }
}

/// Sorts texts for [`split`]: longest first, equal lengths in the caller's order.
pub fn sort(sequences: &[Sequence], order: &mut Vec<usize>) {
    order.clear();
    order.extend(0..sequences.len());
    order.sort_unstable_by_key(|&text| (std::cmp::Reverse(sequences[text].ids.len()), text)); // a stable sort would allocate
}

/// Splits texts into batches within `capacity`, in the given order. Each text alone fits.
pub fn split<'a>(sequences: &'a [Sequence], mut order: &'a [usize], capacity: Capacity) -> impl Iterator<Item = &'a [usize]> {
    std::iter::from_fn(move || {
        let (mut tokens, mut selected) = (0, 0);
        let fits = |&&text: &&usize| {
            (tokens, selected) = (tokens + sequences[text].ids.len(), selected + sequences[text].selected.len());
            tokens <= capacity.tokens && selected <= capacity.selected
        };
        let texts = order.iter().take(capacity.texts).take_while(fits).count().max(1);
        let (batch, rest) = order.split_at_checked(texts)?;
        order = rest;
        Some(batch)
    })
}

impl Capacity {
    /// For batches of so many tokens: texts of fewer than eight on average fill them by their number.
    pub fn with_tokens(self, tokens: usize) -> Self {
        const SHORT_TEXT: usize = 8;
        Self { tokens, texts: tokens.div_ceil(SHORT_TEXT), selected: self.selected.min(tokens) }
    }
}

/// Most tokens, texts and selected tokens of one batch.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    pub tokens: usize,
    pub texts: usize,
    pub selected: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds =
        Bounds { vocabulary: 10, token_types: 2, default_type: 0, position_offset: 0, padding: None, max_tokens: 4, max_selected: 1 };

    fn sequence<'a>(ids: &'a [u32], type_ids: &'a [u32], selected: &'a [u32]) -> Sequence<'a> {
        Sequence { ids, type_ids, selected }
    }

    #[test]
    fn packs_without_padding() {
        let ids: Vec<u32> = (0..40).collect();
        let sequences = [sequence(&ids[..3], &[0, 0, 1], &[2]), sequence(&ids, &[], &[7, 9])];
        let batch = Batch::pack(&sequences, &[1, 0], &Bounds { position_offset: 2, ..BOUNDS });
        assert_eq!(batch.header, Header { tokens: 43, texts: 2, tiles: 3, selected: 3 });
        assert_eq!(batch.offsets, [Offset { token: 0, tile: 0 }, Offset { token: 40, tile: 2 }, Offset { token: 43, tile: 3 }]);
        assert_eq!(&batch.ids[39..], [39, 0, 1, 2]);
        assert_eq!(&batch.places[39..], [41, 2, 3, 4 | 1 << 24]);
        assert_eq!((&batch.selected[..], &batch.selected_offsets[..]), (&[7, 9, 42][..], &[0, 2, 3][..]));
        assert_eq!(batch.bytes(), 16 + 3 * 8 + 43 * 8 + 3 * 4);
        let languages = Batch::pack(&sequences, &[0, 1], &Bounds { default_type: 5, ..BOUNDS });
        assert_eq!(languages.places[2..4], [2 | 1 << 24, 5 << 24], "the default is for texts without types");

        let mut reused = languages;
        reused.repack(&sequences, &[1, 0], &Bounds { position_offset: 2, ..BOUNDS });
        assert_eq!(reused, batch, "nothing is left of what was packed before");
    }

    #[test]
    fn padding_within_a_text_has_no_position() {
        // As `create_position_ids_from_input_ids` of transformers counts them for RoBERTa.
        let bounds = Bounds { position_offset: 2, padding: Some(1), ..BOUNDS };
        assert_eq!(bounds.positions(&[0, 7, 1, 8, 1, 2]).collect::<Vec<_>>(), [2, 3, 1, 4, 1, 5]);
        assert_eq!(BOUNDS.positions(&[0, 7, 1, 8]).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    fn all(sequences: &[Sequence], capacity: Capacity) -> Vec<Vec<usize>> {
        let mut order = vec![7; 3];
        sort(sequences, &mut order);
        split(sequences, &order, capacity).map(<[_]>::to_vec).collect()
    }

    fn batches(lengths: &[usize], tokens: usize, texts: usize) -> Vec<Vec<usize>> {
        let ids = vec![0; 100];
        let sequences: Vec<_> = lengths.iter().map(|&length| sequence(&ids[..length], &[], &ids[..length / 2])).collect();
        all(&sequences, Capacity { tokens, texts, selected: 1000 })
    }

    #[test]
    fn splits_by_tokens_texts_and_selection_longest_first() {
        assert_eq!(batches(&[5, 9, 1, 9, 4], 10, 8), [vec![1], vec![3], vec![0, 4, 2]]);
        assert_eq!(batches(&[1; 5], 10, 2), [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!(batches(&[10, 10], 10, 8), [vec![0], vec![1]]);
        assert!(batches(&[], 10, 8).is_empty());
        let selected = sequence(&[1, 2, 3], &[], &[0, 1]);
        assert_eq!(all(&[selected; 3], Capacity { tokens: 100, texts: 8, selected: 4 }), [vec![0, 1], vec![2]]);
    }

    #[test]
    fn every_text_is_in_one_batch_and_no_batch_is_too_large() {
        let lengths: Vec<usize> = (0..1000).map(|i| 1 + i * 7919 % 97).collect();
        let batches = batches(&lengths, 128, 16);
        let mut seen = vec![0; lengths.len()];
        for batch in &batches {
            assert!(batch.len() <= 16 && batch.iter().map(|&t| lengths[t]).sum::<usize>() <= 128);
            batch.iter().for_each(|&text| seen[text] += 1);
        }
        assert!(seen.iter().all(|&count| count == 1));
    }

    #[test]
    fn refuses_what_the_model_cannot_take() {
        let cases = [
            (sequence(&[], &[], &[]), "text 7: it has no tokens"),
            (sequence(&[1; 5], &[], &[]), "5 tokens, but the model takes at most 4"),
            (sequence(&[1, 10], &[], &[]), "token 1 has the id 10, but the model's vocabulary has 10"),
            (sequence(&[1, 2], &[0], &[]), "2 ids and 1 token types"),
            (sequence(&[1, 2], &[0, 2], &[]), "token 1 has the type 2, but the model has 2"),
            (sequence(&[1, 2], &[], &[0, 1]), "2 of its tokens are selected, but at most 1 fit"),
            (sequence(&[1, 2], &[], &[2]), "token 2 is selected, but it has 2"),
        ];
        for (refused, expected) in cases {
            let message = BOUNDS.check(7, &refused).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        BOUNDS.check(0, &sequence(&[1, 9], &[0, 1], &[1])).unwrap();
    }
}
