//! A logit for each word of the vocabulary, by the table of word embeddings as it lies.

use super::check::{Check, noise, rows, samples, words};
use super::embedding::{Part, part_uniform};
use super::{WeightFormat, lib, padded};
use crate::error::Result;
use crate::gpu::{Amount, Cost, Count, Gpu, Grid, Slice, Source, Step};

/// `logits[selected, vocabulary] = x[selected, width] * transpose(word[vocabulary, width]) + bias[vocabulary]`.
#[derive(Clone, Copy, Debug)]
pub struct Vocabulary {
    pub width: usize,
    pub vocabulary: usize,
    /// Of the table.
    pub weights: WeightFormat,
}

/// What the kernel reads and writes; rows of `x` and of the table are [padded].
pub struct Buffers<'a> {
    /// The batch's uniform.
    pub batch: &'a Slice,
    /// `[selected, width]`
    pub x: &'a Slice,
    /// `[vocabulary]`
    pub bias: &'a Slice,
    /// `[selected, vocabulary]`
    pub logits: &'a Slice,
}

/// Rows of the table that a workgroup takes, one a lane, and rows of `x` that each lane multiplies with its own.
const LANES: u32 = 64;
const ROWS: u32 = 4;

impl Vocabulary {
    pub fn source(&self) -> Source {
        let sizes = [("LANES", LANES), ("ROWS", ROWS)];
        let constants = vec![("WIDTH4", (padded(self.width) / 4) as f64), ("VOCABULARY", self.vocabulary as f64)];
        Source::compose("vocabulary", &sizes, &[lib::BATCH, self.weights.wgsl(), include_str!("../../shaders/vocabulary.wgsl")], constants)
    }

    /// For a part of so many words.
    pub fn grid(&self, words: usize) -> Grid {
        Grid { x: Count::Fixed((words as u32).div_ceil(LANES)), y: Count::Selected, rows: ROWS }
    }

    /// Of a part of so many words.
    fn cost(&self, words: usize) -> Cost {
        let operations = Amount { per_row: 2 * self.width * words, ..Amount::default() };
        let bytes = Amount { fixed: self.weights.bytes(self.width * words), per_row: 4 * words, per_pair: 0 };
        Cost { rows: Count::Selected, operations, bytes }
    }

    /// Five rows times the words of the first workgroup: a table in parts may have no more.
    pub fn check(&self) -> Check {
        let (count, width) = (5, padded(self.width));
        let present = self.vocabulary.min(LANES as usize);
        let [x, word, bias] = [noise(1, count * width), noise(2, present * width), noise(3, self.vocabulary)];
        let (stored, meant) = self.weights.store_rows(&word, width);
        let mut expected = Vec::new();
        for (row, at) in (0..count).flat_map(|row| samples(present).into_iter().map(move |at| (row, at))) {
            let words = &meant[at * width..][..width];
            let sum: f64 = x[row * width..][..width].iter().zip(words).map(|(x, word)| f64::from(*x) * word).sum();
            expected.push((row * self.vocabulary + at, sum + f64::from(bias[at])));
        }
        let batch = rows(Count::Selected, count);
        let mut inputs = vec![("batch", bytemuck::cast_slice(&[batch]).to_vec()), ("part", part_uniform(0, present).to_vec())];
        inputs.extend([("x", words(&x)), ("word", stored), ("bias", words(&bias))]);
        Check { batch, inputs, output: "logits", written: count * self.vocabulary, expected, bound: (1e-4, 1e-5) }
    }

    /// One dispatch for each part of the table; together they write every logit once.
    pub fn steps(&self, gpu: &Gpu, parts: &[Part], buffers: &Buffers) -> Result<Vec<Step>> {
        let pipeline = gpu.pipeline(self.source())?;
        let step = |part: &Part| {
            let buffers = [
                ("batch", buffers.batch),
                ("part", &part.range),
                ("x", buffers.x),
                ("word", &part.word),
                ("bias", buffers.bias),
                ("logits", buffers.logits),
            ];
            let kernel = *self;
            let step = Step::single(gpu, pipeline.clone(), self.grid(part.rows), &buffers, self.cost(part.rows))?;
            Ok(step.checked_by(move |_| kernel.check()))
        };
        parts.iter().map(step).collect()
    }
}
