//! The tensors of a model folder by name: one or several files, read row by row as f32.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::file::WeightFile;
use super::json::{Object, shortened, shown};
use super::{convert, header, torch_file};
use crate::{Error, Result};

/// Files of weights of one kind: a whole model in one, or shards that an index names.
struct Format {
    single: &'static str,
    index: &'static str,
    /// Where each tensor of a file lies, by the file and its place among [`Tensors::files`].
    read: fn(&WeightFile, usize) -> Result<Entries>,
}

/// The first that a folder has is read.
const FORMATS: [Format; 2] = [
    Format { single: "model.safetensors", index: "model.safetensors.index.json", read: header::read },
    Format { single: "pytorch_model.bin", index: "pytorch_model.bin.index.json", read: torch_file::read },
];
/// Others, named where they are all that a folder has.
const OTHER_FORMATS: [&str; 4] = ["tf_model.h5", "flax_model.msgpack", "model.onnx", "onnx/model.onnx"];

/// Every tensor of a model folder. Nothing is read before it is asked for.
#[derive(Debug)]
pub struct Tensors {
    /// The file that stands for all of them in messages.
    path: PathBuf,
    files: Vec<WeightFile>,
    entries: Entries,
}

/// Tensors by name.
pub(super) type Entries = BTreeMap<String, Entry>;

/// Where a tensor lies.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) file: usize,
    pub(super) dtype: safetensors::Dtype,
    pub(super) shape: Vec<usize>,
    /// Numbers from one index to the next, for each dimension; `None` where the numbers lie row by row without gaps.
    pub(super) strides: Option<Vec<usize>>,
    /// Bytes of the file.
    pub(super) range: Range<u64>,
}

/// How the numbers of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    F32,
    F16,
    BF16,
    /// A row's numbers times its scale.
    I8,
}

/// One tensor, where it lies in its file.
#[derive(Clone, Copy)]
pub struct Tensor<'a> {
    pub name: &'a str,
    pub file: &'a Path,
    pub shape: &'a [usize],
    pub dtype: Dtype,
    /// Numbers from one row to the next and from one column to the next. PyTorch also saves matrices column by column, as `[1, rows]`.
    strides: [usize; 2],
    /// Where the first number lies.
    place: Place<'a>,
    /// For [`Dtype::I8`] the companion tensor `<name>.scale`: one little-endian f32 a row.
    scale: Option<Place<'a>>,
}

/// A place in a file.
#[derive(Clone, Copy)]
struct Place<'a> {
    file: &'a WeightFile,
    start: u64,
}

/// Dimensions that a tensor may have; those of encoders have at most two.
pub(super) const MOST_DIMENSIONS: usize = 8;
/// Bytes of a tensor's name.
const LONGEST_NAME: usize = 1024;
/// Bytes that are read at a time, of a tensor that has more.
const PIECE: usize = 256 << 10;

impl Tensors {
    /// Opens `model.safetensors` of a folder, or the shards that `model.safetensors.index.json` names; without either, the same of
    /// `pytorch_model.bin`. Of a pickle in there only what describes tensors is understood, and no code runs.
    ///
    /// # Errors
    /// There are no weights, or only in another format; a file is empty, cut or too long, contradicts itself, or asks for more than
    /// tensors.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        for format in &FORMATS {
            let single = folder.join(format.single);
            if single.exists() {
                let mut tensors = Self { path: single.clone(), files: Vec::new(), entries: Entries::new() };
                tensors.entries = tensors.add_file(&single, format)?;
                return Ok(tensors);
            }
            if let Some(index) = Object::open(&folder.join(format.index))? {
                return Self::open_shards(folder, &index, format);
            }
        }
        let [safe, torch] = FORMATS;
        Err(match OTHER_FORMATS.iter().find(|name| folder.join(name).exists()) {
            Some(other) => Error::unsupported(
                folder,
                format!(
                    "expected {} or {}, found only {other}, a format that is not supported: \
                     save the model again with `model.save_pretrained(folder)` of transformers",
                    safe.single, torch.single
                ),
            ),
            None => Error::checkpoint(
                folder,
                format!(
                    "there are no weights: looked for {}, {}, {} and {}, found none: download the model again",
                    safe.single, safe.index, torch.single, torch.index
                ),
            ),
        })
    }

    fn open_shards(folder: &Path, index: &Object, format: &Format) -> Result<Self> {
        let advice = "download the file again";
        let wrong = |found: String| index.wrong("weight_map", "an object of tensor names and file names", found, advice);
        let map = index.get("weight_map").ok_or_else(|| wrong("no such field".into()))?;
        let map = map.as_object().ok_or_else(|| wrong(shown(map)))?;
        let mut shard_of = BTreeMap::new();
        for (name, shard) in map {
            let shard = shard.as_str().ok_or_else(|| wrong(format!("{} for `{name}`", shown(shard))))?;
            if !is_plain_file_name(shard) {
                let expected = "the name of a file in the same folder";
                return Err(index.wrong("weight_map", expected, format!("\"{shard}\" for `{name}`"), "do not use files from this source"));
            }
            shard_of.insert(name, shard);
        }
        if shard_of.is_empty() {
            return Err(wrong("no tensors".into()));
        }

        let mut tensors = Self { path: index.path().to_owned(), files: Vec::new(), entries: Entries::new() };
        for shard in shard_of.values().copied().collect::<BTreeSet<_>>() {
            let path = folder.join(shard);
            if !path.exists() {
                let problem = format!("there is no such file, but {} names it: download the missing shard", format.index);
                return Err(Error::checkpoint(path, problem));
            }
            let entries = tensors.add_file(&path, format)?;
            // A tensor that lies in several shards counts where the index says.
            tensors.entries.extend(entries.into_iter().filter(|(name, _)| shard_of.get(name) == Some(&shard)));
        }
        match shard_of.iter().find(|(name, _)| !tensors.entries.contains_key(**name)) {
            Some((name, shard)) => Err(Error::tensor(
                folder.join(shard),
                *name,
                format!("is missing, but {} says it is here: download the shard again", format.index),
            )),
            None => Ok(tensors),
        }
    }

    fn add_file(&mut self, path: &Path, format: &Format) -> Result<Entries> {
        let file = WeightFile::open(path)?;
        let entries = (format.read)(&file, self.files.len())?;
        self.files.push(file);
        Ok(entries)
    }

    /// The file that messages about tensors as a whole name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The shape of a tensor, if there is one of this name.
    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(WeightFile::length).sum()
    }

    /// A tensor by its full name, as it is stored.
    ///
    /// # Errors
    /// It is missing, its type is none of [`Dtype`], its strides are those of no matrix, or it is I8 without fitting scales.
    pub fn get(&self, name: &str) -> Result<Tensor<'_>> {
        let Some((name, entry)) = self.entries.get_key_value(name) else {
            let problem = format!("is missing: the file holds {} other tensors, so it may belong to another model", self.entries.len());
            return Err(Error::tensor(&self.path, name, problem));
        };
        let file = &self.files[entry.file];
        let dtype = Dtype::of(entry.dtype).ok_or_else(|| {
            let stored = entry.dtype;
            let problem = format!("is stored as {stored}, expected F32, F16, BF16 or I8: save the model again in one of these types");
            Error::tensor(file.path(), name, problem)
        })?;
        let place = Place { file, start: entry.range.start };
        let mut tensor = Tensor { name, file: file.path(), shape: &entry.shape, dtype, strides: [0; 2], place, scale: None };
        // Numbers that count several times, as after torch's `expand`, could make a huge tensor of a small file.
        let distinct = tensor.numbers() as u64 <= (entry.range.end - entry.range.start) / dtype.size() as u64;
        tensor.strides = match entry.strides.as_deref() {
            None => [tensor.columns(), 1],
            Some(&[row, column]) if distinct => [row, column],
            Some(&[column]) if distinct => [0, column],
            Some(_) => return Err(self.not_contiguous(name, entry)),
        };
        if dtype == Dtype::I8 {
            tensor.scale = Some(self.scale(&tensor)?);
        }
        Ok(tensor)
    }

    /// As [`Tensors::get`], of this shape.
    ///
    /// # Errors
    /// As [`Tensors::get`], and when it has another shape.
    pub fn get_shaped(&self, name: &str, shape: &[usize]) -> Result<Tensor<'_>> {
        let tensor = self.get(name)?;
        if tensor.shape != shape {
            let problem = format!("has shape {:?}, expected {shape:?}: the files belong to different models", tensor.shape);
            return Err(Error::tensor(tensor.file, tensor.name, problem));
        }
        Ok(tensor)
    }

    /// The scales of an I8 tensor.
    fn scale(&self, tensor: &Tensor<'_>) -> Result<Place<'_>> {
        let name = format!("{}.scale", tensor.name);
        let Some(entry) = self.entries.get(&name) else {
            let problem = format!("is missing, but `{}` is I8 and needs one F32 scale a row: quantize the model again", tensor.name);
            return Err(Error::tensor(tensor.file, name, problem));
        };
        let rows = tensor.rows();
        if entry.dtype != safetensors::Dtype::F32 || entry.shape != [rows] || entry.strides.is_some() {
            let problem = format!(
                "is {} {:?}, expected F32 [{rows}], one scale for each row of `{}`: quantize the model again",
                entry.dtype, entry.shape, tensor.name
            );
            return Err(Error::tensor(self.files[entry.file].path(), name, problem));
        }
        Ok(Place { file: &self.files[entry.file], start: entry.range.start })
    }

    /// Type, shape and place of a tensor whose numbers are none of [`Dtype`], `None` for one that [`Tensors::get`] can read.
    ///
    /// # Errors
    /// The numbers do not lie row by row.
    pub(super) fn other(&self, name: &str) -> Result<Option<&Entry>> {
        let readable = |entry: &Entry| Dtype::of(entry.dtype).is_some();
        let Some(entry) = self.entries.get(name).filter(|entry| !readable(entry)) else { return Ok(None) };
        match entry.strides {
            None => Ok(Some(entry)),
            Some(_) => Err(self.not_contiguous(name, entry)),
        }
    }

    /// Hands the bytes of a tensor to `take`, piece by piece.
    pub(super) fn copy(&self, name: &str, entry: &Entry, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let file = &self.files[entry.file];
        let mut piece = vec![0; PIECE];
        for start in entry.range.clone().step_by(PIECE) {
            let piece = &mut piece[..(entry.range.end - start).min(PIECE as u64) as usize];
            file.fill(start, piece).map_err(|problem| Error::tensor(file.path(), name, problem))?;
            take(piece)?;
        }
        Ok(())
    }

    fn not_contiguous(&self, name: &str, entry: &Entry) -> Error {
        let problem = format!(
            "has shape {:?} with the strides {:?}, expected a matrix, by rows or by columns: save it again after `tensor.contiguous()`",
            entry.shape,
            entry.strides.as_deref().unwrap_or_default()
        );
        Error::tensor(self.files[entry.file].path(), name, problem)
    }
}

impl Dtype {
    fn of(stored: safetensors::Dtype) -> Option<Self> {
        match stored {
            safetensors::Dtype::F32 => Some(Self::F32),
            safetensors::Dtype::F16 => Some(Self::F16),
            safetensors::Dtype::BF16 => Some(Self::BF16),
            safetensors::Dtype::I8 => Some(Self::I8),
            _ => None,
        }
    }

    /// Bytes of a number.
    fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::I8 => 1,
        }
    }
}

/// Refuses a name that could not even be shown.
pub(super) fn check_name(path: &Path, name: &str) -> Result<()> {
    if name.len() > LONGEST_NAME {
        let problem = format!("has a name of {} bytes, expected at most {LONGEST_NAME}: download the file again", name.len());
        return Err(Error::tensor(path, shortened(name), problem));
    }
    Ok(())
}

/// Whether a name from a file stays inside the folder: no separators of any system, no `..`, no drive letter, and no longer than a file
/// may be called.
pub(super) fn is_plain_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.len() < 256 && !name.contains(['/', '\\', ':', '\0'])
}

impl<'a> Tensor<'a> {
    /// Rows: the first dimension. A vector is one row.
    pub fn rows(&self) -> usize {
        if self.shape.len() < 2 { 1 } else { self.shape[0] }
    }

    /// Numbers in a row: all dimensions after the first. A vector is one row.
    pub fn columns(&self) -> usize {
        if self.shape.len() < 2 { self.shape.iter().product() } else { self.shape[1..].iter().product() }
    }

    pub(super) fn numbers(&self) -> usize {
        self.shape.iter().product()
    }

    /// Reads row `row` as f32 into `out` `[columns]`.
    ///
    /// # Errors
    /// As [`Tensor::read_rows`].
    pub fn read_row(&self, row: usize, out: &mut [f32]) -> Result<()> {
        if out.len() != self.columns() {
            return Err(Error::input(format!("a row of {self:?} was read into a buffer of {} numbers", out.len())));
        }
        self.read_rows(row, out)
    }

    /// Reads as many rows as `out` `[rows, columns]` holds, from row `first` on, as f32.
    ///
    /// # Errors
    /// A number is NaN or infinite (the message says which row and column), `out` is not whole rows of the tensor, or the file cannot be
    /// read any more: it was cut, or lies on a disk that is gone.
    pub fn read_rows(&self, first: usize, out: &mut [f32]) -> Result<()> {
        let columns = self.columns();
        let count = out.len().checked_div(columns).unwrap_or(0);
        if count * columns != out.len() || first.checked_add(count).is_none_or(|end| end > self.rows()) {
            return Err(Error::input(format!("rows from {first} of {self:?} were read into a buffer of {} numbers", out.len())));
        }
        let rows = (PIECE / (columns * self.dtype.size()).max(1)).clamp(1, count.max(1));
        let mut bytes = vec![0; rows * columns * self.dtype.size()];
        for (first, out) in (first..).step_by(rows).zip(out.chunks_mut((rows * columns).max(1))) {
            self.read_piece(first, &mut bytes[..out.len() * self.dtype.size()], out)?;
        }
        Ok(())
    }

    fn read_piece(&self, first: usize, bytes: &mut [u8], out: &mut [f32]) -> Result<()> {
        let failed = |file: &WeightFile, problem| Error::tensor(file.path(), self.name, problem);
        self.fill(first, bytes).map_err(|problem| failed(self.place.file, problem))?;
        let finite = match (self.dtype, self.scale) {
            (Dtype::F32, _) => convert::f32s(bytes, out),
            (Dtype::F16, _) => convert::f16s(bytes, out),
            (Dtype::BF16, _) => convert::bf16s(bytes, out),
            (Dtype::I8, scale) => {
                let mut scales = vec![0; out.len() / self.columns() * 4];
                if let Some(Place { file, start }) = scale {
                    file.fill(start + first as u64 * 4, &mut scales).map_err(|problem| failed(file, problem))?;
                }
                convert::scaled_i8s(bytes, &scales, self.columns(), out)
            }
        };
        if finite { Ok(()) } else { Err(self.not_finite(first, out)) }
    }

    /// Reads as many rows as `bytes` holds, as they are stored, row by row.
    fn fill(&self, first: usize, bytes: &mut [u8]) -> Result<(), String> {
        let (columns, size, [row, column]) = (self.columns(), self.dtype.size(), self.strides);
        let at = |i: usize, j: usize| self.place.start + ((first + i) * row + j * column) as u64 * size as u64;
        if self.strides == [columns, 1] {
            return self.place.file.fill(at(0, 0), bytes);
        }
        if column == 1 {
            return bytes.chunks_mut(columns * size).enumerate().try_for_each(|(i, bytes)| self.place.file.fill(at(i, 0), bytes));
        }
        let rows = bytes.len() / (columns * size);
        let run = if row == 1 { rows } else { 1 };
        let mut numbers = vec![0; run * size];
        for j in 0..columns {
            for i in (0..rows).step_by(run) {
                self.place.file.fill(at(i, j), &mut numbers)?;
                for (number, i) in numbers.chunks(size).zip(i..) {
                    bytes[(i * columns + j) * size..][..size].copy_from_slice(number);
                }
            }
        }
        Ok(())
    }

    /// Reads the whole tensor as f32, row by row.
    ///
    /// # Errors
    /// A number is NaN or infinite.
    pub fn values(&self) -> Result<Vec<f32>> {
        let mut values = vec![0.0; self.rows() * self.columns()];
        self.read_rows(0, &mut values)?;
        Ok(values)
    }

    fn not_finite(&self, first: usize, values: &[f32]) -> Error {
        let index = values.iter().position(|value| !value.is_finite()).unwrap_or(0);
        let (row, column) = (first + index / self.columns(), index % self.columns());
        let found = match (self.dtype, values[index]) {
            (Dtype::I8, _) => "a scale that is NaN, infinite or too large",
            (_, value) if value.is_nan() => "NaN",
            _ => "infinity",
        };
        let problem =
            format!("holds {found} at row {row}, column {column}, expected finite numbers: the weights are damaged, get them again");
        Error::tensor(self.file, self.name, problem)
    }
}

impl fmt::Debug for Tensor<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "tensor `{}` {:?} {:?}", self.name, self.dtype, self.shape)
    }
}
