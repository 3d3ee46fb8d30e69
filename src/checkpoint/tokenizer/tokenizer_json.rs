//! `tokenizer.json`, which the `tokenizers` library reads by itself, with checks of what it takes on trust.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::Value;
use tokenizers::ModelWrapper;

use super::outline::Outline;
use crate::checkpoint::json::{beginning, check_memory, read_text, shortened};
use crate::{Error, Result};

/// Characters of a word that WordPiece may be asked to take apart; it is 100 in most files.
const LONGEST_WORD: usize = 10_000;

/// The tokenizer in a file, or `None` where there is no such file.
pub(super) fn open(path: &Path) -> Result<Option<tokenizers::Tokenizer>> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    check_memory(path, &text, 16)?;
    let wrong = |error| Error::checkpoint(path, format!("expected a tokenizer of Hugging Face, found {error}: download the file again"));
    let outline: Outline = serde_json::from_str(&text).map_err(|error| wrong(beginning(&error.to_string(), 300)))?;
    outline.check().map_err(|problem| Error::checkpoint(path, format!("{problem}: do not use files from this source")))?;
    let tokenizer = guarded(|| tokenizers::Tokenizer::from_bytes(text)).map_err(wrong)?;
    if let ModelWrapper::WordPiece(model) = tokenizer.get_model() {
        // Its time grows with the square of a word's length.
        let found = model.max_input_chars_per_word;
        if found > LONGEST_WORD {
            let problem = format!("`max_input_chars_per_word`: expected at most {LONGEST_WORD}, found {found}");
            return Err(Error::checkpoint(path, problem + ": do not use files from this source"));
        }
    }
    if let Some(processor) = tokenizer.get_post_processor() {
        check_post_processor(path, &serde_json::to_value(processor).unwrap_or_default())?;
    }
    Ok(Some(tokenizer))
}

/// Runs code of the `tokenizers` crate, which takes some faults of its files for impossible and panics on them.
pub(super) fn guarded<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|error| beginning(&error.to_string(), 300)),
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
                    return Err(wrong(format!("expected the texts {allowed:?} in the template `{side}`, found `{}`", shortened(sequence))));
                }
                let Some(special) = piece["SpecialToken"]["id"].as_str() else { continue };
                let defined = &part["special_tokens"][special];
                let lengths = (defined["ids"].as_array().map(Vec::len), defined["tokens"].as_array().map(Vec::len));
                if lengths.0.is_none() || lengths.0 != lengths.1 {
                    return Err(wrong(format!(
                        "expected an id for each special token, found none for `{}` of the template `{side}`",
                        shortened(special)
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
