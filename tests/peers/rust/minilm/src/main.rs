//! This project, as a peer.

use minilm::batch::{Header, Sequence};
use minilm::checkpoint::EncoderConfig;
use minilm::gpu::{Count, Gpu, GpuOptions, Plan};
use minilm::kernels::WeightFormat;
use minilm::kernels::matmul::{Buffers, Matmul};
use minilm::tuning::Chosen;
use minilm::{Embedder, Tuning, wgpu};
use peer_protocol::{INNER, OUTER, Peer, ROWS, Result, arguments, serve};

struct MiniLm {
    embedder: Embedder,
    gpu: Gpu,
    product: Plan,
}

impl Peer for MiniLm {
    fn embed(&self, texts: &[Vec<u32>]) -> Result<Vec<f32>> {
        let sequences: Vec<Sequence> = texts.iter().map(|ids| Sequence { ids, ..Default::default() }).collect();
        Ok(self.embedder.embed_tokens(&sequences)?.into_vec())
    }

    fn matmul(&self) -> Result<()> {
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        self.product.record(&mut encoder, &HEADER);
        self.gpu.queue().submit([encoder.finish()]);
        self.gpu.device().poll(wgpu::PollType::wait_indefinitely())?;
        Ok(())
    }
}

const HEADER: Header = Header { tokens: ROWS as u32, texts: 1, tiles: 0, selected: 0 };

fn buffer(gpu: &Gpu, contents: &[u8]) -> wgpu::Buffer {
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
    let descriptor = wgpu::BufferDescriptor { label: None, size: contents.len() as u64, usage, mapped_at_creation: false };
    let buffer = gpu.device().create_buffer(&descriptor);
    gpu.queue().write_buffer(&buffer, 0, contents);
    buffer
}

/// The product of W5 as the encoder runs its own: as tuned, where `minilm tune` was run.
fn product(gpu: &Gpu, config: &EncoderConfig) -> Result<Plan> {
    let halves = |count: usize| buffer(gpu, bytemuck::cast_slice(&vec![0.5f32; count]));
    let buffers = Buffers {
        batch: &buffer(gpu, bytemuck::bytes_of(&HEADER)),
        x: &halves(ROWS * INNER),
        weight: &halves(INNER * OUTER),
        scale: None,
        bias: &halves(OUTER),
        residual: None,
        y: &halves(ROWS * OUTER),
    };
    let operands = WeightFormat::F32.into();
    let kernel = Matmul { inner: INNER, outer: OUTER, operands, activation: None, residual: false, rows: Count::Tokens };
    let chosen = Chosen::new(gpu, config, operands, &Tuning::Auto);
    Ok(Plan::new(gpu, vec![kernel.step(gpu, &chosen.matmul(&kernel), &buffers)?])?)
}

fn main() -> Result<()> {
    let (model, workloads) = arguments()?;
    let gpu = Gpu::new(GpuOptions::default())?;
    let embedder = Embedder::builder().gpu(gpu.clone()).normalize(true).from_dir(model)?;
    let product = product(&gpu, embedder.model().config())?;
    let info = gpu.info();
    let adapter = format!("{} ({}), driver {} {}", info.name, info.backend, info.driver, info.driver_info);
    serve(&MiniLm { embedder, gpu, product }, "minilm", &adapter, &workloads)
}
