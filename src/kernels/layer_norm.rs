//! Layer norm over each token's row.

use super::{Variant, reduction};
use crate::error::Result;
use crate::gpu::{Amount, Cost, Count, Gpu, Grid, Source, Step};

/// `y[rows, hidden] = (x - mean) / sqrt(variance + epsilon) * weight + bias`, with the variance of the row itself (divided by
/// `hidden`), as in torch.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm {
    pub hidden: usize,
    pub epsilon: f32,
    /// What the rows are: tokens, texts or selected tokens.
    pub rows: Count,
}

/// What the kernel reads and writes; rows are [padded](super::padded).
pub struct Buffers<'a> {
    /// `[rows, hidden]`
    pub x: &'a wgpu::Buffer,
    /// Scale and shift, `[hidden]` each.
    pub norm: [&'a wgpu::Buffer; 2],
    /// `[rows, hidden]`
    pub y: &'a wgpu::Buffer,
}

impl LayerNorm {
    pub fn source(&self, variant: Variant) -> Source {
        let (lanes, pieces) = reduction(variant, self.hidden);
        let pieces = [pieces[0].as_str(), &pieces[1], include_str!("../../shaders/layer_norm.wgsl")];
        let constants = vec![("HIDDEN", self.hidden as f64), ("EPSILON", self.epsilon as f64), ("WORKGROUP", lanes as f64)];
        Source::compose("layer_norm", &[], &pieces, constants)
    }

    fn cost(&self) -> Cost {
        let operations = Amount { per_row: 8 * self.hidden, ..Amount::default() };
        Cost { rows: self.rows, operations, bytes: Amount { fixed: 8 * self.hidden, per_row: 8 * self.hidden, per_pair: 0 } }
    }

    pub fn step(&self, gpu: &Gpu, variant: Variant, buffers: &Buffers) -> Result<Step> {
        let pipeline = gpu.pipeline(self.source(variant))?;
        let buffers = [("x", buffers.x), ("weight", buffers.norm[0]), ("bias", buffers.norm[1]), ("y", buffers.y)];
        Step::single(gpu, pipeline, Grid::each(self.rows), &buffers, self.cost())
    }
}
