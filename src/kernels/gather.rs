//! The rows of the tokens that a head has asked for, one after another.

use super::check::{Check, noise, rows, words};
use super::{REDUCE_LANES, padded};
use crate::error::Result;
use crate::gpu::{Amount, Cost, Count, Gpu, Grid, Slice, Source, Step};

/// `y[selected, width] = x[token, width]` for each selected token.
#[derive(Clone, Copy, Debug)]
pub struct Gather {
    pub width: usize,
}

/// What the kernel reads and writes; rows are [padded].
pub struct Buffers<'a> {
    /// `[selected]`, see [`crate::batch::Batch::selected`]
    pub selected: &'a Slice,
    /// `[tokens, width]`
    pub x: &'a Slice,
    /// `[selected, width]`
    pub y: &'a Slice,
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

    /// Three of five rows.
    pub fn check(&self) -> Check {
        let (width, selected) = (padded(self.width), vec![4, 0, 2]);
        let x = noise(1, 5 * width);
        let row = |(to, from): (usize, &u32)| (0..width).map(move |column| (to, *from as usize, column)).collect::<Vec<_>>();
        let all = selected.iter().enumerate().flat_map(row);
        let expected = all.map(|(to, from, column)| (to * width + column, f64::from(x[from * width + column]))).collect();
        let (batch, written) = (rows(Count::Selected, selected.len()), selected.len() * width);
        Check { batch, inputs: vec![("selected", selected), ("x", words(&x))], output: "y", written, expected, bound: (0.0, 0.0) }
    }

    pub fn step(&self, gpu: &Gpu, buffers: &Buffers) -> Result<Step> {
        let pipeline = gpu.pipeline(self.source())?;
        let kernel = *self;
        let step = Step::single(
            gpu,
            pipeline,
            Grid::each(Count::Selected),
            &[("selected", buffers.selected), ("x", buffers.x), ("y", buffers.y)],
            self.cost(),
        )?;
        Ok(step.checked_by(move |_| kernel.check()))
    }
}
