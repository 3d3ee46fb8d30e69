//! One row for each text: poolings of its tokens' states, and matrices over what they leave.

use crate::assembler::Assembler;
use crate::checkpoint::{Activation, Pooling};
use crate::error::Result;
use crate::gpu::{Count, Slice};
use crate::kernels::padded;
use crate::kernels::pooling::{Buffers, PooledRows};
use crate::runner::Output;
use crate::weights::Linear;

/// A row for each text, `[texts, columns]`, padded.
pub struct Rows {
    pub buffer: Slice,
    pub columns: usize,
}

/// Adds one step for each pooling; their columns lie next to one another.
pub fn add(pass: &mut Assembler, hidden: &Slice, poolings: &[Pooling]) -> Result<Rows> {
    let width = pass.config.hidden;
    let columns = width * poolings.len();
    let buffer = pass.rows("pooled", Count::Texts, columns)?;
    for (i, &pooling) in poolings.iter().enumerate() {
        let kernel = PooledRows { hidden: width, pooling, column: i * width, columns };
        pass.steps.push(kernel.step(pass.gpu, &Buffers { offsets: &pass.inputs.offsets, x: hidden, pooled: &buffer })?);
    }
    Ok(Rows { buffer, columns })
}

impl Rows {
    /// Adds a matrix over rows of texts, with the rows added to the result where `residual`.
    pub fn dense(pass: &mut Assembler, rows: &Self, linear: &Linear, activation: Option<Activation>, residual: bool) -> Result<Self> {
        let buffer = pass.rows("dense", Count::Texts, linear.outer)?;
        pass.linear(linear, activation, Count::Texts, [&rows.buffer, &buffer], residual.then_some(&rows.buffer))?;
        Ok(Self { buffer, columns: linear.outer })
    }

    /// What the caller gets.
    pub fn output(self) -> Output {
        Output { buffer: self.buffer, rows: Count::Texts, columns: self.columns, stride: padded(self.columns) }
    }
}
