//! The texts that are run, as token ids: the same in every run.

use std::fmt;

/// Texts of these lengths.
#[derive(Clone, Debug)]
pub struct Workload {
    /// `W1`, `W2`, ...; W5 has no texts, see [`Options::products`](super::Options::products).
    pub name: &'static str,
    pub what: &'static str,
    /// Tokens of each text.
    pub lengths: Vec<usize>,
    /// Whether each kernel is timed too.
    pub kernels: bool,
}

impl Workload {
    /// As many tokens in texts of one length each.
    pub(super) const SWEEP: [(&'static str, usize); 4] = [("L16", 16), ("L32", 32), ("L64", 64), ("L128", 128)];

    /// Those of every report: a lone sentence, short ones, mixed lengths, full length, and many; then what shows how time grows: the tokens
    /// of the mixed lengths in texts of one length, and as many tokens in texts of 16 to 128.
    pub fn all() -> Vec<Self> {
        let workload = |name, what, lengths| Self { name, what, lengths, kernels: true };
        let mut all = vec![
            workload("W1", "one sentence of 12 tokens", vec![12]),
            workload("W2", "32 texts of 32 tokens", vec![32; 32]),
            workload("W3", "256 texts of mixed length", mixed(256)),
            workload("W4", "16 texts of 512 tokens", vec![512; 16]),
            workload("W6", "1024 texts of 128 tokens", vec![128; 1024]),
        ];
        let mut uniform = vec![tokens(&all[2].lengths) / 256; 256];
        let rest = tokens(&all[2].lengths) - tokens(&uniform);
        uniform[..rest].iter_mut().for_each(|length| *length += 1);
        let growth = |name, what, lengths| Self { name, what, lengths, kernels: false };
        all.insert(3, growth("W3u", "the tokens of W3 in equal texts", uniform));
        all.extend(Self::SWEEP.map(|(name, length)| growth(name, "4096 tokens in equal texts", vec![length; 4096 / length])));
        all
    }

    pub fn tokens(&self) -> usize {
        tokens(&self.lengths)
    }

    /// Ids of every text, below `vocabulary`.
    pub fn ids(&self, vocabulary: usize) -> Vec<Vec<u32>> {
        let mut random = Random(0x5EED);
        let mut text = |&length: &usize| (0..length).map(|_| (random.next() * vocabulary as f64) as u32).collect();
        self.lengths.iter().map(&mut text).collect()
    }
}

fn tokens(lengths: &[usize]) -> usize {
    lengths.iter().sum()
}

/// A text of the pieces of a vocabulary, as words of their own: it has more tokens than pieces, or fewer.
pub(super) fn text(pieces: &[String]) -> String {
    let words: Vec<&str> = pieces.iter().map(|piece| piece.trim_start_matches(['#', '\u{2581}', '\u{120}'])).collect();
    words.join(" ")
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.what)
    }
}

/// Log-normal with a median of 28 and a sigma of 0.9, within 5 and 256: what sentences and paragraphs look like.
fn mixed(texts: usize) -> Vec<usize> {
    let mut random = Random(20_261_123);
    let mut length = || {
        // Box and Muller 1958.
        let normal = (-2.0 * random.next().ln()).sqrt() * (std::f64::consts::TAU * random.next()).cos();
        (28.0f64.ln() + 0.9 * normal).exp().round().clamp(5.0, 256.0) as usize
    };
    (0..texts).map(|_| length()).collect()
}

/// Numbers in (0, 1), by splitmix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 12) as f64 / (1u64 << 52) as f64 + f64::EPSILON / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_that_are_compared_have_the_same_number_of_tokens() {
        let all = Workload::all();
        let find = |name: &str| all.iter().find(|workload| workload.name == name).unwrap();
        let (mixed, uniform) = (find("W3"), find("W3u"));
        assert_eq!((mixed.tokens(), mixed.lengths.len()), (uniform.tokens(), uniform.lengths.len()));
        let [shortest, longest] = [uniform.lengths.iter().min().unwrap(), uniform.lengths.iter().max().unwrap()];
        assert!(longest - shortest <= 1, "{shortest} to {longest}");
        for (name, length) in Workload::SWEEP {
            let lengths = &find(name).lengths;
            assert!(lengths.iter().all(|of_text| *of_text == length) && tokens(lengths) == 4096, "{name}");
        }
    }
}
