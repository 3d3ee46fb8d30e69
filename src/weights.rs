//! Weights in the layout that the kernels read: transposed, fused, padded with zeros. They go from the file to the GPU one
//! matrix at a time.

use crate::checkpoint::weights::{RELATIVE_RANGE, relative_bucket};
use crate::checkpoint::{self, EncoderConfig, EncoderWeights, LayerWeights, Tensor};
use crate::error::Result;
use crate::gpu::{Arena, Gpu};
use crate::kernels::embedding::{Part, part_uniform};
use crate::kernels::padded;

/// Rows of a tensor that are converted at a time.
const ROWS_AT_ONCE: usize = 64;

/// A matrix product's parameters on the GPU.
pub struct Linear {
    pub inner: usize,
    pub outer: usize,
    /// `[inner, outer]`, both padded
    pub weight: wgpu::Buffer,
    /// `[outer]`, padded
    pub bias: wgpu::Buffer,
}

/// The embedding tables on the GPU, rows padded.
pub struct Tables {
    /// The vocabulary, in as many parts as the adapter's largest binding asks for.
    pub parts: Vec<Part>,
    pub position: wgpu::Buffer,
    pub token_type: wgpu::Buffer,
    pub norm: [wgpu::Buffer; 2],
}

/// Makes the buffers and fills them.
pub struct Upload<'a, 'g> {
    gpu: &'a Gpu,
    arena: &'a mut Arena<'g>,
    config: &'a EncoderConfig,
    /// Bytes so far.
    pub uploaded: u64,
    /// Those that the GPU may not have yet.
    under_way: u64,
}

impl<'a, 'g> Upload<'a, 'g> {
    pub fn new(gpu: &'a Gpu, arena: &'a mut Arena<'g>, config: &'a EncoderConfig) -> Self {
        Self { gpu, arena, config, uploaded: 0, under_way: 0 }
    }

    pub fn embeddings(&mut self, tensors: &EncoderWeights) -> Result<Tables> {
        let parts = self.parts(&tensors.word)?;
        // Where there are languages, the last type is none of them.
        let more = usize::from(tensors.token_type.is_none() || self.config.languages.is_some());
        let token_type = self.rows_and_zeros("token types", tensors.token_type.as_ref(), more)?;
        let position = self.table(&tensors.position, 0, tensors.position.rows())?;
        Ok(Tables { parts, position, token_type, norm: self.norm(&tensors.embedding_norm)? })
    }

    /// A table with a row for each word, in as many parts as the adapter's largest binding asks for.
    pub fn parts(&mut self, word: &Tensor) -> Result<Vec<Part>> {
        let row_bytes = padded(word.columns()) as u64 * 4;
        let rows_per_part = ((self.gpu.max_binding() / row_bytes) as usize).max(1);
        let mut parts = Vec::new();
        for first in (0..word.rows()).step_by(rows_per_part) {
            let rows = rows_per_part.min(word.rows() - first);
            let range = self.arena.uniform("vocabulary part", size_of_val(&part_uniform(first, rows)))?;
            self.gpu.queue().write_buffer(&range, 0, bytemuck::cast_slice(&part_uniform(first, rows)));
            self.uploaded += size_of_val(&part_uniform(first, rows)) as u64;
            parts.push(Part { range, word: self.table(word, first, rows)?, rows });
        }
        Ok(parts)
    }

    /// Query, key and value as one matrix, `[hidden, 3, heads, head_dim]`.
    pub fn qkv(&mut self, layer: &LayerWeights) -> Result<Linear> {
        let context = self.config.heads * padded(self.config.head_dim());
        let mut packed = Packed::new(self.config.hidden, 3 * context);
        for (part, linear) in [&layer.query, &layer.key, &layer.value].into_iter().enumerate() {
            packed.put(linear, |outer| part * context + self.head_column(outer), |inner| inner)?;
        }
        self.packed(packed)
    }

    /// The projection after attention: its inner dimension is that of the padded heads.
    pub fn attention_output(&mut self, linear: &checkpoint::Linear) -> Result<Linear> {
        let mut packed = Packed::new(self.config.heads * padded(self.config.head_dim()), self.config.hidden);
        packed.put(linear, |outer| outer, |inner| self.head_column(inner))?;
        self.packed(packed)
    }

    pub fn linear(&mut self, linear: &checkpoint::Linear) -> Result<Linear> {
        let mut packed = Packed::new(linear.weight.columns(), linear.weight.rows());
        packed.put(linear, |outer| outer, |inner| inner)?;
        self.packed(packed)
    }

    /// A matrix without a bias.
    pub fn linear_without_bias(&mut self, weight: &Tensor) -> Result<Linear> {
        let mut packed = Packed::new(weight.columns(), weight.rows());
        packed.put_weight(weight, |outer| outer, |inner| inner)?;
        self.packed(packed)
    }

    /// A vector as it is, such as a bias.
    pub fn vector(&mut self, tensor: &Tensor) -> Result<wgpu::Buffer> {
        self.table(tensor, 0, 1)
    }

    /// The table of a relative attention bias by distance, `[heads, 2 * RELATIVE_RANGE + 1]`, from `[buckets, heads]`.
    pub fn relative_bias(&mut self, tensor: &Tensor) -> Result<wgpu::Buffer> {
        let (weight, heads) = (tensor.values()?, tensor.columns());
        let range = RELATIVE_RANGE as isize;
        let by_distance = |head: usize| (-range..=range).map(move |distance| (head, relative_bucket(distance, tensor.rows())));
        let values: Vec<f32> = (0..heads).flat_map(by_distance).map(|(head, bucket)| weight[bucket * heads + head]).collect();
        self.values("relative bias", &values)
    }

    pub fn norm(&mut self, norm: &checkpoint::Norm) -> Result<[wgpu::Buffer; 2]> {
        Ok([self.table(&norm.weight, 0, 1)?, self.table(&norm.bias, 0, 1)?])
    }

    /// Where a column of `[heads, head_dim]` is when every head is padded.
    fn head_column(&self, column: usize) -> usize {
        let head_dim = self.config.head_dim();
        column / head_dim * padded(head_dim) + column % head_dim
    }

    /// `rows` rows of a tensor as they are, each padded.
    fn table(&mut self, tensor: &Tensor, first: usize, rows: usize) -> Result<wgpu::Buffer> {
        let (columns, row) = (tensor.columns(), padded(tensor.columns()));
        let buffer = self.arena.storage(tensor.name, rows * row)?;
        self.uploaded += self.gpu.upload(&buffer, rows, row, &mut self.under_way, |at, values| {
            if columns == row {
                return tensor.read_rows(first + at, values);
            }
            for (i, values) in values.chunks_exact_mut(row).enumerate() {
                tensor.read_row(first + at + i, &mut values[..columns])?; // what is beyond was made zero and stays so
            }
            Ok(())
        })?;
        Ok(buffer)
    }

    /// All rows of a tensor, if there is one, and some of zeros behind them.
    fn rows_and_zeros(&mut self, label: &str, tensor: Option<&Tensor>, zeros: usize) -> Result<wgpu::Buffer> {
        let (columns, row) = (self.config.embedding, padded(self.config.embedding));
        let mut values = vec![0.0; (tensor.map_or(0, Tensor::rows) + zeros) * row];
        if let Some(tensor) = tensor {
            for (i, values) in values.chunks_exact_mut(row).take(tensor.rows()).enumerate() {
                tensor.read_row(i, &mut values[..columns])?;
            }
        }
        self.values(label, &values)
    }

    fn packed(&mut self, packed: Packed) -> Result<Linear> {
        let Packed { inner, outer, weight, bias } = packed;
        Ok(Linear { inner, outer, weight: self.values("weight", &weight)?, bias: self.values("bias", &bias)? })
    }

    fn values(&mut self, label: &str, values: &[f32]) -> Result<wgpu::Buffer> {
        let buffer = self.arena.storage(label, values.len())?;
        self.uploaded += self.gpu.upload(&buffer, values.len(), 1, &mut self.under_way, |at, chunk| {
            chunk.copy_from_slice(&values[at..at + chunk.len()]);
            Ok(())
        })?;
        Ok(buffer)
    }
}

/// One matrix, transposed and padded, on its way.
struct Packed {
    inner: usize,
    outer: usize,
    /// `[padded inner, padded outer]`
    weight: Vec<f32>,
    /// `[padded outer]`
    bias: Vec<f32>,
}

impl Packed {
    fn new(inner: usize, outer: usize) -> Self {
        Self { inner, outer, weight: vec![0.0; padded(inner) * padded(outer)], bias: vec![0.0; padded(outer)] }
    }

    /// Places torch's `[outer, inner]` matrix and its bias: where a row goes by `to_outer`, where a column goes by `to_inner`.
    fn put(&mut self, linear: &checkpoint::Linear, to_outer: impl Fn(usize) -> usize, to_inner: impl Fn(usize) -> usize) -> Result<()> {
        self.put_weight(&linear.weight, &to_outer, to_inner)?;
        let mut bias = vec![0.0; linear.weight.rows()];
        linear.bias.read_row(0, &mut bias)?;
        for (outer, value) in bias.into_iter().enumerate() {
            self.bias[to_outer(outer)] = value;
        }
        Ok(())
    }

    fn put_weight(&mut self, weight: &Tensor, to_outer: impl Fn(usize) -> usize, to_inner: impl Fn(usize) -> usize) -> Result<()> {
        let (rows, columns) = (weight.rows(), weight.columns());
        let width = padded(self.outer);
        let mut values = vec![0.0; ROWS_AT_ONCE * columns];
        for first in (0..rows).step_by(ROWS_AT_ONCE) {
            let count = ROWS_AT_ONCE.min(rows - first);
            weight.read_rows(first, &mut values[..count * columns])?;
            for inner in 0..columns {
                let row = &mut self.weight[to_inner(inner) * width..][..width];
                for i in 0..count {
                    row[to_outer(first + i)] = values[i * columns + inner];
                }
            }
        }
        Ok(())
    }
}
