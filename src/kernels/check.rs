//! What the checks of the kernels are made of; the check of each is in its own file.

pub use crate::gpu::check::{Check, noise, rows};

use super::padded;
use crate::batch::{Batch, Bounds, Sequence};

/// Numbers as a buffer holds them.
pub fn words(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// The same in f64.
pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// Rows of `columns` numbers as a buffer holds them, each [padded].
pub fn padded_words(values: &[f32], columns: usize) -> Vec<u32> {
    let row = |row: &[f32]| words(row).into_iter().chain(std::iter::repeat_n(0, padded(columns) - columns)).collect::<Vec<_>>();
    values.chunks_exact(columns).flat_map(row).collect()
}

/// Some of `count` indices: the first, the last, and what lies around the edges of tiles.
pub fn samples(count: usize) -> Vec<usize> {
    let step = (count / 29).max(1);
    let mut samples: Vec<usize> = (0..count).step_by(step).chain([15, 16, 31, 32, 63, 64, count - 1]).filter(|at| *at < count).collect();
    samples.sort_unstable();
    samples.dedup();
    samples
}

/// Values `expected[rows, columns]` by their place in rows that are [padded].
pub fn places(expected: &[f64], columns: usize) -> Vec<(usize, f64)> {
    let place = |(at, value): (usize, &f64)| (at / columns * padded(columns) + at % columns, *value);
    expected.iter().enumerate().map(place).collect()
}

/// A packed batch of texts of these lengths, whose ids and types count up.
pub fn texts(lengths: &[usize], vocabulary: u32, types: u32) -> Batch {
    let ids: Vec<Vec<u32>> = lengths.iter().map(|&length| (0..length as u32).map(|i| i * 7 % vocabulary).collect()).collect();
    let type_ids: Vec<Vec<u32>> = lengths.iter().map(|&length| (0..length as u32).map(|i| i % types).collect()).collect();
    let sequences: Vec<Sequence> = ids.iter().zip(&type_ids).map(|(ids, type_ids)| Sequence { ids, type_ids, selected: &[] }).collect();
    let bounds = Bounds {
        vocabulary: vocabulary as usize,
        token_types: types as usize,
        default_type: 0,
        position_offset: 0,
        padding: None,
        max_tokens: usize::MAX,
        max_selected: 0,
    };
    Batch::pack(&sequences, &(0..lengths.len()).collect::<Vec<_>>(), &bounds)
}
