//! Model folders of the usual shapes with weights that look random: time does not depend on what they say.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::{env, fmt, process};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::json;

use crate::error::{Error, Result};

/// The shape of an encoder with BERT's vocabulary and positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub layers: usize,
    pub hidden: usize,
}

impl Shape {
    /// MiniLM with 6 and with 12 layers, and BERT-Base.
    pub const ALL: [Self; 3] = [Self { layers: 6, hidden: 384 }, Self { layers: 12, hidden: 384 }, Self { layers: 12, hidden: 768 }];
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{}-H{}", self.layers, self.hidden)
    }
}

const VOCABULARY: usize = 30_522;
const POSITIONS: usize = 512;

/// A folder that is removed again.
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn write(shape: Shape) -> Result<Self> {
        let path = env::temp_dir().join(format!("minilm-bench-{}-{shape}", process::id()));
        let failed = |source| Error::Io { path: path.clone(), problem: "the synthetic model cannot be written", source };
        fs::create_dir_all(&path).map_err(failed)?;
        let folder = Self { path: path.clone() };
        let config = json!({
            "model_type": "bert", "vocab_size": VOCABULARY, "hidden_size": shape.hidden, "num_hidden_layers": shape.layers,
            "num_attention_heads": 12, "intermediate_size": 4 * shape.hidden, "hidden_act": "gelu", "type_vocab_size": 2,
            "max_position_embeddings": POSITIONS, "layer_norm_eps": 1e-12, "pad_token_id": 0,
        });
        fs::write(path.join("config.json"), config.to_string()).map_err(failed)?;
        let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
        let words: Vec<String> = special.iter().cloned().chain((special.len()..VOCABULARY).map(|i| format!("word{i}"))).collect();
        fs::write(path.join("vocab.txt"), words.join("\n") + "\n").map_err(failed)?;
        write_weights(&path.join("model.safetensors"), shape).map_err(failed)?;
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.path);
    }
}

fn tensors(shape: Shape) -> Vec<(String, Vec<usize>)> {
    let (hidden, wide) = (shape.hidden, 4 * shape.hidden);
    let mut tensors = Vec::new();
    let mut add = |name: String, shape: Vec<usize>| tensors.push((name, shape));
    for (table, rows) in [("word", VOCABULARY), ("position", POSITIONS), ("token_type", 2)] {
        add(format!("embeddings.{table}_embeddings.weight"), vec![rows, hidden]);
    }
    let mut norms = vec!["embeddings".to_owned()];
    for layer in (0..shape.layers).map(|i| format!("encoder.layer.{i}")) {
        norms.extend([format!("{layer}.attention.output"), format!("{layer}.output")]);
        let square = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"];
        let linears = square.into_iter().map(|name| (name, hidden, hidden));
        for (name, outer, inner) in linears.chain([("intermediate.dense", wide, hidden), ("output.dense", hidden, wide)]) {
            add(format!("{layer}.{name}.weight"), vec![outer, inner]);
            add(format!("{layer}.{name}.bias"), vec![outer]);
        }
    }
    for norm in norms {
        add(format!("{norm}.LayerNorm.weight"), vec![hidden]);
        add(format!("{norm}.LayerNorm.bias"), vec![hidden]);
    }
    tensors
}

fn write_weights(path: &Path, shape: Shape) -> std::io::Result<()> {
    let tensors = tensors(shape);
    let mut end = 0;
    let infos = tensors.iter().map(|(name, shape)| {
        let start = end;
        end += 4 * shape.iter().product::<usize>();
        (name.clone(), TensorInfo { dtype: Dtype::F32, shape: shape.clone(), data_offsets: (start, end) })
    });
    let metadata = Metadata::new(None, infos.collect()).map_err(std::io::Error::other)?;
    let mut header = serde_json::to_vec(&metadata)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    for (name, shape) in &tensors {
        let count: usize = shape.iter().product();
        let scale = 1.0 / (shape[shape.len() - 1] as f32).sqrt();
        let base = if name.ends_with("LayerNorm.weight") { 1.0 } else { 0.0 };
        for i in 0..count as u32 {
            // Knuth's multiplicative hash is as random as a benchmark needs.
            let random = (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0;
            file.write_all(&(base + scale * random).to_le_bytes())?;
        }
    }
    file.flush()
}
