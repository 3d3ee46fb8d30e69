//! The forward pass: from packed ids to hidden states.

use crate::assembler::Assembler;
use crate::checkpoint::{EncoderConfig, EncoderWeights};
use crate::error::Result;
use crate::gpu::{Count, Slice};
use crate::kernels::attention::{self, Attention};
use crate::kernels::embedding::{self, Embedding, Part};
use crate::kernels::layer_norm::LayerNorm;
use crate::kernels::{Arithmetic, padded};

/// What an encoder leaves on the GPU.
pub struct Encoded {
    /// Hidden states `[tokens, hidden]`, rows [padded]: the last one, or with all layers the embeddings and every layer's.
    pub states: Vec<Slice>,
    /// The table of word embeddings.
    pub word: Vec<Part>,
}

impl Encoded {
    /// The last hidden state.
    pub fn hidden(&self) -> &Slice {
        &self.states[self.states.len() - 1]
    }
}

/// Values of a token in the widest buffer: what bounds the token budget on an adapter with small bindings.
pub fn widest_row(config: &EncoderConfig) -> usize {
    (3 * context_width(config)).max(padded(config.intermediate)).max(padded(config.hidden)).max(padded(config.embedding))
}

/// Heads next to one another, each [padded].
fn context_width(config: &EncoderConfig) -> usize {
    config.heads * padded(config.head_dim())
}

/// Uploads the weights and lays out the pass: embeddings, then in each layer fused query, key and value; attention; output with
/// residual; layer norm; up with activation; down with residual; layer norm.
pub fn assemble(pass: &mut Assembler, tensors: &EncoderWeights, all_layers: bool) -> Result<Encoded> {
    let EncoderConfig { hidden, embedding, heads, activation, layer_norm_eps: epsilon, .. } = *pass.config;
    let head_dim = pass.config.head_dim();
    let norm = LayerNorm { hidden, epsilon, rows: Count::Tokens };

    let mut x = pass.rows("hidden", Count::Tokens, hidden)?;
    let sum = pass.rows("residual sum", Count::Tokens, hidden)?;
    let context = pass.rows("context", Count::Tokens, context_width(pass.config))?;
    // Never needed at the same time: queries, keys and values end with the attention, the feed-forward begins after it.
    let wide = pass.rows("qkv, intermediate", Count::Tokens, widest_row(pass.config))?;

    let table = pass.upload.embeddings(tensors)?;
    let embedded = if tensors.embedding_projection.is_some() { &wide } else { &x };
    let buffers = embedding::Buffers {
        ids: &pass.inputs.ids,
        places: &pass.inputs.places,
        position: &table.position,
        token_type: &table.token_type,
        norm: table.norm.each_ref(),
        y: embedded,
    };
    let kernel = Embedding { hidden: embedding, epsilon, weights: pass.upload.format() };
    pass.steps.extend(kernel.steps(pass.gpu, pass.tuning.reduction(embedding), &table.parts, &buffers)?);
    if let Some(projection) = &tensors.embedding_projection {
        let projection = pass.upload.linear(projection)?;
        pass.linear(&projection, None, Count::Tokens, [&wide, &x], None)?;
    }
    let half = pass.upload.arithmetic() == Arithmetic::F16;
    let bias = tensors.relative_bias.as_ref().map(|bias| pass.upload.relative_bias(bias)).transpose()?;

    let mut states = Vec::new();
    for layer in &tensors.layers {
        let qkv = pass.upload.qkv(layer)?;
        let output = pass.upload.attention_output(&layer.attention_output)?;
        let attention_norm = pass.upload.norm(&layer.attention_norm)?;
        let up = pass.upload.linear(&layer.up)?;
        let down = pass.upload.linear(&layer.down)?;
        let output_norm = pass.upload.norm(&layer.output_norm)?;

        // Where every layer's state is kept, each has a buffer of its own.
        let next = if all_layers { pass.rows("hidden", Count::Tokens, hidden)? } else { x.clone() };
        pass.linear(&qkv, None, Count::Tokens, [&x, &wide], None)?;
        let buffers = attention::Buffers {
            batch: &pass.inputs.header,
            offsets: &pass.inputs.offsets,
            qkv: &wide,
            bias: bias.as_ref(),
            context: &context,
        };
        let kernel = Attention { heads, head_dim, bias: bias.is_some(), half };
        pass.steps.push(kernel.step(pass.gpu, pass.tuning.attention(&kernel), &buffers)?);
        pass.linear(&output, None, Count::Tokens, [&context, &sum], Some(&x))?;
        pass.layer_norm(norm, &attention_norm, [&sum, &next])?;
        pass.linear(&up, Some(activation), Count::Tokens, [&next, &wide], None)?;
        pass.linear(&down, None, Count::Tokens, [&wide, &sum], Some(&next))?;
        pass.layer_norm(norm, &output_norm, [&sum, &next])?;
        if all_layers {
            states.push(x);
        }
        x = next;
    }
    states.push(x);
    Ok(Encoded { states, word: table.parts })
}
