//! Which files of a model folder make its tokenizer: `tokenizer.json`, or else those of the tokenizer's class.

use std::path::{Path, PathBuf};

use super::settings::Settings;
use super::{byte_level, tokenizer_json, unigram, wordpiece};
use crate::checkpoint::json::{Object, shown};
use crate::{Error, Result};

/// What to do about a tokenizer that cannot be built here.
pub(super) const SAVE_JSON: &str = "add its tokenizer.json, which `AutoTokenizer.from_pretrained(folder).save_pretrained(folder)` of \
                                    transformers writes where the class has one";

/// A class of tokenizers and the files that it is built from.
struct Kind {
    /// Names in transformers, without `Fast` at the end.
    classes: &'static [&'static str],
    /// Values of `model_type` whose models have such a tokenizer, unless they name another class.
    model_types: &'static [&'static str],
    /// One of these holds the vocabulary. The first one tells the kind where nothing else does.
    files: &'static [&'static str],
    build: fn(&Path, &Settings) -> Result<tokenizers::Tokenizer>,
    /// Gives a tokenizer from `tokenizer.json` what `tokenizer_config.json` says and transformers builds anew.
    adjust: fn(&mut tokenizers::Tokenizer, &Object) -> Result<()>,
    /// Whether the class gives the model types that tell the texts of a pair apart, unless the folder says so.
    types: bool,
}

/// What a folder has.
pub(super) struct Opened {
    pub tokenizer: tokenizers::Tokenizer,
    /// The file that it comes from.
    pub path: PathBuf,
    /// Whether the model is to see the tokenizer's types.
    pub types: bool,
}

const SENTENCEPIECE: &[&str] = &["sentencepiece.bpe.model", "sentencepiece.model", "spiece.model"];

/// Every kind that can be built. Of those with the same files, the one that is meant where nothing says so comes first.
const KINDS: [Kind; 6] = [
    Kind {
        classes: &["BertTokenizer", "ElectraTokenizer"],
        model_types: &["bert", "electra"],
        files: &["vocab.txt"],
        build: wordpiece::bert,
        adjust: wordpiece::adjust,
        types: true,
    },
    Kind {
        classes: &["DistilBertTokenizer"],
        model_types: &["distilbert"],
        files: &["vocab.txt"],
        build: wordpiece::bert,
        adjust: wordpiece::adjust,
        types: false,
    },
    Kind {
        classes: &["MPNetTokenizer"],
        model_types: &["mpnet"],
        files: &["vocab.txt"],
        build: wordpiece::mpnet,
        adjust: wordpiece::adjust,
        types: false,
    },
    Kind {
        classes: &["RobertaTokenizer"],
        model_types: &["roberta"],
        files: &["vocab.json"],
        build: byte_level::roberta,
        adjust: byte_level::adjust,
        types: false,
    },
    Kind {
        classes: &["XLMRobertaTokenizer"],
        model_types: &["xlm-roberta"],
        files: SENTENCEPIECE,
        build: unigram::xlm_roberta,
        adjust: |_, _| Ok(()),
        types: false,
    },
    Kind {
        classes: &["CamembertTokenizer"],
        model_types: &["camembert"],
        files: SENTENCEPIECE,
        build: unigram::camembert,
        adjust: |_, _| Ok(()),
        types: false,
    },
];

/// Classes that say nothing about the kind.
const ANY_CLASS: [&str; 4] = ["PreTrainedTokenizer", "PreTrainedTokenizerFast", "PythonBackend", "TokenizersBackend"];
/// Files of tokenizers, named where they are all that a folder has.
const OTHER_FILES: [&str; 5] = ["merges.txt", "sentencepiece.model", "spiece.model", "spm.model", "tokenizer.model"];

/// The tokenizer of a folder. `config` is `tokenizer_config.json`.
pub(super) fn open(folder: &Path, config: Option<Object>) -> Result<Opened> {
    let path = folder.join("tokenizer.json");
    let types_named = config.as_ref().map_or(Ok(None), names_types)?;
    let (tokenizer, path, kind) = match tokenizer_json::open(&path)? {
        Some(mut tokenizer) => {
            let kind = config.as_ref().map_or(Ok(None), |config| of_class(folder, config))?;
            if let (Some(kind), Some(config)) = (kind, &config) {
                (kind.adjust)(&mut tokenizer, config)?;
            }
            (tokenizer, path, kind)
        }
        None => {
            let (kind, path) = choose(folder, config.as_ref())?;
            ((kind.build)(&path, &Settings::open(folder, config)?)?, path, Some(kind))
        }
    };
    Ok(Opened { tokenizer, path, types: types_named.or(kind.map(|kind| kind.types)).unwrap_or(true) })
}

/// Whether types are among what the folder says that the model gets, if it says so.
fn names_types(config: &Object) -> Result<Option<bool>> {
    let field = "model_input_names";
    let Some(names) = config.get(field) else { return Ok(None) };
    let wrong = || config.wrong(field, "a list of names", shown(names), "correct the file or download it again");
    Ok(Some(names.as_array().ok_or_else(wrong)?.iter().any(|name| name == "token_type_ids")))
}

/// The kind whose class transformers makes of a folder with `tokenizer.json`: the class that is named, or else the model's. Without
/// `tokenizer_config.json` it would take the class's defaults rather than what `tokenizer.json` says; that is not followed.
fn of_class(folder: &Path, config: &Object) -> Result<Option<&'static Kind>> {
    let model = Object::open(&folder.join("config.json"))?;
    for config in [config].into_iter().chain(&model) {
        if let Some(class) = config.text("tokenizer_class")? {
            return Ok(KINDS.iter().find(|kind| kind.classes.contains(&class.trim_end_matches("Fast"))));
        }
    }
    let model_type = model.as_ref().map_or(Ok(None), |model| model.text("model_type"))?;
    Ok(KINDS.iter().find(|kind| model_type.is_some_and(|model_type| kind.model_types.contains(&model_type))))
}

/// The kind, and the file that holds its vocabulary.
fn choose(folder: &Path, config: Option<&Object>) -> Result<(&'static Kind, PathBuf)> {
    let model = Object::open(&folder.join("config.json"))?;
    for config in config.into_iter().chain(&model) {
        let Some(class) = config.text("tokenizer_class")?.filter(|class| !ANY_CLASS.contains(class)) else { continue };
        let kind = KINDS.iter().find(|kind| kind.classes.contains(&class.trim_end_matches("Fast")));
        let Some(kind) = kind else {
            let classes: Vec<_> = KINDS.iter().flat_map(|kind| kind.classes).copied().collect();
            let problem = format!("`tokenizer_class`: expected one of {}, found \"{class}\", which is not supported", classes.join(", "));
            return Err(Error::unsupported(config.path(), format!("{problem}: {SAVE_JSON}")));
        };
        let file = find(folder, kind.files).ok_or_else(|| {
            let files = kind.files.join(" or ");
            Error::checkpoint(folder, format!("there is no tokenizer: {class} needs tokenizer.json or {files}: download the model again"))
        });
        return Ok((kind, file?));
    }
    let model_type = model.as_ref().map_or(Ok(None), |model| model.text("model_type"))?;
    // Its BPE works on text that the scripts of Moses have taken apart, for which the library has nothing.
    if let Some(file) = find(folder, &["vocab.json"]).filter(|_| model_type == Some("xlm")) {
        let problem = "expected tokenizer.json, found only the files of XLMTokenizer, which is not supported";
        return Err(Error::unsupported(file, format!("{problem}: {SAVE_JSON}")));
    }
    let of_model = KINDS.iter().filter(|kind| model_type.is_some_and(|model_type| kind.model_types.contains(&model_type)));
    let of_model = of_model.map(|kind| (kind, kind.files));
    // A model may have the tokenizer of another one, as Multilingual MiniLM has: a BERT with that of XLM-RoBERTa.
    let by_files = KINDS.iter().map(|kind| (kind, &kind.files[..1]));
    let found = of_model.chain(by_files).find_map(|(kind, files)| find(folder, files).map(|file| (kind, file)));
    found.ok_or_else(|| missing(folder))
}

fn find(folder: &Path, files: &[&str]) -> Option<PathBuf> {
    files.iter().map(|file| folder.join(file)).find(|path| path.exists())
}

fn missing(folder: &Path) -> Error {
    let mut files = vec!["tokenizer.json"];
    for kind in &KINDS {
        if !files.contains(&kind.files[0]) {
            files.push(kind.files[0]);
        }
    }
    let files = files.join(", ");
    match OTHER_FILES.iter().find(|name| folder.join(name).exists()) {
        Some(other) => Error::unsupported(
            folder,
            format!("expected one of {files}, found only {other}, which may be of any kind: name the `tokenizer_class`, or {SAVE_JSON}"),
        ),
        None => Error::checkpoint(folder, format!("there is no tokenizer: expected one of {files}, found none: download the model again")),
    }
}
