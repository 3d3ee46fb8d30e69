//! The zip archive around a pickle: where each of its records lies in the file.
//!
//! The records are stored as they are, so that tensors can be read where they lie. Their checksums are not looked at: that would
//! read every byte twice, and safetensors has none either.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

use rawzip::{CompressionMethod, ZipArchive, ZipFileHeaderRecord, ZipLocator};

use crate::checkpoint::file::WeightFile;
use crate::checkpoint::json::shortened;
use crate::{Error, Result};

/// Torch writes one for each tensor and a few more; a pickle has no room for as many.
const MOST_RECORDS: u64 = 1 << 16;
/// A header with the longest name, extra field and comment that the format has.
const LONGEST_HEADER: usize = 3 * 0xffff + 46;
const AGAIN: &str = "download the file again";

/// Bytes of the file by record. After this every range is inside the file, and no two share a byte.
pub(super) fn records(file: &WeightFile) -> Result<BTreeMap<String, Range<u64>>> {
    let wrong = |problem: String| Error::checkpoint(file.path(), format!("{problem}: {AGAIN}"));
    let damaged = |error: rawzip::Error| wrong(format!("the directory of the zip archive is cut or damaged ({error})"));
    let (mut buffer, mut header) = (vec![0; LONGEST_HEADER], vec![0; LONGEST_HEADER]);
    let archive = ZipLocator::new().locate_in_reader(file, &mut buffer, file.length()).map_err(|(_, error)| damaged(error))?;
    let count = archive.entries_hint();
    if count > MOST_RECORDS {
        return Err(wrong(format!("the zip archive has {count} records by its directory, expected at most {MOST_RECORDS}")));
    }
    let mut places = Vec::new();
    let mut entries = archive.entries(&mut buffer);
    while let Some(record) = entries.next_entry().map_err(damaged)? {
        if places.len() as u64 == MOST_RECORDS {
            break;
        }
        let name = String::from_utf8_lossy(record.file_path().as_bytes()).into_owned();
        let range = find(&archive, &record, &mut header);
        let range = range.map_err(|problem| wrong(format!("record `{}` of the zip archive {problem}", shortened(&name))))?;
        places.push((record.local_header_offset(), range, name));
    }
    if places.len() as u64 != count {
        return Err(wrong(format!("the zip archive has {count} records by its directory, found {}", places.len())));
    }
    places.sort_unstable_by_key(|(start, _, _)| *start);
    let next_starts = places.iter().map(|(start, _, _)| *start).skip(1).chain([archive.directory_offset()]);
    for ((_, range, name), next) in places.iter().zip(next_starts) {
        if range.end > next {
            let (name, end) = (shortened(name), range.end);
            return Err(wrong(format!("record `{name}` of the zip archive ends at byte {end}, but the next one starts at {next}")));
        }
    }
    let mut records = BTreeMap::new();
    for (_, range, name) in places {
        match records.entry(name) {
            Entry::Vacant(place) => drop(place.insert(range)),
            Entry::Occupied(place) => return Err(wrong(format!("record `{}` of the zip archive is there twice", shortened(place.key())))),
        }
    }
    Ok(records)
}

fn find(archive: &ZipArchive<&WeightFile>, record: &ZipFileHeaderRecord<'_>, header: &mut [u8]) -> Result<Range<u64>, String> {
    if record.compression_method() != CompressionMethod::STORE || record.flags().is_encrypted() {
        let how = if record.flags().is_encrypted() { "encrypted" } else { "compressed" };
        return Err(format!("is {how}, expected bytes as `torch.save` stores them"));
    }
    let (stored, size) = (record.compressed_size_hint(), record.uncompressed_size_hint());
    if stored != size {
        return Err(format!("has {stored} bytes by the directory, expected its size {size}"));
    }
    let impossible = |error: rawzip::Error| {
        format!("lies at byte {} with {size} bytes by the directory, which cannot be ({error})", record.local_header_offset())
    };
    let entry = archive.get_entry(record.wayfinder()).map_err(impossible)?;
    let header = entry.local_header(header).map_err(impossible)?;
    if header.file_path() != record.file_path() {
        let found = String::from_utf8_lossy(header.file_path().as_bytes()).into_owned();
        return Err(format!("is called `{}` where it lies", shortened(&found)));
    }
    let (start, end) = entry.compressed_data_range();
    if end > archive.get_ref().length() {
        let length = archive.get_ref().length();
        return Err(format!("has {size} bytes by the directory, up to byte {end}, but the file has only {length}"));
    }
    Ok(start..end)
}
