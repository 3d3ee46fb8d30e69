//! How many tokens a batch may have so that no dispatch keeps the GPU for long. Systems reset a GPU that does not answer for some seconds
//! (two, on Windows), and between two dispatches others get their turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use crate::batch::Capacity;
use crate::gpu::{Count, Plan};

/// Seconds that one dispatch may take.
const LONGEST_DISPATCH: f64 = 0.5;

/// Tokens of a batch before the adapter's speed is known.
const FIRST_TOKENS: usize = 1024;

/// Tokens of a text where attention's share of the work is estimated.
const TYPICAL_LENGTH: usize = 128;

/// What is known of an adapter's speed with a plan.
#[derive(Debug)]
pub struct Pace {
    /// Bits of the seconds that one dispatch may take.
    longest_dispatch: AtomicU64,
    /// Of a pass's work, in the dispatch that has most of it.
    longest_share: f64,
    /// Bits of the least seconds a token seen so far, infinite before the first: what was measured may have had to wait, so the least is
    /// nearest to the truth.
    seconds_per_token: AtomicU64,
    /// Batches between submit and result.
    under_way: AtomicUsize,
}

/// A batch under way, until it is dropped.
#[derive(Debug)]
pub struct UnderWay {
    pace: Arc<Pace>,
    /// Nothing where another batch was before it, with whose time it would be timed.
    begin: Option<Instant>,
}

impl UnderWay {
    /// Takes note of how long it took for so many tokens.
    pub fn done(&self, tokens: u32) {
        if let Some(begin) = self.begin.filter(|_| tokens > 0) {
            self.pace.learn(begin.elapsed().as_secs_f64() / f64::from(tokens));
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.pace.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pace {
    pub fn new(plan: &Plan) -> Arc<Self> {
        let of_tokens = plan.steps.iter().map(|step| step.cost).filter(|cost| cost.rows == Count::Tokens);
        let work = of_tokens.map(|cost| (cost.operations.per_row + TYPICAL_LENGTH * cost.operations.per_pair) as f64);
        let (most, all) = work.fold((0.0, 0.0), |(most, all): (f64, f64), work| (most.max(work), all + work));
        let longest_share = if all > 0.0 { most / all } else { 1.0 };
        Arc::new(Self::with_share(longest_share))
    }

    fn with_share(longest_share: f64) -> Self {
        Self {
            longest_dispatch: AtomicU64::new(LONGEST_DISPATCH.to_bits()),
            longest_share,
            seconds_per_token: AtomicU64::new(f64::INFINITY.to_bits()),
            under_way: AtomicUsize::new(0),
        }
    }

    /// Sets another limit for one dispatch.
    pub fn set_longest_dispatch(&self, seconds: f64) {
        self.longest_dispatch.store(seconds.to_bits(), Ordering::Relaxed);
    }

    /// Before a batch is submitted.
    pub fn begin(self: &Arc<Self>) -> UnderWay {
        let alone = self.under_way.fetch_add(1, Ordering::Relaxed) == 0;
        UnderWay { pace: self.clone(), begin: alone.then(Instant::now) }
    }

    fn learn(&self, seconds: f64) {
        // Bits of positive numbers are in the order of the numbers.
        self.seconds_per_token.fetch_min(seconds.to_bits(), Ordering::Relaxed);
    }

    /// What a batch may hold now, of a capacity in which a text has up to `longest` tokens.
    pub fn limit(&self, capacity: Capacity, longest: usize) -> Capacity {
        let [seconds, longest_dispatch] =
            [&self.seconds_per_token, &self.longest_dispatch].map(|bits| f64::from_bits(bits.load(Ordering::Relaxed)));
        let tokens = if seconds.is_finite() { (longest_dispatch / (seconds * self.longest_share)) as usize } else { FIRST_TOKENS };
        if tokens >= capacity.tokens { capacity } else { capacity.with_tokens(tokens.max(longest).min(capacity.tokens)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_adapter_gets_small_batches_and_a_fast_one_whole_ones() {
        let pace = Pace::with_share(0.1);
        let capacity = Capacity { tokens: 8192, texts: 1024, selected: 0 };
        let tokens = || pace.limit(capacity, 512).tokens;
        assert_eq!(tokens(), FIRST_TOKENS);
        pace.learn(0.1); // 10 ms a token in the longest dispatch: 50 tokens, but a text alone may have more
        assert_eq!(tokens(), 512);
        pace.learn(0.002); // 0.2 ms
        assert_eq!(tokens(), 2500);
        pace.learn(0.05); // had to wait
        assert_eq!(tokens(), 2500);
        pace.learn(1e-6);
        assert_eq!((tokens(), pace.limit(capacity, 512).texts), (8192, 1024));
    }

    #[test]
    fn only_a_batch_that_is_alone_is_timed() {
        let pace = Pace::new(&Plan::default());
        let known = || f64::from_bits(pace.seconds_per_token.load(Ordering::Relaxed)).is_finite();
        let (first, second) = (pace.begin(), pace.begin());
        second.done(10);
        drop(second);
        assert!(!known(), "it may have waited for the first");
        drop(first); // given up
        assert!(!known());
        pace.begin().done(10);
        assert!(known());
    }
}
