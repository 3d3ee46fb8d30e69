//! The likeliest words for each selected token: only the rows of those tokens meet the vocabulary.

use crate::assembler::Assembler;
use crate::checkpoint::MaskedWeights;
use crate::encoder::Encoded;
use crate::error::{Error, Result};
use crate::gpu::Count;
use crate::kernels::gather::{self, Gather};
use crate::kernels::layer_norm::LayerNorm;
use crate::kernels::top_k::{self, TopK};
use crate::kernels::vocabulary::{self, Vocabulary};
use crate::runner::Output;

/// Adds the head; the result is `[selected, 2 * top + 1]` as [`TopK`] leaves it.
pub fn add(pass: &mut Assembler, encoded: &Encoded, weights: &MaskedWeights, top: usize) -> Result<Output> {
    let (hidden, embedding, words) = (pass.config.hidden, pass.config.embedding, pass.config.vocabulary);
    let epsilon = pass.config.layer_norm_eps;
    let selected = pass.inputs.selected.clone().ok_or_else(|| Error::input("the pass has no room for selected tokens"))?;

    let mut x = pass.rows("selected states", Count::Selected, hidden)?;
    pass.steps.push(Gather { width: hidden }.step(pass.gpu, &gather::Buffers { selected: &selected, x: encoded.hidden(), y: &x })?);
    if let Some((dense, activation, norm)) = &weights.transform {
        let (dense, norm) = (pass.upload.head_linear(dense)?, pass.upload.norm(norm)?);
        let transformed = pass.rows("transformed", Count::Selected, embedding)?;
        pass.linear(&dense, Some(*activation), Count::Selected, [&x, &transformed], None)?;
        x = pass.rows("normed", Count::Selected, embedding)?;
        pass.layer_norm(LayerNorm { hidden: embedding, epsilon, rows: Count::Selected }, &norm, [&transformed, &x])?;
    }

    let bias = pass.upload.vector(&weights.bias)?;
    let own_table = weights.decoder.as_ref().map(|decoder| pass.upload.parts(decoder)).transpose()?;
    // Not `pass.rows`: these rows are not padded.
    let logits = pass.activations.storage("word logits", pass.capacity.selected * words)?;
    let buffers = vocabulary::Buffers { batch: &pass.inputs.header, x: &x, bias: &bias, logits: &logits };
    let kernel = Vocabulary { width: embedding, vocabulary: words, weights: pass.upload.format() };
    pass.steps.extend(kernel.steps(pass.gpu, own_table.as_deref().unwrap_or(&encoded.word), &buffers)?);

    let kernel = TopK { vocabulary: words, top };
    let best = pass.activations.storage("best words", pass.capacity.selected * kernel.columns())?;
    pass.steps.push(kernel.step(pass.gpu, &top_k::Buffers { logits: &logits, best: &best })?);
    Ok(Output { buffer: best, rows: Count::Selected, columns: kernel.columns(), stride: kernel.columns() })
}
