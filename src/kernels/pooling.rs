//! One row for each text, of its tokens' rows.

use super::check::{Check, noise, padded_words, texts, wide};
use super::{REDUCE_LANES, lib, padded};
use crate::checkpoint::Pooling;
use crate::error::Result;
use crate::gpu::{Amount, Cost, Count, Gpu, Grid, Slice, Source, Step};
use crate::reference;

/// `pooled[texts, columns]` from `x[tokens, hidden]`: several poolings fill the columns of one row, each with a step of its own.
#[derive(Clone, Copy, Debug)]
pub struct PooledRows {
    pub hidden: usize,
    pub pooling: Pooling,
    /// Where this pooling's columns begin.
    pub column: usize,
    /// Columns of all poolings.
    pub columns: usize,
}

/// What the kernel reads and writes; rows are [padded].
pub struct Buffers<'a> {
    /// `[texts + 1]`, see [`crate::batch::Offset`]
    pub offsets: &'a Slice,
    /// `[tokens, hidden]`
    pub x: &'a Slice,
    /// `[texts, columns]`
    pub pooled: &'a Slice,
}

/// The number of a pooling in `shaders/pooling.wgsl`.
fn code(pooling: Pooling) -> f64 {
    match pooling {
        Pooling::Mean => 0.0,
        Pooling::Cls => 1.0,
        Pooling::Max => 2.0,
        Pooling::MeanSqrtLen => 3.0,
        Pooling::WeightedMean => 4.0,
        Pooling::LastToken => 5.0,
    }
}

impl PooledRows {
    pub fn source(&self) -> Source {
        let stride = padded(self.columns);
        let is_last = self.column + self.hidden == self.columns;
        let width = if is_last { stride - self.column } else { self.hidden };
        let constants = vec![
            ("HIDDEN", self.hidden as f64),
            ("POOLING", code(self.pooling)),
            ("STRIDE", stride as f64),
            ("COLUMN", self.column as f64),
            ("WIDTH", width as f64),
        ];
        let sizes = [("WORKGROUP", REDUCE_LANES as u32)];
        Source::compose("pooling", &sizes, &[lib::BATCH, include_str!("../../shaders/pooling.wgsl")], constants)
    }

    fn cost(&self) -> Cost {
        // The first or the last token alone is counted as all: a rule over texts cannot tell the tokens.
        let amount = |per_token: usize| Amount { per_row: per_token * self.hidden, ..Amount::default() };
        Cost { rows: Count::Tokens, operations: amount(1), bytes: amount(4) }
    }

    /// Three texts, one of them a token alone.
    pub fn check(&self) -> Check {
        let (lengths, hidden, stride) = ([5, 1, 3], self.hidden, padded(self.columns));
        let batch = texts(&lengths, 10, 1);
        let x = noise(1, batch.ids.len() * hidden);
        let expected = reference::pooling(&wide(&x), &lengths, self.pooling);
        let expected = expected.iter().enumerate().map(|(at, value)| (at / hidden * stride + self.column + at % hidden, *value)).collect();
        let inputs = vec![("offsets", bytemuck::cast_slice(&batch.offsets).to_vec()), ("x", padded_words(&x, hidden))];
        Check { batch: batch.header, inputs, output: "pooled", written: lengths.len() * stride, expected, bound: (1e-5, 1e-5) }
    }

    pub fn step(&self, gpu: &Gpu, buffers: &Buffers) -> Result<Step> {
        let pipeline = gpu.pipeline(self.source())?;
        let kernel = *self;
        let step = Step::single(
            gpu,
            pipeline,
            Grid::each(Count::Texts),
            &[("offsets", buffers.offsets), ("x", buffers.x), ("pooled", buffers.pooled)],
            self.cost(),
        )?;
        Ok(step.checked_by(move |_| kernel.check()))
    }
}
