//! Comparisons of tensors that report all that is wrong, and that a NaN cannot pass.
//!
//! ```ignore
//! let mut table = Table::new("layer_norm");
//! for case in cases {
//!     table.close(&case, &run(case), &expected(case), Bound::new(1e-6, 1e-5));
//! }
//! table.finish();
//! ```

use std::fmt::{Debug, Display};
use std::thread;

/// How far an element may be from its expected value: `absolute + relative * |expected|`.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    pub absolute: f64,
    pub relative: f64,
}

impl Bound {
    pub const fn new(absolute: f64, relative: f64) -> Self {
        Self { absolute, relative }
    }

    pub const fn absolute(absolute: f64) -> Self {
        Self::new(absolute, 0.0)
    }

    pub fn at(self, expected: f64) -> f64 {
        self.absolute + self.relative * expected.abs()
    }
}

/// The element that differs most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Worst {
    pub index: usize,
    pub actual: f64,
    pub expected: f64,
    /// `|actual - expected|`; infinite where either is NaN or infinite, so that no bound admits it.
    pub difference: f64,
}

/// The element with the largest difference, and the first of those. Panics where the lengths differ or are zero.
pub fn worst<A: Copy + Into<f64>, E: Copy + Into<f64>>(actual: &[A], expected: &[E]) -> Worst {
    assert_eq!(actual.len(), expected.len(), "lengths differ");
    elements(actual, expected).reduce(|worst, next| if next.difference > worst.difference { next } else { worst }).expect("no elements")
}

/// The cosine of two vectors in f64; NaN where either is zero or holds a NaN.
pub fn cosine<A: Copy + Into<f64>, B: Copy + Into<f64>>(a: &[A], b: &[B]) -> f64 {
    assert_eq!(a.len(), b.len(), "lengths differ");
    let (mut dot, mut a_square, mut b_square) = (0.0, 0.0, 0.0);
    for (&a, &b) in a.iter().zip(b) {
        let (a, b): (f64, f64) = (a.into(), b.into());
        (dot, a_square, b_square) = (dot + a * b, a_square + a * a, b_square + b * b);
    }
    dot / (a_square.sqrt() * b_square.sqrt())
}

fn elements<A: Copy + Into<f64>, E: Copy + Into<f64>>(actual: &[A], expected: &[E]) -> impl Iterator<Item = Worst> {
    actual.iter().zip(expected).enumerate().map(|(index, (&actual, &expected))| {
        let (actual, expected): (f64, f64) = (actual.into(), expected.into());
        let difference = (actual - expected).abs();
        // `inf - inf` is NaN as well: equal infinities are no match, they are an overflow on both sides.
        let difference = if difference.is_nan() { f64::INFINITY } else { difference };
        Worst { index, actual, expected, difference }
    })
}

/// A table of cases: every failure is kept, and [`Table::finish`] reports them all.
#[must_use = "a table that is not finished checks nothing"]
pub struct Table {
    title: String,
    cases: usize,
    failures: Vec<String>,
    /// The largest difference so far, as a part of its bound, and where it was.
    nearest: Option<(f64, String)>,
    finished: bool,
}

impl Table {
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), cases: 0, failures: Vec::new(), nearest: None, finished: false }
    }

    /// Every element of `actual` is within `bound` of the one in `expected`.
    pub fn close<A: Copy + Into<f64>, E: Copy + Into<f64>>(&mut self, case: impl Display, actual: &[A], expected: &[E], bound: Bound) {
        self.cases += 1;
        if actual.len() != expected.len() || expected.is_empty() {
            return self.failures.push(format!("{case}: {} elements, expected {}", actual.len(), expected.len()));
        }
        let (mut outside, mut first, mut worst, mut ratio) = (0, None, None, f64::NEG_INFINITY);
        for element in elements(actual, expected) {
            let allowed = bound.at(element.expected);
            // False for a NaN bound (NaN or infinity expected), which therefore counts as outside.
            let inside = element.difference <= allowed && element.difference.is_finite();
            if !inside {
                outside += 1;
                first.get_or_insert(element.index);
            }
            let part = match (inside, element.difference / allowed) {
                (false, part) if part.is_nan() => f64::INFINITY,
                (true, part) if part.is_nan() => 0.0, // equal, under a bound of zero
                (_, part) => part,
            };
            if part > ratio {
                (ratio, worst) = (part, Some(element));
            }
        }
        let Some(worst) = worst else { return };
        if let Some(first) = first {
            let Worst { index, actual: found, expected: wanted, difference } = worst;
            self.failures.push(format!(
                "{case}: {outside} of {} elements outside the bound, the first at {first}; worst at {index}: {found:e}, expected {wanted:e}, \
                 difference {difference:.3e}, allowed {:.3e}",
                actual.len(),
                bound.at(wanted)
            ));
        } else if self.nearest.as_ref().is_none_or(|(nearest, _)| ratio > *nearest) {
            self.nearest = Some((ratio, format!("{case} at {}, difference {:.3e}", worst.index, worst.difference)));
        }
    }

    /// Both slices hold the same, as token ids must.
    pub fn equal<T: PartialEq + Debug>(&mut self, case: impl Display, actual: &[T], expected: &[T]) {
        self.equal_by(case, actual, expected, PartialEq::eq);
    }

    /// Both slices hold the same numbers bit for bit, as results of the same work must: zeros of different signs differ.
    pub fn same_bits(&mut self, case: impl Display, actual: &[f64], expected: &[f64]) {
        self.equal_by(case, actual, expected, |a, e| a == e && a.to_bits() == e.to_bits());
    }

    fn equal_by<T: Debug>(&mut self, case: impl Display, actual: &[T], expected: &[T], equal: impl Fn(&T, &T) -> bool) {
        self.cases += 1;
        if let Some(index) = actual.iter().zip(expected).position(|(a, e)| !equal(a, e)) {
            self.failures.push(format!(
                "{case}: {:?} at {index}, expected {:?} (lengths {} and {})",
                actual[index],
                expected[index],
                actual.len(),
                expected.len()
            ));
        } else if actual.len() != expected.len() {
            self.failures.push(format!("{case}: {} elements, expected {}, equal as far as both go", actual.len(), expected.len()));
        }
    }

    /// `value` is `minimum` or more, as a cosine must be; a NaN is less than anything.
    pub fn at_least(&mut self, case: impl Display, value: f64, minimum: f64) {
        self.check(case, value >= minimum, format_args!("{value}, expected at least {minimum}"));
    }

    /// `value` is `maximum` or less; a NaN is more than anything.
    pub fn at_most(&mut self, case: impl Display, value: f64, maximum: f64) {
        self.check(case, value <= maximum, format_args!("{value}, expected at most {maximum}"));
    }

    /// Any other condition; `problem` says what is wrong where it does not hold.
    pub fn check(&mut self, case: impl Display, holds: bool, problem: impl Display) {
        self.cases += 1;
        if !holds {
            self.failures.push(format!("{case}: {problem}"));
        }
    }

    /// A case that could not be run.
    pub fn fail(&mut self, case: impl Display, problem: impl Display) {
        self.check(case, false, problem);
    }

    /// Panics with every failure, or where no case was compared at all.
    pub fn finish(mut self) {
        self.finished = true;
        let Self { title, cases, failures, nearest, .. } = &self;
        assert!(*cases > 0, "{title}: no case was compared");
        assert!(failures.is_empty(), "{title}: {} failures in {cases} comparisons\n  {}\n", failures.len(), failures.join("\n  "));
        match nearest {
            Some((part, place)) => println!("{title}: {cases} comparisons, at most {part:.3} of the bound ({place})"),
            None => println!("{title}: {cases} comparisons"),
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        assert!(self.finished || thread::panicking(), "{}: the table was dropped without `finish`", self.title);
    }
}
