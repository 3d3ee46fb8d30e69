//! Logits and rows into answers, held to `fixtures/decode.json`: what transformers and sentence-transformers make of the same numbers.

#[path = "../common/mod.rs"]
mod common;
mod entities;
mod quantized;
mod spans;

use std::fs;
use std::ops::Range;

use common::fixture;
use minilm::checkpoint::TokenSource;
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    entities: entities::Entities,
    spans: Vec<spans::SpanCase>,
    quantized: Vec<quantized::QuantizedCase>,
}

fn load() -> Fixture {
    serde_json::from_slice(&fs::read(fixture("decode.json")).unwrap()).unwrap()
}

fn source(sequence: impl Into<Option<usize>>, word: u32, bytes: Range<usize>) -> TokenSource {
    let sequence = sequence.into();
    TokenSource { sequence, word: sequence.map(|_| word), bytes }
}
