//! Eight-bit copies of model folders: about half the size of half precision.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use half::f16;
use safetensors::Dtype as Stored;
use safetensors::tensor::{Metadata, TensorInfo};

use super::link;
use super::sentence::TRANSFORMER_FILES;
use super::tensors::Entry;
use super::{Checkpoint, Dtype, Tensor, Tensors};
use crate::{Error, Result};

/// What a model folder holds beside weights, and what the copy keeps, with [`TRANSFORMER_FILES`].
const KEPT_FILES: [&str; 15] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "spiece.model",
    "modules.json",
    "config_sentence_transformers.json",
    "README.md",
    "LICENSE",
];

/// What [`quantize`] did.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizeReport {
    pub tensors_quantized: usize,
    /// Bytes of the weight files before.
    pub bytes_in: u64,
    /// Bytes of the weight file after.
    pub bytes_out: u64,
    /// The largest ‖stored - original‖ / ‖original‖ of a quantized matrix.
    pub max_relative_error: f64,
    /// The mean of that over the quantized matrices.
    pub mean_relative_error: f64,
}

/// Writes a copy of a model folder whose large matrices are I8 with one f32 scale a row.
///
/// Quantized are the layers' matrices and the word embeddings: number ≈ scale of the row · stored, rounded to the nearest, where the
/// row's largest number is stored as 127 or -127. Everything else is stored in f16 where that loses nothing, and in f32 otherwise.
/// Settings and the tokenizer are copied as they are. Nothing appears under `output` before all of it is written.
///
/// # Errors
/// The input cannot be opened or is quantized already, or the output exists and is not an empty folder, or cannot be written.
pub fn quantize(input: &Path, output: &Path) -> Result<QuantizeReport> {
    let checkpoint = Checkpoint::open(input)?;
    let tensors = checkpoint.tensors();
    let matrices = matrices(&checkpoint)?;
    let mut plan = Vec::new();
    for name in tensors.names() {
        plan.extend(plan_tensor(tensors, name, matrices.contains(name))?);
    }
    // Larger numbers first, so that each lies at a multiple of its size.
    plan.sort_by_key(|part| std::cmp::Reverse(part.dtype.bitsize()));

    let folder = PartialFolder::create(output)?;
    let transformer = &checkpoint.sentence.transformer;
    copy_files(input, &folder.path, &checkpoint.sentence.folders)?;
    copy_files(&input.join(transformer), &folder.path.join(transformer), &[])?;
    let bytes_out = write_weights(tensors, &plan, &folder.path.join(transformer).join("model.safetensors"))?;
    folder.finish(output)?;

    let errors: Vec<f64> = plan.iter().filter_map(|part| part.relative_error).collect();
    Ok(QuantizeReport {
        tensors_quantized: errors.len(),
        bytes_in: tensors.bytes(),
        bytes_out,
        max_relative_error: errors.iter().copied().fold(0.0, f64::max),
        mean_relative_error: errors.iter().sum::<f64>() / errors.len().max(1) as f64,
    })
}

/// The matrices worth quantizing, by name. Position and type tables are not: every token adds a row of each, so that quantizing them
/// makes the mean error of all-MiniLM-L6-v2's embeddings (1 - cosine) 40% larger, for 0.2 MB.
fn matrices(checkpoint: &Checkpoint) -> Result<BTreeSet<&str>> {
    let encoder = checkpoint.encoder()?;
    let mut names = BTreeSet::from([encoder.word.name]);
    for layer in &encoder.layers {
        let linears = [&layer.query, &layer.key, &layer.value, &layer.attention_output, &layer.up, &layer.down];
        names.extend(linears.map(|linear| linear.weight.name));
    }
    Ok(names)
}

/// A tensor of the output.
struct Part<'a> {
    name: String,
    dtype: Stored,
    shape: Vec<usize>,
    content: Content<'a>,
    relative_error: Option<f64>,
}

enum Content<'a> {
    /// As it is: numbers that are not floating-point.
    Bytes(&'a Entry),
    Scales(Vec<f32>),
    Floats(Tensor<'a>),
    /// A matrix and its scales.
    Quantized(Tensor<'a>, Vec<f32>),
}

/// What becomes of one tensor: one part, or a quantized matrix and its scales.
fn plan_tensor<'a>(tensors: &'a Tensors, name: &str, quantized: bool) -> Result<Vec<Part<'a>>> {
    let part = |name: String, dtype, shape: &[usize], content| Part { name, dtype, shape: shape.to_vec(), content, relative_error: None };
    if let Some(entry) = tensors.other(name)? {
        return Ok(vec![part(name.to_owned(), entry.dtype, &entry.shape, Content::Bytes(entry))]);
    }
    let tensor = tensors.get(name)?;
    if tensor.dtype == Dtype::I8 {
        return Err(Error::tensor(tensor.file, name, "is I8 already, expected F32, F16 or BF16: quantize the original model"));
    }
    if !quantized {
        let mut exact = true;
        for_each_row(&tensor, |row| {
            exact &= row.iter().all(|&value| f16::from_f32(value).to_f32() == value);
            Ok(())
        })?;
        let dtype = if exact { Stored::F16 } else { Stored::F32 };
        return Ok(vec![part(name.to_owned(), dtype, tensor.shape, Content::Floats(tensor))]);
    }
    let (mut scales, mut error, mut norm) = (Vec::with_capacity(tensor.rows()), 0.0, 0.0);
    for_each_row(&tensor, |row| {
        let scale = scale_of(row);
        error += row.iter().map(|&value| f64::from(f32::from(stored(value, scale)) * scale - value).powi(2)).sum::<f64>();
        norm += row.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>();
        scales.push(scale);
        Ok(())
    })?;
    let scale = part(format!("{name}.scale"), Stored::F32, &[scales.len()], Content::Scales(scales.clone()));
    let mut matrix = part(name.to_owned(), Stored::I8, tensor.shape, Content::Quantized(tensor, scales));
    matrix.relative_error = Some(if norm > 0.0 { (error / norm).sqrt() } else { 0.0 });
    Ok(vec![matrix, scale])
}

fn for_each_row(tensor: &Tensor<'_>, mut run: impl FnMut(&[f32]) -> Result<()>) -> Result<()> {
    // An empty tensor may claim any number of rows or columns.
    if tensor.numbers() == 0 {
        return Ok(());
    }
    let mut row = vec![0.0; tensor.columns()];
    for index in 0..tensor.rows() {
        tensor.read_row(index, &mut row)?;
        run(&row)?;
    }
    Ok(())
}

/// Smaller scales, which cut a row's largest numbers to leave finer steps for the others, gained nothing on real models.
fn scale_of(row: &[f32]) -> f32 {
    let largest = row.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    // A step must not vanish, however small the numbers; a row of zeros has any.
    if largest == 0.0 { 1.0 } else { (largest / 127.0).max(f32::MIN_POSITIVE) }
}

fn stored(value: f32, scale: f32) -> i8 {
    (value / scale).round_ties_even().clamp(-127.0, 127.0) as i8
}

/// Writes a safetensors file part by part; returns its length.
fn write_weights(tensors: &Tensors, plan: &[Part<'_>], path: &Path) -> Result<u64> {
    let failed = |source| Error::Io { path: path.to_owned(), problem: "cannot be written", source };
    let mut end = 0;
    let infos = plan.iter().map(|part| {
        let start = end;
        end += part.shape.iter().product::<usize>() * part.dtype.bitsize() / 8;
        (part.name.clone(), TensorInfo { dtype: part.dtype, shape: part.shape.clone(), data_offsets: (start, end) })
    });
    // Transformers insists on this entry.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let wrong = |problem: String| Error::checkpoint(tensors.path(), format!("its tensors cannot be written as one file: {problem}"));
    let metadata = Metadata::new(Some(metadata), infos.collect()).map_err(|error| wrong(error.to_string()))?;
    let mut header = serde_json::to_vec(&metadata).map_err(|error| wrong(error.to_string()))?;
    header.resize(header.len().next_multiple_of(8), b' ');

    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).map_err(failed)?);
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(failed)?;
    file.write_all(&header).map_err(failed)?;
    for part in plan {
        match &part.content {
            Content::Bytes(entry) => tensors.copy(&part.name, entry, |bytes| file.write_all(bytes).map_err(failed))?,
            Content::Scales(scales) => scales.iter().try_for_each(|scale| file.write_all(&scale.to_le_bytes())).map_err(failed)?,
            Content::Floats(tensor) => for_each_row(tensor, |row| {
                let mut values = row.iter();
                let written = match part.dtype {
                    Stored::F16 => values.try_for_each(|&value| file.write_all(&f16::from_f32(value).to_le_bytes())),
                    _ => values.try_for_each(|value| file.write_all(&value.to_le_bytes())),
                };
                written.map_err(failed)
            })?,
            Content::Quantized(tensor, scales) => {
                let mut scales = scales.iter();
                for_each_row(tensor, |row| {
                    let scale = scales.next().copied().unwrap_or(1.0);
                    let bytes: Vec<u8> = row.iter().map(|&value| stored(value, scale) as u8).collect();
                    file.write_all(&bytes).map_err(failed)
                })?;
            }
        }
    }
    file.into_inner().map_err(|error| failed(error.into_error()))?.sync_all().map_err(failed)?;
    Ok(8 + (header.len() + end) as u64)
}

/// Copies the known files of a folder, and all files of some folders in it.
fn copy_files(from: &Path, to: &Path, folders: &[PathBuf]) -> Result<()> {
    let copy = |from: &Path, to: &Path| {
        link::check(from)?;
        let copied = fs::copy(from, to).map(|_| ());
        copied.map_err(|source| Error::Io { path: from.to_owned(), problem: "cannot be copied", source })
    };
    let created = fs::create_dir_all(to);
    created.map_err(|source| Error::Io { path: to.to_owned(), problem: "cannot be created", source })?;
    for name in KEPT_FILES.into_iter().chain(TRANSFORMER_FILES) {
        if from.join(name).is_file() {
            copy(&from.join(name), &to.join(name))?;
        }
    }
    for folder in folders {
        let Ok(files) = fs::read_dir(from.join(folder)) else { continue };
        let created = fs::create_dir_all(to.join(folder));
        created.map_err(|source| Error::Io { path: to.join(folder), problem: "cannot be created", source })?;
        for file in files.flatten().filter(|file| file.path().is_file()) {
            copy(&file.path(), &to.join(folder).join(file.file_name()))?;
        }
    }
    Ok(())
}

/// A folder under another name beside the final one, removed again unless it is finished.
struct PartialFolder {
    path: PathBuf,
}

impl PartialFolder {
    fn create(output: &Path) -> Result<Self> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { path, problem: "cannot be created", source }
        };
        let free = match fs::read_dir(output) {
            Ok(mut files) => files.next().is_none(),
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        let Some(name) = output.file_name().filter(|_| free) else {
            return Err(Error::checkpoint(
                output,
                "expected the name of a new or an empty folder, found something there: choose another name",
            ));
        };
        let path = output.with_file_name(format!(".{}.partial-{}", name.to_string_lossy(), std::process::id()));
        fs::create_dir(&path).map_err(failed(&path))?;
        Ok(Self { path })
    }

    fn finish(self, output: &Path) -> Result<()> {
        // Not every system renames onto an empty folder; where there is none, there is nothing to remove.
        let _ = fs::remove_dir(output);
        let renamed = fs::rename(&self.path, output);
        renamed.map_err(|source| Error::Io { path: output.to_owned(), problem: "cannot be created", source })
    }
}

impl Drop for PartialFolder {
    fn drop(&mut self) {
        // After finishing there is no such folder any more.
        let _ = fs::remove_dir_all(&self.path);
    }
}
