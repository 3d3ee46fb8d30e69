//! The files of sentence-transformers: how token states become one vector, how long texts may be, what to put before them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::json::{self, Object, shown};
use super::tensors::is_plain_file_name;
use crate::{Error, Result};

/// How the states of a text's tokens `[tokens, hidden]` become one vector `[hidden]`. Special tokens count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pooling {
    Mean,
    /// The first token's state.
    Cls,
    /// The largest number of each column.
    Max,
}

/// What sentence-transformers files say about a model; without such files nothing is set.
#[derive(Debug, Clone, Default)]
pub struct SentenceSettings {
    /// `None` where the folder does not say.
    pub pooling: Option<Pooling>,
    /// Whether vectors are divided by their L2 norm.
    pub normalize: bool,
    /// Tokens that a text may have, specials included.
    pub max_length: Option<usize>,
    /// Whether texts are lowercased before they are tokenized.
    pub lower_case: bool,
    /// Texts to put before the input, by name.
    pub prompts: BTreeMap<String, String>,
    /// The name of the prompt that is used when none is named.
    pub default_prompt: Option<String>,
    /// The folder of configuration, weights and tokenizer, inside the model folder.
    pub(super) transformer: PathBuf,
    /// The other modules' folders, inside the model folder.
    pub(super) folders: Vec<PathBuf>,
    /// The width that the pooling module expects.
    pub(super) width: Option<usize>,
}

/// Older releases named the transformer module's file after the model.
pub(super) const TRANSFORMER_FILES: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

impl SentenceSettings {
    /// Reads the files of a model folder.
    ///
    /// # Errors
    /// A file is damaged, or asks for a module, pooling or option that is not implemented.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let mut settings = Self::default();
        let include_prompt = settings.read_modules(folder)?;
        for name in TRANSFORMER_FILES {
            if let Some(file) = Object::open(&folder.join(&settings.transformer).join(name))? {
                settings.max_length = file.size("max_seq_length")?;
                if settings.max_length == Some(0) {
                    return Err(file.wrong("max_seq_length", "at least 1", 0, "correct the file or download it again"));
                }
                settings.lower_case = file.flag("do_lower_case")?.unwrap_or(false);
                break;
            }
        }
        settings.read_prompts(&folder.join("config_sentence_transformers.json"))?;
        if !include_prompt && settings.prompts.values().any(|prompt| !prompt.is_empty()) {
            return Err(Error::unsupported(
                folder,
                "`include_prompt`: expected true where there are prompts, found false, which is not supported: use another model",
            ));
        }
        Ok(settings)
    }

    /// `modules.json`: the transformer, then perhaps pooling, then perhaps normalisation. Returns whether prompts are pooled.
    fn read_modules(&mut self, folder: &Path) -> Result<bool> {
        let path = folder.join("modules.json");
        let Some(modules) = json::read(&path)? else { return Ok(true) };
        let Some(modules) = modules.as_array() else {
            return Err(Error::checkpoint(path, format!("expected a list of modules, found {}: download the file again", shown(&modules))));
        };
        let mut include_prompt = true;
        let mut kinds = Vec::new();
        for module in modules {
            let module = Object::new(&path, module.clone())?;
            let kind = module.text("type")?.unwrap_or_default();
            // The path before the last dot has changed between releases.
            let kind = kind.rsplit('.').next().unwrap_or(kind).to_owned();
            let module_folder = module_folder(&module)?;
            match kind.as_str() {
                "Transformer" => self.transformer = module_folder,
                "Pooling" => {
                    include_prompt = self.read_pooling(&folder.join(&module_folder).join("config.json"))?;
                    self.folders.push(module_folder);
                }
                "Normalize" => {
                    self.normalize = true;
                    self.folders.push(module_folder);
                }
                other => return Err(module.unsupported("type", "Transformer, Pooling or Normalize", format!("\"{other}\""))),
            }
            kinds.push(kind);
        }
        let kinds: Vec<_> = kinds.iter().map(String::as_str).collect();
        if !matches!(kinds[..], ["Transformer"] | ["Transformer", "Pooling"] | ["Transformer", "Pooling", "Normalize"]) {
            let problem = format!("expected the modules Transformer, Pooling, Normalize in this order, found {kinds:?}: use another model");
            return Err(Error::unsupported(path, problem));
        }
        Ok(include_prompt)
    }

    fn read_pooling(&mut self, path: &Path) -> Result<bool> {
        let advice = "modules.json asks for this file, but it is missing: download the model again";
        let pooling = Object::open(path)?.ok_or_else(|| Error::checkpoint(path, advice))?;
        let modes = pooling_modes(&pooling)?;
        let known = modes.iter().map(|(field, mode)| match mode.as_str() {
            "mean" => Ok(Pooling::Mean),
            "cls" => Ok(Pooling::Cls),
            "max" => Ok(Pooling::Max),
            other => Err(pooling.unsupported(field, "mean, cls or max", format!("\"{other}\""))),
        });
        let known = known.collect::<Result<Vec<_>>>()?;
        match known[..] {
            [mode] => self.pooling = Some(mode),
            _ => return Err(pooling.unsupported("pooling_mode", "one of mean, cls, max", format!("{} at once {known:?}", known.len()))),
        }
        self.width = match pooling.size("embedding_dimension")? {
            Some(width) => Some(width),
            None => pooling.size("word_embedding_dimension")?,
        };
        Ok(pooling.flag("include_prompt")?.unwrap_or(true))
    }

    fn read_prompts(&mut self, path: &Path) -> Result<()> {
        let Some(config) = Object::open(path)? else { return Ok(()) };
        if let Some(prompts) = config.get("prompts") {
            let wrong = |found| config.wrong("prompts", "an object of names and texts", found, "correct the file or download it again");
            for (name, prompt) in prompts.as_object().ok_or_else(|| wrong(shown(prompts)))? {
                let prompt = prompt.as_str().ok_or_else(|| wrong(format!("{} for `{name}`", shown(prompt))))?;
                self.prompts.insert(name.clone(), prompt.to_owned());
            }
        }
        if let Some(name) = config.text("default_prompt_name")? {
            if !self.prompts.contains_key(name) {
                let names: Vec<_> = self.prompts.keys().collect();
                let expected = format!("one of the prompts {names:?}");
                return Err(config.wrong("default_prompt_name", expected, format!("\"{name}\""), "correct the file"));
            }
            self.default_prompt = Some(name.to_owned());
        }
        Ok(())
    }
}

/// Every pooling mode that a file switches on, with the field that does so: `pooling_mode` of newer releases (a text or a list), or the
/// older `pooling_mode_..._tokens` switches, of which the mean is on unless switched off.
fn pooling_modes(pooling: &Object) -> Result<Vec<(String, String)>> {
    if let Some(value) = pooling.get("pooling_mode") {
        let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        let modes = list.iter().map(|mode| Some(("pooling_mode".to_owned(), mode.as_str()?.to_owned())));
        let modes: Option<Vec<_>> = modes.collect();
        return modes.ok_or_else(|| pooling.wrong("pooling_mode", "a text or a list of texts", shown(value), "correct the file"));
    }
    let mut modes = Vec::new();
    if pooling.get("pooling_mode_mean_tokens").is_none() {
        modes.push(("pooling_mode_mean_tokens".to_owned(), "mean".to_owned()));
    }
    for (field, _) in pooling.fields() {
        let Some(mode) = field.strip_prefix("pooling_mode_") else { continue };
        if pooling.flag(field)? == Some(true) {
            // `pooling_mode_cls_token` has no s.
            let mode = mode.trim_end_matches('s').trim_end_matches("_token");
            modes.push((field.to_owned(), mode.to_owned()));
        }
    }
    Ok(modes)
}

/// A module's folder, which must lie inside the model folder.
fn module_folder(module: &Object) -> Result<PathBuf> {
    let path = module.text("path")?.unwrap_or_default().trim_end_matches('/');
    if !path.is_empty() && !path.split('/').all(is_plain_file_name) {
        return Err(module.wrong("path", "a folder inside the model folder", format!("\"{path}\""), "do not use files from this source"));
    }
    Ok(PathBuf::from(path))
}
