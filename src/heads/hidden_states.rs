//! One row for each token: the last hidden state as it is.

use crate::gpu::Count;
use crate::kernels::padded;
use crate::model::Head;
use crate::runner::Output;

/// No step to add: the result is what the encoder leaves, `[tokens, hidden]`, rows padded.
pub(crate) fn add(head: &Head) -> Output {
    let hidden = head.config.hidden;
    Output { buffer: head.hidden.clone(), rows: Count::Tokens, columns: hidden, stride: padded(hidden) }
}
