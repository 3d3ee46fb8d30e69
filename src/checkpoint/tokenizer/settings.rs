//! What a model folder says about its tokenizer beside the vocabulary: settings, special tokens and added tokens.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::AddedToken;

use super::tokenizer_json::guarded;
use crate::checkpoint::json::{Object, shown};
use crate::{Error, Result};

/// The field of `tokenizer_config.json` with the added tokens by id.
const DECODER: &str = "added_tokens_decoder";
const ADVICE: &str = "correct the file or download it again";

/// `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` as transformers reads them: a configuration that lists the
/// added tokens itself stands alone, otherwise the special tokens of the other file go before those of the configuration.
pub(super) struct Settings {
    config: Object,
    /// `special_tokens_map.json` where it counts.
    specials: Option<Object>,
    /// With the ids that they must get, in the order of the ids.
    added: Vec<(u32, AddedToken)>,
    /// Where the added tokens are listed.
    added_path: PathBuf,
}

impl Settings {
    pub(super) fn open(folder: &Path, config: Option<Object>) -> Result<Self> {
        let path = folder.join("tokenizer_config.json");
        let config = config.map_or_else(|| Object::new(&path, Value::Object(Default::default())), Ok)?;
        let mut settings = Self { config, specials: None, added: Vec::new(), added_path: path };
        if let Some(list) = settings.config.get(DECODER) {
            settings.added = read_decoder(&settings.config, list)?;
        } else {
            settings.specials = Object::open(&folder.join("special_tokens_map.json"))?;
            settings.added_path = folder.join("added_tokens.json");
            if let Some(list) = Object::open(&settings.added_path)? {
                settings.added = read_added(&list)?;
            }
        }
        settings.added.sort_by_key(|&(id, _)| id);
        Ok(settings)
    }

    pub(super) fn flag(&self, field: &str) -> Result<Option<bool>> {
        self.config.flag(field)
    }

    /// Refuses a setting that is not supported; where there is none, it is as expected.
    pub(super) fn require_flag(&self, field: &str, expected: bool) -> Result<()> {
        match self.config.flag(field)?.filter(|&found| found != expected) {
            Some(found) => Err(self.config.unsupported(field, expected, found)),
            None => Ok(()),
        }
    }

    /// Refuses a list that is not empty.
    pub(super) fn require_no_list(&self, field: &str) -> Result<()> {
        match self.config.get(field).filter(|list| list.as_array().is_none_or(|list| !list.is_empty())) {
            Some(found) => Err(self.config.unsupported(field, "no such field", shown(found))),
            None => Ok(()),
        }
    }

    /// A special token by its field. `default` also says how a token takes blanks around it that the folder gives as a mere text.
    pub(super) fn special(&self, field: &str, default: AddedToken) -> Result<AddedToken> {
        let found = self.specials.iter().chain([&self.config]).find_map(|object| Some((object, object.get(field)?)));
        let token = match found {
            Some((object, value)) => read_token(object, field, value, &default)?,
            None => default,
        };
        Ok(self.as_listed(token))
    }

    /// The list of the configuration has the last word on how a token takes blanks.
    fn as_listed(&self, token: AddedToken) -> AddedToken {
        let listed = self.added.iter().find(|(_, added)| added.content == token.content);
        match listed.filter(|_| self.config.get(DECODER).is_some()) {
            Some((_, added)) => AddedToken { special: true, ..added.clone() },
            None => token,
        }
    }

    /// Gives a tokenizer the special tokens `named`, as far as it knows them, `others`, and all that the folder adds. `path` holds the
    /// vocabulary.
    pub(super) fn add_tokens(
        &self,
        path: &Path,
        tokenizer: &mut tokenizers::Tokenizer,
        named: Vec<AddedToken>,
        others: Vec<AddedToken>,
    ) -> Result<()> {
        let ids: HashMap<_, _> = self.added.iter().map(|(id, token)| (token.content.as_str(), *id)).collect();
        // A special token that is neither in the vocabulary nor added would get an id after its end, which has no row in any table.
        let known = |token: &AddedToken| ids.contains_key(token.content.as_str()) || tokenizer.token_to_id(&token.content).is_some();
        let mut tokens: Vec<_> = named.into_iter().filter(known).chain(self.additional()?).chain(others).collect();
        tokens.extend(self.added.iter().map(|(_, token)| token.clone()));
        let mut seen = HashSet::new();
        tokens.retain(|token| seen.insert(token.content.clone()));
        // New ids follow the vocabulary in this order.
        tokens.sort_by_key(|token| ids.get(token.content.as_str()).copied().unwrap_or(u32::MAX));

        let failed = |error| Error::checkpoint(path, format!("the added tokens do not suit it: {error}: download the model again"));
        guarded(|| tokenizer.add_tokens(tokens)).map_err(failed)?;
        for (id, token) in &self.added {
            let found = tokenizer.token_to_id(&token.content);
            if found != Some(*id) {
                let expected = found.map_or("no".to_owned(), |found| found.to_string());
                let problem = format!("added token `{}`: expected the id {expected}, by the vocabulary, found {id}", token.content);
                return Err(Error::checkpoint(&self.added_path, problem + ": the files belong to different models"));
            }
        }
        Ok(())
    }

    /// The id of a special token that a text cannot do without.
    pub(super) fn id(path: &Path, tokenizer: &tokenizers::Tokenizer, token: &AddedToken) -> Result<u32> {
        tokenizer.token_to_id(&token.content).ok_or_else(|| Self::missing(path, tokenizer.get_vocab_size(false), token))
    }

    pub(super) fn missing(path: &Path, size: usize, token: &AddedToken) -> Error {
        let token = &token.content;
        Error::checkpoint(path, format!("expected the special token `{token}`, found {size} tokens without it: download the file again"))
    }

    /// Special tokens without a role.
    fn additional(&self) -> Result<Vec<AddedToken>> {
        let mut tokens = Vec::new();
        for field in ["additional_special_tokens", "extra_special_tokens"] {
            for object in self.specials.iter().chain([&self.config]) {
                let values: Vec<_> = match object.get(field) {
                    Some(Value::Array(values)) => values.iter().collect(),
                    Some(Value::Object(values)) => values.values().collect(),
                    Some(other) => return Err(object.wrong(field, "a list of tokens", shown(other), ADVICE)),
                    None => continue,
                };
                for value in values {
                    tokens.push(self.as_listed(read_token(object, field, value, &AddedToken::from("", true))?));
                }
            }
        }
        Ok(tokens)
    }
}

/// Tokens by id.
fn read_decoder(config: &Object, list: &Value) -> Result<Vec<(u32, AddedToken)>> {
    let wrong = |found: String| config.wrong(DECODER, "tokens by id", found, ADVICE);
    let list = list.as_object().ok_or_else(|| wrong(shown(list)))?;
    let token = |(id, value): (&String, &Value)| {
        let id = id.parse().map_err(|_| wrong(format!("a token under {}", shown(&id.as_str().into()))))?;
        let special = value["special"].as_bool().unwrap_or(false);
        Ok((id, read_token(config, DECODER, value, &AddedToken::from("", special))?))
    };
    list.iter().map(token).collect()
}

/// `added_tokens.json`: ids by token.
fn read_added(list: &Object) -> Result<Vec<(u32, AddedToken)>> {
    let token = |(token, value): (&str, &Value)| match value.as_u64().and_then(|id| u32::try_from(id).ok()) {
        Some(id) => Ok((id, AddedToken::from(token, false))),
        None => Err(list.wrong(token, "an id", shown(value), ADVICE)),
    };
    list.fields().map(token).collect()
}

/// A token as a text, or as an object with `content` and how it takes blanks around it.
fn read_token(object: &Object, field: &str, value: &Value, default: &AddedToken) -> Result<AddedToken> {
    let flag = |name: &str| value[name].as_bool();
    match (value.as_str(), value["content"].as_str()) {
        (Some(text), _) => Ok(AddedToken { content: text.to_owned(), ..default.clone() }),
        (None, Some(content)) => Ok(AddedToken::from(content, default.special)
            .lstrip(flag("lstrip").unwrap_or(false))
            .rstrip(flag("rstrip").unwrap_or(false))
            .single_word(flag("single_word").unwrap_or(false))
            .normalized(flag("normalized").unwrap_or(!default.special))),
        (None, None) => Err(object.wrong(field, "a text or an object with `content`", shown(value), ADVICE)),
    }
}
