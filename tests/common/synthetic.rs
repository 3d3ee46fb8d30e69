//! Full-size checkpoints without stored weights: every value comes from a counter-based generator.
//!
//! `value(name, i)`, all in f32 after the integer part, `i` being the row-major index:
//!
//! ```text
//! key   = FNV-1a 64 of the tensor's name
//! z     = splitmix64's finaliser of key + (i + 1) * 0x9E3779B97F4A7C15   (wrapping)
//! u     = f32(z >> 40) * 2^-23 - 1                                       (in [-1, 1), exact)
//! value = base + scale * u                                               (two roundings, not fused)
//! ```
//!
//! `tests/fixtures/synthetic.json` holds the configurations, the shapes, and what PyTorch computes from these weights.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{process, thread};

use serde::Deserialize;

/// One model of `synthetic.json`.
#[derive(Debug, Deserialize)]
pub struct Model {
    /// The key in `synthetic.json`, as `MiniLM-L12-H384-uncased`.
    #[serde(skip)]
    pub name: String,
    /// What PyTorch computed in: `float64`, or `float32` for the largest model.
    pub dtype: String,
    /// `config.json`, field for field.
    pub config: serde_json::Value,
    /// The number of weights.
    pub parameters: usize,
    /// The shape of every tensor.
    pub tensors: BTreeMap<String, Vec<usize>>,
    pub texts: Vec<Text>,
}

/// An input and what comes out of the last layer.
#[derive(Debug, Deserialize)]
pub struct Text {
    pub ids: Vec<u32>,
    /// Only for models that have token types.
    pub token_type_ids: Option<Vec<u32>>,
    /// `[hidden]`, the mean over tokens of the last hidden state.
    pub mean: Vec<f64>,
    /// `[tokens, 8]`, the first columns of the last hidden state.
    pub last_hidden_state_first_8: Vec<[f64; 8]>,
}

impl Model {
    /// The model `name` of `synthetic.json`; panics where it has none of that name.
    pub fn load(name: &str) -> Self {
        let mut models = Self::load_all();
        let names: Vec<_> = models.iter().map(|model| model.name.clone()).collect();
        let index = names.iter().position(|known| known == name);
        models.swap_remove(index.unwrap_or_else(|| panic!("synthetic.json has no {name}; it has {}", names.join(", "))))
    }

    /// Every model of `synthetic.json`, in the order of their names.
    pub fn load_all() -> Vec<Self> {
        let path = super::fixture("synthetic.json");
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let models: BTreeMap<String, Self> = serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        models.into_iter().map(|(name, model)| Self { name, ..model }).collect()
    }

    /// The largest absolute difference of a float32 runtime, in any value of [`Text`].
    pub fn atol(&self) -> f64 {
        if self.dtype == "float64" { 5e-5 } else { 2e-4 }
    }

    /// The files that are small: name and content.
    fn small_files(&self) -> [(&'static str, String); 3] {
        let config = serde_json::to_string_pretty(&self.config).expect("a JSON value can be written");
        let tokenizer = serde_json::json!({
            "tokenizer_class": "BertTokenizer", "do_lower_case": true, "model_max_length": 512,
            "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"
        });
        // The tokens are not those of the real model. The special ones sit where its family has them, so that ids agree with config.json.
        let special = match self.config["pad_token_id"].as_u64() {
            Some(1) => ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"],
            Some(2) => ["[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"],
            _ => ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        };
        let words = ["a", "an", "the", "cat", "dog", "sits", "runs", "on", "mat", "##s", ",", "."];
        let rows = self.config["vocab_size"].as_u64().unwrap_or(0);
        let unused = (0..rows.saturating_sub((special.len() + words.len()) as u64)).map(|i| format!("[unused{i}]\n"));
        let vocabulary = special.iter().chain(&words).map(|token| format!("{token}\n")).chain(unused).collect();
        [("config.json", config), ("tokenizer_config.json", tokenizer.to_string()), ("vocab.txt", vocabulary)]
    }

    /// The first bytes of model.safetensors: the header's length and the header. The tensors follow in the order of their names.
    fn header(&self) -> Vec<u8> {
        let mut end = 0;
        let mut entries = serde_json::Map::new();
        for (name, shape) in &self.tensors {
            let start = end;
            end += 4 * shape.iter().product::<usize>();
            entries.insert(name.clone(), serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]}));
        }
        let mut header = serde_json::Value::Object(entries).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        [(header.len() as u64).to_le_bytes().as_slice(), &header].concat()
    }

    /// Whether `folder` holds exactly this model. The weights are not read, only their header and length.
    pub fn is_written(&self, folder: &Path) -> bool {
        let header = self.header();
        let weights = || -> io::Result<bool> {
            let mut file = File::open(folder.join("model.safetensors"))?;
            let mut found = vec![0; header.len()];
            io::Read::read_exact(&mut file, &mut found)?;
            let values: usize = self.tensors.values().map(|shape| shape.iter().product::<usize>()).sum();
            Ok(found == header && file.metadata()?.len() == (header.len() + 4 * values) as u64)
        };
        let same = |(name, content): &(&str, String)| fs::read(folder.join(name)).is_ok_and(|found| found == content.as_bytes());
        self.small_files().iter().all(same) && weights().unwrap_or(false)
    }

    /// Writes a folder in Hugging Face layout: config.json, model.safetensors in f32, and a tokenizer of a few words.
    ///
    /// Every thread holds one chunk of a tensor at a time, so that a model of 2 GB needs a few MB of memory.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        for (name, content) in self.small_files() {
            fs::write(folder.join(name), content)?;
        }
        let path = folder.join("model.safetensors");
        let header = self.header();
        let mut chunks = Vec::new();
        let mut offset = header.len() as u64;
        for (name, shape) in &self.tensors {
            let (values, count) = (Values::new(name, shape), shape.iter().product::<usize>());
            for start in (0..count).step_by(CHUNK) {
                chunks.push((values, start..count.min(start + CHUNK), offset + 4 * start as u64));
            }
            offset += 4 * count as u64;
        }
        let mut file = File::create(&path)?;
        file.set_len(offset)?;
        file.write_all(&header)?;

        let next = AtomicUsize::new(0);
        let work = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).open(&path)?;
            let mut bytes = Vec::with_capacity(4 * CHUNK);
            while let Some((values, range, offset)) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
                bytes.clear();
                bytes.extend(range.clone().flat_map(|index| values.at(index).to_le_bytes()));
                file.seek(SeekFrom::Start(*offset))?;
                file.write_all(&bytes)?;
            }
            Ok(())
        };
        let threads = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
        })
    }
}

/// Values that a thread makes before it writes them: 1 MiB.
const CHUNK: usize = 1 << 18;

/// Writes the model `name` of `synthetic.json` to `folder`; see [`Model::write`].
pub fn write_model(name: &str, folder: &Path) -> io::Result<()> {
    Model::load(name).write(folder)
}

/// A folder with the model `name` below `target/tmp/synthetic`, written at the first call and found there by later runs.
///
/// The folder gets its name only when it is whole: a run that is broken off leaves nothing that looks like a model.
pub fn model_folder(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("synthetic");
    model_folder_in(&root, &Model::load(name)).unwrap_or_else(|error| panic!("{name} cannot be written to {}: {error}", root.display()))
}

/// The same below `root`, for any model.
pub fn model_folder_in(root: &Path, model: &Model) -> io::Result<PathBuf> {
    // One at a time: two tests that ask for the same model share it, and each writer uses every core anyway.
    static WRITING: Mutex<()> = Mutex::new(());
    let _writing = WRITING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());

    let folder = root.join(&model.name);
    if model.is_written(&folder) {
        return Ok(folder);
    }
    fs::create_dir_all(root)?;
    remove_abandoned(root)?;
    let partial = root.join(format!("{}.{PARTIAL}.{}", model.name, process::id()));
    model.write(&partial)?;
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match fs::rename(&partial, &folder) {
        // Another process was faster.
        Err(_) if model.is_written(&folder) => fs::remove_dir_all(&partial)?,
        renamed => renamed?,
    }
    Ok(folder)
}

const PARTIAL: &str = "partial";

/// Removes what runs that were broken off have left: nobody writes to one model for an hour.
fn remove_abandoned(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let is_partial = entry.path().with_extension("").extension().is_some_and(|extension| extension == PARTIAL);
        let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
        if is_partial && age.as_secs() > 3600 {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// The values of one tensor.
#[derive(Debug, Clone, Copy)]
pub struct Values {
    key: u64,
    base: f32,
    scale: f32,
}

impl Values {
    /// `shape` matters for matrices, whose scale falls with the number of columns.
    pub fn new(name: &str, shape: &[usize]) -> Self {
        let (base, scale) = base_and_scale(name, shape);
        Self { key: fnv1a(name), base, scale }
    }

    /// The value at a row-major index.
    pub fn at(&self, index: usize) -> f32 {
        let z = self.key.wrapping_add((index as u64).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let z = z ^ (z >> 31);
        let unit = (z >> 40) as f32 * (1.0 / (1 << 23) as f32) - 1.0;
        self.base + self.scale * unit
    }
}

/// By the tensor's role, as its name tells it.
fn base_and_scale(name: &str, shape: &[usize]) -> (f32, f32) {
    let lower = name.to_lowercase();
    let contains = |parts: &[&str]| parts.iter().any(|part| lower.contains(part));
    let norm = contains(&["layernorm", "layer_norm"]);
    if norm && name.ends_with("weight") {
        (1.0, 0.25)
    } else if name.ends_with("bias") || contains(&["embedding"]) {
        (0.0, 0.1)
    } else {
        let columns = *shape.last().expect("a tensor has a dimension") as f32;
        let top = if contains(&["query", "key", "q_lin", "k_lin"]) { 2.0 } else { 1.5 };
        (0.0, top / columns.sqrt())
    }
}

fn fnv1a(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}
