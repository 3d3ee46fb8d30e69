//! Whole models against golden outputs of another implementation, through the public API.

mod common;

use std::path::PathBuf;

use common::compare::{Bound, Table, cosine};
use common::golden::{Golden, triples};
use common::gpu::gpu;
use common::synthetic;
use minilm::{Checkpoint, Embedder, FeatureExtractor, Gpu, GpuOptions, Input, Pooling, Sequence, reference, wgpu};

const FIXTURES: [&str; 5] = [
    "tiny-minilm-bert-l3-h96",
    "tiny-minilm-bert-odd-h80",
    "tiny-bert-base-l4-h64-sharded",
    "tiny-bert-legacy-names",
    "tiny-mminilm-bert-xlmr-l3-h96",
];

/// Folders that are too large for the repository: tested where MINILM_REFERENCE names the folder that holds them.
const FULL_SIZE: [&str; 3] = ["all-minilm-l6-v2-f16", "e5-small-multilingual-19k-f16", "minilm-l12-h384-f16"];

fn full_size() -> Vec<PathBuf> {
    let folders: Vec<PathBuf> = FULL_SIZE.iter().filter_map(|name| common::reference(name)).collect();
    if folders.is_empty() {
        eprintln!("MINILM_REFERENCE is not set: the full-size reference models are not tested");
    }
    folders
}

fn inputs(golden: &Golden) -> Vec<Input<'_>> {
    golden.cases.iter().map(|case| Input { text: &case.text, pair: case.text_pair.as_deref() }).collect()
}

/// Every golden output of a folder, all in mixed batches: hidden states, and each of these poolings.
fn check_folder(table: &mut Table, gpu: &Gpu, golden: &Golden, poolings: &[(&str, Pooling, bool)]) {
    let name = golden.folder.file_name().unwrap().to_string_lossy().into_owned();
    let extractor = FeatureExtractor::builder().gpu(gpu.clone()).max_length(golden.max_length).from_dir(&golden.folder).unwrap();
    let features = extractor.features(inputs(golden)).unwrap();
    for (case, features) in golden.cases.iter().zip(&features) {
        let case_name = format!("{name} {}", case.id);
        table.equal(format!("{case_name} tokens"), &[features.rows().len()], &[case.n_tokens]);
        table.equal(format!("{case_name} truncated"), &[features.length().truncated()], &[case.truncated]);
        if let Some(hidden) = golden.hidden(case) {
            let bound = Bound::absolute(golden.atol("last_hidden_state"));
            table.close(format!("{case_name} hidden states"), features.as_slice(), &hidden.values, bound);
        }
    }
    for &(output, pooling, normalize) in poolings {
        let builder = Embedder::builder().gpu(gpu.clone()).max_length(golden.max_length).pooling(pooling).normalize(normalize);
        let rows = builder.from_dir(&golden.folder).unwrap().embed(inputs(golden)).unwrap();
        table.close(format!("{name} {output}"), rows.as_slice(), &golden.tensor(output).values, Bound::absolute(golden.atol(output)));
    }
}

#[test]
fn every_golden_is_met_within_its_bound() {
    let mut table = Table::new("golden outputs");
    for name in FIXTURES {
        let poolings = [("mean", Pooling::Mean, false), ("mean_normalized", Pooling::Mean, true), ("cls", Pooling::Cls, false)];
        check_folder(&mut table, &gpu(), &Golden::fixture(name), &poolings);
    }
    table.finish();
}

#[test]
fn every_golden_of_full_size_models_is_met_within_its_bound() {
    for folder in full_size() {
        let mut table = Table::new(folder.display().to_string());
        check_folder(&mut table, &gpu(), &Golden::open(&folder), &[("mean_normalized", Pooling::Mean, true)]);
        table.finish();
    }
}

#[test]
fn all_minilm_l6_v2_gives_the_embeddings_of_sentence_transformers() {
    let Some(folder) = common::reference("all-minilm-l6-v2-f16") else { return };
    let golden = Golden::open(&folder);
    // What the folder itself says: mean pooling, normalised, 256 tokens.
    let embedder = Embedder::builder().gpu(gpu()).from_dir(&folder).unwrap();
    assert_eq!(embedder.model().max_length(), 256);
    assert_eq!((embedder.pooling(), embedder.normalizes()), (&[Pooling::Mean][..], true));
    let rows = embedder.embed(inputs(&golden)).unwrap();
    let expected = golden.tensor("original_f32_weights.mean_normalized");
    let mut table = Table::new("cosine to the embeddings of the original f32 weights");
    for ((case, actual), expected) in golden.cases.iter().zip(rows.rows()).zip(expected.rows()) {
        table.at_least(&case.id, cosine(actual, expected), 0.99999);
    }
    table.finish();
}

#[test]
fn a_text_has_the_same_bits_alone_and_in_any_batch() {
    let mut table = Table::new("alone and in batches");
    for name in ["tiny-minilm-bert-l3-h96", "tiny-minilm-bert-odd-h80"] {
        let golden = Golden::fixture(name);
        let embedder = Embedder::builder().gpu(gpu()).from_dir(&golden.folder).unwrap();
        let small = Embedder::builder().gpu(gpu()).token_budget(embedder.model().max_length()).from_dir(&golden.folder).unwrap();
        let inputs = inputs(&golden);
        let together = embedder.embed(inputs.iter().copied()).unwrap();
        let backwards = embedder.embed(inputs.iter().rev().copied()).unwrap();
        let in_small_batches = small.embed(inputs.iter().copied()).unwrap();
        assert!(small.model().stats().last.batches > 3);
        for (i, input) in inputs.iter().enumerate() {
            let alone = embedder.embed([*input]).unwrap();
            let case = format!("{name} {}", golden.cases[i].id);
            table.equal(format!("{case} together"), together.row(i).unwrap(), alone.as_slice());
            table.equal(format!("{case} backwards"), backwards.row(inputs.len() - 1 - i).unwrap(), alone.as_slice());
            table.equal(format!("{case} in small batches"), in_small_batches.row(i).unwrap(), alone.as_slice());
        }
        for members in &golden.batches {
            let batch = embedder.embed(members.iter().map(|&i| inputs[i])).unwrap();
            for (row, &i) in batch.rows().zip(members) {
                table.equal(format!("{name} batch of the golden file, {}", golden.cases[i].id), row, together.row(i).unwrap());
            }
        }
    }
    table.finish();
}

#[test]
fn the_reference_itself_meets_the_goldens() {
    let mut table = Table::new("f64 reference");
    for name in FIXTURES {
        let golden = Golden::fixture(name);
        let checkpoint = Checkpoint::open(&golden.folder).unwrap();
        let encoder = reference::Encoder::new(&checkpoint.config, &checkpoint.encoder().unwrap()).unwrap();
        for case in &golden.cases {
            let Some(expected) = golden.hidden(case) else { continue };
            let hidden = encoder.hidden(&case.input_ids, case.token_type_ids.as_deref().unwrap_or(&[]));
            // The goldens are f64 rounded to f32.
            table.close(format!("{name} {}", case.id), &hidden, &expected.values, Bound::new(1e-6, 1e-6));
        }
    }
    table.finish();
}

/// The default model: its rows lie close to those of the weights before they were rounded to 8 bits.
#[test]
fn the_embedded_model_keeps_its_cosine() {
    let golden = Golden::fixture("e5-small-multilingual-19k-f16");
    let embedder = Embedder::builder().gpu(gpu()).from_dir("examples/models/e5-small-multilingual-19k-int8").unwrap();
    let rows = embedder.embed(inputs(&golden)).unwrap();
    let mut table = Table::new("cosine to the f16 weights");
    let (mut least, mut sum) = (f64::INFINITY, 0.0);
    for ((case, row), expected) in golden.cases.iter().zip(rows.rows()).zip(golden.tensor("mean_normalized").rows()) {
        let cosine = cosine(row, expected);
        (least, sum) = (least.min(cosine), sum + cosine);
        table.at_least(&case.id, cosine, 0.9995);
    }
    println!(
        "cosine to the f16 weights over {} texts: at least {least:.6}, {:.6} on average",
        golden.cases.len(),
        sum / golden.cases.len() as f64
    );
    // Meaning survives: a paraphrase is nearer than an unrelated text, as by the f16 weights.
    let triples = triples(&golden.folder);
    let texts: Vec<String> =
        triples.iter().flat_map(|t| [&t.anchor, &t.paraphrase, &t.unrelated]).map(|text| format!("query: {text}")).collect();
    let rows = embedder.embed(&texts).unwrap();
    for (i, triple) in triples.iter().enumerate() {
        let [anchor, paraphrase, unrelated] = [0, 1, 2].map(|j| rows.row(3 * i + j).unwrap());
        table.check(&triple.anchor, cosine(anchor, paraphrase) > cosine(anchor, unrelated), "the unrelated text is nearer");
        for (other, expected) in [(paraphrase, triple.cos_paraphrase), (unrelated, triple.cos_unrelated)] {
            table.close(&triple.anchor, &[cosine(anchor, other)], &[expected], Bound::absolute(0.01));
        }
    }
    table.finish();
}

/// A full-size model with generated weights: the mean over tokens, and the first columns of each token.
fn check_synthetic(table: &mut Table, gpu: &Gpu, name: &str) {
    let model = synthetic::Model::load(name);
    let folder = synthetic::model_folder(name);
    let extractor = FeatureExtractor::builder().gpu(gpu.clone()).token_budget(512).from_dir(folder).unwrap();
    let sequences: Vec<Sequence> = model
        .texts
        .iter()
        .map(|text| Sequence { ids: &text.ids, type_ids: text.token_type_ids.as_deref().unwrap_or(&[]), selected: &[] })
        .collect();
    let bound = Bound::absolute(model.atol());
    for (i, (features, text)) in extractor.features_of_tokens(&sequences).unwrap().iter().zip(&model.texts).enumerate() {
        let tokens = features.rows().len();
        let mean: Vec<f64> =
            (0..features.dimension()).map(|c| features.rows().map(|row| row[c] as f64).sum::<f64>() / tokens as f64).collect();
        table.close(format!("{name} text {i} mean"), &mean, &text.mean, bound);
        let first: Vec<f32> = features.rows().flat_map(|row| &row[..8]).copied().collect();
        table.close(format!("{name} text {i} first columns"), &first, &text.last_hidden_state_first_8.concat(), bound);
    }
}

#[test]
fn minilm_l12_h384_runs_at_full_size() {
    let mut table = Table::new("full size");
    check_synthetic(&mut table, &gpu(), "MiniLM-L12-H384-uncased");
    table.finish();
}

/// Its vocabulary takes 366 MiB, three times the largest binding of WebGPU's default limits, with which this runs.
#[test]
fn multilingual_minilm_runs_at_full_size_within_the_default_limits() {
    let options = GpuOptions { limits: Some(wgpu::Limits::default()), ..GpuOptions::default() };
    let mut table = Table::new("full size, default limits");
    check_synthetic(&mut table, &Gpu::new(options).unwrap(), "Multilingual-MiniLM-L12-H384");
    table.finish();
}
