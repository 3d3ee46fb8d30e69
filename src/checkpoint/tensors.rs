//! The tensors of a model folder by name: one or several memory-mapped safetensors files, read row by row as f32.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::json::{Object, shown};
use super::mapped::MappedFile;
use super::{convert, header};
use crate::{Error, Result};

const SINGLE_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";
/// Older formats, named where they are all that a folder has.
const OTHER_FORMATS: [&str; 6] =
    ["pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack", "model.onnx", "onnx/model.onnx"];

/// Every tensor of a model folder. Nothing is read before it is asked for.
#[derive(Debug)]
pub struct Tensors {
    /// The file that stands for all of them in messages.
    path: PathBuf,
    files: Vec<MappedFile>,
    entries: BTreeMap<String, Entry>,
}

/// Where a tensor lies.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) file: usize,
    pub(super) dtype: safetensors::Dtype,
    pub(super) shape: Vec<usize>,
    /// Bytes of the file.
    pub(super) range: Range<usize>,
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

/// One tensor, where it lies in the mapped file.
#[derive(Clone, Copy)]
pub struct Tensor<'a> {
    pub name: &'a str,
    pub file: &'a Path,
    pub shape: &'a [usize],
    pub dtype: Dtype,
    /// Little-endian numbers, row by row, not aligned.
    pub data: &'a [u8],
    /// For [`Dtype::I8`] the companion tensor `<name>.scale`: one little-endian f32 a row.
    pub scale: Option<&'a [u8]>,
}

impl Tensors {
    /// Opens `model.safetensors` of a folder, or the shards that `model.safetensors.index.json` names.
    ///
    /// # Errors
    /// There are no weights, or only in another format; a file is empty, cut or too long, or its header contradicts itself.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let single = folder.join(SINGLE_FILE);
        if single.exists() {
            let mut tensors = Self { path: single.clone(), files: Vec::new(), entries: BTreeMap::new() };
            tensors.entries = tensors.add_file(&single)?;
            return Ok(tensors);
        }
        if let Some(index) = Object::open(&folder.join(INDEX_FILE))? {
            return Self::open_shards(folder, &index);
        }
        Err(match OTHER_FORMATS.iter().find(|name| folder.join(name).exists()) {
            Some(other) => Error::unsupported(
                folder,
                format!(
                    "expected {SINGLE_FILE} or {INDEX_FILE}, found only {other}, a format that is not supported: \
                     save the model again with `model.save_pretrained(folder)` of transformers"
                ),
            ),
            None => Error::checkpoint(
                folder,
                format!("there are no weights: looked for {SINGLE_FILE} and {INDEX_FILE}, found neither: download the model again"),
            ),
        })
    }

    fn open_shards(folder: &Path, index: &Object) -> Result<Self> {
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

        let mut tensors = Self { path: index.path().to_owned(), files: Vec::new(), entries: BTreeMap::new() };
        for shard in shard_of.values().copied().collect::<BTreeSet<_>>() {
            let path = folder.join(shard);
            if !path.exists() {
                let problem = format!("there is no such file, but {INDEX_FILE} names it: download the missing shard");
                return Err(Error::checkpoint(path, problem));
            }
            let entries = tensors.add_file(&path)?;
            // A tensor that lies in several shards counts where the index says.
            tensors.entries.extend(entries.into_iter().filter(|(name, _)| shard_of.get(name) == Some(&shard)));
        }
        match shard_of.iter().find(|(name, _)| !tensors.entries.contains_key(**name)) {
            Some((name, shard)) => Err(Error::tensor(
                folder.join(shard),
                *name,
                format!("is missing, but {INDEX_FILE} says it is here: download the shard again"),
            )),
            None => Ok(tensors),
        }
    }

    fn add_file(&mut self, path: &Path) -> Result<BTreeMap<String, Entry>> {
        let file = MappedFile::open(path)?;
        let entries = header::read(path, file.bytes(), self.files.len())?;
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
        self.files.iter().map(|file| file.bytes().len() as u64).sum()
    }

    /// A tensor by its full name, as it is stored.
    ///
    /// # Errors
    /// It is missing, its type is none of [`Dtype`], or it is I8 without fitting scales.
    pub fn get(&self, name: &str) -> Result<Tensor<'_>> {
        let Some((name, entry)) = self.entries.get_key_value(name) else {
            let problem = format!("is missing: the file holds {} other tensors, so it may belong to another model", self.entries.len());
            return Err(Error::tensor(&self.path, name, problem));
        };
        let file = &self.files[entry.file];
        let dtype = match entry.dtype {
            safetensors::Dtype::F32 => Dtype::F32,
            safetensors::Dtype::F16 => Dtype::F16,
            safetensors::Dtype::BF16 => Dtype::BF16,
            safetensors::Dtype::I8 => Dtype::I8,
            other => {
                let problem = format!("is stored as {other}, expected F32, F16, BF16 or I8: save the model again in one of these types");
                return Err(Error::tensor(file.path(), name, problem));
            }
        };
        let mut tensor =
            Tensor { name, file: file.path(), shape: &entry.shape, dtype, data: &file.bytes()[entry.range.clone()], scale: None };
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
    fn scale(&self, tensor: &Tensor<'_>) -> Result<&[u8]> {
        let name = format!("{}.scale", tensor.name);
        let Some(entry) = self.entries.get(&name) else {
            let problem = format!("is missing, but `{}` is I8 and needs one F32 scale a row: quantize the model again", tensor.name);
            return Err(Error::tensor(tensor.file, name, problem));
        };
        let rows = tensor.rows();
        if entry.dtype != safetensors::Dtype::F32 || entry.shape != [rows] {
            let problem = format!(
                "is {} {:?}, expected F32 [{rows}], one scale for each row of `{}`: quantize the model again",
                entry.dtype, entry.shape, tensor.name
            );
            return Err(Error::tensor(self.files[entry.file].path(), name, problem));
        }
        Ok(&self.files[entry.file].bytes()[entry.range.clone()])
    }

    /// A tensor's type and bytes as stored, whatever the type.
    pub(super) fn raw(&self, name: &str) -> Option<(&Entry, &[u8])> {
        self.entries.get(name).map(|entry| (entry, &self.files[entry.file].bytes()[entry.range.clone()]))
    }
}

/// Whether a name from a file stays inside the folder: no separators of any system, no `..`, no drive letter.
pub(super) fn is_plain_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', ':', '\0'])
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
    /// A number is NaN or infinite (the message says which row and column), or `out` is not whole rows of the tensor.
    pub fn read_rows(&self, first: usize, out: &mut [f32]) -> Result<()> {
        let columns = self.columns();
        let count = out.len().checked_div(columns).unwrap_or(0);
        if count * columns != out.len() || first.checked_add(count).is_none_or(|end| end > self.rows()) {
            return Err(Error::input(format!("rows from {first} of {self:?} were read into a buffer of {} numbers", out.len())));
        }
        let numbers = first * columns..(first + count) * columns;
        let bytes = |size: usize| &self.data[numbers.start * size..numbers.end * size];
        let finite = match (self.dtype, self.scale) {
            (Dtype::F32, _) => convert::f32s(bytes(4), out),
            (Dtype::F16, _) => convert::f16s(bytes(2), out),
            (Dtype::BF16, _) => convert::bf16s(bytes(2), out),
            (Dtype::I8, scale) => convert::scaled_i8s(bytes(1), scale.map_or(&[][..], |scale| &scale[first * 4..]), columns, out),
        };
        if finite { Ok(()) } else { Err(self.not_finite(first, out)) }
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
