//! Word, position and token type embeddings added up, with layer norm.

use super::check::{Check, noise, padded_words, places, texts, wide};
use super::{Variant, WeightFormat, padded, reduction};
use crate::error::Result;
use crate::gpu::{Amount, Cost, Count, Form, Gpu, Grid, Slice, Source, Step};
use crate::reference::{self, Tables};

/// `y[tokens, hidden] = layer_norm(word[id] + position[position] + token_type[type])`.
#[derive(Clone, Copy, Debug)]
pub struct Embedding {
    pub hidden: usize,
    pub epsilon: f32,
    /// Of the table of words.
    pub weights: WeightFormat,
}

/// What the kernel reads and writes; rows are [padded].
pub struct Buffers<'a> {
    /// `[tokens]`
    pub ids: &'a Slice,
    /// `[tokens]`, see [`crate::batch::Batch::places`]
    pub places: &'a Slice,
    /// `[positions, hidden]`
    pub position: &'a Slice,
    /// `[types, hidden]`, at least one row
    pub token_type: &'a Slice,
    /// Scale and shift of the layer norm, `[hidden]` each.
    pub norm: [&'a Slice; 2],
    /// `[tokens, hidden]`
    pub y: &'a Slice,
}

/// Rows of the vocabulary that fit in one binding.
pub struct Part {
    /// `[first id, rows]`, see [`part_uniform`].
    pub range: Slice,
    /// `[rows, hidden]`, each row as [`WeightFormat::store_row`] leaves it
    pub word: Slice,
    pub rows: usize,
}

/// The uniform of a part.
pub fn part_uniform(first: usize, rows: usize) -> [u32; 4] {
    [first as u32, rows as u32, 0, 0]
}

impl Embedding {
    pub fn source(&self, variant: Variant) -> Source {
        let (lanes, pieces) = reduction(variant, self.hidden);
        let pieces = [pieces[0].as_str(), &pieces[1], self.weights.wgsl(), include_str!("../../shaders/embedding.wgsl")];
        let constants = vec![("HIDDEN", self.hidden as f64), ("EPSILON", self.epsilon as f64), ("WORKGROUP", lanes as f64)];
        Source::compose("embedding", &[], &pieces, constants)
    }

    /// Of one of the parts, which share the tokens.
    fn cost(&self, parts: usize) -> Cost {
        let operations = Amount { per_row: 10 * self.hidden / parts, ..Amount::default() };
        // Two rows of tables, one of words, one of the result, id and place.
        let bytes = Amount { per_row: (12 * self.hidden + self.weights.bytes(self.hidden) + 8) / parts, ..Amount::default() };
        Cost { rows: Count::Tokens, operations, bytes }
    }

    pub fn form(&self, gpu: &Gpu, variant: Variant) -> Result<Form> {
        Ok(Form { variant: variant.sharing.to_string(), pipeline: gpu.pipeline(self.source(variant))?, grid: Grid::each(Count::Tokens) })
    }

    /// Eight words, two types.
    pub fn check(&self) -> Check {
        let hidden = self.hidden;
        let (vocabulary, types, positions) = (8, 2, 5);
        let batch = texts(&[positions, 3], vocabulary as u32, types as u32);
        let [word, position, token_type] = [noise(1, vocabulary * hidden), noise(2, positions * hidden), noise(3, types * hidden)];
        let [weight, bias] = [noise(4, hidden), noise(5, hidden)];
        let (stored, meant) = self.weights.store_rows(&word, hidden);
        let tokens =
            batch.ids.iter().zip(&batch.places).map(|(id, place)| (*id as usize, (place & 0xff_ffff) as usize, (place >> 24) as usize));
        let tables = Tables { word: &meant, position: &wide(&position), token_type: &wide(&token_type) };
        let expected = reference::embedding(&tokens.collect::<Vec<_>>(), tables, &wide(&weight), &wide(&bias), f64::from(self.epsilon));
        let mut inputs = vec![
            ("part", part_uniform(0, vocabulary).to_vec()),
            ("ids", batch.ids.clone()),
            ("places", batch.places.clone()),
            ("word", stored),
        ];
        let rows = [("position", &position), ("token_type", &token_type), ("weight", &weight), ("bias", &bias)];
        inputs.extend(rows.map(|(name, values)| (name, padded_words(values, hidden))));
        let written = batch.ids.len() * padded(hidden);
        Check { batch: batch.header, inputs, output: "y", written, expected: places(&expected, hidden), bound: (5e-5, 1e-5) }
    }

    /// One dispatch for each part of the vocabulary; together they write every token's row once.
    pub fn steps(&self, gpu: &Gpu, variant: Variant, parts: &[Part], buffers: &Buffers) -> Result<Vec<Step>> {
        let (kernel, form) = (*self, self.form(gpu, variant)?);
        let step = |part: &Part| {
            let buffers = [
                ("part", &part.range),
                ("ids", buffers.ids),
                ("places", buffers.places),
                ("word", &part.word),
                ("position", buffers.position),
                ("token_type", buffers.token_type),
                ("weight", buffers.norm[0]),
                ("bias", buffers.norm[1]),
                ("y", buffers.y),
            ];
            let step = Step::new(gpu, Count::Tokens, vec![(u32::MAX, form.clone())], &buffers, self.cost(parts.len()))?;
            Ok(step.checked_by(move |_| kernel.check()).or(self.form(gpu, Variant::default())?))
        };
        parts.iter().map(step).collect()
    }
}
