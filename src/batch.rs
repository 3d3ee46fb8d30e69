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
    pub reserved: u32,
}

/// Where a text begins. WGSL: `Offset`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Offset {
    pub token: u32,
    pub tile: u32,
}

/// One text as the model takes it.
#[derive(Clone, Copy, Debug)]
pub struct Sequence<'a> {
    /// `[tokens]`, specials included.
    pub ids: &'a [u32],
    /// `[tokens]`; empty where every type is 0.
    pub type_ids: &'a [u32],
}

/// What a model can take, checked before anything is packed.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Ids are below this.
    pub vocabulary: usize,
    /// Token types are below this.
    pub token_types: usize,
    /// The position of a text's first token.
    pub position_offset: usize,
    /// Most tokens of one text.
    pub max_tokens: usize,
}

impl Bounds {
    /// # Errors
    /// [`Error::Input`] that names the text and what does not fit.
    pub fn check(&self, text: usize, sequence: &Sequence) -> Result<()> {
        let Sequence { ids, type_ids } = sequence;
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
}

impl Batch {
    /// Packs the `members` of `sequences`, which have been checked against the model's bounds.
    pub fn pack(sequences: &[Sequence], members: &[usize], position_offset: usize) -> Self {
        let mut batch = Self { texts: members.to_vec(), offsets: vec![Offset::default()], ..Self::default() };
        for &member in members {
            let Sequence { ids, type_ids } = sequences[member];
            batch.ids.extend_from_slice(ids);
            batch.places.extend((0..ids.len()).map(|i| (position_offset + i) as u32 | type_ids.get(i).unwrap_or(&0) << 24));
            batch.header.tiles += (ids.len() as u32).div_ceil(TILE);
            batch.offsets.push(Offset { token: batch.ids.len() as u32, tile: batch.header.tiles });
        }
        batch.header.tokens = batch.ids.len() as u32;
        batch.header.texts = members.len() as u32;
        batch
    }

    /// Bytes that go to the GPU: ids, places, offsets and the uniform, nothing else.
    pub fn bytes(&self) -> u64 {
        (size_of::<Header>() + size_of_val(&*self.offsets) + size_of_val(&*self.ids) + size_of_val(&*self.places)) as u64
    }
}

/// Splits texts of these `lengths` into batches of at most `max_tokens` tokens and `max_texts` texts, longest texts first.
/// Every length is at most `max_tokens`.
pub fn split(lengths: &[usize], max_tokens: usize, max_texts: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&text| std::cmp::Reverse(lengths[text])); // stable: equal lengths stay in the caller's order
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut tokens = 0;
    for text in order {
        match batches.last_mut() {
            Some(batch) if tokens + lengths[text] <= max_tokens && batch.len() < max_texts => {
                batch.push(text);
                tokens += lengths[text];
            }
            _ => {
                batches.push(vec![text]);
                tokens = lengths[text];
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_without_padding() {
        let ids: Vec<u32> = (0..40).collect();
        let types = [0, 0, 1];
        let sequences = [Sequence { ids: &ids[..3], type_ids: &types }, Sequence { ids: &ids, type_ids: &[] }];
        let batch = Batch::pack(&sequences, &[1, 0], 2);
        assert_eq!(batch.header, Header { tokens: 43, texts: 2, tiles: 3, reserved: 0 });
        assert_eq!(batch.offsets, [Offset { token: 0, tile: 0 }, Offset { token: 40, tile: 2 }, Offset { token: 43, tile: 3 }]);
        assert_eq!(&batch.ids[39..], [39, 0, 1, 2]);
        assert_eq!(&batch.places[39..], [41, 2, 3, 4 | 1 << 24]);
        assert_eq!(batch.bytes(), 16 + 3 * 8 + 43 * 8);
    }

    #[test]
    fn splits_by_tokens_and_by_texts_longest_first() {
        assert_eq!(split(&[5, 9, 1, 9, 4], 10, 8), [vec![1], vec![3], vec![0, 4, 2]]);
        assert_eq!(split(&[1; 5], 10, 2), [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!(split(&[10, 10], 10, 8), [vec![0], vec![1]]);
        assert!(split(&[], 10, 8).is_empty());
    }

    #[test]
    fn every_text_is_in_one_batch_and_no_batch_is_too_large() {
        let lengths: Vec<usize> = (0..1000).map(|i| 1 + i * 7919 % 97).collect();
        let batches = split(&lengths, 128, 16);
        let mut seen = vec![0; lengths.len()];
        for batch in &batches {
            assert!(batch.len() <= 16 && batch.iter().map(|&t| lengths[t]).sum::<usize>() <= 128);
            batch.iter().for_each(|&text| seen[text] += 1);
        }
        assert!(seen.iter().all(|&count| count == 1));
    }

    #[test]
    fn refuses_what_the_model_cannot_take() {
        let bounds = Bounds { vocabulary: 10, token_types: 2, position_offset: 0, max_tokens: 4 };
        let cases: [(&[u32], &[u32], &str); 5] = [
            (&[], &[], "text 7: it has no tokens"),
            (&[1; 5], &[], "5 tokens, but the model takes at most 4"),
            (&[1, 10], &[], "token 1 has the id 10, but the model's vocabulary has 10"),
            (&[1, 2], &[0], "2 ids and 1 token types"),
            (&[1, 2], &[0, 2], "token 1 has the type 2, but the model has 2"),
        ];
        for (ids, type_ids, expected) in cases {
            let message = bounds.check(7, &Sequence { ids, type_ids }).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        bounds.check(0, &Sequence { ids: &[1, 9], type_ids: &[0, 1] }).unwrap();
    }
}
