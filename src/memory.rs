//! How much GPU memory a model takes, before any is taken.

use std::fmt;

use crate::batch::Capacity;
use crate::error::{Error, Result};

/// The GPU memory of a loaded model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryPlan {
    pub weight_bytes: u64,
    /// Inputs, activations and results, for batches of up to [`MemoryPlan::token_budget`] tokens.
    pub activation_bytes: u64,
    pub token_budget: usize,
}

impl MemoryPlan {
    /// All of it, in bytes.
    pub fn total(&self) -> u64 {
        self.weight_bytes + self.activation_bytes
    }
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { weight_bytes, activation_bytes, token_budget } = self;
        write!(f, "{weight_bytes} bytes for weights and {activation_bytes} for batches of {token_budget} tokens")
    }
}

/// The largest capacity, up to `capacity`, whose plan stays within `most` bytes, with that plan and what else `plan` made of it.
///
/// # Errors
/// [`Error::Memory`] when not even one text of `max_length` tokens fits, with what is needed for it.
pub fn fit<T>(
    mut capacity: Capacity,
    max_length: usize,
    most: Option<u64>,
    what: &str,
    plan: impl Fn(Capacity) -> Result<(MemoryPlan, T)>,
) -> Result<(Capacity, MemoryPlan, T)> {
    loop {
        let (memory, made) = plan(capacity)?;
        let Some(most) = most.filter(|most| memory.total() > *most) else { return Ok((capacity, memory, made)) };
        if capacity.tokens <= max_length {
            return Err(Error::Memory {
                problem: format!(
                    "{what} needs {} bytes of GPU memory ({memory}), but at most {most} are allowed: allow more, keep the weights in f16 or int8, \
                     or set a smaller maximum length",
                    memory.total()
                ),
            });
        }
        // What is left for activations, which grow with the tokens; a part of them does not, so it may take another round.
        let share = most.saturating_sub(memory.weight_bytes) as f64 / memory.activation_bytes as f64;
        let fewer = ((capacity.tokens as f64 * share) as usize).clamp(max_length, capacity.tokens - 1);
        capacity = capacity.with_tokens(fewer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(capacity: Capacity) -> Result<(MemoryPlan, ())> {
        let activation_bytes = 1000 + 10 * capacity.tokens as u64;
        Ok((MemoryPlan { weight_bytes: 5000, activation_bytes, token_budget: capacity.tokens }, ()))
    }

    fn capacity() -> Capacity {
        Capacity { tokens: 1000, texts: 125, selected: 0 }
    }

    #[test]
    fn shrinks_until_it_fits_and_no_further_than_one_text() {
        let fitted = |most| fit(capacity(), 50, most, "loading", plan).map(|(capacity, memory, ())| (capacity.tokens, memory.total()));
        assert_eq!(fitted(None).unwrap(), (1000, 16_000));
        assert_eq!(fitted(Some(16_000)).unwrap(), (1000, 16_000));
        let (tokens, total) = fitted(Some(9_000)).unwrap();
        assert!(total <= 9_000 && tokens >= 250, "{tokens} tokens, {total} bytes");
        assert_eq!(fitted(Some(6_500)).unwrap(), (50, 6_500));
        let message = fitted(Some(6_499)).unwrap_err().to_string();
        assert!(message.contains("needs 6500 bytes") && message.contains("at most 6499"), "{message}");
    }
}
