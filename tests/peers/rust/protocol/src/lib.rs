//! The line protocol of `tests/peers/README.md`, for peers in Rust.

use std::error::Error;
use std::io::{BufRead, Write, stdin, stdout};
use std::time::Instant;

use serde_json::json;

/// Values of a row of every model here.
pub const HIDDEN: usize = 384;

/// The product of W5: `[ROWS, INNER] x [INNER, OUTER]`.
pub const ROWS: usize = 4096;
pub const INNER: usize = 384;
pub const OUTER: usize = 1536;

/// What all peers but minilm and llama.cpp put into one batch.
const BATCH: usize = 32;

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

pub trait Peer {
    /// A normalised row for each text, in the order of the texts, in host memory.
    fn embed(&self, texts: &[Vec<u32>]) -> Result<Vec<f32>>;

    /// The product of W5, to its end.
    fn matmul(&self) -> Result<()>;
}

/// The folders of the model and of the workloads, as the program was given them.
pub fn arguments() -> Result<(String, String)> {
    let mut arguments = std::env::args().skip(1);
    arguments.next().zip(arguments.next()).ok_or_else(|| "give the folders of the model and of the workloads".into())
}

/// Answers requests until stdin ends.
pub fn serve(peer: &impl Peer, version: &str, adapter: &str, workloads: &str) -> Result<()> {
    println!("{}", json!({ "version": version, "adapter": adapter }));
    for line in stdin().lock().lines() {
        let line = line?;
        let mut words = line.split_whitespace().skip(1);
        let answer = match run(peer, workloads, words.next().unwrap_or_default(), words.next()) {
            Ok(seconds) => json!({ "seconds": seconds }),
            Err(error) => json!({ "error": error.to_string() }),
        };
        println!("{answer}");
        stdout().flush()?;
    }
    Ok(())
}

fn run(peer: &impl Peer, workloads: &str, workload: &str, file: Option<&str>) -> Result<f64> {
    if workload == "W5" {
        let begin = Instant::now();
        peer.matmul()?;
        return Ok(begin.elapsed().as_secs_f64());
    }
    let ids = std::fs::read_to_string(format!("{workloads}/{workload}.ids"))?;
    let texts = ids.lines().map(|line| line.split(' ').map(str::parse).collect());
    let texts: Vec<Vec<u32>> = texts.collect::<std::result::Result<_, _>>()?;
    let begin = Instant::now();
    let rows = peer.embed(&texts)?;
    let seconds = begin.elapsed().as_secs_f64();
    if let Some(file) = file {
        let bytes: Vec<u8> = rows.iter().flat_map(|value| value.to_le_bytes()).collect();
        std::fs::write(file, bytes)?;
    }
    Ok(seconds)
}

/// Texts padded to the longest of them.
pub struct Batch {
    pub texts: usize,
    pub tokens: usize,
    /// `[texts, tokens]`
    pub ids: Vec<u32>,
    /// `[texts, tokens]`: 1 for a token, 0 for padding
    pub mask: Vec<u32>,
}

/// Embeds as sentence-transformers does: sorted by length, longest first, 32 at a time, padded to the longest of the 32.
pub fn in_padded_batches(texts: &[Vec<u32>], embed: impl Fn(&Batch) -> Result<Vec<f32>>) -> Result<Vec<f32>> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&text| std::cmp::Reverse(texts[text].len()));
    let mut rows = vec![0.0; texts.len() * HIDDEN];
    for members in order.chunks(BATCH) {
        let tokens = texts[members[0]].len();
        let size = members.len() * tokens;
        let mut batch = Batch { texts: members.len(), tokens, ids: vec![0; size], mask: vec![0; size] };
        for (row, &text) in members.iter().enumerate() {
            let place = row * tokens..row * tokens + texts[text].len();
            batch.ids[place.clone()].copy_from_slice(&texts[text]);
            batch.mask[place].fill(1);
        }
        for (row, &text) in embed(&batch)?.chunks_exact(HIDDEN).zip(members) {
            rows[text * HIDDEN..][..HIDDEN].copy_from_slice(row);
        }
    }
    Ok(rows)
}
