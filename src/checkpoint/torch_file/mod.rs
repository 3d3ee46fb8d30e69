//! A file of `torch.save`: a zip archive with a pickle that describes the tensors, and their numbers as records beside it.

mod archive;
mod opcodes;
mod pickle;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use self::pickle::{Callable, Dict, LONGEST, Pickle, Value};
use super::file::WeightFile;
use super::header::byte_length;
use super::json::shortened;
use super::tensors::{Entries, Entry, MOST_DIMENSIONS, check_name};
use crate::{Error, Result};

/// Where training scripts put the state dict beside an optimizer and the like.
const NESTED: [&str; 2] = ["state_dict", "model"];
/// How pickles begin that torch wrote before version 1.6, before there was an archive around them.
const OLD_MAGIC: [u8; 12] = [0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const AGAIN: &str = "download the file again";

/// Where each tensor of a file lies. After this every range is inside the file and holds what its type, shape and strides reach.
pub(super) fn read(from: &WeightFile, file: usize) -> Result<Entries> {
    let path = from.path();
    let wrong = |problem: String| Error::checkpoint(path, problem);
    let start = from.bytes(0..from.length().min(32))?;
    if start.windows(OLD_MAGIC.len()).any(|window| window == OLD_MAGIC) {
        let problem = "expected a zip archive, found the format of PyTorch before 1.6, which is not supported: \
                       load the file with `torch.load` and save it with `torch.save` of 1.6 or later";
        return Err(Error::unsupported(path, problem));
    }
    if !start.starts_with(b"PK") {
        return Err(wrong(format!("expected a zip archive, as `torch.save` of 1.6 or later writes it, found another format: {AGAIN}")));
    }
    let records = archive::records(from)?;
    let mut pickles = records.iter().filter_map(|(name, range)| {
        let folder = name.strip_suffix("/data.pkl").filter(|folder| !folder.contains('/'))?;
        Some((folder, range.clone()))
    });
    let (Some((folder, range)), None) = (pickles.next(), pickles.next()) else {
        let problem = "expected one record `data.pkl` in a folder of the zip archive, found none or several: \
                       the file is not from `torch.save`";
        return Err(wrong(problem.into()));
    };
    let order = records.get(&format!("{folder}/byteorder"));
    let order = order.map(|range| from.bytes(range.start..range.end.min(range.start + 100))).transpose()?;
    if let Some(order) = order.filter(|order| order != b"little") {
        let order = shortened(&String::from_utf8_lossy(&order));
        let problem = format!("its numbers have the byte order \"{order}\", expected \"little\": save it again on another machine");
        return Err(Error::unsupported(path, problem));
    }
    let length = range.end - range.start;
    if length > LONGEST {
        return Err(wrong(format!("the pickle has {length} bytes, expected at most {LONGEST}: save the model's `state_dict()` alone")));
    }
    let bytes = from.bytes(range)?;
    let pickle = pickle::load(&bytes).map_err(wrong)?;
    let prefix = format!("{folder}/data/");
    let storages = records.iter().filter_map(|(name, range)| Some((name.strip_prefix(&prefix)?, range.clone())));
    TorchFile { path, file, storages: storages.collect(), pickle: &pickle }.entries()
}

struct TorchFile<'a> {
    path: &'a Path,
    file: usize,
    /// Bytes of the file by the key in the pickle.
    storages: BTreeMap<&'a str, Range<u64>>,
    pickle: &'a Pickle<'a>,
}

impl TorchFile<'_> {
    fn entries(&self) -> Result<Entries> {
        let (dict, mut entries) = (self.state_dict()?, Entries::new());
        for &[key, value] in self.pickle.entries(dict) {
            // Numbers and texts between tensors are not weights.
            let (Value::Text(name), Value::Tensor(arguments)) = (key, value) else { continue };
            check_name(self.path, name)?;
            let entry = self.entry(self.pickle.items(arguments));
            let entry = entry.map_err(|problem| Error::tensor(self.path, shortened(name), format!("{problem}: {AGAIN}")))?;
            if entries.insert(name.to_owned(), entry).is_some() {
                return Err(Error::tensor(self.path, shortened(name), format!("is there twice: {AGAIN}")));
            }
        }
        if entries.is_empty() {
            let keys =
                self.pickle.entries(dict).iter().map(|[key, _]| if let Value::Text(key) = key { shortened(key) } else { "?".into() });
            let keys: Vec<_> = keys.take(8).collect();
            let problem =
                format!("expected a state dict, found a dict without tensors, of {keys:?}: save the model's `state_dict()` alone");
            return Err(Error::checkpoint(self.path, problem));
        }
        Ok(entries)
    }

    /// The dict of tensors: the whole file, or a part of a training script's.
    fn state_dict(&self) -> Result<Dict> {
        let Value::Dict(root) = self.pickle.root() else {
            let problem = "expected a state dict, found another value: save the model's `state_dict()` alone";
            return Err(Error::checkpoint(self.path, problem));
        };
        let nested = |name| {
            self.pickle.entries(root).iter().find_map(|entry| match *entry {
                [Value::Text(key), Value::Dict(dict)] if key == name => Some(dict),
                _ => None,
            })
        };
        Ok(NESTED.into_iter().find_map(nested).unwrap_or(root))
    }

    /// A tensor from the arguments of `_rebuild_tensor_v2`: its storage, the first number's place there, sizes and strides, and two
    /// that matter for training.
    fn entry(&self, arguments: &[Value<'_>]) -> Result<Entry, String> {
        let &[Value::Storage(storage), Value::Int(offset), Value::Tuple(sizes), Value::Tuple(strides), _, _] = arguments else {
            // A seventh says that the numbers are to be negated.
            return Err(format!("is described by {} values, expected a storage, an offset, sizes, strides and 2 more", arguments.len()));
        };
        let &[Value::Text("storage"), Value::Callable(Callable::Storage(dtype)), Value::Text(key), Value::Text(_), Value::Int(numbers)] =
            self.pickle.items(storage)
        else {
            return Err("has a storage that is not described by its type, key, device and length".into());
        };
        let naturals = |values: &[Value<'_>]| {
            let natural = |value: &Value<'_>| if let Value::Int(value) = *value { usize::try_from(value).ok() } else { None };
            values.iter().map(natural).collect::<Option<Vec<_>>>()
        };
        let (sizes, strides) = (self.pickle.items(sizes), self.pickle.items(strides));
        if sizes.len() != strides.len() || sizes.len() > MOST_DIMENSIONS {
            let (sizes, strides) = (sizes.len(), strides.len());
            return Err(format!("has {sizes} sizes and {strides} strides, expected as many of each, at most {MOST_DIMENSIONS}"));
        }
        let (Some(shape), Some(strides)) = (naturals(sizes), naturals(strides)) else {
            return Err("has sizes or strides that are no numbers of 0 or more".into());
        };

        let place = self.storages.get(key);
        let place = place.ok_or_else(|| format!("is missing, there is no record `data/{}` in the zip archive", shortened(key)))?;
        let size = dtype.bitsize() as u64 / 8;
        let found = place.end - place.start;
        let expected = u64::try_from(numbers).ok().and_then(|numbers| numbers.checked_mul(size));
        if expected != Some(found) {
            return Err(format!("has {found} bytes in the record `data/{}`, expected {numbers} numbers of {dtype}", shortened(key)));
        }
        byte_length(dtype, &shape).ok_or_else(|| format!("has the impossible shape {shape:?} of {dtype}"))?;
        let bytes = reach(&shape, &strides).and_then(|reach| {
            let start = if reach == 0 { 0 } else { u64::try_from(offset).ok()?.checked_mul(size)? };
            let end = start.checked_add((reach as u64).checked_mul(size)?)?;
            (end <= found).then_some(place.start + start..place.start + end)
        });
        let range = bytes.ok_or_else(|| {
            format!("of shape {shape:?} with the strides {strides:?} from number {offset} on does not fit into its storage of {numbers}")
        })?;
        let strides = (!is_contiguous(&shape, &strides)).then_some(strides);
        Ok(Entry { file: self.file, dtype, shape, strides, range })
    }
}

/// Numbers from the first to the last one, both included.
fn reach(shape: &[usize], strides: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().zip(strides).try_fold(1_usize, |reach, (size, stride)| reach.checked_add((size - 1).checked_mul(*stride)?))
}

/// Whether the numbers lie row by row; the stride of a dimension of one or no number is never taken.
fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.contains(&0)
        || shape.iter().zip(strides).rev().all(|(&size, &stride)| {
            let fits = size == 1 || stride == expected;
            expected *= size;
            fits
        })
}
