//! The forward pass: from packed ids to the last hidden state.

mod weights;

use crate::batch::{Header, Offset};
use crate::checkpoint::{EncoderConfig, EncoderWeights};
use crate::error::Result;
use crate::gpu::{Arena, Gpu, Step};
use crate::kernels::attention::{self, Attention};
use crate::kernels::embedding::{self, Embedding};
use crate::kernels::layer_norm::{self, LayerNorm};
use crate::kernels::matmul::{self, Matmul};
use crate::kernels::{Variant, padded};
use weights::{Linear, Upload};

/// Most tokens and texts of one batch.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    pub tokens: usize,
    pub texts: usize,
}

/// What a batch writes, and nothing else: see [`crate::batch::Batch`].
#[derive(Debug)]
pub struct Inputs {
    pub header: wgpu::Buffer,
    /// `[texts + 1]`
    pub offsets: wgpu::Buffer,
    /// `[tokens]`
    pub ids: wgpu::Buffer,
    /// `[tokens]`
    pub places: wgpu::Buffer,
}

impl Inputs {
    pub fn new(arena: &mut Arena, capacity: Capacity) -> Result<Self> {
        Ok(Self {
            header: arena.uniform("batch", size_of::<Header>())?,
            offsets: arena.storage("offsets", (capacity.texts + 1) * size_of::<Offset>() / 4)?,
            ids: arena.storage("ids", capacity.tokens)?,
            places: arena.storage("places", capacity.tokens)?,
        })
    }
}

/// A model on the GPU, as the steps that run it.
pub struct Encoder {
    pub steps: Vec<Step>,
    /// The last hidden state, `[tokens, hidden]`, rows [padded].
    pub hidden: wgpu::Buffer,
    pub uploaded: u64,
}

/// Values of a token in the widest buffer: what bounds the token budget on an adapter with small bindings.
pub fn widest_row(config: &EncoderConfig) -> usize {
    (3 * context_width(config)).max(padded(config.intermediate)).max(padded(config.hidden))
}

/// Heads next to one another, each [padded].
fn context_width(config: &EncoderConfig) -> usize {
    config.heads * padded(config.head_dim())
}

impl Encoder {
    /// Uploads the weights and lays out the pass of every layer: fused query, key and value; attention; output with residual; layer
    /// norm; up with activation; down with residual; layer norm.
    pub fn load(
        gpu: &Gpu,
        config: &EncoderConfig,
        tensors: &EncoderWeights,
        inputs: &Inputs,
        capacity: Capacity,
        weights: &mut Arena,
        activations: &mut Arena,
    ) -> Result<Self> {
        let (hidden, epsilon) = (config.hidden, config.layer_norm_eps);
        let row = padded(hidden);
        let context_row = context_width(config);
        let mut upload = Upload::new(gpu, weights, config);

        let x = activations.storage("hidden", capacity.tokens * row)?;
        let sum = activations.storage("residual sum", capacity.tokens * row)?;
        let context = activations.storage("context", capacity.tokens * context_row)?;
        // Never needed at the same time: queries, keys and values end with the attention, the feed-forward begins after it.
        let wide = activations.storage("qkv, intermediate", capacity.tokens * widest_row(config))?;

        let variant = Variant::choose(gpu);
        let norm = LayerNorm { hidden, epsilon };
        let matmul = |linear: &Linear, activation, x: &wgpu::Buffer, residual: Option<&wgpu::Buffer>, y: &wgpu::Buffer| {
            let kernel = Matmul { inner: linear.inner, outer: linear.outer, activation, residual: residual.is_some() };
            let Linear { weight, bias, .. } = linear;
            kernel.step(gpu, variant, &matmul::Buffers { batch: &inputs.header, x, weight, bias, residual, y })
        };

        let table = upload.embeddings(tensors)?;
        let mut steps = Embedding { hidden, epsilon }.steps(
            gpu,
            &table.parts,
            &embedding::Buffers {
                ids: &inputs.ids,
                places: &inputs.places,
                position: &table.position,
                token_type: &table.token_type,
                norm: table.norm.each_ref(),
                y: &x,
            },
        )?;
        for layer in &tensors.layers {
            let qkv = upload.qkv(layer)?;
            let output = upload.attention_output(&layer.attention_output)?;
            let attention_norm = upload.norm(&layer.attention_norm)?;
            let up = upload.linear(&layer.up)?;
            let down = upload.linear(&layer.down)?;
            let output_norm = upload.norm(&layer.output_norm)?;

            steps.push(matmul(&qkv, None, &x, None, &wide)?);
            steps.push(
                Attention { heads: config.heads, head_dim: config.head_dim() }
                    .step(gpu, &attention::Buffers { batch: &inputs.header, offsets: &inputs.offsets, qkv: &wide, context: &context })?,
            );
            steps.push(matmul(&output, None, &context, Some(&x), &sum)?);
            steps.push(norm.step(gpu, &layer_norm::Buffers { x: &sum, norm: attention_norm.each_ref(), y: &x })?);
            steps.push(matmul(&up, Some(config.activation), &x, None, &wide)?);
            steps.push(matmul(&down, None, &wide, Some(&x), &sum)?);
            steps.push(norm.step(gpu, &layer_norm::Buffers { x: &sum, norm: output_norm.each_ref(), y: &x })?);
        }
        gpu.flush()?;
        Ok(Self { steps, uploaded: upload.uploaded, hidden: x })
    }
}
