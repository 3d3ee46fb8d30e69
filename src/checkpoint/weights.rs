//! The weights of an encoder by role: every name resolved and every shape held against the configuration, before any number is read.

use super::config::EncoderConfig;
use super::tensors::{Tensor, Tensors};
use crate::{Error, Result};

/// Every tensor of an encoder.
#[derive(Debug)]
pub struct EncoderWeights<'a> {
    /// `[vocabulary, embedding]`
    pub word: Tensor<'a>,
    /// `[position_rows, embedding]`
    pub position: Tensor<'a>,
    /// `[token_types, embedding]`, or a row a language
    pub token_type: Option<Tensor<'a>>,
    /// `[embedding]`
    pub embedding_norm: Norm<'a>,
    /// `[hidden, embedding]`, where they differ
    pub embedding_projection: Option<Linear<'a>>,
    /// `[relative_buckets, heads]`
    pub relative_bias: Option<Tensor<'a>>,
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

/// How far apart two tokens are at most for the relative attention bias to tell: beyond, all distances are one.
pub const RELATIVE_RANGE: usize = 128;

/// The row of the relative attention bias for a key that lies `distance` tokens after the query, as MPNet counts them: half of the rows
/// for each direction, the first half of those for one distance each, the others for distances that grow by equal factors up to
/// [`RELATIVE_RANGE`] (Raffel et al. 2020, arXiv 1910.10683).
pub fn relative_bucket(distance: isize, buckets: usize) -> usize {
    let (half, exact) = (buckets / 2, buckets / 4);
    let away = distance.unsigned_abs();
    let bucket = if away < exact {
        away
    } else {
        // In f32, as PyTorch computes it: near whole numbers the rounding decides.
        let share = (away as f32 / exact as f32).ln() / ((RELATIVE_RANGE as f64 / exact as f64).ln() as f32);
        (exact + (share * (half - exact) as f32) as usize).min(half - 1)
    };
    if distance > 0 { half + bucket } else { bucket }
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
    let hidden = (fields.hidden[0], config.hidden);
    let intermediate = (fields.intermediate.first().copied().unwrap_or("4 * width"), config.intermediate);
    let embedding = (fields.embedding.first().copied().unwrap_or(fields.hidden[0]), config.embedding);
    let table = |name, field, rows| find.tensor(&format!("{name}.weight"), &[(field, rows), embedding]);

    let word = table(names.word, fields.vocabulary[0], config.vocabulary)?;
    let position = table(names.position, fields.position_rows[0], config.position_rows)?;
    let token_type = match (names.token_type, names.language, &config.languages) {
        // RoBERTa has only one type, which some checkpoints leave out: it would add the same to every token.
        (Some(name), ..) if config.token_types == 1 && !find.contains(&format!("{name}.weight")) => None,
        (Some(name), ..) if config.token_types > 0 => Some(table(name, fields.token_types[0], config.token_types)?),
        (_, Some(name), Some(languages)) => Some(table(name, "n_langs", languages.count)?),
        _ => None,
    };
    let embedding_norm = find.norm(names.embedding_norm, embedding)?;
    let projection = names.embedding_projection.filter(|_| config.embedding != config.hidden);
    let embedding_projection = projection.map(|name| find.linear(name, hidden, embedding)).transpose()?;
    let relative_bias = match names.relative_bias {
        Some(name) => {
            let shape = [("relative_attention_num_buckets", config.relative_buckets), (fields.heads[0], config.heads)];
            Some(find.tensor(&format!("{name}.weight"), &shape)?)
        }
        None => None,
    };
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
        log::warn!("{path}: holds more layers than the {} of config.json's `{}`; the others are not used", config.layers, fields.layers[0]);
    }
    let pooler = names.pooler.filter(|name| tensors.contains(&format!("{prefix}{name}.weight")));
    let pooler = pooler.map(|name| find.linear(name, hidden, hidden)).transpose()?;
    Ok(EncoderWeights { word, position, token_type, embedding_norm, embedding_projection, relative_bias, layers, pooler })
}

/// A dimension and the field of `config.json` that it comes from.
pub(super) type Dimension = (&'static str, usize);

/// Looks tensors up by name and holds them to their shape.
#[derive(Clone, Copy)]
pub(super) struct Finder<'a, 'p> {
    pub(super) tensors: &'a Tensors,
    pub(super) prefix: &'p str,
}

impl<'a> Finder<'a, '_> {
    pub(super) fn contains(&self, name: &str) -> bool {
        self.tensors.contains(&format!("{}{name}", self.prefix))
    }

    pub(super) fn linear(&self, name: &str, outputs: Dimension, inputs: Dimension) -> Result<Linear<'a>> {
        let weight = self.tensor(&format!("{name}.weight"), &[outputs, inputs])?;
        Ok(Linear { weight, bias: self.tensor(&format!("{name}.bias"), &[outputs])? })
    }

    pub(super) fn norm(&self, name: &str, size: Dimension) -> Result<Norm<'a>> {
        // The names of TensorFlow live on in checkpoints that were converted before 2019.
        let either = |new: &str, old: &str| {
            let old = format!("{name}.{old}");
            if self.contains(&old) { old } else { format!("{name}.{new}") }
        };
        let weight = self.tensor(&either("weight", "gamma"), &[size])?;
        Ok(Norm { weight, bias: self.tensor(&either("bias", "beta"), &[size])? })
    }

    pub(super) fn tensor(&self, name: &str, expected: &[Dimension]) -> Result<Tensor<'a>> {
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
