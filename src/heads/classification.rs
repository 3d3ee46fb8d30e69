//! Logits: a row for each text, or a row for each token.

use crate::assembler::Assembler;
use crate::checkpoint::{ClassifierWeights, Linear};
use crate::encoder::Encoded;
use crate::error::Result;
use crate::gpu::Count;
use crate::heads::pooling::{self, Rows};
use crate::kernels::padded;
use crate::runner::Output;

/// Adds a classifier of texts over the state that stands for each; the result is `[texts, labels]`.
pub fn of_texts(pass: &mut Assembler, encoded: &Encoded, weights: &ClassifierWeights) -> Result<Output> {
    let mut rows = pooling::add(pass, encoded.hidden(), &[weights.summary])?;
    if let Some((dense, activation)) = &weights.dense {
        let dense = pass.upload.head_linear(dense)?;
        rows = Rows::dense(pass, &rows, &dense, Some(*activation), false)?;
    }
    let output = pass.upload.head_linear(&weights.output)?;
    Rows::dense(pass, &rows, &output, weights.activation, false).map(Rows::output)
}

/// Adds a matrix over every token's state; the result is `[tokens, labels]`.
pub fn of_tokens(pass: &mut Assembler, encoded: &Encoded, weights: &Linear) -> Result<Output> {
    let linear = pass.upload.head_linear(weights)?;
    let buffer = pass.rows("logits", Count::Tokens, linear.outer)?;
    pass.linear(&linear, None, Count::Tokens, [encoded.hidden(), &buffer], None)?;
    Ok(Output { buffer, rows: Count::Tokens, columns: linear.outer, stride: padded(linear.outer) })
}
