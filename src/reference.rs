//! Every kernel as plain loops in f64: the definition that the GPU is held to. Rows are not padded here.

use crate::checkpoint::weights::{RELATIVE_RANGE, relative_bucket};
use crate::checkpoint::{Activation, EncoderConfig, EncoderWeights, LayerWeights, Linear, Norm, Pooling, Tensor};
use crate::error::Result;

/// Values of a token or text, row after row.
pub type Matrix = Vec<f64>;

/// `activation(x)`.
pub fn activate(activation: Option<Activation>, x: f64) -> f64 {
    match activation {
        None => x,
        Some(Activation::Gelu) => 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2)),
        Some(Activation::GeluTanh) => 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()),
        Some(Activation::Relu) => x.max(0.0),
        Some(Activation::Tanh) => x.tanh(),
    }
}

/// Layer norm of each row of `x[rows, hidden]`.
pub fn layer_norm(x: &[f64], weight: &[f64], bias: &[f64], epsilon: f64) -> Matrix {
    let hidden = weight.len();
    let mut y = Vec::with_capacity(x.len());
    for row in x.chunks_exact(hidden) {
        let mean = row.iter().sum::<f64>() / hidden as f64;
        let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / hidden as f64;
        for (i, v) in row.iter().enumerate() {
            y.push((v - mean) / (variance + epsilon).sqrt() * weight[i] + bias[i]);
        }
    }
    y
}

/// What [`embedding`] looks up in, each `[rows, hidden]`.
#[derive(Clone, Copy)]
pub struct Tables<'a> {
    pub word: &'a [f64],
    pub position: &'a [f64],
    pub token_type: &'a [f64],
}

/// Layer norm of `word[id] + position[position] + token_type[type]`, for tokens given as `(id, position, type)`.
pub fn embedding(tokens: &[(usize, usize, usize)], tables: Tables, weight: &[f64], bias: &[f64], epsilon: f64) -> Matrix {
    let hidden = weight.len();
    let mut sums = Vec::with_capacity(tokens.len() * hidden);
    for (id, position, token_type) in tokens {
        for i in 0..hidden {
            sums.push(tables.word[id * hidden + i] + tables.position[position * hidden + i] + tables.token_type[token_type * hidden + i]);
        }
    }
    layer_norm(&sums, weight, bias, epsilon)
}

/// `activation(x * transpose(weight) + bias) + residual` for `x[rows, inner]`, `weight[outer, inner]`.
pub fn matmul(x: &[f64], weight: &[f64], bias: &[f64], activation: Option<Activation>, residual: Option<&[f64]>) -> Matrix {
    let outer = bias.len();
    let inner = weight.len() / outer;
    let mut y = Vec::with_capacity(x.len() / inner * outer);
    for row in x.chunks_exact(inner) {
        for (weight, bias) in weight.chunks_exact(inner).zip(bias) {
            let sum: f64 = row.iter().zip(weight).map(|(x, w)| x * w).sum();
            let result = activate(activation, sum + bias);
            y.push(result + residual.map_or(0.0, |residual| residual[y.len()]));
        }
    }
    y
}

/// `softmax(q * transpose(k) / sqrt(head_dim) + bias) * v` of `qkv[tokens, 3, heads, head_dim]`, within each text; `lengths` are the
/// tokens of the texts, `bias[heads, 2 * RELATIVE_RANGE + 1]` goes by the distance of key and query, if there is one.
pub fn attention(qkv: &[f64], lengths: &[usize], heads: usize, head_dim: usize, bias: Option<&[f64]>) -> Matrix {
    let range = RELATIVE_RANGE as isize;
    let bias = |head: usize, query: usize, key: usize| {
        let distance = (key as isize - query as isize).clamp(-range, range) + range;
        bias.map_or(0.0, |bias| bias[head * (2 * RELATIVE_RANGE + 1) + distance as usize])
    };
    let width = heads * head_dim;
    let mut context = vec![0.0; qkv.len() / 3];
    let mut first = 0;
    for &length in lengths {
        let at = |part: usize, token: usize, head: usize| &qkv[((first + token) * 3 + part) * width + head * head_dim..][..head_dim];
        for head in 0..heads {
            for query in 0..length {
                let dot = |key: usize| -> f64 { at(0, query, head).iter().zip(at(1, key, head)).map(|(q, k)| q * k).sum() };
                let scores: Vec<f64> = (0..length).map(|key| dot(key) / (head_dim as f64).sqrt() + bias(head, query, key)).collect();
                let maximum = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - maximum).exp()).collect();
                let total: f64 = weights.iter().sum();
                for (key, weight) in weights.iter().enumerate() {
                    for (d, value) in at(2, key, head).iter().enumerate() {
                        context[(first + query) * width + head * head_dim + d] += weight / total * value;
                    }
                }
            }
        }
        first += length;
    }
    context
}

/// One row for each text of `x[tokens, hidden]`.
pub fn pooling(x: &[f64], lengths: &[usize], pooling: Pooling) -> Matrix {
    let hidden = x.len() / lengths.iter().sum::<usize>();
    let mut pooled = Vec::with_capacity(lengths.len() * hidden);
    let mut first = 0;
    for &length in lengths {
        let column = |i: usize| (first..first + length).map(move |token| x[token * hidden + i]);
        let weighted = |i: usize| column(i).zip(1..).map(|(value, weight)| value * weight as f64).sum::<f64>();
        pooled.extend((0..hidden).map(|i| match pooling {
            Pooling::Mean => column(i).sum::<f64>() / length as f64,
            Pooling::Cls => x[first * hidden + i],
            Pooling::Max => column(i).fold(f64::NEG_INFINITY, f64::max),
            Pooling::MeanSqrtLen => column(i).sum::<f64>() / (length as f64).sqrt(),
            Pooling::WeightedMean => weighted(i) / (1..=length).sum::<usize>() as f64,
            Pooling::LastToken => x[(first + length - 1) * hidden + i],
        }));
        first += length;
    }
    pooled
}

/// The first `columns` of each row of `x[rows, width]`, divided by their L2 norm; a row of zeros stays zero.
pub fn normalize(x: &[f64], width: usize, columns: usize) -> Matrix {
    let rows = x.chunks_exact(width).map(|row| &row[..columns]);
    let normalized = rows.flat_map(|row| {
        let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-12);
        row.iter().map(move |v| v / norm)
    });
    normalized.collect()
}

/// Column and value of the `top` largest of a row, of equals the first, and the sum of exp(value - largest).
pub fn top_k(row: &[f64], top: usize) -> (Vec<(usize, f64)>, f64) {
    let mut order: Vec<(usize, f64)> = row.iter().copied().enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let largest = order[0].1;
    let sum: f64 = row.iter().map(|v| (v - largest).exp()).sum();
    order.truncate(top);
    (order, sum)
}

/// The low and the high 16 bits of the sum, modulo 2^32, over `words`, which lie at the place `first` and behind: each combined with its own
/// high half by exclusive or, times one more than its place times 0x3c6ef372.
pub fn digest(words: &[u32], first: usize) -> [f64; 2] {
    let weight = |place: usize| (place as u64 * 0x3c6e_f372 + 1) % (1 << 32);
    let term = |(place, &word): (usize, &u32)| u64::from(word ^ (word >> 16)) * weight(first + place) % (1 << 32);
    let sum = words.iter().enumerate().map(term).sum::<u64>() % (1 << 32);
    [(sum % (1 << 16)) as f64, (sum / (1 << 16)) as f64]
}

/// The table of a relative attention bias, `[heads, 2 * RELATIVE_RANGE + 1]` by distance, from `[buckets, heads]`.
pub fn relative_bias(weight: &[f64], heads: usize) -> Matrix {
    let range = RELATIVE_RANGE as isize;
    let by_distance = |head: usize| (-range..=range).map(move |d| weight[relative_bucket(d, weight.len() / heads) * heads + head]);
    (0..heads).flat_map(by_distance).collect()
}

/// A whole encoder: weights in f64, one text at a time.
pub struct Encoder {
    config: EncoderConfig,
    word: Matrix,
    position: Matrix,
    token_type: Matrix,
    norm: [Matrix; 2],
    /// From the embedding's width to the hidden one.
    projection: Option<(Matrix, Matrix)>,
    relative_bias: Option<Matrix>,
    layers: Vec<Layer>,
}

struct Layer {
    /// Query, key, value, output of the attention, up, down: `(weight[outer, inner], bias[outer])`.
    query: (Matrix, Matrix),
    key: (Matrix, Matrix),
    value: (Matrix, Matrix),
    output: (Matrix, Matrix),
    attention_norm: [Matrix; 2],
    up: (Matrix, Matrix),
    down: (Matrix, Matrix),
    output_norm: [Matrix; 2],
}

fn apply((weight, bias): &(Matrix, Matrix), x: &[f64], activation: Option<Activation>, residual: Option<&[f64]>) -> Matrix {
    matmul(x, weight, bias, activation, residual)
}

fn values(tensor: &Tensor) -> Result<Matrix> {
    let mut values = vec![0.0; tensor.rows() * tensor.columns()];
    tensor.read_rows(0, &mut values)?;
    Ok(values.into_iter().map(f64::from).collect())
}

fn linear(linear: &Linear) -> Result<(Matrix, Matrix)> {
    Ok((values(&linear.weight)?, values(&linear.bias)?))
}

fn norm(norm: &Norm) -> Result<[Matrix; 2]> {
    Ok([values(&norm.weight)?, values(&norm.bias)?])
}

impl Encoder {
    /// Reads all weights.
    ///
    /// # Errors
    /// Those of reading tensors.
    pub fn new(config: &EncoderConfig, weights: &EncoderWeights) -> Result<Self> {
        let layer = |layer: &LayerWeights| -> Result<Layer> {
            Ok(Layer {
                query: linear(&layer.query)?,
                key: linear(&layer.key)?,
                value: linear(&layer.value)?,
                output: linear(&layer.attention_output)?,
                attention_norm: norm(&layer.attention_norm)?,
                up: linear(&layer.up)?,
                down: linear(&layer.down)?,
                output_norm: norm(&layer.output_norm)?,
            })
        };
        Ok(Self {
            word: values(&weights.word)?,
            position: values(&weights.position)?,
            // With languages, the last type is none of them.
            token_type: [weights.token_type.as_ref().map_or(Ok(Vec::new()), values)?, vec![0.0; config.embedding]].concat(),
            norm: norm(&weights.embedding_norm)?,
            projection: weights.embedding_projection.as_ref().map(linear).transpose()?,
            relative_bias: weights.relative_bias.as_ref().map(values).transpose()?.map(|bias| relative_bias(&bias, config.heads)),
            layers: weights.layers.iter().map(layer).collect::<Result<_>>()?,
            config: config.clone(),
        })
    }

    /// The last hidden state of one text, `[tokens, hidden]`. An empty `type_ids` stands for the default type.
    pub fn hidden(&self, ids: &[u32], type_ids: &[u32]) -> Matrix {
        self.hidden_states(ids, type_ids).pop().unwrap_or_default()
    }

    /// The embeddings and each layer's hidden state of one text, `[tokens, hidden]` each.
    pub fn hidden_states(&self, ids: &[u32], type_ids: &[u32]) -> Vec<Matrix> {
        let EncoderConfig { heads, position_offset, activation, .. } = self.config;
        let (head_dim, epsilon) = (self.config.head_dim(), self.config.layer_norm_eps as f64);
        let type_of = |i: usize| type_ids.get(i).map_or(self.config.default_type(), |&id| id as usize);
        let (mut tokens, mut position) = (Vec::with_capacity(ids.len()), position_offset);
        for (i, &id) in ids.iter().enumerate() {
            // Where padding has no position of its own, it has the one before the first.
            let is_padding = self.config.padding() == Some(id as usize);
            tokens.push((id as usize, if is_padding { position_offset - 1 } else { position }, type_of(i)));
            position += usize::from(!is_padding);
        }
        let tables = Tables { word: &self.word, position: &self.position, token_type: &self.token_type };
        let [weight, bias] = &self.norm;
        let mut x = embedding(&tokens, tables, weight, bias, epsilon);
        if let Some(projection) = &self.projection {
            x = apply(projection, &x, None, None);
        }
        let mut states = vec![x.clone()];
        for layer in &self.layers {
            let [q, k, v] = [&layer.query, &layer.key, &layer.value].map(|part| apply(part, &x, None, None));
            let width = heads * head_dim;
            let qkv: Matrix = (0..ids.len()).flat_map(|i| [&q, &k, &v].map(|part| &part[i * width..][..width]).concat()).collect();
            let context = attention(&qkv, &[ids.len()], heads, head_dim, self.relative_bias.as_deref());
            let sum = apply(&layer.output, &context, None, Some(&x));
            x = layer_norm(&sum, &layer.attention_norm[0], &layer.attention_norm[1], epsilon);
            let up = apply(&layer.up, &x, Some(activation), None);
            let sum = apply(&layer.down, &up, None, Some(&x));
            x = layer_norm(&sum, &layer.output_norm[0], &layer.output_norm[1], epsilon);
            states.push(x.clone());
        }
        states
    }
}

/// The rational approximation of the error function in `shaders/lib/activation.wgsl`, step by step in f32.
pub fn erf_rational(x: f32) -> f32 {
    const NUMERATOR: [f32; 7] =
        [-2.726_142_3e-10, 2.770_681_4e-8, -2.101_024e-6, -5.692_506_4e-5, -7.349_906_3e-4, -2.954_6e-3, -1.609_603_3e-2];
    const DENOMINATOR: [f32; 5] = [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2];
    let t = x.clamp(-4.0, 4.0);
    let horner = |coefficients: &[f32]| coefficients.iter().fold(0.0f32, |sum, c| (t * t).mul_add(sum, *c));
    t * horner(&NUMERATOR) / horner(&DENOMINATOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seven units in the last place near 1, all of them roundings of f32: `t * p / q` alone has three.
    #[test]
    fn the_rational_error_function_is_within_its_bound() {
        let worst = (-600_000..=600_000)
            .map(|i| i as f32 / 100_000.0)
            .map(|x| (erf_rational(x) as f64 - libm::erf(x as f64)).abs())
            .fold(0.0, f64::max);
        assert!(worst < 5e-7, "{worst:e}");
    }

    #[test]
    fn softmax_of_equal_scores_is_the_mean() {
        // Two texts of two tokens, one head of one value: queries and keys are 0, values are 1, 3 and 10, 20.
        let qkv = [0.0, 0.0, 1.0, 0.0, 0.0, 3.0, 0.0, 0.0, 10.0, 0.0, 0.0, 20.0];
        assert_eq!(attention(&qkv, &[2, 2], 1, 1, None), [2.0, 2.0, 15.0, 15.0]);
    }

    #[test]
    fn layer_norm_has_mean_zero_and_variance_one() {
        let y = layer_norm(&[1.0, 2.0, 3.0, 4.0], &[1.0; 4], &[0.0; 4], 0.0);
        assert!((y.iter().sum::<f64>()).abs() < 1e-12);
        assert!((y.iter().map(|v| v * v).sum::<f64>() / 4.0 - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_row_of_zeros_stays_zero_when_normalised() {
        assert_eq!(normalize(&[0.0; 4], 4, 2), [0.0, 0.0]);
    }
}
