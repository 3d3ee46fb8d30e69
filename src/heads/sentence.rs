//! The sentence embedding: pooling, then the modules that sentence-transformers puts behind it.

use crate::assembler::Assembler;
use crate::checkpoint::{Checkpoint, DenseModule, Linear, Module, Norm, Pooling, Tensors};
use crate::encoder::Encoded;
use crate::error::{Error, Result};
use crate::gpu::Count;
use crate::heads::pooling::{self, Rows};
use crate::kernels::layer_norm::LayerNorm;
use crate::kernels::normalize::{Buffers, Normalize};
use crate::kernels::padded;
use crate::runner::Output;

/// How a text's states become its row.
#[derive(Clone, Debug)]
pub struct Recipe {
    pub pooling: Vec<Pooling>,
    pub modules: Vec<Module>,
    /// Only the first of the columns.
    pub dimensions: Option<usize>,
    /// Whether the caller asked for them: their norm is 1 again where the last module makes it so. Where the folder asks, rows are cut
    /// when they are done, and are not cut where they have fewer columns, as in sentence-transformers.
    pub dimensions_asked: bool,
}

/// Layer norm's epsilon where torch is not told another.
const EPSILON: f32 = 1e-5;

/// Adds pooling and modules; the result is `[texts, dimension]`.
pub fn add(pass: &mut Assembler, encoded: &Encoded, checkpoint: &Checkpoint, recipe: &Recipe) -> Result<Output> {
    let mut rows = pooling::add(pass, encoded.hidden(), &recipe.pooling)?;
    for (i, module) in recipe.modules.iter().enumerate() {
        let is_last = i + 1 == recipe.modules.len();
        rows = match module {
            Module::Dense(module) => dense(pass, &rows, module, &checkpoint.module_tensors(&module.folder)?)?,
            Module::LayerNorm { folder, .. } => layer_norm(pass, &rows, &checkpoint.module_tensors(folder)?)?,
            Module::Normalize => {
                let columns = if is_last && recipe.dimensions_asked { recipe.columns(&rows, checkpoint)? } else { rows.columns };
                normalize(pass, &rows, columns)?
            }
        };
    }
    let stride = padded(rows.columns);
    let columns = recipe.columns(&rows, checkpoint)?;
    Ok(Output { buffer: rows.buffer, rows: Count::Texts, columns, stride })
}

impl Recipe {
    /// How many of the columns are kept.
    fn columns(&self, rows: &Rows, checkpoint: &Checkpoint) -> Result<usize> {
        let there = rows.columns;
        let wanted = self.dimensions.unwrap_or(there);
        let kept = if self.dimensions_asked { wanted } else { wanted.min(there) };
        if (1..=there).contains(&kept) {
            return Ok(kept);
        }
        let folder = checkpoint.path.display();
        Err(Error::input(format!("{wanted} dimensions were asked for, but the rows of {folder} have {there}: ask for 1 to {there}")))
    }
}

fn dense(pass: &mut Assembler, rows: &Rows, module: &DenseModule, tensors: &Tensors) -> Result<Rows> {
    let weight = tensors.get_shaped("linear.weight", &[module.outputs, module.inputs])?;
    let linear = match module.bias {
        true => pass.upload.head_linear(&Linear { weight, bias: tensors.get_shaped("linear.bias", &[module.outputs])? })?,
        false => pass.upload.head_linear_without_bias(&weight)?,
    };
    Rows::dense(pass, rows, &linear, module.activation, module.residual)
}

fn layer_norm(pass: &mut Assembler, rows: &Rows, tensors: &Tensors) -> Result<Rows> {
    let hidden = rows.columns;
    let norm = Norm { weight: tensors.get_shaped("norm.weight", &[hidden])?, bias: tensors.get_shaped("norm.bias", &[hidden])? };
    let norm = pass.upload.norm(&norm)?;
    let buffer = pass.rows("layer norm", Count::Texts, hidden)?;
    pass.layer_norm(LayerNorm { hidden, epsilon: EPSILON, rows: Count::Texts }, &norm, [&rows.buffer, &buffer])?;
    Ok(Rows { buffer, columns: hidden })
}

fn normalize(pass: &mut Assembler, rows: &Rows, columns: usize) -> Result<Rows> {
    let buffer = pass.rows("normalized", Count::Texts, columns)?;
    let kernel = Normalize { columns, stride: padded(rows.columns), rows: Count::Texts };
    pass.steps.push(kernel.step(pass.gpu, &Buffers { x: &rows.buffer, y: &buffer })?);
    Ok(Rows { buffer, columns })
}
