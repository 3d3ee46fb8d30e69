//! Rows as bytes, for matrix products that multiply whole numbers.

use super::check::{Check, noise, rows, words};
use super::{WeightFormat, lib, padded, rows_code};
use crate::error::Result;
use crate::gpu::{Amount, Cost, Count, Gpu, Grid, Slice, Source, Step};

/// Each [`WeightFormat::GROUP`] numbers of `x[rows, inner]` as a scale, and whole numbers that count times it, each in two bytes. One byte would not
/// do: all-MiniLM-L6-v2, whose layer norms let some columns stand out, would fall to a cosine of 0.997 on some texts (0.9984 with groups of
/// 32); with two it keeps the 0.9994 that its weights in eight bits have.
#[derive(Clone, Copy, Debug)]
pub struct Quantize {
    pub inner: usize,
    pub rows: Count,
}

/// What the kernel reads and writes; rows of `x` are [padded].
pub struct Buffers<'a> {
    /// The batch's uniform.
    pub batch: &'a Slice,
    pub x: &'a Slice,
    /// Rows of [`row_words`]
    pub y: &'a Slice,
}

/// Lanes of a workgroup along groups and along rows.
const LANES: u32 = 8;

/// Words of a group: a scale, the upper halves, the lower halves.
const GROUP_WORDS: usize = 1 + 2 * WeightFormat::GROUP / 4;

/// The largest whole number of a group: upper halves count 128 times, lower ones once, and both are bytes.
const MOST: f32 = 127.0 * 128.0;

/// Words that a row of so many numbers takes: whole groups.
pub fn row_words(inner: usize) -> usize {
    inner.div_ceil(WeightFormat::GROUP) * GROUP_WORDS
}

/// Rows of `inner` numbers as the kernel leaves them: what they then stand for, and the words.
pub fn quantized(x: &[f32], inner: usize) -> (Vec<f64>, Vec<u32>) {
    let (mut meant, mut stored) = (Vec::with_capacity(x.len()), Vec::new());
    for group in x.chunks_exact(inner).flat_map(|row| row.chunks(WeightFormat::GROUP)) {
        let largest = group.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        let (scale, inverse) = if largest > 0.0 { (largest / MOST, MOST / largest) } else { (0.0, 0.0) };
        let mut halves = [[0i8; WeightFormat::GROUP]; 2];
        for (i, value) in group.iter().enumerate() {
            let whole = (value * inverse).round_ties_even();
            let upper = (whole / 128.0).round_ties_even();
            halves[0][i] = upper as i8;
            halves[1][i] = (whole - 128.0 * upper) as i8;
            meant.push(f64::from(whole) * f64::from(scale));
        }
        stored.push(scale.to_bits());
        stored.extend(halves.as_flattened().chunks_exact(4).map(|four| u32::from_le_bytes([0, 1, 2, 3].map(|i| four[i] as u8))));
    }
    (meant, stored)
}

impl Quantize {
    pub fn source(&self) -> Source {
        let sizes = [("LANES", LANES), ("GROUP", WeightFormat::GROUP as u32)];
        let constants = vec![("INNER4", (padded(self.inner) / 4) as f64), ("ROWS_ARE", rows_code(self.rows))];
        Source::compose("quantize", &sizes, &[lib::BATCH, lib::ROW_COUNT, include_str!("../../shaders/quantize.wgsl")], constants)
    }

    fn cost(&self) -> Cost {
        let amount = |per_row: usize| Amount { per_row, ..Amount::default() };
        Cost { rows: self.rows, operations: amount(3 * self.inner), bytes: amount(4 * (self.inner + row_words(self.inner))) }
    }

    /// Some rows, one of them zeros, as the host stores them.
    pub fn check(&self) -> Check {
        let (count, inner) = (LANES as usize + 3, padded(self.inner));
        // Whole numbers times a power of two: there is no doubt which way to round.
        let mut x: Vec<f32> = noise(1, count * inner).iter().map(|value| (value * MOST).round() / 512.0).collect();
        x[inner..2 * inner].fill(0.0);
        for group in x.chunks_mut(inner).enumerate().filter(|(row, _)| *row != 1).flat_map(|(_, row)| row.chunks_mut(WeightFormat::GROUP)) {
            // As an f32, which is what a check compares, no word is then a NaN.
            group.chunks_mut(4).for_each(|four| four[3] = (four[3].abs() * 3.9).floor() / 4.0);
            group[0] = MOST / 512.0;
        }
        let (_, stored) = quantized(&x, inner);
        let expected = stored.iter().enumerate().map(|(at, word)| (at, f64::from(f32::from_bits(*word)))).collect();
        let batch = rows(self.rows, count);
        let inputs = vec![("batch", bytemuck::cast_slice(&[batch]).to_vec()), ("x", words(&x))];
        Check { batch, inputs, output: "y", written: stored.len(), expected, bound: (0.0, 3e-7) }
    }

    pub fn grid(&self) -> Grid {
        let groups = self.inner.div_ceil(WeightFormat::GROUP) as u32;
        Grid { x: Count::Fixed(groups.div_ceil(LANES)), y: self.rows, rows: LANES }
    }

    pub fn step(&self, gpu: &Gpu, buffers: &Buffers) -> Result<Step> {
        let buffers = [("batch", buffers.batch), ("x", buffers.x), ("y", buffers.y)];
        let kernel = *self;
        let step = Step::single(gpu, gpu.pipeline(self.source())?, self.grid(), &buffers, self.cost())?;
        Ok(step.checked_by(move |_| kernel.check()))
    }
}
