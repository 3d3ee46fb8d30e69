//! burn on wgpu, with fusion and autotune.

use burn::backend::Wgpu;
use burn::backend::wgpu::{WgpuDevice, graphics::AutoGraphicsApi, init_setup};
use burn::module::Module;
use burn::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use burn_store::{KeyRemapper, ModuleSnapshot, PyTorchToBurnAdapter, SafetensorsStore};
use peer_protocol::{Batch, HIDDEN, INNER, OUTER, Peer, ROWS, Result, arguments, in_padded_batches, serve};

type B = Wgpu;

#[derive(Module, Debug)]
struct Embeddings<B: Backend> {
    word_embeddings: Embedding<B>,
    position_embeddings: Embedding<B>,
    token_type_embeddings: Embedding<B>,
    layer_norm: LayerNorm<B>,
}

#[derive(Module, Debug)]
struct Bert<B: Backend> {
    embeddings: Embeddings<B>,
    encoder: TransformerEncoder<B>,
}

/// Names in the file, and where burn has the same tensors.
const NAMES: [(&str, &str); 8] = [
    (r"encoder\.layer\.([0-9]+)", "encoder.layers.$1"),
    (r"attention\.self\.(query|key|value)", "mha.$1"),
    (r"attention\.output\.dense", "mha.output"),
    (r"attention\.output\.LayerNorm", "norm_1"),
    (r"intermediate\.dense", "pwff.linear_inner"),
    (r"(layers\.[0-9]+)\.output\.dense", "$1.pwff.linear_outer"),
    (r"(layers\.[0-9]+)\.output\.LayerNorm", "$1.norm_2"),
    (r"embeddings\.LayerNorm", "embeddings.layer_norm"),
];

struct Burn {
    model: Bert<B>,
    device: WgpuDevice,
    factors: [Tensor<B, 2>; 2],
}

impl Burn {
    fn load(model: &str, device: WgpuDevice) -> Result<Self> {
        let config: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(format!("{model}/config.json"))?)?;
        let size = |name: &str| config[name].as_u64().map(|size| size as usize).ok_or_else(|| format!("config.json has no {name}"));
        let embedding = |rows: &str| Ok::<_, String>(EmbeddingConfig::new(size(rows)?, HIDDEN).init(&device));
        let (wide, heads, layers) = (size("intermediate_size")?, size("num_attention_heads")?, size("num_hidden_layers")?);
        let encoder = TransformerEncoderConfig::new(HIDDEN, wide, heads, layers).with_dropout(0.0).with_norm_first(false);
        let mut bert = Bert {
            embeddings: Embeddings {
                word_embeddings: embedding("vocab_size")?,
                position_embeddings: embedding("max_position_embeddings")?,
                token_type_embeddings: embedding("type_vocab_size")?,
                layer_norm: LayerNormConfig::new(HIDDEN).with_epsilon(1e-12).init(&device),
            },
            encoder: encoder.init(&device),
        };
        let mut file = SafetensorsStore::from_file(format!("{model}/model.safetensors"))
            .with_from_adapter(PyTorchToBurnAdapter)
            .remap(KeyRemapper::from_patterns(NAMES.to_vec())?)
            .allow_partial(true); // the pooler is in the file, and not in the model
        bert.load_from(&mut file)?;
        let factors = [Tensor::ones([ROWS, INNER], &device), Tensor::ones([INNER, OUTER], &device)];
        Ok(Self { model: bert, device, factors })
    }

    fn embed_batch(&self, batch: &Batch) -> Result<Vec<f32>> {
        let shape = [batch.texts, batch.tokens];
        let numbers = |values: &[u32]| {
            let values: Vec<i32> = values.iter().map(|&value| value as i32).collect();
            Tensor::<B, 2, Int>::from_data(TensorData::new(values, shape), &self.device)
        };
        let mask = numbers(&batch.mask);
        let positions = Tensor::<B, 1, Int>::arange(0..batch.tokens as i64, &self.device).reshape([1, batch.tokens]);
        let layers = &self.model.embeddings;
        let embedded = layers.word_embeddings.forward(numbers(&batch.ids))
            + layers.position_embeddings.forward(positions)
            + layers.token_type_embeddings.forward(Tensor::zeros([1, 1], &self.device));
        let input = TransformerEncoderInput::new(layers.layer_norm.forward(embedded)).mask_pad(mask.clone().equal_elem(0));
        let hidden = self.model.encoder.forward(input);
        // The number of tokens cancels out when the row is normalised.
        let sum = (hidden * mask.float().reshape([batch.texts, batch.tokens, 1])).sum_dim(1).reshape([batch.texts, HIDDEN]);
        let norm = sum.clone().powf_scalar(2.0).sum_dim(1).sqrt();
        Ok((sum / norm).into_data().to_vec().map_err(|error| format!("{error:?}"))?)
    }
}

impl Peer for Burn {
    fn embed(&self, texts: &[Vec<u32>]) -> Result<Vec<f32>> {
        in_padded_batches(texts, |batch| self.embed_batch(batch))
    }

    fn matmul(&self) -> Result<()> {
        let [a, b] = self.factors.clone();
        let product = a.matmul(b);
        B::sync(&self.device).map_err(|error| format!("{error:?}"))?;
        drop(product); // only now, so that it cannot be left out
        Ok(())
    }
}

fn main() -> Result<()> {
    let (model, workloads) = arguments()?;
    let device = WgpuDevice::default();
    let info = init_setup::<AutoGraphicsApi>(&device, Default::default()).adapter.get_info();
    let adapter = format!("{} ({}), driver {} {}", info.name, info.backend, info.driver, info.driver_info);
    serve(&Burn::load(&model, device)?, "burn 0.21.0", &adapter, &workloads)
}
