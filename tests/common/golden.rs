//! Golden outputs of a model folder, made by another implementation: `golden.json` holds texts, token ids and bounds,
//! `golden.safetensors` the numbers. A file that cannot be read panics with its path.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use minilm::Input;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::compare::Table;

/// The golden files of one folder.
pub struct Golden {
    pub folder: PathBuf,
    /// The class of the reference model, as `BertModel`.
    pub class: String,
    /// `base`, `logits1`, `logitsT`, `qa` or `mlm`.
    pub kind: String,
    /// Texts were truncated to this many tokens, specials included.
    pub max_length: usize,
    pub cases: Vec<Case>,
    /// Indices into `cases`: texts of very different lengths that must give in one batch what they give alone.
    pub batches: Vec<Vec<usize>>,
    bounds: BTreeMap<String, Bounds>,
    tensors: BTreeMap<String, Tensor>,
}

/// One text or pair of texts, and the tokens that it must become.
#[derive(Debug, Deserialize)]
pub struct Case {
    pub id: String,
    pub text: String,
    pub text_pair: Option<String>,
    pub input_ids: Vec<u32>,
    /// Only for classes that have token types.
    pub token_type_ids: Option<Vec<u32>>,
    pub n_tokens: usize,
    pub truncated: bool,
    /// What else the file says, which depends on [`Golden::kind`].
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

impl Case {
    pub fn input(&self) -> Input<'_> {
        Input { text: &self.text, pair: self.text_pair.as_deref() }
    }

    /// What a kind says of each case beside what all kinds do; panics where it is not there.
    pub fn outputs<T: DeserializeOwned>(&self) -> T {
        serde_json::from_value(self.rest.clone().into()).unwrap_or_else(|error| panic!("golden.json: {}: {error}", self.id))
    }
}

/// A row-major tensor.
#[derive(Debug, Clone)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

impl Tensor {
    /// The length of the last dimension.
    pub fn columns(&self) -> usize {
        *self.shape.last().expect("a tensor of rank 0 has no columns")
    }

    pub fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact(self.columns())
    }

    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.columns()..][..self.columns()]
    }
}

/// Largest absolute differences from the golden that a runtime should stay within.
#[derive(Debug, Deserialize)]
struct Bounds {
    suggested_atol_f32: f64,
    suggested_atol_f16: Option<f64>,
}

#[derive(Deserialize)]
struct File {
    class: String,
    kind: String,
    max_length: usize,
    cases: Vec<Case>,
    batches: Vec<Vec<String>>,
    tolerance: BTreeMap<String, Bounds>,
}

impl Golden {
    /// Reads `golden.json` and `golden.safetensors` of `folder`.
    pub fn open(folder: impl AsRef<Path>) -> Self {
        let folder = folder.as_ref().to_owned();
        let path = folder.join("golden.json");
        let file: File = serde_json::from_slice(&read(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(!file.cases.is_empty(), "{}: no cases", path.display());
        for case in &file.cases {
            assert_eq!(case.input_ids.len(), case.n_tokens, "{}: {}", path.display(), case.id);
        }
        let index = |id: &String| {
            let found = file.cases.iter().position(|case| case.id == *id);
            found.unwrap_or_else(|| panic!("{}: a batch names the unknown case {id}", path.display()))
        };
        let batches = file.batches.iter().map(|batch| batch.iter().map(index).collect()).collect();
        let tensors = read_tensors(&folder.join("golden.safetensors"));
        let File { class, kind, max_length, cases, tolerance: bounds, .. } = file;
        Self { folder, class, kind, max_length, cases, batches, bounds, tensors }
    }

    /// `tests/fixtures/<name>`, opened.
    pub fn fixture(name: &str) -> Self {
        Self::open(super::fixture(name))
    }

    /// Every folder below the one that MINILM_REFERENCE names that has golden files of such a kind, in the order of their names. Those that
    /// are added there are found too; panics where there are fewer than `at_least`. None where the variable is not set.
    pub fn references(is_kind: impl Fn(&str) -> bool, at_least: usize) -> Vec<Self> {
        let Some(root) = super::reference("") else {
            eprintln!("MINILM_REFERENCE is not set: the reference models are not tested");
            return Vec::new();
        };
        let entries = fs::read_dir(&root).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
        let mut folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.join("golden.json").exists()).collect();
        folders.sort();
        let found: Vec<_> = folders.iter().map(Self::open).filter(|golden| is_kind(&golden.kind)).collect();
        let (root, count) = (root.display(), found.len());
        assert!(count >= at_least, "{root} has {count} such folders with golden files, expected at least {at_least}");
        found
    }

    /// The folder's name.
    pub fn name(&self) -> String {
        self.folder.file_name().expect("a folder has a name").to_string_lossy().into_owned()
    }

    /// Every case of a batch gives the same bits there and alone: `run` gives a row for each case. Without batches all cases are one.
    pub fn same_bits_alone_and_in_batches(&self, table: &mut Table, what: &str, run: impl Fn(&[&Case]) -> Vec<Vec<f64>>) {
        let all = [(0..self.cases.len()).collect()];
        let mut alone = BTreeMap::new();
        for members in if self.batches.is_empty() { &all[..] } else { &self.batches } {
            let cases: Vec<_> = members.iter().map(|&index| &self.cases[index]).collect();
            let together = run(&cases);
            let place = format!("{} {what} in a batch of {}", self.name(), members.len());
            table.equal(format!("{place}, rows"), &[together.len()], &[members.len()]);
            for (row, case) in together.iter().zip(cases) {
                let alone = alone.entry(&case.id).or_insert_with(|| run(&[case]).remove(0));
                table.same_bits(format!("{place}, {}", case.id), row, alone);
            }
        }
    }

    /// The tensor `name`, as `mean` `[cases, hidden]` or `last_hidden_state.c00` `[tokens, hidden]`; panics where there is none.
    pub fn tensor(&self, name: &str) -> &Tensor {
        self.get(name).unwrap_or_else(|| panic!("{}: golden.safetensors has no tensor {name}", self.folder.display()))
    }

    /// The same, where a tensor may be left out: hidden states of long texts, the pooler of a model without one.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// The hidden states `[tokens, hidden]` of a case, where they are stored.
    pub fn hidden(&self, case: &Case) -> Option<&Tensor> {
        self.get(&format!("last_hidden_state.{}", case.id))
    }

    /// The largest absolute difference of a float32 runtime in the output `name`; `last_hidden_state.c00` is bounded by
    /// `last_hidden_state`.
    pub fn atol(&self, name: &str) -> f64 {
        self.bounds(name).suggested_atol_f32
    }

    /// The same for a runtime that multiplies in float16.
    pub fn atol_f16(&self, name: &str) -> f64 {
        let bound = self.bounds(name).suggested_atol_f16;
        bound.unwrap_or_else(|| panic!("{}: golden.json has no float16 bound for {name}", self.folder.display()))
    }

    fn bounds(&self, name: &str) -> &Bounds {
        let output = name.split('.').next().unwrap_or(name);
        self.bounds.get(output).unwrap_or_else(|| panic!("{}: golden.json has no bound for {output}", self.folder.display()))
    }

    /// The texts without a pair, with their indices into `cases`.
    pub fn single_texts(&self) -> impl Iterator<Item = (usize, &Case)> {
        self.cases.iter().enumerate().filter(|(_, case)| case.text_pair.is_none())
    }
}

/// A line of `triples.jsonl`: the paraphrase is nearer to the anchor than the unrelated text.
#[derive(Debug, Deserialize)]
pub struct Triple {
    pub anchor: String,
    pub paraphrase: String,
    pub unrelated: String,
    pub cos_paraphrase: f64,
    pub cos_unrelated: f64,
}

/// Reads `triples.jsonl` of `folder`.
pub fn triples(folder: impl AsRef<Path>) -> Vec<Triple> {
    let path = folder.as_ref().join("triples.jsonl");
    let parse = |line| serde_json::from_slice(line).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let triples: Vec<_> = read(&path).split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(parse).collect();
    assert!(!triples.is_empty(), "{}: no lines", path.display());
    triples
}

/// Every tensor of a safetensors file, which must be all float32.
pub fn read_tensors(path: &Path) -> BTreeMap<String, Tensor> {
    let bytes = read(path);
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let decode = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
        assert_eq!(view.dtype(), safetensors::Dtype::F32, "{}: {name}", path.display());
        let values = view.data().as_chunks::<4>().0.iter().map(|&word| f32::from_le_bytes(word)).collect();
        (name.to_owned(), Tensor { shape: view.shape().to_vec(), values })
    };
    file.iter().map(decode).collect()
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
