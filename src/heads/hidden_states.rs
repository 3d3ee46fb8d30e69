//! A row for each token: hidden states as they are, and the pooler's row for each text.

use crate::assembler::Assembler;
use crate::checkpoint::{Activation, Linear, Pooling};
use crate::encoder::Encoded;
use crate::error::Result;
use crate::gpu::{Count, Slice};
use crate::heads::pooling::{self, Rows};
use crate::kernels::padded;
use crate::runner::Output;

/// No step to add: the results are what the encoder leaves, `[tokens, hidden]` each, rows padded.
pub fn outputs(pass: &Assembler, encoded: &Encoded) -> Vec<Output> {
    let columns = pass.config.hidden;
    let output = |buffer: &Slice| Output { buffer: buffer.clone(), rows: Count::Tokens, columns, stride: padded(columns) };
    encoded.states.iter().map(output).collect()
}

/// Adds the encoder's pooler, a matrix with tanh over the first token's state: `[texts, hidden]`.
pub fn pooler(pass: &mut Assembler, encoded: &Encoded, weights: &Linear) -> Result<Output> {
    let first = pooling::add(pass, encoded.hidden(), &[Pooling::Cls])?;
    let linear = pass.upload.head_linear(weights)?;
    Rows::dense(pass, &first, &linear, Some(Activation::Tanh), false).map(Rows::output)
}
