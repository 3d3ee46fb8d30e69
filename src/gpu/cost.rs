//! What a step must do at least: operations and bytes, as a rule over the batch.

use crate::batch::Batch;
use crate::gpu::Count;

/// Floating-point operations and bytes of memory that no way of computing the same can do without.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// What the amounts for each row grow with.
    pub rows: Count,
    pub operations: Amount,
    pub bytes: Amount,
}

/// An amount for the step, for each row, and for each pair of tokens of one text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Amount {
    pub fixed: usize,
    pub per_row: usize,
    pub per_pair: usize,
}

impl Cost {
    /// Operations and bytes for a batch.
    pub fn of(&self, batch: &Batch) -> (f64, f64) {
        let rows = f64::from(self.rows.of(&batch.header));
        let lengths = batch.offsets.windows(2).map(|pair| f64::from(pair[1].token - pair[0].token));
        let pairs: f64 = lengths.map(|length| length * length).sum();
        self.of_rows(rows, pairs)
    }

    /// Operations and bytes for so many rows and pairs.
    pub fn of_rows(&self, rows: f64, pairs: f64) -> (f64, f64) {
        let total = |amount: Amount| amount.fixed as f64 + amount.per_row as f64 * rows + amount.per_pair as f64 * pairs;
        (total(self.operations), total(self.bytes))
    }
}
