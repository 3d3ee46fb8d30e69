//! One row for each text, with its norm made 1 where asked.

use super::{REDUCE_LANES, lib};
use crate::checkpoint::Pooling;
use crate::error::Result;
use crate::gpu::{Count, Gpu, Grid, Source, Step};

/// `pooled[texts, hidden]` from `x[tokens, hidden]`.
#[derive(Clone, Copy, Debug)]
pub struct PooledRows {
    pub hidden: usize,
    pub pooling: Pooling,
    pub normalize: bool,
}

/// What the kernel reads and writes.
pub struct Buffers<'a> {
    /// `[texts + 1]`, see [`crate::batch::Offset`]
    pub offsets: &'a wgpu::Buffer,
    /// `[tokens, hidden]`, rows [padded](super::padded)
    pub x: &'a wgpu::Buffer,
    /// `[texts, hidden]`, rows not padded
    pub pooled: &'a wgpu::Buffer,
}

impl PooledRows {
    pub fn source(&self) -> Source {
        let pooling = match self.pooling {
            Pooling::Mean => 0.0,
            Pooling::Cls => 1.0,
            Pooling::Max => 2.0,
        };
        let pieces = [lib::BATCH, lib::REDUCE, include_str!("../../shaders/pooling.wgsl")];
        let constants = vec![
            ("HIDDEN", self.hidden as f64),
            ("POOLING", pooling),
            ("NORMALIZE", self.normalize as u8 as f64),
            ("WORKGROUP", REDUCE_LANES as f64),
        ];
        Source::compose("pooling", &[], &pieces, constants)
    }

    pub fn step(&self, gpu: &Gpu, buffers: &Buffers) -> Result<Step> {
        let pipeline = gpu.pipeline(self.source())?;
        let bind_group = pipeline.bind(gpu, &[("offsets", buffers.offsets), ("x", buffers.x), ("pooled", buffers.pooled)])?;
        Ok(Step { pipeline, bind_group, grid: Grid::each(Count::Texts) })
    }
}
