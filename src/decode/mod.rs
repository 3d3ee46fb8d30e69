//! Logits and rows into answers, on the host: spans of a context, entities of a text, embeddings in fewer bits.
//!
//! Nothing here knows of a GPU or a model: numbers and where their tokens come from go in, answers come out.

pub mod entities;
pub mod quantized;
pub mod spans;

use std::ops::Range;

use crate::error::{Error, Result};

/// `exp(x) / sum(exp(x))` in f64, for finite values of any size.
pub fn softmax<T: Copy + Into<f64>>(values: &[T]) -> Vec<f64> {
    let maximum = maximum(values);
    let mut weights: Vec<f64> = values.iter().map(|&value| (value.into() - maximum).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= total);
    weights
}

/// `ln(sum(exp(x)))` in f64, for values of any size; negative infinity for none.
pub fn log_sum_exp<T: Copy + Into<f64>>(values: &[T]) -> f64 {
    let maximum = maximum(values);
    if maximum.is_infinite() {
        return maximum;
    }
    maximum + values.iter().map(|&value| (value.into() - maximum).exp()).sum::<f64>().ln()
}

/// `1 / (1 + exp(-x))`, without overflow on either side.
pub fn sigmoid(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    if x < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) }
}

fn maximum<T: Copy + Into<f64>>(values: &[T]) -> f64 {
    values.iter().map(|&value| value.into()).fold(f64::NEG_INFINITY, f64::max)
}

/// Where the code points of a text begin, so that byte offsets become offsets in code points, which Python counts in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodePoints {
    /// Bytes at which a code point begins, and the length of the text.
    starts: Vec<usize>,
}

impl CodePoints {
    /// Reads the text once.
    pub fn of(text: &str) -> Self {
        Self { starts: text.char_indices().map(|(byte, _)| byte).chain([text.len()]).collect() }
    }

    /// The code points that lie before a byte; `None` within a code point or behind the text.
    pub fn before(&self, byte: usize) -> Option<usize> {
        self.starts.binary_search(&byte).ok()
    }

    /// The code points of a range of bytes.
    ///
    /// # Errors
    /// The range is no part of the text, or its ends are not between code points.
    pub fn range(&self, bytes: &Range<usize>) -> Result<Range<usize>> {
        match (self.before(bytes.start), self.before(bytes.end)) {
            (Some(start), Some(end)) if start <= end => Ok(start..end),
            _ => Err(Error::input(format!(
                "expected a range of whole characters within the {} bytes of the text, found bytes {} to {}: \
                 give the text that the tokens were made of",
                self.starts[self.starts.len() - 1],
                bytes.start,
                bytes.end
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numerics_keep_their_digits_at_any_size() {
        // ln 2 and ln 3 above any offset: the weights are 1, 2 and 3 of 6.
        for offset in [0.0, 1e4, -1e4] {
            let values = [offset, offset + 2f64.ln(), offset + 3f64.ln()];
            for (weight, expected) in softmax(&values).into_iter().zip([1.0 / 6.0, 2.0 / 6.0, 3.0 / 6.0]) {
                assert!((weight - expected).abs() < 1e-12, "{offset}: {weight}, expected {expected}");
            }
            assert!((log_sum_exp(&values) - (offset + 6f64.ln())).abs() < 1e-11, "{offset}");
        }
        assert_eq!(softmax(&[1000f32, -1000.0]), [1.0, 0.0]);
        assert_eq!(log_sum_exp::<f32>(&[]), f64::NEG_INFINITY);
        assert_eq!(log_sum_exp(&[f64::NEG_INFINITY; 2]), f64::NEG_INFINITY);
        assert!(softmax::<f32>(&[]).is_empty());
    }

    #[test]
    fn sigmoid_is_accurate_in_both_tails() {
        assert_eq!(sigmoid(0.0), 0.5);
        assert_eq!((sigmoid(1e4), sigmoid(-1e4)), (1.0, 0.0));
        // Far to the left it is exp(x), down to the smallest numbers there are.
        for x in [-40.0, -700.0, -740.0f64] {
            assert!((sigmoid(x) / x.exp() - 1.0).abs() < 1e-15, "{x}");
        }
        assert!((sigmoid(3f64.ln()) - 0.75).abs() < 1e-15);
    }

    #[test]
    fn bytes_become_code_points() {
        // One, two, three and four bytes, a letter with a combining mark, a family joined from three emoji.
        let text = "aé猫𝄞e\u{301}👩\u{200d}👧\u{200d}👦.";
        let points = CodePoints::of(text);
        for byte in 0..=text.len() + 2 {
            let expected = text.get(..byte).map(|before| before.chars().count());
            assert_eq!(points.before(byte), expected, "{byte}");
        }
        assert_eq!(points.range(&(1..6)).unwrap(), 1..3);
        assert_eq!(points.range(&(3..3)).unwrap(), 2..2);
        let backwards = Range { start: 6, end: 3 };
        for wrong in [1..2, 2..6, text.len()..text.len() + 1, backwards] {
            assert!(points.range(&wrong).unwrap_err().to_string().contains("whole characters"), "{wrong:?}");
        }
        assert_eq!(CodePoints::of("").range(&(0..0)).unwrap(), 0..0);
    }
}
