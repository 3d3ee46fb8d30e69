//! Word, position and token type embeddings added up, with layer norm.

use super::{REDUCE_LANES, lib};
use crate::error::Result;
use crate::gpu::{Amount, Cost, Count, Gpu, Grid, Source, Step};

/// `y[tokens, hidden] = layer_norm(word[id] + position[position] + token_type[type])`.
#[derive(Clone, Copy, Debug)]
pub struct Embedding {
    pub hidden: usize,
    pub epsilon: f32,
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
    pub rows: usize,
}

/// The uniform of a part.
pub fn part_uniform(first: usize, rows: usize) -> [u32; 4] {
    [first as u32, rows as u32, 0, 0]
}

impl Embedding {
    pub fn source(&self) -> Source {
        let pieces = [lib::REDUCE, lib::LAYER_NORM, include_str!("../../shaders/embedding.wgsl")];
        Source::compose(
            "embedding",
            &[],
            &pieces,
            vec![("HIDDEN", self.hidden as f64), ("EPSILON", self.epsilon as f64), ("WORKGROUP", REDUCE_LANES as f64)],
        )
    }

    /// Of one of the parts, which share the tokens.
    fn cost(&self, parts: usize) -> Cost {
        let operations = Amount { per_row: 10 * self.hidden / parts, ..Amount::default() };
        // Three rows of tables, one row of the result, id and place.
        let bytes = Amount { per_row: (16 * self.hidden + 8) / parts, ..Amount::default() };
        Cost { rows: Count::Tokens, operations, bytes }
    }

    /// One dispatch for each part of the vocabulary; together they write every token's row once.
    pub fn steps(&self, gpu: &Gpu, parts: &[Part], buffers: &Buffers) -> Result<Vec<Step>> {
        let pipeline = gpu.pipeline(self.source())?;
        parts
            .iter()
            .map(|part| {
                let bind_group = pipeline.bind(
                    gpu,
                    &[
                        ("part", &part.range),
                        ("ids", buffers.ids),
                        ("places", buffers.places),
                        ("word", &part.word),
                        ("position", buffers.position),
                        ("token_type", buffers.token_type),
                        ("weight", buffers.norm[0]),
                        ("bias", buffers.norm[1]),
                        ("y", buffers.y),
                    ],
                )?;
                Ok(Step { pipeline: pipeline.clone(), bind_group, grid: Grid::each(Count::Tokens), cost: self.cost(parts.len()) })
            })
            .collect()
    }
}
