//! The header of a safetensors file: 8 bytes of its length, then JSON that says where each tensor lies.
//!
//! The `safetensors` crate has such a check too, but its errors lack the tensor and the numbers, and its last sum can overflow.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::Dtype;
use serde::Deserialize;

use super::tensors::{Entries, Entry};
use crate::{Error, Result};

/// The format's own limit.
const LONGEST_HEADER: u64 = 100_000_000;
const AGAIN: &str = "download the file again";

#[derive(Deserialize)]
struct Header {
    #[serde(rename = "__metadata__")]
    _metadata: Option<HashMap<String, String>>,
    #[serde(flatten)]
    tensors: BTreeMap<String, Info>,
}

#[derive(Deserialize)]
struct Info {
    dtype: Dtype,
    shape: Vec<usize>,
    /// First and last + 1 byte, counted from the end of the header.
    data_offsets: (u64, u64),
}

/// Where each tensor of a file lies. After this every range is inside the file and as long as its type and shape ask for; the ranges
/// follow each other without gap or overlap up to the last byte, as the format demands.
pub(super) fn read(path: &Path, bytes: &[u8], file: usize) -> Result<Entries> {
    let wrong = |problem: String| Error::checkpoint(path, format!("{problem}: {AGAIN}"));
    let found = bytes.len() as u64;
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(wrong(format!("expected a safetensors header of at least 8 bytes, found {found} bytes")));
    };
    let length = u64::from_le_bytes(*length);
    if length > LONGEST_HEADER {
        return Err(wrong(format!("expected a safetensors header of at most {LONGEST_HEADER} bytes, found a length of {length}")));
    }
    let Some((header, data)) = rest.split_at_checked(length as usize) else {
        return Err(wrong(format!("the file is cut: expected a header of {length} bytes, found {} after the first 8", rest.len())));
    };
    let header: Header = serde_json::from_slice(header).map_err(|error| wrong(format!("the safetensors header is damaged ({error})")))?;

    let mut tensors: Vec<_> = header.tensors.into_iter().collect();
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let mut end = 0;
    let mut entries = Entries::new();
    for (name, info) in tensors {
        let wrong = |problem: String| Error::tensor(path, &name, format!("{problem}: {AGAIN}"));
        let (start, stop) = info.data_offsets;
        if start != end || stop < start {
            return Err(wrong(format!("lies at bytes {start} to {stop} by the header, expected a start at {end}")));
        }
        let expected = byte_length(info.dtype, &info.shape)
            .ok_or_else(|| wrong(format!("has the impossible shape {:?} of {}", info.shape, info.dtype)))?;
        if stop - start != expected {
            let (shape, dtype) = (&info.shape, info.dtype);
            return Err(wrong(format!("has {} bytes by the header, expected {expected} for {dtype} {shape:?}", stop - start)));
        }
        if stop > data.len() as u64 {
            let length = 8 + length + stop;
            return Err(wrong(format!("ends at byte {length} of the file, found only {found} bytes; the file is cut")));
        }
        end = stop;
        // Within the file, so within usize; ranges count from its first byte.
        let first = 8 + length as usize;
        entries.insert(
            name,
            Entry { file, dtype: info.dtype, shape: info.shape, strides: None, range: first + start as usize..first + stop as usize },
        );
    }
    if end != data.len() as u64 {
        let expected = 8 + length + end;
        return Err(wrong(format!("expected {expected} bytes by the header, found {found}; the file is longer than its tensors")));
    }
    Ok(entries)
}

/// `None` where any product of dimensions overflows, even if another dimension is 0.
pub(super) fn byte_length(dtype: Dtype, shape: &[usize]) -> Option<u64> {
    let largest = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size.max(1)))?;
    let numbers = if shape.contains(&0) { 0 } else { largest as u64 };
    let bits = numbers.checked_mul(dtype.bitsize() as u64)?;
    bits.is_multiple_of(8).then_some(bits / 8)
}
