//! The tokenizer of BERT from `vocab.txt` and `tokenizer_config.json`, for folders without `tokenizer.json`.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, Model};

use super::json::{Object, read_text, shown};
use crate::{Error, Result};

const VOCABULARY: &str = "vocab.txt";
/// Tokenizers of other kinds, named where they are all that a folder has.
const OTHER_KINDS: [&str; 7] =
    ["vocab.json", "merges.txt", "sentencepiece.bpe.model", "sentencepiece.model", "spiece.model", "spm.model", "tokenizer.model"];
/// Classes of transformers that read `vocab.txt` in this way.
const CLASSES: [&str; 3] = ["BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer"];

/// Builds the tokenizer and names the file that it comes from.
pub(super) fn open(folder: &Path, config: Option<&Object>) -> Result<(PathBuf, tokenizers::Tokenizer)> {
    let path = folder.join(VOCABULARY);
    let Some(text) = read_text(&path)? else { return Err(missing(folder)) };
    let no_config = Object::new(&folder.join("tokenizer_config.json"), Value::Object(Default::default()))?;
    let config = config.unwrap_or(&no_config);
    refuse_variants(folder, config)?;

    let unknown = special(config, "unk_token", "[UNK]")?;
    let failed = |error| Error::checkpoint(&path, format!("no tokenizer can be built from it: {error}"));
    let vocabulary = WordPiece::read_bytes(text.as_bytes()).map_err(failed)?;
    let model = WordPiece::builder().vocab(vocabulary).unk_token(unknown.content.clone()).build().map_err(failed)?;
    let id = |token: &AddedToken| {
        model.token_to_id(&token.content).ok_or_else(|| {
            let (token, lines) = (&token.content, model.get_vocab_size());
            Error::checkpoint(
                &path,
                format!("expected the special token `{token}`, found {lines} lines without it: download the file again"),
            )
        })
    };
    let separator = special(config, "sep_token", "[SEP]")?;
    let class = special(config, "cls_token", "[CLS]")?;
    id(&unknown)?;
    let join = BertProcessing::new((separator.content.clone(), id(&separator)?), (class.content.clone(), id(&class)?));
    let specials = [unknown, separator, special(config, "pad_token", "[PAD]")?, class, special(config, "mask_token", "[MASK]")?];
    // A special token that is not in the vocabulary would get an id after its end, which has no row in any table.
    let specials: Vec<_> = specials.into_iter().filter(|token| model.token_to_id(&token.content).is_some()).collect();

    let lower_case = config.flag("do_lower_case")?.unwrap_or(true);
    let chinese = config.flag("tokenize_chinese_chars")?.unwrap_or(true);
    // Left open, it follows the case.
    let accents = config.flag("strip_accents")?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_normalizer(Some(BertNormalizer::new(true, chinese, accents, lower_case))).map_err(failed)?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer)).with_post_processor(Some(join));
    tokenizer.add_special_tokens(specials).map_err(failed)?;
    Ok((path, tokenizer))
}

fn missing(folder: &Path) -> Error {
    match OTHER_KINDS.iter().find(|name| folder.join(name).exists()) {
        Some(other) => Error::unsupported(
            folder,
            format!(
                "expected tokenizer.json or {VOCABULARY}, found only {other}, a kind of tokenizer that is not supported: \
                 save it again with `AutoTokenizer.from_pretrained(folder).save_pretrained(folder)` of transformers"
            ),
        ),
        None => Error::checkpoint(
            folder,
            format!("there is no tokenizer: looked for tokenizer.json and {VOCABULARY}, found neither: download the model again"),
        ),
    }
}

/// Settings under which `vocab.txt` alone would give other ids.
fn refuse_variants(folder: &Path, config: &Object) -> Result<()> {
    if let Some(class) = config.text("tokenizer_class")?.filter(|class| !CLASSES.contains(&class.trim_end_matches("Fast"))) {
        return Err(config.unsupported("tokenizer_class", format!("one of {CLASSES:?} for {VOCABULARY}"), format!("\"{class}\"")));
    }
    if config.flag("do_basic_tokenize")? == Some(false) {
        return Err(config.unsupported("do_basic_tokenize", "true", "false"));
    }
    if let Some(never_split) = config.get("never_split").filter(|list| list.as_array().is_none_or(|list| !list.is_empty())) {
        return Err(config.unsupported("never_split", "no such field", shown(never_split)));
    }
    let added = folder.join("added_tokens.json");
    if Object::open(&added)?.is_some_and(|tokens| tokens.fields().next().is_some()) {
        let problem =
            format!("expected no added tokens beside {VOCABULARY}, found some, which is not supported: save tokenizer.json as well");
        return Err(Error::unsupported(added, problem));
    }
    Ok(())
}

/// A special token by its field: a text, or an object with `content` and how it takes blanks around it.
fn special(config: &Object, field: &str, default: &str) -> Result<AddedToken> {
    let value = config.get(field);
    let flag = |name: &str| value.and_then(|value| value[name].as_bool()).unwrap_or(false);
    let content = match value {
        None => Some(default),
        Some(Value::Object(token)) => token.get("content").and_then(Value::as_str),
        Some(value) => value.as_str(),
    };
    match (content, value) {
        (Some(content), _) => Ok(AddedToken::from(content, true)
            .lstrip(flag("lstrip"))
            .rstrip(flag("rstrip"))
            .single_word(flag("single_word"))
            .normalized(flag("normalized"))),
        (None, value) => {
            let found = shown(value.unwrap_or(&Value::Null));
            Err(config.wrong(field, "a text or an object with `content`", found, "correct the file or download it again"))
        }
    }
}
