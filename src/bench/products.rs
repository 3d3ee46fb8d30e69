//! W5: the matrix product alone, at a model's shapes.

use super::peaks::Peaks;
use super::report::ProductReport;
use crate::checkpoint::EncoderConfig;
use crate::error::Result;
use crate::gpu::{Count, Gpu};
use crate::kernels::Operands;
use crate::kernels::matmul::Matmul;
use crate::tuning::{Chosen, Tuning};

const ROWS: u32 = 4096;

/// Query, key and value at once, and the two of the feed-forward, each in the form that a model on this adapter gets; none where the adapter
/// has no timestamps.
pub fn measure(gpu: &Gpu, config: &EncoderConfig, operands: Operands, peaks: &Peaks) -> Result<Vec<ProductReport>> {
    if !gpu.can_profile() {
        return Ok(Vec::new());
    }
    let (hidden, wide) = (config.hidden, config.intermediate);
    let chosen = Chosen::new(gpu, config, operands, &Tuning::Auto);
    let product = |(name, inner, outer): (&str, usize, usize)| {
        let kernel = Matmul { inner, outer, operands, activation: None, residual: false, rows: Count::Tokens };
        let variants = chosen.matmul(&kernel);
        let variant = variants.iter().find(|(up_to, _)| ROWS <= *up_to).map(|(_, variant)| *variant).unwrap_or_default();
        let seconds = kernel.check(ROWS as usize).measure(gpu, &kernel.form(gpu, variant)?)?.seconds;
        let (operations, bytes) = kernel.cost().of_rows(f64::from(ROWS), 0.0);
        let share_of_peak = peaks.share(operations, bytes, seconds);
        Ok(ProductReport {
            name: name.to_owned(),
            variant: variant.to_string(),
            rows: ROWS as usize,
            inner,
            outer,
            seconds,
            operations,
            bytes,
            share_of_peak,
        })
    };
    [("qkv", hidden, 3 * hidden), ("up", hidden, wide), ("down", wide, hidden)].map(product).into_iter().collect()
}
