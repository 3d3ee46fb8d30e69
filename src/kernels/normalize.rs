//! Rows with an L2 norm of 1.

use super::check::{Check, noise, places, rows, wide, words};
use super::{REDUCE_LANES, lib, padded};
use crate::error::Result;
use crate::gpu::{Amount, Cost, Count, Gpu, Grid, Slice, Source, Step};
use crate::reference;

/// `y[rows, columns]` = the first `columns` of `x[rows, ..]`, divided by their L2 norm; a row of zeros stays zero.
#[derive(Clone, Copy, Debug)]
pub struct Normalize {
    pub columns: usize,
    /// Values from one row of `x` to the next.
    pub stride: usize,
    pub rows: Count,
}

/// What the kernel reads and writes; rows of `y` are [padded].
pub struct Buffers<'a> {
    pub x: &'a Slice,
    pub y: &'a Slice,
}

impl Normalize {
    pub fn source(&self) -> Source {
        let constants = vec![
            ("COLUMNS", self.columns as f64),
            ("X_STRIDE", self.stride as f64),
            ("Y_STRIDE", padded(self.columns) as f64),
            ("WORKGROUP", REDUCE_LANES as f64),
        ];
        Source::compose("normalize", &[], &[lib::REDUCE, include_str!("../../shaders/normalize.wgsl")], constants)
    }

    fn cost(&self) -> Cost {
        let amount = |per_value: usize| Amount { per_row: per_value * self.columns, ..Amount::default() };
        Cost { rows: self.rows, operations: amount(3), bytes: amount(8) }
    }

    /// Three rows, one of them zeros.
    pub fn check(&self) -> Check {
        let (count, columns) = (3, self.columns);
        let mut x = noise(1, count * self.stride);
        x[self.stride..2 * self.stride].fill(0.0);
        let expected = places(&reference::normalize(&wide(&x), self.stride, columns), columns);
        let (batch, written) = (rows(self.rows, count), count * padded(columns));
        Check { batch, inputs: vec![("x", words(&x))], output: "y", written, expected, bound: (1e-6, 1e-5) }
    }

    pub fn step(&self, gpu: &Gpu, buffers: &Buffers) -> Result<Step> {
        let pipeline = gpu.pipeline(self.source())?;
        let kernel = *self;
        let step = Step::single(gpu, pipeline, Grid::each(self.rows), &[("x", buffers.x), ("y", buffers.y)], self.cost())?;
        Ok(step.checked_by(move |_| kernel.check()))
    }
}
