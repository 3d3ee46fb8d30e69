//! Word, position and token type embeddings added up, with layer norm.

use super::{Variant, WeightFormat, reduction};
use crate::error::Result;
use crate::gpu::{Amount, Cost, Count, Gpu, Grid, Source, Step};

/// `y[tokens, hidden] = layer_norm(word[id] + position[position] + token_type[type])`.
#[derive(Clone, Copy, Debug)]
pub struct Embedding {
    pub hidden: usize,
    pub epsilon: f32,
    /// Of the table of words.
    pub weights: WeightFormat,
}

/// What the kernel reads and writes; rows are [padded](super::padded).
pub struct Buffers<'a> {
    /// `[tokens]`
    pub ids: &'a wgpu::Buffer,
    /// `[tokens]`, see [`crate::batch::Batch::places`]
    pub places: &'a wgpu::Buffer,
    /// `[positions, hidden]`
    pub position: &'a wgpu::Buffer,
    /// `[types, hidden]`, at least one row
    pub token_type: &'a wgpu::Buffer,
    /// Scale and shift of the layer norm, `[hidden]` each.
    pub norm: [&'a wgpu::Buffer; 2],
    /// `[tokens, hidden]`
    pub y: &'a wgpu::Buffer,
}

/// Rows of the vocabulary that fit in one binding.
pub struct Part {
    /// `[first id, rows]`, see [`part_uniform`].
    pub range: wgpu::Buffer,
    /// `[rows, hidden]`
    pub word: wgpu::Buffer,
    /// `[rows]`, just where [`WeightFormat::is_scaled`]
    pub scale: Option<wgpu::Buffer>,
    pub rows: usize,
}

/// The uniform of a part.
pub fn part_uniform(first: usize, rows: usize) -> [u32; 4] {
    [first as u32, rows as u32, 0, 0]
}

impl Embedding {
    pub fn source(&self, variant: Variant) -> Source {
        let (lanes, pieces) = reduction(variant, self.hidden);
        let pieces = [pieces[0].as_str(), &pieces[1], self.weights.wgsl(), include_str!("../../shaders/embedding.wgsl")];
        let constants = vec![
            ("HIDDEN", self.hidden as f64),
            ("EPSILON", self.epsilon as f64),
            ("WORKGROUP", lanes as f64),
            ("SCALED", self.weights.is_scaled() as u8 as f64),
        ];
        Source::compose("embedding", &[], &pieces, constants)
    }

    /// Of one of the parts, which share the tokens.
    fn cost(&self, parts: usize) -> Cost {
        let operations = Amount { per_row: 10 * self.hidden / parts, ..Amount::default() };
        // Two rows of tables, one of words, one of the result, id and place.
        let bytes = Amount { per_row: (12 * self.hidden + self.weights.bytes(self.hidden) + 8) / parts, ..Amount::default() };
        Cost { rows: Count::Tokens, operations, bytes }
    }

    /// One dispatch for each part of the vocabulary; together they write every token's row once.
    pub fn steps(&self, gpu: &Gpu, variant: Variant, parts: &[Part], buffers: &Buffers) -> Result<Vec<Step>> {
        let pipeline = gpu.pipeline(self.source(variant))?;
        let step = |part: &Part| {
            let buffers = [
                ("part", &part.range),
                ("ids", buffers.ids),
                ("places", buffers.places),
                ("word", &part.word),
                ("position", buffers.position),
                ("token_type", buffers.token_type),
                // A binding cannot be left empty; without scales nothing reads this.
                ("scale", part.scale.as_ref().unwrap_or(buffers.norm[0])),
                ("weight", buffers.norm[0]),
                ("bias", buffers.norm[1]),
                ("y", buffers.y),
            ];
            Step::single(gpu, pipeline.clone(), Grid::each(Count::Tokens), &buffers, self.cost(parts.len()))
        };
        parts.iter().map(step).collect()
    }
}
