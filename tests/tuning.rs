//! The choice of kernels: measured, kept, and ignored where it is not of this adapter.

mod common;

use std::fs;

use common::fixture;
use common::gpu::gpu;
use minilm::kernels::attention::Attention;
use minilm::kernels::{Arithmetic, Operands, Variant, WeightFormat};
use minilm::tuning::{Choice, Kernel, Table};
use minilm::{Checkpoint, Embedder, Tuning};

const FOLDER: &str = "tiny-minilm-bert-l3-h96";
const TEXTS: [&str; 3] = ["one", "a second, longer one", "and another that is longer still than the other two"];

fn rows(tuning: Tuning) -> Vec<u32> {
    let embedder = Embedder::builder().gpu(gpu()).tuning(tuning).from_dir(fixture(FOLDER)).unwrap();
    embedder.embed(TEXTS).unwrap().as_slice().iter().map(|value| value.to_bits()).collect()
}

fn measured() -> Table {
    let mut table = Table::of(&gpu());
    table.measure(&gpu(), &Checkpoint::open(fixture(FOLDER)).unwrap().config, WeightFormat::F32).unwrap();
    table
}

#[test]
fn every_shape_gets_a_variant_that_this_adapter_offers_and_results_stay() {
    let table = measured();
    let subgroup = Variant::subgroup(&gpu());
    // hidden 96, intermediate 384: qkv, output, up, down, in three sizes of batches each; attention; layer norm.
    assert_eq!(table.choices.len(), 4 * 3 + 2);
    for choice in &table.choices {
        let offered = match choice.kernel {
            Kernel::Matmul => Variant::matmuls(subgroup),
            Kernel::Attention => Variant::attentions(subgroup),
            Kernel::LayerNorm => Variant::reductions(subgroup),
        };
        assert!(offered.contains(&choice.variant) && choice.nanoseconds > 0, "{choice:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.json");
    table.write(&path).unwrap();
    assert_eq!(Table::read(&path).unwrap(), table);

    // Another table measures the same shapes once more, and holds each once.
    let mut again = table.clone();
    again.measure(&gpu(), &Checkpoint::open(fixture(FOLDER)).unwrap().config, WeightFormat::F32).unwrap();
    assert_eq!(again.choices.len(), table.choices.len());

    let embedder = |tuning| Embedder::builder().gpu(gpu()).tuning(tuning).from_dir(fixture(FOLDER)).unwrap();
    let (tuned, default) = (embedder(Tuning::Given(table)), embedder(Tuning::Off));
    for (a, b) in tuned.embed(TEXTS).unwrap().rows().zip(default.embed(TEXTS).unwrap().rows()) {
        assert!(minilm::cosine(a, b) > 0.999_999_9);
    }
    // Tuned too, a text has the bits that it has alone.
    let together = tuned.embed(TEXTS).unwrap();
    for (text, row) in TEXTS.iter().zip(together.rows()) {
        assert_eq!(tuned.embed([text]).unwrap().as_slice(), row);
    }
}

#[test]
fn every_form_of_attention_makes_the_same_vectors_in_f16() {
    let config = Checkpoint::open(fixture(FOLDER)).unwrap().config;
    let embedder = |tuning| {
        let builder = Embedder::builder().gpu(gpu()).arithmetic(Arithmetic::F16).tuning(tuning);
        match builder.from_dir(fixture(FOLDER)) {
            Err(error) if error.to_string().contains("has no arithmetic in f16") => None,
            embedder => Some(embedder.unwrap()),
        }
    };
    let Some(expected) = embedder(Tuning::Off) else { return println!("{} has no f16", gpu().info().name) };
    let expected = expected.embed(TEXTS).unwrap();
    let kernel = Attention { heads: config.heads, head_dim: config.head_dim(), bias: false, half: true };
    for variant in kernel.variants(&gpu()) {
        let (shape, operands) = ([kernel.heads, kernel.head_dim], Operands { weights: WeightFormat::F32, arithmetic: Arithmetic::F16 });
        let choice = Choice { kernel: Kernel::Attention, shape, operands, up_to: u32::MAX, variant, nanoseconds: 1 };
        let mut table = Table::of(&gpu());
        table.choices.push(choice);
        let rows = embedder(Tuning::Given(table)).unwrap().embed(TEXTS).unwrap();
        let closest = rows.rows().zip(expected.rows()).map(|(a, b)| minilm::cosine(a, b)).fold(1.0, f64::min);
        assert!(closest > 0.999_99, "{variant}: cosine {closest}");
        assert!(!kernel.rounds(variant) || rows != expected, "{variant} is what ran");
    }
    assert_eq!(gpu().rejected(), []);
}

#[test]
fn a_table_of_another_adapter_or_of_nonsense_changes_nothing() {
    let default = rows(Tuning::Off);
    let mut foreign = measured();
    foreign.driver.push_str(" of another day");
    assert!(!foreign.is_of(&gpu()));
    assert_eq!(rows(Tuning::Given(foreign)), default);

    let mut impossible = Table::of(&gpu());
    let mut choice = measured().choices[0];
    choice.variant.tile.lanes = 4096;
    impossible.choices.push(choice);
    assert_eq!(rows(Tuning::Given(impossible)), default);

    let folder = tempfile::tempdir().unwrap();
    let message = Table::read(folder.path()).unwrap_err().to_string();
    assert!(message.contains("expected a tuning table of `minilm tune`, found a folder or a device"), "{message}");
    let path = folder.path().join("table.json");
    fs::write(&path, vec![b' '; (4 << 20) + 1]).unwrap();
    let message = Table::read(&path).unwrap_err().to_string();
    assert!(message.contains("found more than 4 MiB"), "{message}");
    // What cannot be written leaves nothing behind.
    fs::create_dir(folder.path().join("taken")).unwrap();
    assert!(Table::of(&gpu()).write(folder.path().join("taken")).is_err());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    for (bytes, found) in [("", "EOF"), ("{\"adapter\": 1}", "invalid type"), ("[[[", "invalid type"), ("{}", "missing field")] {
        fs::write(&path, bytes).unwrap();
        let message = Table::read(&path).unwrap_err().to_string();
        assert!(message.contains("table.json: expected a tuning table of `minilm tune`") && message.contains(found), "{message}");
    }
    assert!(Table::read(folder.path().join("none")).unwrap_err().to_string().contains("the tuning table cannot be read"));
}
