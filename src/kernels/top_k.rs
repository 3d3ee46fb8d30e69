//! The largest logits of each row.

use super::check::{Check, noise, rows, words};
use super::lib;
use crate::error::Result;
use crate::gpu::{Amount, Cost, Count, Gpu, Grid, Slice, Source, Step};

/// `best[selected, 2 * top + 1]` of `logits[selected, vocabulary]`: the columns of the `top` largest, then those logits, then
/// the sum of exp(logit - largest) over the whole row.
#[derive(Clone, Copy, Debug)]
pub struct TopK {
    pub vocabulary: usize,
    /// At most `vocabulary`.
    pub top: usize,
}

/// What the kernel reads and writes.
pub struct Buffers<'a> {
    /// `[selected, vocabulary]`
    pub logits: &'a Slice,
    /// `[selected, 2 * top + 1]`
    pub best: &'a Slice,
}

/// Rows are long: as many lanes as WebGPU's default limits allow.
const LANES: u32 = 256;

impl TopK {
    /// Values of a row of the result.
    pub fn columns(&self) -> usize {
        2 * self.top + 1
    }

    pub fn source(&self) -> Source {
        let constants = vec![("VOCABULARY", self.vocabulary as f64), ("TOP", self.top as f64), ("WORKGROUP", LANES as f64)];
        Source::compose("top_k", &[], &[lib::REDUCE, include_str!("../../shaders/top_k.wgsl")], constants)
    }

    fn cost(&self) -> Cost {
        let amount = |per_value: usize| Amount { per_row: per_value * self.vocabulary, ..Amount::default() };
        Cost { rows: Count::Selected, operations: amount(2), bytes: amount(4) }
    }

    /// One row whose largest values are known, some of them equals.
    pub fn check(&self) -> Check {
        let Self { vocabulary, top } = *self;
        let mut logits = noise(1, vocabulary);
        let mut largest: Vec<(f32, usize)> =
            (0..top).map(|i| (4.0 - (i / 2) as f32 / top as f32, vocabulary - 1 - i * (vocabulary / top))).collect();
        largest.iter().for_each(|(value, column)| logits[*column] = *value);
        largest.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let sum: f64 = logits.iter().map(|value| f64::from(*value - largest[0].0).exp()).sum();
        let columns = largest.iter().map(|(_, column)| *column as f64);
        let values = largest.iter().map(|(value, _)| f64::from(*value));
        let expected = columns.chain(values).chain([sum]).enumerate().collect();
        let batch = rows(Count::Selected, 1);
        Check { batch, inputs: vec![("logits", words(&logits))], output: "best", written: self.columns(), expected, bound: (1e-4, 1e-5) }
    }

    pub fn step(&self, gpu: &Gpu, buffers: &Buffers) -> Result<Step> {
        let pipeline = gpu.pipeline(self.source())?;
        let kernel = *self;
        let step =
            Step::single(gpu, pipeline, Grid::each(Count::Selected), &[("logits", buffers.logits), ("best", buffers.best)], self.cost())?;
        Ok(step.checked_by(move |_| kernel.check()))
    }
}
