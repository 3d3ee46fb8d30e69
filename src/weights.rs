//! Weights in the layout that the kernels read: transposed, fused, padded with zeros. They go from the file to the GPU one
//! matrix at a time.

use crate::checkpoint::weights::{RELATIVE_RANGE, relative_bucket};
use crate::checkpoint::{self, EncoderConfig, EncoderWeights, LayerWeights, Tensor};
use crate::delivery::Delivery;
use crate::error::{Error, Result};
use crate::gpu::{Arena, Gpu, Slice};
use crate::kernels::embedding::{Part, part_uniform};
use crate::kernels::{Arithmetic, Operands, WeightFormat, padded};

/// Rows of a tensor that are converted at a time.
const ROWS_AT_ONCE: usize = 64;

/// A matrix product's parameters on the GPU.
pub struct Linear {
    pub inner: usize,
    pub outer: usize,
    pub operands: Operands,
    /// `[inner, outer]`, both padded
    pub weight: Slice,
    /// `[inner / GROUP, outer]`, where the format has scales
    pub scale: Option<Slice>,
    /// `[outer]`, padded
    pub bias: Slice,
}

/// The embedding tables on the GPU, rows padded.
pub struct Tables {
    /// The vocabulary, in as many parts as the adapter's largest binding asks for.
    pub parts: Vec<Part>,
    pub position: Slice,
    pub token_type: Slice,
    pub norm: [Slice; 2],
}

/// Makes the buffers and fills them.
pub struct Upload<'a, 'g> {
    gpu: &'a Gpu,
    arena: &'a mut Arena<'g>,
    config: &'a EncoderConfig,
    /// Of the encoder's products, and in its format of the words; everything else is small, and stays exact.
    operands: Operands,
    pub delivery: Delivery<'a>,
}

impl<'a, 'g> Upload<'a, 'g> {
    pub fn new(gpu: &'a Gpu, arena: &'a mut Arena<'g>, config: &'a EncoderConfig, operands: Operands) -> Self {
        Self { gpu, arena, config, operands, delivery: Delivery::new(gpu) }
    }

    /// How the table of words is kept.
    pub fn format(&self) -> WeightFormat {
        self.operands.weights
    }

    /// What matrix products compute with.
    pub fn arithmetic(&self) -> Arithmetic {
        self.operands.arithmetic
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
        let row_bytes = self.format().row_words(word.columns()) as u64 * 4;
        let rows_per_part = ((self.gpu.max_binding() / row_bytes) as usize).max(1);
        let mut parts = Vec::new();
        for first in (0..word.rows()).step_by(rows_per_part) {
            let rows = rows_per_part.min(word.rows() - first);
            let range = self.arena.uniform("vocabulary part", size_of_val(&part_uniform(first, rows)))?;
            if !self.arena.is_planning() {
                self.gpu.write(&range, bytemuck::cast_slice(&part_uniform(first, rows)));
            }
            self.delivery.bytes += size_of_val(&part_uniform(first, rows)) as u64;
            parts.push(Part { range, word: self.rows_of(word, first, rows, self.format())?, rows });
        }
        Ok(parts)
    }

    /// Query, key and value as one matrix, `[hidden, 3, heads, head_dim]`.
    pub fn qkv(&mut self, layer: &LayerWeights) -> Result<Linear> {
        let (config, context) = (self.config, self.config.heads * padded(self.config.head_dim()));
        self.matrix(layer.query.weight.name, self.operands, config.hidden, 3 * context, |packed| {
            for (part, linear) in [&layer.query, &layer.key, &layer.value].into_iter().enumerate() {
                packed.put(linear, |outer| part * context + head_column(config, outer), |inner| inner)?;
            }
            Ok(())
        })
    }

    /// The projection after attention: its inner dimension is that of the padded heads.
    pub fn attention_output(&mut self, linear: &checkpoint::Linear) -> Result<Linear> {
        let config = self.config;
        let context = config.heads * padded(config.head_dim());
        let put = |packed: &mut Packed| packed.put(linear, |outer| outer, |inner| head_column(config, inner));
        self.matrix(linear.weight.name, self.operands, context, config.hidden, put)
    }

    /// Another matrix of the encoder.
    pub fn linear(&mut self, linear: &checkpoint::Linear) -> Result<Linear> {
        self.linear_as(linear, self.operands)
    }

    /// A matrix of a head, always in f32.
    pub fn head_linear(&mut self, linear: &checkpoint::Linear) -> Result<Linear> {
        self.linear_as(linear, Operands::default())
    }

    fn linear_as(&mut self, linear: &checkpoint::Linear, operands: Operands) -> Result<Linear> {
        let (inner, outer) = (linear.weight.columns(), linear.weight.rows());
        self.matrix(linear.weight.name, operands, inner, outer, |packed| packed.put(linear, |outer| outer, |inner| inner))
    }

    /// A matrix of a head without a bias.
    pub fn head_linear_without_bias(&mut self, weight: &Tensor) -> Result<Linear> {
        let (inner, outer) = (weight.columns(), weight.rows());
        self.matrix(weight.name, Operands::default(), inner, outer, |packed| packed.put_weight(weight, |outer| outer, |inner| inner))
    }

    /// A vector as it is, such as a bias.
    pub fn vector(&mut self, tensor: &Tensor) -> Result<Slice> {
        self.table(tensor, 0, 1)
    }

    /// The table of a relative attention bias by distance, `[heads, 2 * RELATIVE_RANGE + 1]`, from `[buckets, heads]`.
    pub fn relative_bias(&mut self, tensor: &Tensor) -> Result<Slice> {
        let (weight, heads) = (tensor.values()?, tensor.columns());
        let range = RELATIVE_RANGE as isize;
        let by_distance = |head: usize| (-range..=range).map(move |distance| (head, relative_bucket(distance, tensor.rows())));
        let values: Vec<f32> = (0..heads).flat_map(by_distance).map(|(head, bucket)| weight[bucket * heads + head]).collect();
        self.values("relative bias", &values)
    }

    pub fn norm(&mut self, norm: &checkpoint::Norm) -> Result<[Slice; 2]> {
        Ok([self.table(&norm.weight, 0, 1)?, self.table(&norm.bias, 0, 1)?])
    }

    /// `rows` rows of a tensor as they are, each padded.
    fn table(&mut self, tensor: &Tensor, first: usize, rows: usize) -> Result<Slice> {
        self.rows_of(tensor, first, rows, WeightFormat::F32)
    }

    fn rows_of(&mut self, tensor: &Tensor, first: usize, rows: usize, format: WeightFormat) -> Result<Slice> {
        let (columns, words) = (tensor.columns(), format.row_words(tensor.columns()));
        let buffer = self.arena.constant(tensor.name, rows * words)?;
        if self.arena.is_planning() {
            return Ok(buffer);
        }
        let mut row = vec![0.0; padded(columns)]; // what is beyond the columns stays zero
        let mut values = Vec::new();
        self.delivery.send(tensor.name, &buffer, [rows, words], |at, chunk| {
            values.resize(chunk.len() / words * columns, 0.0);
            tensor.read_rows(first + at, &mut values)?;
            check_fits(tensor, format, &values)?;
            for (words, values) in chunk.chunks_exact_mut(words).zip(values.chunks_exact(columns)) {
                row[..columns].copy_from_slice(values);
                format.store_row(&row, words);
            }
            Ok(())
        })?;
        Ok(buffer)
    }

    /// All rows of a tensor, if there is one, and some of zeros behind them.
    fn rows_and_zeros(&mut self, label: &str, tensor: Option<&Tensor>, zeros: usize) -> Result<Slice> {
        let (columns, row) = (self.config.embedding, padded(self.config.embedding));
        let mut values = vec![0.0; (tensor.map_or(0, Tensor::rows) + zeros) * row];
        if let Some(tensor) = tensor {
            for (i, values) in values.chunks_exact_mut(row).take(tensor.rows()).enumerate() {
                tensor.read_row(i, &mut values[..columns])?;
            }
        }
        self.values(label, &values)
    }

    /// The buffers of a matrix, named after one of its tensors, and in them what `put` places.
    fn matrix(
        &mut self,
        name: &str,
        operands: Operands,
        inner: usize,
        outer: usize,
        put: impl FnOnce(&mut Packed) -> Result<()>,
    ) -> Result<Linear> {
        let format = operands.weights;
        let (rows, width, words) = (padded(inner), padded(outer), format.words(outer));
        let buffer = self.arena.constant(name, rows * words)?;
        let mut packed = Packed { format, outer, weight: Vec::new(), bias: vec![0.0; width] };
        let mut scales = vec![0.0; if format.is_scaled() { rows.div_ceil(WeightFormat::GROUP) * width } else { 0 }];
        if !self.arena.is_planning() {
            packed.weight = vec![0.0; rows * width];
            put(&mut packed)?;
            let inverse = packed.scales(&mut scales);
            let unscaled = vec![1.0; width];
            self.delivery.send(name, &buffer, [rows / 4, 4 * words], |first, chunk| {
                let fours = packed.weight.chunks_exact(4 * width).enumerate().skip(first);
                for (words, (four, values)) in chunk.chunks_exact_mut(4 * words).zip(fours) {
                    let group = 4 * four / WeightFormat::GROUP * width;
                    format.pack_rows(values, inverse.get(group..group + width).unwrap_or(&unscaled), words);
                }
                Ok(())
            })?;
        }
        let scale = if format.is_scaled() { Some(self.values(&format!("scales of {name}"), &scales)?) } else { None };
        let bias = self.values(&format!("bias of {name}"), &packed.bias)?;
        Ok(Linear { inner, outer, operands, weight: buffer, scale, bias })
    }

    fn values(&mut self, label: &str, values: &[f32]) -> Result<Slice> {
        let buffer = self.arena.constant(label, values.len())?;
        if self.arena.is_planning() {
            return Ok(buffer);
        }
        self.delivery.send(label, &buffer, [values.len(), 1], |at, chunk| {
            chunk.copy_from_slice(bytemuck::cast_slice(&values[at..at + chunk.len()]));
            Ok(())
        })?;
        Ok(buffer)
    }
}

/// # Errors
/// [`Error::Tensor`] when a number becomes infinite in this format.
fn check_fits(tensor: &Tensor, format: WeightFormat, values: &[f32]) -> Result<()> {
    const MOST: f32 = 65504.0;
    match values.iter().find(|value| value.abs() > MOST) {
        Some(value) if format == WeightFormat::F16 => {
            let problem = format!("holds {value}, but f16 ends at {MOST}: load the model with weights in f32 or int8");
            Err(Error::tensor(tensor.file, tensor.name, problem))
        }
        _ => Ok(()),
    }
}

/// Where a column of `[heads, head_dim]` is when every head is padded.
fn head_column(config: &EncoderConfig, column: usize) -> usize {
    let head_dim = config.head_dim();
    column / head_dim * padded(head_dim) + column % head_dim
}

/// One matrix, transposed and padded, on its way.
struct Packed {
    format: WeightFormat,
    outer: usize,
    /// `[padded inner, padded outer]`
    weight: Vec<f32>,
    /// `[padded outer]`
    bias: Vec<f32>,
}

impl Packed {
    /// Fills in the scales of all groups, if there are any, and returns what they are divided by.
    fn scales(&self, scales: &mut [f32]) -> Vec<f32> {
        let width = padded(self.outer);
        let mut inverse = Vec::with_capacity(scales.len());
        for (scales, group) in scales.chunks_exact_mut(width).zip(self.weight.chunks(WeightFormat::GROUP * width)) {
            for row in group.chunks_exact(width) {
                scales.iter_mut().zip(row).for_each(|(most, value)| *most = most.max(value.abs()));
            }
            for scale in scales {
                let (scaled, inverse_scale) = WeightFormat::scale(*scale);
                *scale = scaled;
                inverse.push(inverse_scale);
            }
        }
        inverse
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
            check_fits(weight, self.format, &values[..count * columns])?;
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
