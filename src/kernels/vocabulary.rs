//! A logit for each word of the vocabulary, by the table of word embeddings as it lies.

use super::embedding::Part;
use super::{WeightFormat, lib, padded};
use crate::error::Result;
use crate::gpu::{Amount, Cost, Count, Gpu, Grid, Source, Step};

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
    pub batch: &'a wgpu::Buffer,
    /// `[selected, width]`
    pub x: &'a wgpu::Buffer,
    /// `[vocabulary]`
    pub bias: &'a wgpu::Buffer,
    /// `[selected, vocabulary]`
    pub logits: &'a wgpu::Buffer,
}

/// Rows of the table that a workgroup takes, one a lane, and rows of `x` that each lane multiplies with its own.
const LANES: u32 = 64;
const ROWS: u32 = 4;

impl Vocabulary {
    pub fn source(&self) -> Source {
        let sizes = [("LANES", LANES), ("ROWS", ROWS)];
        let constants = vec![
            ("WIDTH4", (padded(self.width) / 4) as f64),
            ("VOCABULARY", self.vocabulary as f64),
            ("SCALED", self.weights.is_scaled() as u8 as f64),
        ];
        Source::compose("vocabulary", &sizes, &[lib::BATCH, self.weights.wgsl(), include_str!("../../shaders/vocabulary.wgsl")], constants)
    }

    /// Of a part of so many words.
    fn cost(&self, words: usize) -> Cost {
        let operations = Amount { per_row: 2 * self.width * words, ..Amount::default() };
        let bytes = Amount { fixed: self.weights.bytes(self.width * words), per_row: 4 * words, per_pair: 0 };
        Cost { rows: Count::Selected, operations, bytes }
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
                // A binding cannot be left empty; without scales nothing reads this.
                ("scale", part.scale.as_ref().unwrap_or(buffers.bias)),
                ("logits", buffers.logits),
            ];
            let grid = Grid { x: Count::Fixed((part.rows as u32).div_ceil(LANES)), y: Count::Selected, rows: ROWS };
            Step::single(gpu, pipeline.clone(), grid, &buffers, self.cost(part.rows))
        };
        parts.iter().map(step).collect()
    }
}
