//! The same text has the same bits on every run.

use minilm::Embedder;

use super::FOLDER;
use super::common::fixture;
use super::common::gpu::gpu;

#[test]
fn a_text_has_the_same_bits_in_a_thousand_random_batches() {
    let embedder = Embedder::builder().gpu(gpu()).token_budget(256).max_length(64).from_dir(fixture(FOLDER)).unwrap();
    let pool: Vec<String> = (0..40).map(|i| format!("{} {}", "word ".repeat(i * i % 37), "x ".repeat(i % 5))).collect();
    let alone: Vec<Vec<f32>> = pool.iter().map(|text| embedder.embed([text]).unwrap().as_slice().to_vec()).collect();
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for batch in 0..1000 {
        let members: Vec<usize> = (0..1 + random(12)).map(|_| random(pool.len())).collect();
        let rows = embedder.embed(members.iter().map(|&member| &pool[member])).unwrap();
        for (row, &member) in rows.rows().zip(&members) {
            let same = row.iter().zip(&alone[member]).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "batch {batch} of {members:?}: text {member} has other bits than alone");
        }
    }
}
