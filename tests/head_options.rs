//! Options of heads that none of the goldens has, held to plain f64 loops over the f64 encoder, which the goldens hold to PyTorch.

mod common;

use std::path::Path;

use common::compare::{Bound, Table};
use common::files::{copy, read_json, write};
use common::gpu::gpu;
use common::small_model::{Tensors, safetensors, write_json};
use minilm::checkpoint::{Linear, Tensor};
use minilm::{Checkpoint, Classifier, Embedder, Score, Sequence, reference};
use serde_json::{Value, json};

const BOUND: Bound = Bound::absolute(2e-5);
const TEXTS: [&[u32]; 4] = [&[0, 1], &[0, 10, 11, 1], &[0, 20, 7, 9, 30, 41, 1], &[0, 8, 8, 8, 8, 8, 12, 13, 14, 15, 1]];

fn family(name: &str) -> tempfile::TempDir {
    let files = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    copy(&common::fixture("families").join(name), &files)
}

/// The mean of a text's hidden states.
fn mean(checkpoint: &Checkpoint, ids: &[u32]) -> Vec<f64> {
    let encoder = reference::Encoder::new(&checkpoint.config, &checkpoint.encoder().unwrap()).unwrap();
    let (hidden, width) = (encoder.hidden(ids, &[]), checkpoint.config.hidden);
    (0..width).map(|column| hidden.iter().skip(column).step_by(width).sum::<f64>() / ids.len() as f64).collect()
}

/// `weight * x + bias`
fn linear([weight, bias]: [&[f32]; 2], x: &[f64]) -> Vec<f64> {
    let product = |row: &[f32]| row.iter().zip(x).map(|(&weight, x)| f64::from(weight) * x).sum::<f64>();
    weight.chunks_exact(x.len()).zip(bias).map(|(row, &bias)| product(row) + f64::from(bias)).collect()
}

#[test]
fn xlm_takes_the_mean_where_the_summary_says_so() {
    let mut table = Table::new("summary_type mean");
    for (activation, function) in [("", (|x| x) as fn(f64) -> f64), ("tanh", f64::tanh)] {
        let folder = family("xlm-sequence");
        let mut config: Value = read_json(&folder.path().join("config.json"));
        (config["summary_type"], config["summary_activation"]) = (json!("mean"), json!(activation));
        write(folder.path(), "config.json", config.to_string());
        let classifier = Classifier::builder().gpu(gpu()).score(Score::Raw).from_dir(folder.path()).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let Linear { weight, bias } = checkpoint.classifier().unwrap().output;
        let [weight, bias] = [weight, bias].map(|tensor: Tensor| tensor.values().unwrap());
        let encodings: Vec<_> = TEXTS.map(|ids| minilm::Encoding { ids: ids.to_vec(), ..encoding() }).to_vec();
        for (ids, found) in TEXTS.iter().zip(classifier.classify_encodings(&encodings).unwrap()) {
            let expected: Vec<f64> = linear([&weight, &bias], &mean(&checkpoint, ids)).into_iter().map(function).collect();
            table.close(format!("{activation} {ids:?}"), &found.logits, &expected, BOUND);
        }
    }
    table.finish();
}

fn encoding() -> minilm::Encoding {
    minilm::Encoding { ids: Vec::new(), type_ids: Vec::new(), total_tokens: 0, truncated: false }
}

/// As sentence-transformers computes it: the input is added behind the activation.
#[test]
fn a_dense_module_adds_its_input_where_it_says_so() {
    let mut table = Table::new("use_residual");
    let number = |i: usize| ((i * 37 % 101) as f32 - 50.0) / 200.0;
    let [weight, bias]: [Vec<f32>; 2] = [(0..24 * 24).map(number).collect(), (0..24).map(|i| number(i + 7)).collect()];
    let folder = family("bert-base");
    let path = folder.path();
    let part = |values: &[f32], shape: &[usize]| ("F32".to_owned(), shape.to_vec(), values.iter().flat_map(|v| v.to_le_bytes()).collect());
    let module = |(kind, path): (&str, &str)| json!({"type": format!("sentence_transformers.models.{kind}"), "path": path});
    write_json(path, "modules.json", [("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense")].map(module).into());
    write_json(path, "1_Pooling/config.json", json!({"word_embedding_dimension": 24, "pooling_mode_mean_tokens": true}));
    for (activation, function) in [("linear.Identity", (|x| x) as fn(f64) -> f64), ("activation.Tanh", f64::tanh)] {
        for (biased, residual) in [(true, true), (false, true), (true, false)] {
            let mut tensors = Tensors::from([("linear.weight".to_owned(), part(&weight, &[24, 24]))]);
            if biased {
                tensors.insert("linear.bias".to_owned(), part(&bias, &[24]));
            }
            dense(path, json!({"bias": biased, "use_residual": residual, "activation_function": format!("torch.nn.modules.{activation}")}));
            write(path, "2_Dense/model.safetensors", safetensors(&tensors));
            let (checkpoint, embedder) = (Checkpoint::open(path).unwrap(), Embedder::builder().gpu(gpu()).from_dir(path).unwrap());
            let rows = embedder.embed_tokens(&TEXTS.map(|ids| Sequence { ids, ..Sequence::default() })).unwrap();
            for (ids, row) in TEXTS.iter().zip(rows.rows()) {
                let (x, zeros) = (mean(&checkpoint, ids), [0.0; 24]);
                let y = linear([&weight, if biased { &bias } else { &zeros }], &x);
                let expected: Vec<f64> = y.into_iter().zip(&x).map(|(y, x)| function(y) + if residual { *x } else { 0.0 }).collect();
                table.close(format!("{activation} bias {biased} residual {residual} {ids:?}"), row, &expected, BOUND);
            }
        }
    }
    table.finish();
}

fn dense(folder: &Path, mut settings: Value) {
    (settings["in_features"], settings["out_features"]) = (json!(24), json!(24));
    write_json(folder, "2_Dense/config.json", settings);
}
