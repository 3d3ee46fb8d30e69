//! `config.json`: the sizes of an encoder, checked before anything is built from them.

use std::collections::BTreeMap;
use std::path::Path;

use super::family::{ActivationField, Family, Field, Positions};
use super::json::{Object, shown};
use crate::{Error, Result};

/// Head sizes that the attention kernel can run.
const HEAD_DIMS: std::ops::RangeInclusive<usize> = 1..=128;

/// The shape of an encoder.
#[derive(Debug, Clone)]
pub struct EncoderConfig {
    pub family: &'static Family,
    pub layers: usize,
    /// Width of a token's vector.
    pub hidden: usize,
    /// Attention heads in a layer; divides `hidden`.
    pub heads: usize,
    /// Width of the feed-forward part.
    pub intermediate: usize,
    /// Rows of the word embedding table.
    pub vocabulary: usize,
    /// Rows of the position table.
    pub position_rows: usize,
    /// Position of a text's first token.
    pub position_offset: usize,
    /// Rows of the token type table; 0 where there is none.
    pub token_types: usize,
    /// Where a text has a language, the rows of the languages' table by their codes; they take the place of token types.
    pub languages: Option<Languages>,
    /// Width of the embedding tables, from which a matrix leads to `hidden` where they differ.
    pub embedding: usize,
    /// Distances of two tokens that the relative attention bias tells apart; 0 where there is none.
    pub relative_buckets: usize,
    /// Between the two matrices of the feed-forward part.
    pub activation: Activation,
    pub layer_norm_eps: f32,
}

/// The languages that a model has embeddings for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Languages {
    /// Rows of the table.
    pub count: usize,
    /// The row of a language, by its code.
    pub by_code: BTreeMap<String, usize>,
}

/// A function of one value, as between the two matrices of the feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// x/2 · (1 + erf(x/√2)), the exact form.
    Gelu,
    /// x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))), another function than [`Activation::Gelu`].
    GeluTanh,
    Relu,
    Tanh,
}

impl Activation {
    /// The activation that `transformers` knows by this name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "gelu" | "gelu_python" => Some(Self::Gelu),
            "gelu_new" | "gelu_fast" | "gelu_accurate" | "gelu_pytorch_tanh" | "gelu_python_tanh" => Some(Self::GeluTanh),
            "relu" => Some(Self::Relu),
            "tanh" => Some(Self::Tanh),
            _ => None,
        }
    }
}

impl EncoderConfig {
    /// Width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }

    /// Tokens that a text may have, specials included: the rows of the position table from the first one used.
    pub fn max_tokens(&self) -> usize {
        self.position_rows - self.position_offset
    }

    /// The id of padding, where positions start after it and leave it out.
    pub fn padding(&self) -> Option<usize> {
        self.position_offset.checked_sub(1)
    }

    /// Types that a token may have: token types, or languages and none of them.
    pub fn types(&self) -> usize {
        self.languages.as_ref().map_or(self.token_types.max(1), |languages| languages.count + 1)
    }

    /// The type of a token where nobody says: 0, or no language.
    pub fn default_type(&self) -> usize {
        self.languages.as_ref().map_or(0, |languages| languages.count)
    }

    /// Reads and checks a `config.json`.
    ///
    /// # Errors
    /// The file is missing or not JSON, a size is missing, zero or absurd, sizes do not fit each other, or the model needs something
    /// that is not implemented: another family, activation, kind of positions or feed-forward part.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::read(&open(path.as_ref())?)
    }

    pub(super) fn read(config: &Object) -> Result<Self> {
        let family = find_family(config)?;
        refuse_variants(config)?;

        let names = &family.fields;
        let hidden = required(config, names.hidden)?;
        let heads = required(config, names.heads)?;
        let vocabulary = required(config, names.vocabulary)?;
        let position_rows = required(config, names.position_rows)?;
        if !hidden.is_multiple_of(heads) {
            let expected = format!("a divisor of `{}` {hidden}", names.hidden[0]);
            return Err(config.wrong(names.heads[0], expected, heads, "correct the file or download it again"));
        }
        if !HEAD_DIMS.contains(&(hidden / heads)) {
            let found = format!("{heads} (heads of {} from `{}` {hidden})", hidden / heads, names.hidden[0]);
            return Err(config.unsupported(names.heads[0], "heads of 1 to 128", found));
        }
        let position_offset = match family.positions {
            Positions::FromZero => 0,
            Positions::AfterPadding => padding(config, family, vocabulary)? + 1,
            Positions::AfterOne => 2,
        };
        if position_offset >= position_rows {
            let expected = format!("more than {position_offset} (positions start after the id of padding, {})", position_offset - 1);
            return Err(config.wrong(names.position_rows[0], expected, position_rows, "correct the file or download it again"));
        }
        let size =
            |names: Field, default: usize| Ok(names.iter().find_map(|name| config.size(name).transpose()).transpose()?.unwrap_or(default));

        Ok(Self {
            family,
            layers: required(config, names.layers)?,
            hidden,
            heads,
            intermediate: if names.intermediate.is_empty() { 4 * hidden } else { required(config, names.intermediate)? },
            vocabulary,
            position_rows,
            position_offset,
            token_types: if names.token_types.is_empty() { 0 } else { size(names.token_types, 2)? },
            languages: languages(config, family)?,
            embedding: if names.embedding.is_empty() { hidden } else { size(names.embedding, names.default_embedding)?.max(1) },
            relative_buckets: if family.tensors.relative_bias.is_some() { relative_buckets(config)? } else { 0 },
            activation: activation(config, names.activation)?,
            layer_norm_eps: layer_norm_eps(config, family)?,
        })
    }
}

/// The fields of a `config.json`, which must be there.
pub(super) fn open(path: &Path) -> Result<Object> {
    Object::open(path)?.ok_or_else(|| {
        let problem = "there is no such file: a model folder holds config.json, weights and a tokenizer, so name such a folder";
        Error::checkpoint(path, problem)
    })
}

/// A size that must be there, under one of these names, and be at least 1.
fn required(config: &Object, names: Field) -> Result<usize> {
    let advice = "correct the file or download it again";
    let name = names.iter().find(|name| config.get(name).is_some()).unwrap_or(&names[0]);
    match config.size(name)? {
        Some(0) => Err(config.wrong(name, "at least 1", 0, advice)),
        Some(size) => Ok(size),
        None => Err(config.wrong(name, "a whole number", "no such field", advice)),
    }
}

/// The family by `model_type`, or by `architectures` in files from before there was a `model_type`.
fn find_family(config: &Object) -> Result<&'static Family> {
    let expected = || format!("one of {}", Family::known());
    if let Some(model_type) = config.text("model_type")? {
        return Family::of_model_type(model_type).ok_or_else(|| config.unsupported("model_type", expected(), format!("\"{model_type}\"")));
    }
    let architecture = config.get("architectures").and_then(|classes| classes.get(0)).and_then(|class| class.as_str());
    let Some(architecture) = architecture else {
        return Err(config.wrong("model_type", expected(), "no such field", "add the model's type"));
    };
    Family::of_architecture(architecture)
        .ok_or_else(|| config.unsupported("architectures", format!("a class of {}", Family::known()), format!("\"{architecture}\"")))
}

/// Fields by which models of a known `model_type` say that they compute something else.
fn refuse_variants(config: &Object) -> Result<()> {
    for (field, allowed) in [("position_embedding_type", "absolute"), ("feed_forward_type", "original")] {
        if let Some(found) = config.text(field)?.filter(|&found| found != allowed) {
            return Err(config.unsupported(field, format!("\"{allowed}\""), format!("\"{found}\"")));
        }
    }
    for field in
        ["is_decoder", "add_cross_attention", "is_encoder_decoder", "causal", "use_rotary_embeddings", "use_alibi", "alibi", "pre_norm"]
    {
        if config.flag(field)? == Some(true) {
            return Err(config.unsupported(field, "false", "true"));
        }
    }
    if config.flag("is_encoder")? == Some(false) {
        return Err(config.unsupported("is_encoder", "true", "false"));
    }
    for field in ["rope_theta", "rope_scaling", "rotary_emb_base", "rotary_emb_fraction", "alibi_starting_size"] {
        if let Some(found) = config.get(field).filter(|found| found.as_f64() != Some(0.0)) {
            return Err(config.unsupported(field, "no such field (positions are learned)", shown(found)));
        }
    }
    Ok(())
}

fn padding(config: &Object, family: &Family, vocabulary: usize) -> Result<usize> {
    let padding = config.size("pad_token_id")?.unwrap_or(1);
    if padding >= vocabulary {
        let expected = format!("less than `{}` {vocabulary}", family.fields.vocabulary[0]);
        return Err(config.wrong("pad_token_id", expected, padding, "correct the file or download it again"));
    }
    Ok(padding)
}

fn activation(config: &Object, field: ActivationField) -> Result<Activation> {
    match field {
        ActivationField::Name(field) => {
            let name = config.text(field)?.unwrap_or("gelu");
            let expected = "one of gelu, gelu_new, gelu_pytorch_tanh, relu, tanh";
            Activation::from_name(name).ok_or_else(|| config.unsupported(field, expected, format!("\"{name}\"")))
        }
        ActivationField::IsGelu(field) => Ok(if config.flag(field)?.unwrap_or(true) { Activation::Gelu } else { Activation::Relu }),
    }
}

/// Language embeddings, where the family has them, the configuration asks for them, and there is more than one.
fn languages(config: &Object, family: &Family) -> Result<Option<Languages>> {
    let count = config.size("n_langs")?.unwrap_or(1);
    if family.tensors.language.is_none() || count < 2 || !config.flag("use_lang_emb")?.unwrap_or(true) {
        return Ok(None);
    }
    let mut by_code = BTreeMap::new();
    let wrong = |found| config.wrong("lang2id", format!("language codes with numbers below {count}"), found, "correct the file");
    if let Some(codes) = config.get("lang2id") {
        for (code, id) in codes.as_object().ok_or_else(|| wrong(shown(codes)))? {
            let row = id.as_u64().filter(|&id| id < count as u64).ok_or_else(|| wrong(format!("{} for `{code}`", shown(id))))?;
            by_code.insert(code.clone(), row as usize);
        }
    }
    Ok(Some(Languages { count, by_code }))
}

/// transformers counts distances in 32 buckets, whatever the table's size.
fn relative_buckets(config: &Object) -> Result<usize> {
    let (field, buckets) = ("relative_attention_num_buckets", 32);
    match config.size(field)?.filter(|&found| found != buckets) {
        Some(found) => Err(config.unsupported(field, buckets, found)),
        None => Ok(buckets),
    }
}

fn layer_norm_eps(config: &Object, family: &Family) -> Result<f32> {
    let Some(field) = family.fields.layer_norm_eps.first() else { return Ok(family.default_layer_norm_eps as f32) };
    let found = config.number(field)?.unwrap_or(family.default_layer_norm_eps);
    // Compared as f32, where a number below 1e-45 is zero.
    if !(found as f32 > 0.0 && found < 1.0) {
        return Err(config.wrong(field, "a number between 0 and 1 such as 1e-12", found, "correct the file or download it again"));
    }
    Ok(found as f32)
}
