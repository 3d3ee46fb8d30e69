//! How weights are stored on the GPU, and what matrix products compute with.

use std::fmt;

use half::f16;
use serde::{Deserialize, Serialize};

use super::padded;
use crate::error::{Error, Result};
use crate::gpu::Gpu;

/// The format of matrices and of the table of word embeddings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightFormat {
    /// Four bytes a number: as exact as the file.
    #[default]
    F32,
    /// Two bytes a number: half the memory.
    F16,
    /// One byte a number, with a scale for each word and for each [`WeightFormat::GROUP`] of a matrix: about a quarter of the memory.
    Int8,
}

impl WeightFormat {
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Int8];

    /// Inputs of an output of a matrix that share a scale. With one scale for all inputs, all-MiniLM-L6-v2 falls below a cosine of 0.997 to
    /// its f16 weights on some texts; with this it stays above 0.9993.
    pub const GROUP: usize = 64;

    /// Whether numbers count times a scale.
    pub fn is_scaled(self) -> bool {
        self == Self::Int8
    }

    /// Bytes of so many numbers.
    pub fn bytes(self, numbers: usize) -> usize {
        match self {
            Self::F32 => 4 * numbers,
            Self::F16 => 2 * numbers,
            Self::Int8 => numbers,
        }
    }

    /// Words of four bytes that a row of so many numbers takes, [padded].
    pub fn words(self, columns: usize) -> usize {
        self.bytes(padded(columns)) / 4
    }

    /// The type of a stored group of four, and the function that makes four f32 of it.
    pub(super) fn wgsl(self) -> &'static str {
        match self {
            Self::F32 => include_str!("../../shaders/lib/weight_f32.wgsl"),
            Self::F16 => include_str!("../../shaders/lib/weight_f16.wgsl"),
            Self::Int8 => include_str!("../../shaders/lib/weight_int8.wgsl"),
        }
    }

    /// As [`WeightFormat::words`], of a row that stands behind its own scale, where there are scales.
    pub fn row_words(self, columns: usize) -> usize {
        self.words(columns) + usize::from(self.is_scaled())
    }

    /// Stores a row, [padded], behind its own scale where there are scales; returns the scale and what it is divided by.
    pub fn store_row(self, row: &[f32], words: &mut [u32]) -> (f32, f32) {
        if !self.is_scaled() {
            self.pack(row, |_| 1.0, words);
            return (1.0, 1.0);
        }
        let (scale, inverse) = Self::scale(row.iter().fold(0.0, |most: f32, value| most.max(value.abs())));
        words[0] = scale.to_bits();
        self.pack(row, |_| inverse, &mut words[1..]);
        (scale, inverse)
    }

    /// Rows of `columns` numbers as [`WeightFormat::store_row`] leaves them, and the numbers that they then stand for.
    pub fn store_rows(self, values: &[f32], columns: usize) -> (Vec<u32>, Vec<f64>) {
        let mut stored = vec![0; values.len() / columns * self.row_words(columns)];
        let mut meant = Vec::with_capacity(values.len());
        let mut padded_row = vec![0.0; padded(columns)];
        for (words, row) in stored.chunks_exact_mut(self.row_words(columns)).zip(values.chunks_exact(columns)) {
            padded_row[..columns].copy_from_slice(row);
            let (scale, inverse) = self.store_row(&padded_row, words);
            meant.extend(row.iter().map(|value| self.meant(*value, inverse, scale)));
        }
        (stored, meant)
    }

    /// Stores four rows of a matrix, each [padded], in the words of four rows; `inverse_scale` holds what each column is multiplied with
    /// before it is rounded to eight bits. In eight bits a word holds four rows of one column, as `dot4I8Packed` takes them; the other
    /// formats keep row after row.
    pub fn pack_rows(self, rows: &[f32], inverse_scale: &[f32], words: &mut [u32]) {
        if self != Self::Int8 {
            self.pack(rows, |_| 1.0, words);
            return;
        }
        let width = rows.len() / 4;
        for (column, word) in words.iter_mut().enumerate() {
            let four = [0, 1, 2, 3].map(|row| rows[row * width + column]);
            self.pack(&four, |_| inverse_scale[column], std::slice::from_mut(word));
        }
    }

    /// Stores `values`, whole groups of four, in `words`; `inverse_scale(i)` is what the value at `i` is multiplied with before it is
    /// rounded to eight bits.
    pub fn pack(self, values: &[f32], inverse_scale: impl Fn(usize) -> f32, words: &mut [u32]) {
        match self {
            Self::F32 => words.copy_from_slice(bytemuck::cast_slice(values)),
            Self::F16 => {
                for (word, pair) in words.iter_mut().zip(values.chunks_exact(2)) {
                    let [low, high] = [pair[0], pair[1]].map(|value| u32::from(f16::from_f32(value).to_bits()));
                    *word = low | high << 16;
                }
            }
            Self::Int8 => {
                for (at, (word, four)) in words.iter_mut().zip(values.chunks_exact(4)).enumerate() {
                    let byte = |i: usize| (four[i] * inverse_scale(4 * at + i)).round_ties_even().clamp(-127.0, 127.0) as i8;
                    *word = u32::from_le_bytes([0, 1, 2, 3].map(|i| byte(i) as u8));
                }
            }
        }
    }

    /// What a number is after it was stored: multiplied with `inverse_scale`, rounded, and counted times `scale`, where there are scales.
    pub fn meant(self, value: f32, inverse_scale: f32, scale: f32) -> f64 {
        match self {
            Self::F32 => f64::from(value),
            Self::F16 => f16::from_f32(value).to_f64(),
            Self::Int8 => f64::from((value * inverse_scale).round_ties_even().clamp(-127.0, 127.0)) * f64::from(scale),
        }
    }

    /// The scale of numbers of which `largest` is the largest magnitude, and what it is divided by: all zeros have the scale zero.
    pub fn scale(largest: f32) -> (f32, f32) {
        if largest > 0.0 { (largest / 127.0, 127.0 / largest) } else { (0.0, 0.0) }
    }
}

/// What the encoder's matrix products multiply with. Sums over more than [`WeightFormat::GROUP`] products are f32 in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arithmetic {
    /// f32 activations, and weights in any format.
    #[default]
    F32,
    /// Activations that are rounded to f16 before each product, weights in f16: what GPUs have matrix units for. Attention may round what it
    /// multiplies too.
    F16,
    /// Weights in eight bits, activations in two bytes with a scale for each [`WeightFormat::GROUP`] of a row: products and sums within a group
    /// are whole numbers, and exact.
    Int8,
}

impl Arithmetic {
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Int8];

    /// The one format of weights that it takes, or any.
    pub fn weights(self) -> Option<WeightFormat> {
        match self {
            Self::F32 => None,
            Self::F16 => Some(WeightFormat::F16),
            Self::Int8 => Some(WeightFormat::Int8),
        }
    }
}

/// What a matrix product is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Operands {
    pub weights: WeightFormat,
    pub arithmetic: Arithmetic,
}

impl Operands {
    /// Of options: weights are kept in the format that the arithmetic takes where nothing is said.
    ///
    /// # Errors
    /// [`Error::Input`] where the two contradict one another, or the device cannot do it.
    pub fn new(gpu: &Gpu, weights: Option<WeightFormat>, arithmetic: Arithmetic) -> Result<Self> {
        if let (Some(given), Some(needed)) = (weights, arithmetic.weights())
            && given != needed
        {
            return Err(Error::input(format!(
                "arithmetic in {arithmetic} takes weights in {needed}, but they were asked for in {given}: leave one of the two out"
            )));
        }
        if arithmetic == Arithmetic::F16 && gpu.computes() && !gpu.device().features().contains(wgpu::Features::SHADER_F16) {
            return Err(Error::input(format!(
                "`{}` has no arithmetic in f16, or the device was made without `SHADER_F16`: compute in f32, with weights in f16 to halve \
                 their memory, or in int8",
                gpu.info().name
            )));
        }
        Ok(Self { weights: arithmetic.weights().or(weights).unwrap_or_default(), arithmetic })
    }

    pub const ALL: [Self; 5] = {
        const fn of(weights: WeightFormat, arithmetic: Arithmetic) -> Operands {
            Operands { weights, arithmetic }
        }
        [
            of(WeightFormat::F32, Arithmetic::F32),
            of(WeightFormat::F16, Arithmetic::F32),
            of(WeightFormat::Int8, Arithmetic::F32),
            of(WeightFormat::F16, Arithmetic::F16),
            of(WeightFormat::Int8, Arithmetic::Int8),
        ]
    };
}

impl fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        })
    }
}

impl fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        })
    }
}

/// f32 arithmetic.
impl From<WeightFormat> for Operands {
    fn from(weights: WeightFormat) -> Self {
        Self { weights, arithmetic: Arithmetic::F32 }
    }
}

impl fmt::Display for Operands {
    /// `f16 weights`, `int8 x int8`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.arithmetic {
            Arithmetic::F32 => write!(f, "{} weights", self.weights),
            Arithmetic::F16 => write!(f, "f16 x f16"),
            Arithmetic::Int8 => write!(f, "int8 x int8"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_four_numbers_as_the_shaders_unpack_them() {
        let values = [1.0, -2.0, 0.5, 65504.0];
        let mut words = [0; 4];
        WeightFormat::F32.pack(&values, |_| 1.0, &mut words);
        assert_eq!(words.map(f32::from_bits), values);
        let mut words = [0; 2];
        WeightFormat::F16.pack(&values, |_| 1.0, &mut words);
        assert_eq!(words, [0xc000_3c00, 0x7bff_3800]);
        let mut words = [0; 1];
        WeightFormat::Int8.pack(&[127.0, -127.4, 0.5, 1.5], |_| 1.0, &mut words);
        assert_eq!(words[0].to_le_bytes().map(|byte| byte as i8), [127, -127, 0, 2]);
        let (scale, inverse) = WeightFormat::scale(2.0);
        WeightFormat::Int8.pack(&[2.0, -1.0, 0.0, -2.0], |_| inverse, &mut words);
        assert_eq!(words[0].to_le_bytes().map(|byte| f32::from(byte as i8) * scale), [2.0, -64.0 / 127.0 * 2.0, 0.0, -2.0]);
        assert_eq!(WeightFormat::scale(0.0), (0.0, 0.0));
    }
}
