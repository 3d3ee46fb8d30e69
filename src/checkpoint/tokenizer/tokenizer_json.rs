//! `tokenizer.json`, which the `tokenizers` library reads by itself, with checks of what it takes on trust.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::Value;

use crate::{Error, Result};

/// The tokenizer in a file, or `None` where there is no such file.
pub(super) fn open(path: &Path) -> Result<Option<tokenizers::Tokenizer>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Io { path: path.to_owned(), problem: "cannot be read", source }),
    };
    let wrong = |error| Error::checkpoint(path, format!("expected a tokenizer of Hugging Face, found {error}: download the file again"));
    let tokenizer = guarded(|| tokenizers::Tokenizer::from_bytes(bytes)).map_err(wrong)?;
    if let Some(processor) = tokenizer.get_post_processor() {
        check_post_processor(path, &serde_json::to_value(processor).unwrap_or_default())?;
    }
    Ok(Some(tokenizer))
}

/// Runs code of the `tokenizers` crate, which takes some faults of its files for impossible and panics on them.
pub(super) fn guarded<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("contents that the tokenizers library cannot handle".to_owned()),
    }
}

/// The library takes a template at its word and panics on a special token that is not defined, or on a second text among single ones.
fn check_post_processor(path: &Path, processor: &Value) -> Result<()> {
    let parts = processor["processors"].as_array().map_or(std::slice::from_ref(processor), Vec::as_slice);
    let wrong = |found: String| Error::checkpoint(path, format!("`post_processor`: {found}: download the file again"));
    let mut templates = 0;
    for part in parts {
        match part["type"].as_str() {
            Some("TemplateProcessing") => templates += 1,
            Some("Sequence") => return Err(wrong("expected one list of processors, found lists in a list".into())),
            _ => continue,
        }
        let sides: [(&str, &[&str]); 2] = [("single", &["A"]), ("pair", &["A", "B"])];
        for (side, allowed) in sides {
            for piece in part[side].as_array().into_iter().flatten() {
                let sequence = piece["Sequence"]["id"].as_str();
                if let Some(sequence) = sequence.filter(|sequence| !allowed.contains(sequence)) {
                    return Err(wrong(format!("expected the texts {allowed:?} in the template `{side}`, found `{sequence}`")));
                }
                let Some(special) = piece["SpecialToken"]["id"].as_str() else { continue };
                let defined = &part["special_tokens"][special];
                let lengths = (defined["ids"].as_array().map(Vec::len), defined["tokens"].as_array().map(Vec::len));
                if lengths.0.is_none() || lengths.0 != lengths.1 {
                    return Err(wrong(format!(
                        "expected an id for each special token, found none for `{special}` of the template `{side}`"
                    )));
                }
            }
        }
    }
    if templates > 1 {
        return Err(wrong(format!("expected at most one template, found {templates}")));
    }
    Ok(())
}
