//! The rows of the tokens that a head has asked for, one after another.

use super::{REDUCE_LANES, padded};
use crate::error::Result;
use crate::gpu::{Amount, Cost, Count, Gpu, Grid, Source, Step};

/// `y[selected, width] = x[token, width]` for each selected token.
#[derive(Clone, Copy, Debug)]
pub struct Gather {
    pub width: usize,
}

/// What the kernel reads and writes; rows are [padded].
pub struct Buffers<'a> {
    /// `[selected]`, see [`crate::batch::Batch::selected`]
    pub selected: &'a wgpu::Buffer,
    /// `[tokens, width]`
    pub x: &'a wgpu::Buffer,
    /// `[selected, width]`
    pub y: &'a wgpu::Buffer,
}

impl Gather {
    pub fn source(&self) -> Source {
        let constants = vec![("WIDTH4", (padded(self.width) / 4) as f64)];
        let sizes = [("WORKGROUP", REDUCE_LANES as u32)];
        Source::compose("gather", &sizes, &[include_str!("../../shaders/gather.wgsl")], constants)
    }

    fn cost(&self) -> Cost {
        let bytes = Amount { per_row: 8 * self.width, ..Amount::default() };
        Cost { rows: Count::Selected, operations: Amount::default(), bytes }
    }

    pub fn step(&self, gpu: &Gpu, buffers: &Buffers) -> Result<Step> {
        let pipeline = gpu.pipeline(self.source())?;
        Step::single(
            gpu,
            pipeline,
            Grid::each(Count::Selected),
            &[("selected", buffers.selected), ("x", buffers.x), ("y", buffers.y)],
            self.cost(),
        )
    }
}
