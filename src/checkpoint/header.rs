//! The header of a safetensors file: 8 bytes of its length, then JSON that says where each tensor lies.
//!
//! The `safetensors` crate has such a check too, but its errors lack the tensor and the numbers, and its last sum can overflow.

use std::fmt;

use safetensors::Dtype;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::file::WeightFile;
use super::json::beginning;
use super::tensors::{Entries, Entry, MOST_DIMENSIONS, check_name};
use crate::{Error, Result};

/// Room for thirty thousand tensors. What a header takes as values is at most a dozen times its length; the format's own limit of a
/// hundred million bytes would let that become a gigabyte.
const LONGEST_HEADER: u64 = 4 << 20;
const AGAIN: &str = "download the file again";

/// Tensors in the order of the header; a name may come twice.
struct Header(Vec<(String, Info)>);

#[derive(serde::Deserialize)]
struct Info {
    dtype: Dtype,
    shape: Vec<usize>,
    /// First and last + 1 byte, counted from the end of the header.
    data_offsets: (u64, u64),
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tensors;
        impl<'de> Visitor<'de> for Tensors {
            type Value = Header;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut tensors = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        "__metadata__" => drop(map.next_value::<IgnoredAny>()?),
                        _ => tensors.push((name, map.next_value()?)),
                    }
                }
                Ok(Header(tensors))
            }
        }
        deserializer.deserialize_map(Tensors)
    }
}

/// Where each tensor of a file lies. After this every range is inside the file and as long as its type and shape ask for; the ranges
/// follow each other without gap or overlap up to the last byte, as the format demands.
pub(super) fn read(from: &WeightFile, file: usize) -> Result<Entries> {
    let (path, found) = (from.path(), from.length());
    let wrong = |problem: String| Error::checkpoint(path, format!("{problem}: {AGAIN}"));
    if found < 8 {
        return Err(wrong(format!("expected a safetensors header of at least 8 bytes, found {found} bytes")));
    }
    let mut length = [0; 8];
    from.fill(0, &mut length).map_err(|problem| Error::checkpoint(path, problem))?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER {
        return Err(wrong(format!("expected a safetensors header of at most {LONGEST_HEADER} bytes, found a length of {length}")));
    }
    let first = 8 + length;
    let Some(data) = found.checked_sub(first) else {
        return Err(wrong(format!("the file is cut: expected a header of {length} bytes, found {} after the first 8", found - 8)));
    };
    let damaged = |error: serde_json::Error| wrong(format!("the safetensors header is damaged ({})", beginning(&error.to_string(), 300)));
    let Header(mut tensors) = serde_json::from_slice(&from.bytes(8..first)?).map_err(damaged)?;

    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let mut end = 0;
    let mut entries = Entries::new();
    for (name, info) in tensors {
        check_name(path, &name)?;
        let wrong = |problem: String| Error::tensor(path, &name, format!("{problem}: {AGAIN}"));
        if info.shape.len() > MOST_DIMENSIONS {
            return Err(wrong(format!("has {} dimensions, expected at most {MOST_DIMENSIONS}", info.shape.len())));
        }
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
        if stop > data {
            let length = first + stop;
            return Err(wrong(format!("ends at byte {length} of the file, found only {found} bytes; the file is cut")));
        }
        end = stop;
        // Ranges count from the first byte of the file.
        let range = first + start..first + stop;
        let entry = Entry { file, dtype: info.dtype, shape: info.shape, strides: None, range };
        if entries.insert(name.clone(), entry).is_some() {
            return Err(wrong("is there twice".into()));
        }
    }
    if end != data {
        let expected = first + end;
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
