//! candle on the CPU.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::BertModel;
use peer_protocol::{Batch, INNER, OUTER, Peer, ROWS, Result, arguments, in_padded_batches, serve};

struct Candle {
    model: BertModel,
    factors: [Tensor; 2],
}

impl Candle {
    fn load(model: &str) -> Result<Self> {
        let config = serde_json::from_str(&std::fs::read_to_string(format!("{model}/config.json"))?)?;
        let tensors = candle_core::safetensors::load(format!("{model}/model.safetensors"), &Device::Cpu)?;
        let weights = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        let factor = |rows, columns| Tensor::ones((rows, columns), DType::F32, &Device::Cpu);
        Ok(Self { model: BertModel::load(weights, &config)?, factors: [factor(ROWS, INNER)?, factor(INNER, OUTER)?] })
    }

    fn embed_batch(&self, batch: &Batch) -> Result<Vec<f32>> {
        let numbers = |values: &[u32]| Tensor::from_slice(values, (batch.texts, batch.tokens), &Device::Cpu);
        let (ids, mask) = (numbers(&batch.ids)?, numbers(&batch.mask)?);
        let hidden = self.model.forward(&ids, &ids.zeros_like()?, Some(&mask))?;
        // The number of tokens cancels out when the row is normalised.
        let sum = hidden.broadcast_mul(&mask.to_dtype(DType::F32)?.unsqueeze(2)?)?.sum(1)?;
        let norm = sum.sqr()?.sum_keepdim(1)?.sqrt()?;
        Ok(sum.broadcast_div(&norm)?.flatten_all()?.to_vec1()?)
    }
}

impl Peer for Candle {
    fn embed(&self, texts: &[Vec<u32>]) -> Result<Vec<f32>> {
        in_padded_batches(texts, |batch| self.embed_batch(batch))
    }

    fn matmul(&self) -> Result<()> {
        let [a, b] = &self.factors;
        std::hint::black_box(a.matmul(b)?);
        Ok(())
    }
}

fn main() -> Result<()> {
    let (model, workloads) = arguments()?;
    serve(&Candle::load(&model)?, "candle 0.11.1", "CPU", &workloads)
}
