//! Puts a model's pass together: buffers, uploaded weights and steps, in the order in which the encoder and then a head ask for them.

use crate::batch::{Capacity, Header, Offset};
use crate::checkpoint::{Activation, EncoderConfig};
use crate::encoder::widest_row;
use crate::error::Result;
use crate::gpu::{Arena, Count, Gpu, Slice, Step};
use crate::kernels::layer_norm::{self, LayerNorm};
use crate::kernels::matmul::{self, Matmul};
use crate::kernels::quantize::{self, Quantize};
use crate::kernels::{Arithmetic, padded};
use crate::tuning::Chosen;
use crate::weights::{Linear, Upload};

impl Capacity {
    /// Most rows of a kind.
    pub fn rows(&self, rows: Count) -> usize {
        match rows {
            Count::Texts => self.texts,
            Count::Selected => self.selected,
            _ => self.tokens,
        }
    }
}

/// What a batch writes, and nothing else: see [`crate::batch::Batch`].
#[derive(Debug)]
pub struct Inputs {
    pub header: Slice,
    /// `[texts + 1]`
    pub offsets: Slice,
    /// `[tokens]`
    pub ids: Slice,
    /// `[tokens]`
    pub places: Slice,
    /// `[selected]`, where a head reads it
    pub selected: Option<Slice>,
}

impl Inputs {
    pub fn new(arena: &mut Arena, capacity: Capacity) -> Result<Self> {
        Ok(Self {
            header: arena.uniform("batch", size_of::<Header>())?,
            offsets: arena.storage("offsets", (capacity.texts + 1) * size_of::<Offset>() / 4)?,
            ids: arena.storage("ids", capacity.tokens)?,
            places: arena.storage("places", capacity.tokens)?,
            selected: if capacity.selected > 0 { Some(arena.storage("selected", capacity.selected)?) } else { None },
        })
    }
}

/// A pass in the making.
pub struct Assembler<'a, 'g> {
    pub gpu: &'a Gpu,
    pub config: &'a EncoderConfig,
    pub inputs: &'a Inputs,
    pub capacity: Capacity,
    pub tuning: &'a Chosen,
    pub upload: Upload<'a, 'g>,
    pub activations: &'a mut Arena<'g>,
    pub steps: Vec<Step>,
    /// Rows as bytes, where products take them.
    pub quantized: Option<Slice>,
}

impl Assembler<'_, '_> {
    /// A buffer of rows, each [padded].
    pub fn rows(&mut self, label: &str, rows: Count, width: usize) -> Result<Slice> {
        self.activations.storage(label, self.capacity.rows(rows) * padded(width))
    }

    /// `y[rows, outer] = activation(x[rows, inner] * weight + bias) + residual`
    pub fn linear(
        &mut self,
        linear: &Linear,
        activation: Option<Activation>,
        rows: Count,
        [x, y]: [&Slice; 2],
        residual: Option<&Slice>,
    ) -> Result<()> {
        let Linear { inner, outer, operands, weight, scale, bias } = linear;
        let (inner, outer, operands) = (*inner, *outer, *operands);
        let batch = &self.inputs.header;
        let quantized = if operands.arithmetic == Arithmetic::Int8 { Some(self.quantized()?) } else { None };
        if let Some(y) = &quantized {
            self.steps.push(Quantize { inner, rows }.step(self.gpu, &quantize::Buffers { batch, x, y })?);
        }
        let x = quantized.as_ref().unwrap_or(x);
        let kernel = Matmul { inner, outer, operands, activation, residual: residual.is_some(), rows };
        let buffers = matmul::Buffers { batch, x, weight, scale: scale.as_ref(), bias, residual, y };
        self.steps.push(kernel.step(self.gpu, &self.tuning.matmul(&kernel), &buffers)?);
        Ok(())
    }

    /// Room for rows as bytes, of any kind, which each product reads just after they were written.
    fn quantized(&mut self) -> Result<Slice> {
        match &self.quantized {
            Some(buffer) => Ok(buffer.clone()),
            None => {
                let words = self.capacity.tokens * quantize::row_words(widest_row(self.config));
                Ok(self.quantized.insert(self.activations.storage("quantized", words)?).clone())
            }
        }
    }

    /// `y[rows, hidden]` = layer norm of `x[rows, hidden]` with scale and shift `norm`.
    pub fn layer_norm(&mut self, kernel: LayerNorm, norm: &[Slice; 2], [x, y]: [&Slice; 2]) -> Result<()> {
        self.steps.push(kernel.step(
            self.gpu,
            self.tuning.reduction(kernel.hidden),
            &layer_norm::Buffers { x, norm: norm.each_ref(), y },
        )?);
        Ok(())
    }
}
