//! What stands between a wrong driver, a lost device or a full memory and a wrong vector. Each guard is shown to hold and to fail.

#[path = "../common/mod.rs"]
mod common;
mod determinism;
mod devices;
mod faults;
mod memory;

use std::ops::Range;

const FOLDER: &str = "tiny-minilm-bert-l3-h96";
const MASKED: &str = "families/bert-masked";

fn texts() -> Vec<String> {
    (1..20).map(|words| "a word and another ".repeat(words)).collect()
}

/// Where a tensor of f32 lies in a file.
fn place_of(suffix: &str, file: &[u8]) -> Range<usize> {
    let tensors = safetensors::SafeTensors::deserialize(file).unwrap();
    let (_, tensor) = tensors.iter().find(|(name, _)| name.ends_with(suffix)).unwrap();
    assert_eq!(tensor.dtype(), safetensors::Dtype::F32);
    let begin = tensor.data().as_ptr() as usize - file.as_ptr() as usize;
    begin..begin + tensor.data().len()
}
