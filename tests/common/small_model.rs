//! The folder of a model so small that tests make it, and damage it, in no time.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use minilm::checkpoint::{EncoderWeights, Linear, Norm, Tensor};
use serde_json::{Value, json};

pub fn tensors_of<'a>(encoder: &EncoderWeights<'a>) -> Vec<Tensor<'a>> {
    let linear = |linear: &Linear<'a>| [linear.weight, linear.bias];
    let norm = |norm: &Norm<'a>| [norm.weight, norm.bias];
    let mut all = vec![encoder.word, encoder.position];
    all.extend(encoder.token_type);
    all.extend(norm(&encoder.embedding_norm));
    for layer in &encoder.layers {
        let linears = [&layer.query, &layer.key, &layer.value, &layer.attention_output, &layer.up, &layer.down];
        all.extend(linears.into_iter().flat_map(linear));
        all.extend([&layer.attention_norm, &layer.output_norm].into_iter().flat_map(norm));
    }
    all.extend(encoder.pooler.iter().flat_map(linear));
    all
}

/// Type of number, shape and bytes by name.
pub type Tensors = BTreeMap<String, (String, Vec<usize>, Vec<u8>)>;

/// A folder of a model of one layer, 16 wide, with 8 words.
pub fn small_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({
        "model_type": "bert", "num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 8,
        "max_position_embeddings": 6, "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
    });
    write_json(folder.path(), "config.json", config);
    write(folder.path(), "vocab.txt", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\n");
    write_tensors(folder.path(), &small_tensors());
    folder
}

pub fn small_tensors() -> Tensors {
    let mut tensors = Tensors::new();
    let mut add = |name: &str, shape: &[usize]| {
        let bytes = (0..shape.iter().product()).flat_map(|i| (1.0 + i as f32).to_le_bytes()).collect();
        tensors.insert(name.to_owned(), ("F32".to_owned(), shape.to_vec(), bytes));
    };
    for (name, rows) in [("word", 8), ("position", 6), ("token_type", 2)] {
        add(&format!("embeddings.{name}_embeddings.weight"), &[rows, 16]);
    }
    for name in ["embeddings", "encoder.layer.0.attention.output", "encoder.layer.0.output"] {
        add(&format!("{name}.LayerNorm.weight"), &[16]);
        add(&format!("{name}.LayerNorm.bias"), &[16]);
    }
    let square = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"];
    for (name, outputs, inputs) in
        square.map(|name| (name, 16, 16)).into_iter().chain([("intermediate.dense", 24, 16), ("output.dense", 16, 24)])
    {
        add(&format!("encoder.layer.0.{name}.weight"), &[outputs, inputs]);
        add(&format!("encoder.layer.0.{name}.bias"), &[outputs]);
    }
    tensors
}

pub fn safetensors(tensors: &Tensors) -> Vec<u8> {
    let (mut infos, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, (dtype, shape, bytes)) in tensors {
        let start = data.len();
        data.extend(bytes);
        infos.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": [start, data.len()]}));
    }
    with_header(Value::Object(infos).to_string().as_bytes(), &data)
}

pub fn with_header(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

pub fn write_tensors(folder: &Path, tensors: &Tensors) {
    write(folder, "model.safetensors", &safetensors(tensors));
}

pub fn change_tensor(folder: &Path, name: &str, change: impl FnOnce(&mut (String, Vec<usize>, Vec<u8>))) {
    let mut tensors = small_tensors();
    change(tensors.get_mut(name).unwrap());
    write_tensors(folder, &tensors);
}

pub fn rename_tensor(folder: &Path, from: &str, to: &str) {
    let mut tensors = small_tensors();
    let tensor = tensors.remove(from).unwrap();
    tensors.insert(to.to_owned(), tensor);
    write_tensors(folder, &tensors);
}

/// The key matrix in eight bits, with scales of this shape and value.
pub fn quantized(folder: &Path, scale: Option<(Vec<usize>, f32)>) {
    let mut tensors = small_tensors();
    let name = "encoder.layer.0.attention.self.key.weight";
    tensors.insert(name.to_owned(), ("I8".to_owned(), vec![16, 16], vec![0xff; 256]));
    if let Some((shape, scale)) = scale {
        let bytes = scale.to_le_bytes().repeat(shape.iter().product());
        tensors.insert(format!("{name}.scale"), ("F32".to_owned(), shape, bytes));
    }
    write_tensors(folder, &tensors);
}

pub fn header(folder: &Path, header: &[u8], data: usize) {
    write(folder, "model.safetensors", &with_header(header, &vec![0; data]));
}

/// A file of tensors that lie where the header says, name by name with type, shape and offsets, and of so many bytes of data.
pub fn tensors_at(folder: &Path, tensors: &[(&str, &str, &[u64], [i64; 2])], data: usize) {
    let info = |(name, dtype, shape, offsets): &(&str, &str, &[u64], [i64; 2])| {
        ((*name).to_owned(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}))
    };
    header(folder, Value::Object(tensors.iter().map(info).collect()).to_string().as_bytes(), data);
}

/// The weights as a shard, and an index.
pub fn index(folder: &Path, index: &[u8]) {
    fs::rename(folder.join("model.safetensors"), folder.join("s-1.safetensors")).unwrap();
    write(folder, "model.safetensors.index.json", index);
}

pub fn modules(folder: &Path, kinds: &[&str], pooling: Value) {
    let path = |kind: &str| if kind == "Transformer" { String::new() } else { kind.to_owned() };
    let module = |kind: &&str| json!({"type": format!("sentence_transformers.models.{kind}"), "path": path(kind)});
    write_json(folder, "modules.json", kinds.iter().map(module).collect());
    write_json(folder, "Pooling/config.json", pooling);
}

/// A tokenizer.json that puts this around a single text.
pub fn template(folder: &Path, single: Value) {
    let pair = json!([{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]);
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "decoder": null,
        "post_processor": {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": {}},
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "c": 2, "?": 3, "d": 4, "e": 5, "f": 6, "g": 7}, "unk_token": "?"},
    });
    write_json(folder, "tokenizer.json", tokenizer);
}

/// A tokenizer.json that is changed.
pub fn tokenizer(folder: &Path, change: impl FnOnce(&mut Value)) {
    template(folder, json!([{"Sequence": {"id": "A", "type_id": 0}}]));
    let mut tokenizer = serde_json::from_slice(&fs::read(folder.join("tokenizer.json")).unwrap()).unwrap();
    change(&mut tokenizer);
    write_json(folder, "tokenizer.json", tokenizer);
}

pub fn config(folder: &Path, field: &str, value: Value) {
    change_config(folder, |config| config[field] = value);
}

pub fn change_config(folder: &Path, change: impl FnOnce(&mut Value)) {
    let path = folder.join("config.json");
    let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    write_json(folder, "config.json", config);
}

pub fn write_json(folder: &Path, name: &str, value: Value) {
    write(folder, name, value.to_string().as_bytes());
}

pub fn write(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

pub fn remove(folder: &Path, name: &str) {
    fs::remove_file(folder.join(name)).unwrap();
}

pub fn make_folder(folder: &Path, name: &str) {
    remove(folder, name);
    fs::create_dir(folder.join(name)).unwrap();
}

pub fn cut(folder: &Path, name: &str, length: usize) {
    let bytes = fs::read(folder.join(name)).unwrap();
    write(folder, name, &bytes[..length]);
}

/// Bytes of the weights.
pub fn length(folder: &Path) -> usize {
    fs::read(folder.join("model.safetensors")).unwrap().len()
}
