//! What a model has cost so far.

/// Counts over one call, or over all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    pub texts: u64,
    /// As the model saw them: after truncation, specials included, nothing padded.
    pub tokens: u64,
    pub batches: u64,
    pub submits: u64,
    pub dispatches: u64,
    /// Ids, positions, offsets and one small uniform for each batch.
    pub bytes_uploaded: u64,
    /// Results, and nothing else.
    pub bytes_read: u64,
    /// Time of the calling thread for making tokens of texts, which other threads help with.
    pub tokenize_nanoseconds: u64,
    /// Time of the calling thread for sorting texts and packing batches.
    pub pack_nanoseconds: u64,
    /// Time of the calling thread for recording passes.
    pub record_nanoseconds: u64,
    /// Time of the calling thread for handing inputs and passes to the driver. What the GPU takes is not in it, unless the driver waits.
    pub submit_nanoseconds: u64,
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.texts += other.texts;
        self.tokens += other.tokens;
        self.batches += other.batches;
        self.submits += other.submits;
        self.dispatches += other.dispatches;
        self.bytes_uploaded += other.bytes_uploaded;
        self.bytes_read += other.bytes_read;
        self.tokenize_nanoseconds += other.tokenize_nanoseconds;
        self.pack_nanoseconds += other.pack_nanoseconds;
        self.record_nanoseconds += other.record_nanoseconds;
        self.submit_nanoseconds += other.submit_nanoseconds;
    }
}

/// A model's memory, and what its calls moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The call that ended last.
    pub last: Counters,
    /// All calls that have ended.
    pub total: Counters,
    /// Bytes of weights that were uploaded, once, at load.
    pub weight_bytes_uploaded: u64,
    /// GPU memory held for weights.
    pub weight_bytes: u64,
    /// GPU memory held for inputs, activations and results.
    pub activation_bytes: u64,
    /// Forms of kernels that this adapter cannot do, each replaced by a simpler one: see [`Gpu::rejected`](crate::Gpu::rejected).
    pub rejected_kernels: usize,
    /// Times that the model was loaded again because its device was lost.
    pub recoveries: u64,
}
