//! Layer norm over each token's row.

use super::check::{Check, noise, padded_words, places, rows, wide};
use super::{Variant, padded, reduction};
use crate::error::Result;
use crate::gpu::{Amount, Cost, Count, Form, Gpu, Grid, Slice, Source, Step};
use crate::reference;

/// `y[rows, hidden] = (x - mean) / sqrt(variance + epsilon) * weight + bias`, with the variance of the row itself (divided by
/// `hidden`), as in torch.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm {
    pub hidden: usize,
    pub epsilon: f32,
    /// What the rows are: tokens, texts or selected tokens.
    pub rows: Count,
}

/// What the kernel reads and writes; rows are [padded].
pub struct Buffers<'a> {
    /// `[rows, hidden]`
    pub x: &'a Slice,
    /// Scale and shift, `[hidden]` each.
    pub norm: [&'a Slice; 2],
    /// `[rows, hidden]`
    pub y: &'a Slice,
}

impl LayerNorm {
    pub fn source(&self, variant: Variant) -> Source {
        let (lanes, pieces) = reduction(variant, self.hidden);
        let pieces = [pieces[0].as_str(), &pieces[1], include_str!("../../shaders/layer_norm.wgsl")];
        let constants = vec![("HIDDEN", self.hidden as f64), ("EPSILON", self.epsilon as f64), ("WORKGROUP", lanes as f64)];
        Source::compose("layer_norm", &[], &pieces, constants)
    }

    fn cost(&self) -> Cost {
        let operations = Amount { per_row: 8 * self.hidden, ..Amount::default() };
        Cost { rows: self.rows, operations, bytes: Amount { fixed: 8 * self.hidden, per_row: 8 * self.hidden, per_pair: 0 } }
    }

    pub fn form(&self, gpu: &Gpu, variant: Variant) -> Result<Form> {
        Ok(Form { variant: variant.sharing.to_string(), pipeline: gpu.pipeline(self.source(variant))?, grid: Grid::each(self.rows) })
    }

    /// Rows away from zero, where a variance of squares would lose its digits.
    pub fn check(&self) -> Check {
        let (count, hidden) = (3, self.hidden);
        let x: Vec<f32> = noise(1, count * hidden).into_iter().map(|value| value + 4.0).collect();
        let [weight, bias] = [noise(2, hidden), noise(3, hidden)];
        let expected = reference::layer_norm(&wide(&x), &wide(&weight), &wide(&bias), f64::from(self.epsilon));
        let inputs = [("x", &x), ("weight", &weight), ("bias", &bias)].map(|(name, values)| (name, padded_words(values, hidden)));
        let expected = places(&expected, hidden);
        Check {
            batch: rows(self.rows, count),
            inputs: inputs.into(),
            output: "y",
            written: count * padded(hidden),
            expected,
            bound: (5e-5, 1e-5),
        }
    }

    pub fn step(&self, gpu: &Gpu, variant: Variant, buffers: &Buffers) -> Result<Step> {
        let buffers = [("x", buffers.x), ("weight", buffers.norm[0]), ("bias", buffers.norm[1]), ("y", buffers.y)];
        let kernel = *self;
        let step = Step::new(gpu, self.rows, vec![(u32::MAX, self.form(gpu, variant)?)], &buffers, self.cost())?;
        Ok(step.checked_by(move |_| kernel.check()).or(self.form(gpu, Variant::default())?))
    }
}
