//! The tokenizer of RoBERTa from `vocab.json` and `merges.txt`, for folders without `tokenizer.json`.

use std::path::Path;

use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{AddedToken, PostProcessorWrapper, PreTokenizerWrapper};

use super::files::SAVE_JSON;
use super::settings::Settings;
use super::tokenizer_json::guarded;
use crate::checkpoint::json::{Object, read_text, shown};
use crate::{Error, Result};

/// Byte-level BPE, which knows every text: its letters are the 256 bytes.
pub(super) fn roberta(path: &Path, settings: &Settings) -> Result<tokenizers::Tokenizer> {
    let vocabulary = read_vocabulary(path)?;
    let merges = read_merges(&path.with_file_name("merges.txt"), &vocabulary)?;
    let bpe = BPE::builder().vocab_and_merges(vocabulary, merges);
    let failed = |error| Error::checkpoint(path, format!("no tokenizer can be built from it: {error}: download the file again"));
    let bpe = guarded(|| bpe.build()).map_err(failed)?;

    let prefix = settings.flag("add_prefix_space")?.unwrap_or(false);
    let mut tokenizer = tokenizers::Tokenizer::new(bpe);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::default().add_prefix_space(prefix)));

    let token = |field, default| settings.special(field, AddedToken::from(default, true));
    let (class, separator) = (token("cls_token", "<s>")?, token("sep_token", "</s>")?);
    let mask = settings.special("mask_token", AddedToken::from("<mask>", true).lstrip(true))?;
    let [begin, end] = [token("bos_token", "<s>")?, token("eos_token", "</s>")?];
    let named = vec![begin, end, class.clone(), separator.clone(), token("unk_token", "<unk>")?, token("pad_token", "<pad>")?, mask];
    settings.add_tokens(path, &mut tokenizer, named, Vec::new())?;
    let id = |token: AddedToken| Settings::id(path, &tokenizer, &token).map(|id| (token.content, id));
    let trim = settings.flag("trim_offsets")?.unwrap_or(true);
    let join = RobertaProcessing::new(id(separator)?, id(class)?).trim_offsets(trim).add_prefix_space(prefix);
    tokenizer.with_post_processor(Some(join));
    Ok(tokenizer)
}

/// Whether a text begins with a blank, and whose places are trimmed, `tokenizer_config.json` says rather than `tokenizer.json`.
pub(super) fn adjust(tokenizer: &mut tokenizers::Tokenizer, config: &Object) -> Result<()> {
    let prefix = config.flag("add_prefix_space")?.unwrap_or(false);
    let trim = config.flag("trim_offsets")?.unwrap_or(true);
    if let Some(PreTokenizerWrapper::ByteLevel(bytes)) = tokenizer.get_pre_tokenizer() {
        let bytes = bytes.add_prefix_space(prefix);
        tokenizer.with_pre_tokenizer(Some(bytes));
    }
    if let Some(PostProcessorWrapper::Roberta(join)) = tokenizer.get_post_processor().cloned() {
        tokenizer.with_post_processor(Some(join.add_prefix_space(prefix).trim_offsets(trim)));
    }
    Ok(())
}

/// Tokens by id, the ids being all numbers below the count of tokens.
fn read_vocabulary(path: &Path) -> Result<Vocab> {
    let object = Object::open(path)?.ok_or_else(|| Error::checkpoint(path, "there is no such file: download the model again"))?;
    let tokens: Vec<_> = object.fields().collect();
    let mut taken = vec![None; tokens.len()];
    let mut vocabulary = Vocab::with_capacity(tokens.len());
    for (token, value) in tokens {
        let count = taken.len();
        let wrong = |found: String| {
            Error::checkpoint(
                path,
                format!(
                    "token `{token}`: expected an id of its own below {count}, the number of tokens, found {found}: download the file again"
                ),
            )
        };
        let id = value.as_u64().filter(|&id| id < count as u64).ok_or_else(|| wrong(shown(value)))? as usize;
        if let Some(other) = taken[id].replace(token) {
            return Err(wrong(format!("{id}, which is that of `{other}`")));
        }
        vocabulary.insert(token.to_owned(), id as u32);
    }
    Ok(vocabulary)
}

/// Pairs of tokens to be joined, the most frequent first: a line each, after a line with the version of the format.
fn read_merges(path: &Path, vocabulary: &Vocab) -> Result<Merges> {
    let text = read_text(path)?;
    let text = text.ok_or_else(|| Error::checkpoint(path, "there is no such file, which vocab.json needs: download the model again"))?;
    let mut merges = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        if line.is_empty() || number == 1 && line.starts_with("#version") {
            continue;
        }
        let wrong = |problem: String| Error::checkpoint(path, format!("line {number}: {problem}: download the file again"));
        let Some((left, right)) =
            line.split_once(' ').filter(|(left, right)| !left.is_empty() && !right.is_empty() && !right.contains(' '))
        else {
            return Err(wrong(format!("expected two tokens with a blank between, found {}", shown(&line.into()))));
        };
        if right.ends_with("</w>") {
            let problem =
                format!("line {number}: expected byte-level BPE, found `</w>` at the end of words, a kind of BPE that is not supported");
            return Err(Error::unsupported(path, format!("{problem}: {SAVE_JSON}")));
        }
        for token in [left, right, &[left, right].concat()] {
            if !vocabulary.contains_key(token) {
                return Err(wrong(format!("expected tokens of vocab.json, found {}", shown(&token.into()))));
            }
        }
        merges.push((left.to_owned(), right.to_owned()));
    }
    Ok(merges)
}
