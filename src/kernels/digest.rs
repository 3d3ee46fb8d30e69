//! What a buffer holds as one number, to be compared with what was sent to it.

use super::REDUCE_LANES;
use super::check::{Check, noise, rows, words};
use crate::error::Result;
use crate::gpu::{Amount, Cost, Count, Gpu, Grid, Slice, Source, Step};
use crate::reference;

/// Words that one workgroup takes.
const BLOCK: usize = 1 << 14;

/// As in `shaders/digest.wgsl`.
const WEIGHT: u32 = 0x3c6e_f372;

/// A number for words in a row. Where just one word is another, so is the number; where more are, it is but for one time in four billion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    words: u32,
    plain: u32,
    weighted: u32,
}

impl Digest {
    /// That of no words, and then of these.
    pub fn add(&mut self, words: &[u32]) {
        let mut more = Self { words: words.len() as u32, ..Self::default() };
        for (place, word) in (0u32..).zip(words) {
            let folded = word ^ (word >> 16);
            more.plain = more.plain.wrapping_add(folded);
            more.weighted = more.weighted.wrapping_add(folded.wrapping_mul(place.wrapping_mul(WEIGHT).wrapping_add(1)));
        }
        self.append(more);
    }

    /// That of these words with others behind them.
    pub fn append(&mut self, more: Self) {
        let shift = self.words.wrapping_mul(WEIGHT).wrapping_mul(more.plain);
        self.weighted = self.weighted.wrapping_add(more.weighted).wrapping_add(shift);
        self.plain = self.plain.wrapping_add(more.plain);
        self.words = self.words.wrapping_add(more.words);
    }

    /// The number.
    pub fn value(self) -> u32 {
        self.weighted
    }
}

/// `y[blocks, 2]` = the number of each block of `x`, its low and its high half as whole numbers; their sum is that of `x`.
#[derive(Clone, Copy, Debug)]
pub struct BlockDigests {
    /// Words of `x`, all of its buffer.
    pub words: usize,
}

/// What the kernel reads and writes.
pub struct Buffers<'a> {
    pub x: &'a Slice,
    /// `[blocks, 2]`
    pub y: &'a Slice,
}

impl BlockDigests {
    pub fn source(&self) -> Source {
        let sizes = [("BLOCK", BLOCK as u32), ("WORKGROUP", REDUCE_LANES as u32)];
        Source::compose("digest", &sizes, &[include_str!("../../shaders/digest.wgsl")], Vec::new())
    }

    /// Values of `y`.
    pub fn values(&self) -> usize {
        2 * self.words.div_ceil(BLOCK)
    }

    /// The number of `x` from `y`.
    pub fn total(y: &[f32]) -> u32 {
        y.chunks_exact(2).fold(0, |sum: u32, halves| sum.wrapping_add(halves[0] as u32).wrapping_add((halves[1] as u32) << 16))
    }

    fn cost(&self) -> Cost {
        let amount = |per_word: usize| Amount { per_row: per_word * self.words, ..Amount::default() };
        Cost { rows: Count::Fixed(1), operations: amount(5), bytes: amount(4) }
    }

    pub fn grid(&self) -> Grid {
        Grid::each(Count::Fixed(self.words.div_ceil(BLOCK) as u32))
    }

    /// A block and a part of another, or as many words as there are; of more blocks there is nothing to read.
    pub fn check(&self) -> Check {
        let x = words(&noise(1, self.words.min(BLOCK + BLOCK / 3)));
        let mut expected: Vec<f64> = x.chunks(BLOCK).zip(0..).flat_map(|(block, at)| reference::digest(block, at * BLOCK)).collect();
        expected.resize(self.values(), 0.0);
        let expected = expected.into_iter().enumerate().collect();
        Check { batch: rows(Count::Tokens, 1), inputs: vec![("x", x)], output: "y", written: self.values(), expected, bound: (0.0, 0.0) }
    }

    pub fn step(&self, gpu: &Gpu, buffers: &Buffers) -> Result<Step> {
        let pipeline = gpu.pipeline(self.source())?;
        let kernel = *self;
        let step = Step::single(gpu, pipeline, self.grid(), &[("x", buffers.x), ("y", buffers.y)], self.cost())?;
        Ok(step.checked_by(move |_| kernel.check()))
    }
}
