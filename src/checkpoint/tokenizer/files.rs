//! Which files of a model folder make its tokenizer: `tokenizer.json`, or else those of the tokenizer's class.

use std::path::{Path, PathBuf};

use super::settings::Settings;
use super::{byte_level, tokenizer_json, unigram, wordpiece};
use crate::checkpoint::json::Object;
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
}

const SENTENCEPIECE: &[&str] = &["sentencepiece.bpe.model", "sentencepiece.model", "spiece.model"];

/// Every kind that can be built. Of those with the same files, the one that is meant where nothing says so comes first.
const KINDS: [Kind; 5] = [
    Kind {
        classes: &["BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer"],
        model_types: &["bert", "distilbert", "electra"],
        files: &["vocab.txt"],
        build: wordpiece::bert,
    },
    Kind { classes: &["MPNetTokenizer"], model_types: &["mpnet"], files: &["vocab.txt"], build: wordpiece::mpnet },
    Kind { classes: &["RobertaTokenizer"], model_types: &["roberta"], files: &["vocab.json"], build: byte_level::roberta },
    Kind { classes: &["XLMRobertaTokenizer"], model_types: &["xlm-roberta"], files: SENTENCEPIECE, build: unigram::xlm_roberta },
    Kind { classes: &["CamembertTokenizer"], model_types: &["camembert"], files: SENTENCEPIECE, build: unigram::camembert },
];

/// Classes that say nothing about the kind.
const ANY_CLASS: [&str; 4] = ["PreTrainedTokenizer", "PreTrainedTokenizerFast", "PythonBackend", "TokenizersBackend"];
/// Files of tokenizers, named where they are all that a folder has.
const OTHER_FILES: [&str; 5] = ["merges.txt", "sentencepiece.model", "spiece.model", "spm.model", "tokenizer.model"];

/// The tokenizer of a folder, and the file that it comes from. `config` is `tokenizer_config.json`.
pub(super) fn open(folder: &Path, config: Option<Object>) -> Result<(PathBuf, tokenizers::Tokenizer)> {
    let path = folder.join("tokenizer.json");
    if let Some(tokenizer) = tokenizer_json::open(&path)? {
        return Ok((path, tokenizer));
    }
    let (kind, path) = choose(folder, config.as_ref())?;
    let tokenizer = (kind.build)(&path, &Settings::open(folder, config)?)?;
    Ok((path, tokenizer))
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
