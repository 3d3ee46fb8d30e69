//! W5: the matrix product alone, at a model's shapes.

use super::peaks::Peaks;
use super::report::ProductReport;
use crate::batch::{Batch, Header, Sequence};
use crate::bench::no_bounds;
use crate::checkpoint::EncoderConfig;
use crate::error::Result;
use crate::gpu::{Arena, Count, Gpu, Plan, Step};
use crate::kernels::matmul::{Buffers, Matmul};
use crate::kernels::{WeightFormat, padded};
use crate::tuning::Chosen;

const ROWS: usize = 4096;

/// Query, key and value at once, and the two of the feed-forward; none where the adapter has no timestamps.
pub fn measure(gpu: &Gpu, config: &EncoderConfig, peaks: &Peaks) -> Result<Vec<ProductReport>> {
    if !gpu.can_profile() {
        return Ok(Vec::new());
    }
    let (hidden, wide) = (config.hidden, config.intermediate);
    let shapes = [("qkv", hidden, 3 * hidden), ("up", hidden, wide), ("down", wide, hidden)];
    shapes.into_iter().map(|(name, inner, outer)| product(gpu, name, inner, outer, peaks)).collect()
}

fn product(gpu: &Gpu, name: &str, inner: usize, outer: usize, peaks: &Peaks) -> Result<ProductReport> {
    let mut arena = Arena::new(gpu, "products");
    let header = arena.uniform("batch", size_of::<Header>())?;
    let x = arena.storage("x", ROWS * padded(inner))?;
    let weight = arena.storage("weight", padded(inner) * padded(outer))?;
    let bias = arena.storage("bias", padded(outer))?;
    let y = arena.storage("y", ROWS * padded(outer))?;
    // Numbers that look random: zeros take less power, and a GPU then clocks higher.
    for (buffer, rows, columns) in [(&x, ROWS, padded(inner)), (&weight, padded(inner), padded(outer))] {
        gpu.upload(buffer, rows, columns, &mut 0, |first, words| {
            let random = |i: usize| ((first * columns + i) as u32).wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32 - 0.5;
            words.iter_mut().enumerate().for_each(|(i, word)| *word = random(i).to_bits());
            Ok(())
        })?;
    }
    let ids = vec![0; ROWS];
    let batch = Batch::pack(&[Sequence { ids: &ids, ..Default::default() }], &[0], &no_bounds());
    gpu.queue().write_buffer(&header, 0, bytemuck::bytes_of(&batch.header));

    let buffers = Buffers { batch: &header, x: &x, weight: &weight, scale: None, bias: &bias, residual: None, y: &y };
    let plan = Plan::new(gpu, vec![step(gpu, inner, outer, &buffers)?])?;
    let seconds = gpu.profile(&plan, &batch.header, 10)?[0];
    let (operations, bytes) = plan.steps[0].cost.of(&batch);
    let share_of_peak = peaks.share(operations, bytes, seconds);
    Ok(ProductReport { name: name.to_owned(), rows: ROWS, inner, outer, seconds, operations, bytes, share_of_peak })
}

/// The kernel as a model on this adapter gets it.
fn step(gpu: &Gpu, inner: usize, outer: usize, buffers: &Buffers) -> Result<Step> {
    let kernel = Matmul { inner, outer, operands: WeightFormat::F32.into(), activation: None, residual: false, rows: Count::Tokens };
    kernel.step(gpu, &Chosen::defaults(gpu).matmul(&kernel), buffers)
}
