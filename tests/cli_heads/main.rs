//! The commands for heads, and what `embed` can be asked for, as a program uses them: lines of JSON with the fields that are promised, and
//! in them the values of the goldens in `fixtures/families`.

mod answer;
#[path = "../common/mod.rs"]
mod common;
mod embed;
mod heads;
mod places;
mod refusals;

use std::path::{Path, PathBuf};

use common::compare::Bound;
use common::files::read_json;
use common::program::{Run, minilm_of, run};
use minilm::{Checkpoint, Encoding, reference};
use serde_json::{Value, json};

/// As in `families.rs`.
const BOUND: Bound = Bound::absolute(4e-5);

fn family(name: &str) -> PathBuf {
    common::fixture("families").join(name)
}

/// The texts of a folder's `golden.json`.
fn texts(name: &str) -> Vec<Value> {
    read_json::<Value>(&family(name).join("golden.json"))["texts"].as_array().unwrap().clone()
}

/// What the tokenizer of these folders makes a golden's ids of.
fn words(golden: &Value) -> String {
    let ids = numbers(&golden["ids"]);
    let word = |id: &f64| match *id {
        1.0 => "<pad>".to_owned(),
        4.0 => "<mask>".to_owned(),
        id => format!("w{}", id - 5.0),
    };
    ids[1..ids.len() - 1].iter().map(word).collect::<Vec<_>>().join(" ")
}

/// Words from `first` on, as many as `count`.
fn some_words(first: usize, count: usize) -> String {
    (first..first + count).map(|i| format!("w{}", i * 7 % 43)).collect::<Vec<_>>().join(" ")
}

/// All numbers of an array of numbers or of arrays.
fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().map_or_else(|| vec![value.as_f64().unwrap()], |values| values.iter().flat_map(numbers).collect())
}

/// The fields of an object, sorted.
fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn run_with(folder: &Path, arguments: &[&str], input: impl AsRef<[u8]> + Send) -> Run {
    run(&mut minilm_of(folder, arguments), input)
}

/// What the program says of lines of JSON.
fn lines_of(folder: &Path, arguments: &[&str], input: &[Value]) -> Vec<Value> {
    run_with(folder, &[arguments, &["--input-format", "jsonl"]].concat(), json_lines(input)).succeeded().json_lines()
}

fn json_lines(values: &[Value]) -> String {
    values.iter().map(|value| format!("{value}\n")).collect()
}

fn as_texts(texts: &[String]) -> Vec<Value> {
    texts.iter().map(|text| json!({ "text": text })).collect()
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
    logits.iter().map(|logit| logit.exp() / sum).collect()
}

fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

/// The first of the largest values.
fn largest(values: &[f64]) -> usize {
    (0..values.len()).rev().max_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap()
}

/// A checkpoint in plain f64 loops, for inputs that have no goldens.
struct Plain {
    checkpoint: Checkpoint,
    encoder: reference::Encoder,
}

impl Plain {
    fn open(folder: &Path) -> Self {
        let checkpoint = Checkpoint::open(folder).unwrap();
        let encoder = reference::Encoder::new(&checkpoint.config, &checkpoint.encoder().unwrap()).unwrap();
        Self { checkpoint, encoder }
    }

    fn encode(&self, text: &str, pair: &str) -> Encoding {
        self.checkpoint.tokenizer.encode(text, Some(pair), usize::MAX).unwrap()
    }

    /// `[labels]` of a pair, by a classifier over the first token's state.
    fn logits(&self, text: &str, pair: &str) -> Vec<f64> {
        let Encoding { ids, type_ids, .. } = self.encode(text, pair);
        let head = self.checkpoint.classifier().unwrap();
        let (dense, activation) = head.dense.unwrap();
        let first = self.encoder.hidden(&ids, &type_ids)[..self.checkpoint.config.hidden].to_vec();
        linear(&linear(&first, &dense, Some(activation)), &head.output, None)
    }

    /// The logits of start and end, `[tokens]` each.
    fn span(&self, encoding: &Encoding) -> [Vec<f64>; 2] {
        let hidden = self.encoder.hidden(&encoding.ids, &encoding.type_ids);
        let both = linear(&hidden, &self.checkpoint.span().unwrap(), None);
        [0, 1].map(|column| both.iter().skip(column).step_by(2).copied().collect())
    }
}

fn linear(x: &[f64], linear: &minilm::checkpoint::Linear, activation: Option<minilm::checkpoint::Activation>) -> Vec<f64> {
    let values = |tensor: &minilm::checkpoint::Tensor| tensor.values().unwrap().into_iter().map(f64::from).collect::<Vec<_>>();
    reference::matmul(x, &values(&linear.weight), &values(&linear.bias), activation, None)
}
