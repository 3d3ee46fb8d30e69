//! Whole models against golden outputs of another implementation, through the public API.

mod common;

use common::compare::{Bound, Table, cosine};
use common::golden::{Case, Golden, triples};
use common::gpu::gpu;
use minilm::{Arithmetic, Checkpoint, Embedder, FeatureExtractor, Gpu, Input, Pooling, WeightFormat, reference, wgpu};

const FIXTURES: [&str; 5] = [
    "tiny-minilm-bert-l3-h96",
    "tiny-minilm-bert-odd-h80",
    "tiny-bert-base-l4-h64-sharded",
    "tiny-bert-legacy-names",
    "tiny-mminilm-bert-xlmr-l3-h96",
];

/// The rows of golden files, and how they are made of hidden states.
const POOLINGS: [(&str, Pooling, bool); 3] =
    [("mean", Pooling::Mean, false), ("mean_normalized", Pooling::Mean, true), ("cls", Pooling::Cls, false)];

/// Weights of a model that runs fast enough to pool everything alone too, not only its hidden states.
const SMALL: u64 = 32 << 20;

fn inputs(golden: &Golden) -> Vec<Input<'_>> {
    golden.cases.iter().map(Case::input).collect()
}

fn wide(values: &[f32]) -> impl Iterator<Item = f64> {
    values.iter().copied().map(f64::from)
}

/// Every golden output of a folder: token ids, hidden states, the pooler's output, and each pooling, all in mixed batches that give the
/// bits that each text gives alone.
fn check_folder(table: &mut Table, gpu: &Gpu, golden: &Golden) {
    let name = golden.name();
    let pooler = golden.get("pooler_output");
    let builder = FeatureExtractor::builder().gpu(gpu.clone()).max_length(golden.max_length).pooler(pooler.is_some());
    let extractor = builder.from_dir(&golden.folder).unwrap();
    let encodings = extractor.encode(inputs(golden)).unwrap();
    let features = extractor.features(inputs(golden)).unwrap();
    for (index, (case, (encoding, features))) in golden.cases.iter().zip(encodings.iter().zip(&features)).enumerate() {
        let case_name = format!("{name} {}", case.id);
        table.equal(format!("{case_name} token ids"), &encoding.ids, &case.input_ids);
        if let Some(types) = &case.token_type_ids {
            table.equal(format!("{case_name} token types"), &encoding.type_ids, types);
        }
        table.equal(format!("{case_name} tokens"), &[features.rows().len()], &[case.n_tokens]);
        table.equal(format!("{case_name} truncated"), &[features.length().truncated()], &[case.truncated]);
        if let Some(hidden) = golden.hidden(case) {
            let bound = Bound::absolute(golden.atol("last_hidden_state"));
            table.close(format!("{case_name} hidden states"), features.as_slice(), &hidden.values, bound);
        }
        if let Some(pooler) = pooler {
            let bound = Bound::absolute(golden.atol("pooler_output"));
            table.close(format!("{case_name} pooler"), features.pooler_output().unwrap(), pooler.row(index), bound);
        }
    }
    golden.same_bits_alone_and_in_batches(table, "hidden states and pooler", |cases| {
        let features = extractor.features(cases.iter().map(|case| case.input())).unwrap();
        features.iter().map(|features| wide(features.as_slice()).chain(wide(features.pooler_output().unwrap_or(&[]))).collect()).collect()
    });
    let small = extractor.model().stats().weight_bytes < SMALL;
    for (output, pooling, normalize) in POOLINGS {
        let Some(expected) = golden.get(output) else { continue };
        let builder = Embedder::builder().gpu(gpu.clone()).max_length(golden.max_length).pooling(pooling).normalize(normalize);
        let embedder = builder.from_dir(&golden.folder).unwrap();
        let rows = embedder.embed(inputs(golden)).unwrap();
        table.close(format!("{name} {output}"), rows.as_slice(), &expected.values, Bound::absolute(golden.atol(output)));
        if small {
            golden.same_bits_alone_and_in_batches(table, output, |cases| {
                let rows = embedder.embed(cases.iter().map(|case| case.input())).unwrap();
                rows.rows().map(|row| wide(row).collect()).collect()
            });
        }
    }
}

#[test]
fn every_golden_is_met_within_its_bound() {
    let mut table = Table::new("golden outputs");
    for name in FIXTURES {
        check_folder(&mut table, &gpu(), &Golden::fixture(name));
    }
    table.finish();
}

#[test]
fn every_golden_of_the_reference_models_is_met_within_its_bound() {
    for golden in Golden::references(|kind| kind == "base", 13) {
        let mut table = Table::new(golden.name());
        check_folder(&mut table, &gpu(), &golden);
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

/// Smaller formats of the weights, and products in them: what they take, and how far from the goldens they are.
fn check_formats(table: &mut Table, golden: &Golden) {
    let name = golden.name();
    let builder = || Embedder::builder().gpu(gpu()).max_length(golden.max_length).pooling(Pooling::Mean).normalize(true);
    let expected = golden.tensor("mean_normalized");
    let whole = builder().from_dir(&golden.folder).unwrap().model().stats().weight_bytes;
    let kinds = [
        ("f16 weights", builder().weights(WeightFormat::F16)),
        ("int8 weights", builder().weights(WeightFormat::Int8)),
        ("f16 x f16", builder().arithmetic(Arithmetic::F16)),
        ("int8 x int8", builder().arithmetic(Arithmetic::Int8)),
    ];
    for (kind, builder) in kinds {
        let in_f16 = kind.contains("f16");
        let embedder = match builder.from_dir(&golden.folder) {
            Err(error) if !gpu().device().features().contains(wgpu::Features::SHADER_F16) && kind == "f16 x f16" => {
                assert!(error.to_string().contains("has no arithmetic in f16"), "{error}");
                continue;
            }
            loaded => loaded.unwrap(),
        };
        let rows = embedder.embed(inputs(golden)).unwrap();
        if in_f16 {
            let bound = Bound::absolute(golden.atol_f16("mean_normalized"));
            table.close(format!("{name} {kind}"), rows.as_slice(), &expected.values, bound);
        }
        let mut least = 1.0f64;
        for ((case, row), expected) in golden.cases.iter().zip(rows.rows()).zip(expected.rows()) {
            let cosine = cosine(row, expected);
            least = least.min(cosine);
            table.at_least(format!("{name} {kind} {}", case.id), cosine, if in_f16 { 0.9999 } else { 0.999 });
        }
        println!("{name} {kind}: cosine at least {least:.6}");
        let stats = embedder.model().stats();
        let tensors = 5 + 16 * embedder.model().config().layers as u64;
        assert!((0..256 * tensors).contains(&(stats.weight_bytes - stats.weight_bytes_uploaded)), "{stats:?}");
        // Biases and positions stay as they are; a scale takes four bytes for each 64 numbers.
        let (share, most) = (stats.weight_bytes as f64 / whole as f64, if in_f16 { 0.51 } else { 0.28 });
        if whole > SMALL {
            table.check(format!("{name} {kind}"), share < most, format!("{share:.3} of the memory, expected less than {most:.3}"));
        }
    }
}

#[test]
fn smaller_formats_of_weights_stay_close_to_the_goldens() {
    let mut table = Table::new("formats of weights");
    for name in ["tiny-minilm-bert-l3-h96", "tiny-minilm-bert-odd-h80", "tiny-mminilm-bert-xlmr-l3-h96"] {
        check_formats(&mut table, &Golden::fixture(name));
    }
    for name in ["all-minilm-l6-v2-f16", "e5-small-multilingual-19k-f16", "minilm-l12-h384-f16"] {
        common::reference(name).iter().for_each(|folder| check_formats(&mut table, &Golden::open(folder)));
    }
    table.finish();
}
