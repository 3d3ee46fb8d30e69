//! One row for each text: the sentence embedding.

use crate::checkpoint::Pooling;
use crate::error::Result;
use crate::gpu::Count;
use crate::kernels::pooling::{Buffers, PooledRows};
use crate::model::Head;
use crate::runner::Output;

/// Adds the pooling step; the result is `[texts, hidden]`.
pub(crate) fn add(head: &mut Head, pooling: Pooling, normalize: bool) -> Result<Output> {
    let hidden = head.config.hidden;
    let pooled = head.arena.storage("pooled", head.capacity.texts * hidden)?;
    let kernel = PooledRows { hidden, pooling, normalize };
    head.steps.push(kernel.step(head.gpu, &Buffers { offsets: &head.inputs.offsets, x: &head.hidden, pooled: &pooled })?);
    Ok(Output { buffer: pooled, rows: Count::Texts, columns: hidden, stride: hidden })
}
