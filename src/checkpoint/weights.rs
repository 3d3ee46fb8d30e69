//! The weights of an encoder by role: every name resolved and every shape held against the configuration, before any number is read.

use super::config::EncoderConfig;
use super::tensors::{Tensor, Tensors};
use crate::{Error, Result};

/// Every tensor of an encoder.
#[derive(Debug)]
pub struct EncoderWeights<'a> {
    /// `[vocabulary, hidden]`
    pub word: Tensor<'a>,
    /// `[position_rows, hidden]`
    pub position: Tensor<'a>,
    /// `[token_types, hidden]`
    pub token_type: Option<Tensor<'a>>,
    /// `[hidden]`
    pub embedding_norm: Norm<'a>,
    pub layers: Vec<LayerWeights<'a>>,
    /// `[hidden, hidden]`, over the first token's state; many checkpoints have none.
    pub pooler: Option<Linear<'a>>,
}

/// One layer.
#[derive(Debug)]
pub struct LayerWeights<'a> {
    /// `[hidden, hidden]`; row `head * head_dim + i` makes the head's i-th number. So for `key` and `value`.
    pub query: Linear<'a>,
    /// `[hidden, hidden]`
    pub key: Linear<'a>,
    /// `[hidden, hidden]`
    pub value: Linear<'a>,
    /// `[hidden, hidden]`
    pub attention_output: Linear<'a>,
    /// `[hidden]`
    pub attention_norm: Norm<'a>,
    /// `[intermediate, hidden]`
    pub up: Linear<'a>,
    /// `[hidden, intermediate]`
    pub down: Linear<'a>,
    /// `[hidden]`
    pub output_norm: Norm<'a>,
}

/// y = weight · x + bias
#[derive(Debug, Clone, Copy)]
pub struct Linear<'a> {
    /// `[outputs, inputs]`
    pub weight: Tensor<'a>,
    /// `[outputs]`
    pub bias: Tensor<'a>,
}

/// Layer norm: (x - mean) / sqrt(variance + eps) · weight + bias
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// `[hidden]`; called gamma in old checkpoints.
    pub weight: Tensor<'a>,
    /// `[hidden]`; called beta in old checkpoints.
    pub bias: Tensor<'a>,
}

/// The prefix that this file puts before the encoder's names, found by its word embeddings.
pub(super) fn find_prefix(tensors: &Tensors, config: &EncoderConfig) -> Result<&'static str> {
    let family = config.family;
    let word = format!("{}.weight", family.tensors.word);
    let found = family.prefixes.iter().find(|prefix| tensors.contains(&format!("{prefix}{word}")));
    found.copied().ok_or_else(|| {
        let problem = format!(
            "is missing, looked for it with the prefixes {:?} of {} models: the weights belong to another model, or `model_type` is wrong",
            family.prefixes, family.name
        );
        Error::tensor(tensors.path(), word, problem)
    })
}

/// Resolves and checks every tensor.
pub(super) fn resolve<'a>(tensors: &'a Tensors, config: &EncoderConfig, prefix: &str) -> Result<EncoderWeights<'a>> {
    let (names, fields) = (&config.family.tensors, &config.family.fields);
    let find = Finder { tensors, prefix };
    let hidden = (fields.hidden, config.hidden);
    let intermediate = (fields.intermediate, config.intermediate);
    let table = |name, field, rows| find.tensor(&format!("{name}.weight"), &[(field, rows), hidden]);

    let word = table(names.word, fields.vocabulary, config.vocabulary)?;
    let position = table(names.position, fields.position_rows, config.position_rows)?;
    let token_type = match names.token_type {
        Some(name) if config.token_types > 0 => Some(table(name, fields.token_types, config.token_types)?),
        _ => None,
    };
    let embedding_norm = find.norm(names.embedding_norm, hidden)?;
    let layer = |i: usize| {
        let name = |template: &str| template.replace("{i}", &i.to_string());
        Ok(LayerWeights {
            query: find.linear(&name(names.query), hidden, hidden)?,
            key: find.linear(&name(names.key), hidden, hidden)?,
            value: find.linear(&name(names.value), hidden, hidden)?,
            attention_output: find.linear(&name(names.attention_output), hidden, hidden)?,
            attention_norm: find.norm(&name(names.attention_norm), hidden)?,
            up: find.linear(&name(names.up), intermediate, hidden)?,
            down: find.linear(&name(names.down), hidden, intermediate)?,
            output_norm: find.norm(&name(names.output_norm), hidden)?,
        })
    };
    let layers = (0..config.layers).map(layer).collect::<Result<Vec<_>>>()?;
    let more = format!("{prefix}{}.weight", names.query.replace("{i}", &config.layers.to_string()));
    if tensors.contains(&more) {
        let path = tensors.path().display();
        log::warn!("{path}: holds more layers than the {} of config.json's `{}`; the others are not used", config.layers, fields.layers);
    }
    let pooler = names.pooler.filter(|name| tensors.contains(&format!("{prefix}{name}.weight")));
    let pooler = pooler.map(|name| find.linear(name, hidden, hidden)).transpose()?;
    Ok(EncoderWeights { word, position, token_type, embedding_norm, layers, pooler })
}

/// A dimension and the field of `config.json` that it comes from.
type Dimension = (&'static str, usize);

struct Finder<'a, 'p> {
    tensors: &'a Tensors,
    prefix: &'p str,
}

impl<'a> Finder<'a, '_> {
    fn linear(&self, name: &str, outputs: Dimension, inputs: Dimension) -> Result<Linear<'a>> {
        let weight = self.tensor(&format!("{name}.weight"), &[outputs, inputs])?;
        Ok(Linear { weight, bias: self.tensor(&format!("{name}.bias"), &[outputs])? })
    }

    fn norm(&self, name: &str, size: Dimension) -> Result<Norm<'a>> {
        // The names of TensorFlow live on in checkpoints that were converted before 2019.
        let either = |new: &str, old: &str| {
            let old = format!("{name}.{old}");
            let is_old = self.tensors.contains(&format!("{}{old}", self.prefix));
            if is_old { old } else { format!("{name}.{new}") }
        };
        let weight = self.tensor(&either("weight", "gamma"), &[size])?;
        Ok(Norm { weight, bias: self.tensor(&either("bias", "beta"), &[size])? })
    }

    fn tensor(&self, name: &str, expected: &[Dimension]) -> Result<Tensor<'a>> {
        let tensor = self.tensors.get(&format!("{}{name}", self.prefix))?;
        if tensor.shape.iter().ne(expected.iter().map(|(_, size)| size)) {
            let (fields, sizes): (Vec<_>, Vec<_>) = expected.iter().copied().unzip();
            let problem = format!(
                "has shape {:?}, expected {sizes:?} ([{}] of config.json): the weights and config.json belong to different models",
                tensor.shape,
                fields.join(", ")
            );
            return Err(Error::tensor(tensor.file, tensor.name, problem));
        }
        Ok(tensor)
    }
}
