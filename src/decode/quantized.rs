//! Embeddings in fewer bits or fewer dimensions, to the same values as `quantize_embeddings` and `truncate_embeddings` of
//! sentence-transformers.

use crate::error::{Error, Result};

/// What becomes of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Its place between the least and the largest value of its dimension, from -128 to 127.
    Int8,
    /// Its place between the least and the largest value of its dimension, from 0 to 255.
    Uint8,
    /// A bit, set above zero, eight to a byte from the highest bit down, the last byte filled up with zeros; bytes less 128.
    Binary,
    /// The same bits, in unsigned bytes.
    Ubinary,
}

/// The least and the largest value of each dimension, `[dimension]` each.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranges {
    pub min: Vec<f32>,
    pub max: Vec<f32>,
}

impl Ranges {
    /// The ranges of some rows, `[texts, dimension]`. Take many texts, and keep the ranges for all that will be compared.
    ///
    /// # Errors
    /// [`Error::Input`] for fewer than two rows, which span no range, rows of different lengths or of none, and values that are not finite.
    pub fn of<R: AsRef<[f32]>>(rows: impl IntoIterator<Item = R>) -> Result<Self> {
        let rows: Vec<R> = rows.into_iter().collect();
        check_rows(&rows)?;
        if rows.len() < 2 {
            return Err(Error::input("one row spans no ranges: give more rows, or ranges made of many"));
        }
        let (mut min, mut max) = (rows[0].as_ref().to_vec(), rows[0].as_ref().to_vec());
        for row in &rows[1..] {
            for (i, &value) in row.as_ref().iter().enumerate() {
                (min[i], max[i]) = (min[i].min(value), max[i].max(value));
            }
        }
        Ok(Self { min, max })
    }

    fn check(&self, dimension: usize) -> Result<()> {
        let (min, max) = (self.min.len(), self.max.len());
        if min != dimension || max != dimension {
            let problem = format!("the ranges have {min} least and {max} largest values, expected {dimension} as the rows have");
            return Err(Error::input(problem + ": make them of rows of the same model"));
        }
        let pairs = self.min.iter().zip(&self.max);
        let wrong = |(_, (min, max)): &(usize, (&f32, &f32))| !(min.is_finite() && max.is_finite() && min <= max);
        match pairs.enumerate().find(wrong) {
            None => Ok(()),
            Some((i, (min, max))) => Err(Error::input(format!(
                "dimension {i} of the ranges: expected a least and a largest finite value, found {min} and {max}: make them with `Ranges::of`"
            ))),
        }
    }
}

/// Rows of bytes, `[texts, columns]`, row after row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantizedEmbeddings {
    bytes: Vec<u8>,
    columns: usize,
    precision: Precision,
}

impl QuantizedEmbeddings {
    /// Bytes of a row: the dimension, or an eighth of it, rounded up.
    pub fn columns(&self) -> usize {
        self.columns
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// One row for each text; values of [`Precision::Int8`] and [`Precision::Binary`] in two's complement.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.bytes.chunks_exact(self.columns)
    }

    /// All bytes, row after row.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All values of [`Precision::Int8`] and [`Precision::Binary`], row after row; `None` for those that have no sign.
    pub fn as_signed(&self) -> Option<&[i8]> {
        matches!(self.precision, Precision::Int8 | Precision::Binary).then(|| bytemuck::cast_slice(&self.bytes))
    }

    /// All bytes, row after row.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Rows `[texts, dimension]` in fewer bits.
///
/// Eight-bit values are `floor((value - min) / step)` with `step = (max - min) / 255`, or 1 where that is 0, held to 0 and 255, in f32.
/// `ranges` are those of the rows themselves if not given; rows that are to be compared need the same ones. Binary ones need none.
///
/// # Errors
/// [`Error::Input`] for no rows, rows of different lengths or of none, values that are not finite, ranges that do not fit the rows, and a
/// single row without ranges.
pub fn quantize<R: AsRef<[f32]>>(
    rows: impl IntoIterator<Item = R>,
    precision: Precision,
    ranges: Option<&Ranges>,
) -> Result<QuantizedEmbeddings> {
    let rows: Vec<R> = rows.into_iter().collect();
    let dimension = check_rows(&rows)?;
    let values = rows.iter().map(AsRef::as_ref);
    let (columns, flipped) = match precision {
        Precision::Int8 => (dimension, 0x80),
        Precision::Uint8 => (dimension, 0),
        Precision::Binary => (dimension.div_ceil(8), 0x80),
        Precision::Ubinary => (dimension.div_ceil(8), 0),
    };
    let mut bytes = Vec::with_capacity(rows.len() * columns);
    match precision {
        Precision::Int8 | Precision::Uint8 => {
            let own;
            let ranges = match ranges {
                Some(ranges) => ranges,
                None => {
                    own = Ranges::of(&rows)?;
                    &own
                }
            };
            ranges.check(dimension)?;
            let steps: Vec<f32> = ranges.min.iter().zip(&ranges.max).map(|(min, max)| step(*min, *max)).collect();
            for row in values {
                let places = row.iter().zip(&ranges.min).zip(&steps).map(|((value, min), step)| ((value - min) / step).floor());
                // The conversion holds a number to 0 and 255.
                bytes.extend(places.map(|place| place as u8));
            }
        }
        Precision::Binary | Precision::Ubinary => {
            let pack = |bits: &[f32]| (0..8).fold(0, |byte, i| byte << 1 | u8::from(bits.get(i).is_some_and(|&value| value > 0.0)));
            bytes.extend(values.flat_map(|row| row.chunks(8)).map(pack));
        }
    }
    // Less 128, in two's complement.
    bytes.iter_mut().for_each(|byte| *byte ^= flipped);
    Ok(QuantizedEmbeddings { bytes, columns, precision })
}

fn step(min: f32, max: f32) -> f32 {
    let step = (max - min) / 255.0;
    if step == 0.0 { 1.0 } else { step }
}

/// The values of a row, which all rows have.
fn check_rows<R: AsRef<[f32]>>(rows: &[R]) -> Result<usize> {
    let Some(first) = rows.first() else { return Err(Error::input("there are no rows: give at least one")) };
    let dimension = first.as_ref().len();
    if dimension == 0 {
        return Err(Error::input("row 0 has no values: give rows of embeddings"));
    }
    for (index, row) in rows.iter().map(AsRef::as_ref).enumerate() {
        if row.len() != dimension {
            let problem = format!("row {index} has {} values, expected {dimension} as row 0 has", row.len());
            return Err(Error::input(problem + ": give rows of the same model"));
        }
        if let Some(value) = row.iter().find(|value| !value.is_finite()) {
            return Err(Error::input(format!("row {index}: expected finite values, found {value}: check the model's weights")));
        }
    }
    Ok(dimension)
}
