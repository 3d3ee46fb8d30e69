//! The files of sentence-transformers: how token states become one vector, how long texts may be, what to put before them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::config::Activation;
use super::heads::{Score, score_of};
use super::json::{self, Object, shortened, shown};
use super::link;
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
    /// The sum, divided by the square root of the number of tokens.
    MeanSqrtLen,
    /// The mean with the weights 1, 2, 3, ... from the first token on.
    WeightedMean,
    /// The last token's state.
    LastToken,
}

impl Pooling {
    /// Every kind, in the order in which sentence-transformers puts several next to one another.
    pub const ALL: [Self; 6] = [Self::Cls, Self::Max, Self::Mean, Self::MeanSqrtLen, Self::WeightedMean, Self::LastToken];

    /// The name in sentence-transformers' files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Cls => "cls",
            Self::Max => "max",
            Self::MeanSqrtLen => "mean_sqrt_len_tokens",
            Self::WeightedMean => "weightedmean",
            Self::LastToken => "lasttoken",
        }
    }
}

impl From<Pooling> for Vec<Pooling> {
    fn from(pooling: Pooling) -> Self {
        vec![pooling]
    }
}

/// What happens to a text's vector after pooling.
#[derive(Debug, Clone, PartialEq)]
pub enum Module {
    Dense(DenseModule),
    /// Over all columns, with scale and shift from the folder, epsilon 1e-5.
    LayerNorm {
        folder: PathBuf,
        width: usize,
    },
    /// Division by the L2 norm.
    Normalize,
}

/// A matrix, with its weights in a folder of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct DenseModule {
    /// Inside the model folder.
    pub folder: PathBuf,
    pub inputs: usize,
    pub outputs: usize,
    pub bias: bool,
    pub activation: Option<Activation>,
    /// Whether the input is added to the result.
    pub residual: bool,
}

/// What sentence-transformers files say about a model; without such files nothing is set.
#[derive(Debug, Clone, Default)]
pub struct SentenceSettings {
    /// Each gives `hidden` columns, next to one another; `None` where the folder does not say.
    pub pooling: Option<Vec<Pooling>>,
    /// After pooling, in this order.
    pub modules: Vec<Module>,
    /// Tokens that a text may have, specials included.
    pub max_length: Option<usize>,
    /// Whether texts are lowercased before they are tokenized.
    pub lower_case: bool,
    /// Texts to put before the input, by name.
    pub prompts: BTreeMap<String, String>,
    /// The name of the prompt that is used when none is named.
    pub default_prompt: Option<String>,
    /// The first columns that are kept when nobody says.
    pub dimensions: Option<usize>,
    /// How the logits of a cross-encoder become scores.
    pub score: Option<Score>,
    /// The folder of configuration, weights and tokenizer, inside the model folder.
    pub(super) transformer: PathBuf,
    /// The other modules' folders, inside the model folder.
    pub(super) folders: Vec<PathBuf>,
    /// The width that the pooling module expects.
    pub(super) width: Option<usize>,
}

/// Each may have files of its own to be read.
const MOST_MODULES: usize = 64;

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

    /// The text of a prompt of the model in `folder`.
    ///
    /// # Errors
    /// There is none of this name; the message says which there are.
    pub fn prompt(&self, name: &str, folder: &Path) -> Result<&str> {
        self.prompts.get(name).map(String::as_str).ok_or_else(|| {
            let known = self.prompts.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { "none; write it into the texts instead" } else { &known };
            Error::input(format!("there is no prompt `{name}`: {} has {known}", folder.display()))
        })
    }

    /// `modules.json`: the transformer, then pooling, then what happens to the vector. Returns whether prompts are pooled.
    fn read_modules(&mut self, folder: &Path) -> Result<bool> {
        let path = folder.join("modules.json");
        let Some(modules) = json::read(&path)? else { return Ok(true) };
        let Some(modules) = modules.as_array() else {
            return Err(Error::checkpoint(path, format!("expected a list of modules, found {}: download the file again", shown(&modules))));
        };
        if modules.len() > MOST_MODULES {
            let problem = format!("expected at most {MOST_MODULES} modules, found {}: download the file again", modules.len());
            return Err(Error::checkpoint(path, problem));
        }
        let mut include_prompt = true;
        let mut kinds = Vec::new();
        for module in modules {
            let module = Object::new(&path, module.clone())?;
            let kind = module.text("type")?.unwrap_or_default();
            // The path before the last dot has changed between releases.
            let kind = kind.rsplit('.').next().unwrap_or(kind).to_owned();
            let module_folder = module_folder(folder, &module)?;
            let place = (kind.as_str(), kinds.len(), self.pooling.is_some());
            match place {
                ("Transformer", 0, _) => self.transformer = module_folder.clone(),
                ("Pooling", 1, _) => include_prompt = self.read_pooling(&module_config(folder, &module_folder)?)?,
                ("Dense", _, true) => {
                    self.modules.push(Module::Dense(read_dense(&module_config(folder, &module_folder)?, &module_folder)?))
                }
                ("LayerNorm", _, true) => {
                    let config = module_config(folder, &module_folder)?;
                    let width = module_size(&config, "dimension")?;
                    self.modules.push(Module::LayerNorm { folder: module_folder.clone(), width });
                }
                ("Normalize", _, true) => self.modules.push(Module::Normalize),
                // Does something in training only.
                ("Dropout", _, true) => {}
                ("Transformer" | "Pooling" | "Dense" | "LayerNorm" | "Normalize" | "Dropout", ..) => {
                    let expected = "Transformer, then Pooling, then any of Dense, LayerNorm, Normalize";
                    let problem = format!("expected the modules {expected} in this order, found {kind} after {kinds:?}: use another model");
                    return Err(Error::unsupported(path, problem));
                }
                _ => {
                    let expected = "Transformer, Pooling, Dense, LayerNorm, Normalize or Dropout";
                    return Err(module.unsupported("type", expected, format!("\"{kind}\"")));
                }
            }
            if kind != "Transformer" {
                self.folders.push(module_folder);
            }
            kinds.push(kind);
        }
        Ok(include_prompt)
    }

    fn read_pooling(&mut self, pooling: &Object) -> Result<bool> {
        let modes = pooling_modes(pooling)?;
        let known = modes.iter().map(|(field, mode)| {
            // Older files cut the longest name short.
            let found = Pooling::ALL.into_iter().find(|known| known.name() == mode || known.name().trim_end_matches("_tokens") == mode);
            let names = Pooling::ALL.map(Pooling::name).join(", ");
            found.ok_or_else(|| pooling.unsupported(field, format!("one of {names}"), format!("\"{mode}\"")))
        });
        let mut known = known.collect::<Result<Vec<_>>>()?;
        if known.is_empty() {
            known.push(Pooling::Mean);
        }
        self.pooling = Some(known);
        self.width = match pooling.size("embedding_dimension")? {
            Some(width) => Some(width),
            None => pooling.size("word_embedding_dimension")?,
        };
        Ok(pooling.flag("include_prompt")?.unwrap_or(true))
    }

    /// Width of a text's vector, given that of a token's state.
    ///
    /// # Errors
    /// A module expects another width than the one before it gives.
    pub(super) fn check_widths(&self, folder: &Path, hidden: usize) -> Result<()> {
        let mut width = hidden * self.pooling.as_ref().map_or(1, Vec::len);
        for module in &self.modules {
            let (path, inputs, outputs) = match module {
                Module::Dense(dense) => (&dense.folder, dense.inputs, dense.outputs),
                Module::LayerNorm { folder, width } => (folder, *width, *width),
                Module::Normalize => continue,
            };
            if inputs != width {
                let problem = format!("the module expects {inputs} numbers a text, found {width}: the files belong to different models");
                return Err(Error::checkpoint(folder.join(path).join("config.json"), problem));
            }
            width = outputs;
        }
        Ok(())
    }

    fn read_prompts(&mut self, path: &Path) -> Result<()> {
        let Some(config) = Object::open(path)? else { return Ok(()) };
        self.dimensions = config.size("truncate_dim")?;
        self.score = score_of(&config, "activation_fn", None)?;
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
/// older `pooling_mode_..._tokens` switches, of which the mean is on unless switched off. Their order is that of [`Pooling::ALL`].
fn pooling_modes(pooling: &Object) -> Result<Vec<(String, String)>> {
    if let Some(value) = pooling.get("pooling_mode") {
        let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        let modes = list.iter().map(|mode| Some(("pooling_mode".to_owned(), mode.as_str()?.to_owned())));
        let modes: Option<Vec<_>> = modes.collect();
        return modes.ok_or_else(|| pooling.wrong("pooling_mode", "a text or a list of texts", shown(value), "correct the file"));
    }
    let mut modes = Vec::new();
    if pooling.fields().all(|(field, _)| !field.starts_with("pooling_mode_")) {
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
    let place = |mode: &str| Pooling::ALL.iter().position(|known| known.name().trim_end_matches("_tokens") == mode);
    modes.sort_by_key(|(_, mode)| place(mode));
    Ok(modes)
}

fn module_config(folder: &Path, module: &Path) -> Result<Object> {
    let path = folder.join(module).join("config.json");
    let advice = "modules.json asks for this file, but it is missing: download the model again";
    Object::open(&path)?.ok_or_else(|| Error::checkpoint(path, advice))
}

fn module_size(config: &Object, field: &str) -> Result<usize> {
    let advice = "correct the file or download it again";
    let size = config.size(field)?.ok_or_else(|| config.wrong(field, "a whole number", "no such field", advice))?;
    if size == 0 { Err(config.wrong(field, "at least 1", 0, advice)) } else { Ok(size) }
}

fn read_dense(config: &Object, folder: &Path) -> Result<DenseModule> {
    for field in ["module_input_name", "module_output_name"] {
        if let Some(name) = config.text(field)?.filter(|&name| name != "sentence_embedding") {
            return Err(config.unsupported(field, "\"sentence_embedding\"", format!("\"{name}\"")));
        }
    }
    let field = "activation_function";
    let name = config.text(field)?.unwrap_or("torch.nn.modules.activation.Tanh");
    let activation = match name.rsplit('.').next().unwrap_or(name) {
        "Identity" => None,
        "Tanh" => Some(Activation::Tanh),
        "ReLU" => Some(Activation::Relu),
        "GELU" => Some(Activation::Gelu),
        _ => return Err(config.unsupported(field, "Identity, Tanh, ReLU or GELU of torch.nn", format!("\"{name}\""))),
    };
    let (inputs, outputs) = (module_size(config, "in_features")?, module_size(config, "out_features")?);
    let residual = config.flag("use_residual")?.unwrap_or(false);
    if residual && inputs != outputs {
        return Err(config.unsupported("use_residual", "false where `in_features` and `out_features` differ", "true"));
    }
    let bias = config.flag("bias")?.unwrap_or(true);
    Ok(DenseModule { folder: folder.to_owned(), inputs, outputs, bias, activation, residual })
}

/// A module's folder, which must lie inside the model folder.
fn module_folder(folder: &Path, module: &Object) -> Result<PathBuf> {
    let path = module.text("path")?.unwrap_or_default().trim_end_matches('/');
    if !path.is_empty() && !path.split('/').all(is_plain_file_name) {
        let found = format!("\"{}\"", shortened(path));
        return Err(module.wrong("path", "a folder inside the model folder", found, "do not use files from this source"));
    }
    let path = PathBuf::from(path);
    for part in path.ancestors().filter(|part| !part.as_os_str().is_empty()) {
        link::check(&folder.join(part))?;
    }
    Ok(path)
}
