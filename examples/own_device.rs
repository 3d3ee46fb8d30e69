//! An app that has a `wgpu::Device` of its own shares it, and reads the embeddings with a shader of its own: they never leave the GPU.
//! `cargo run --release --example own_device`

use minilm::wgpu;
use minilm::{Embedder, Gpu, default_model};

/// The app's shader: how alike every two rows are. Rows of a normalised embedding have a cosine that is their dot product.
const COSINES: &str = "
override COLUMNS: u32;
@group(0) @binding(0) var<storage, read> rows: array<f32>;            // [texts, COLUMNS]
@group(0) @binding(1) var<storage, read_write> cosines: array<f32>;   // [texts, texts]

@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) pair: vec3u, @builtin(num_workgroups) texts: vec3u) {
    var sum = 0.0;
    for (var i = 0u; i < COLUMNS; i++) {
        sum += rows[pair.x * COLUMNS + i] * rows[pair.y * COLUMNS + i];
    }
    cosines[pair.y * texts.x + pair.x] = sum;
}";

const SENTENCES: [&str; 4] =
    ["query: Where is the station?", "query: Wo ist der Bahnhof?", "query: ¿Dónde está la estación?", "query: I like strawberries."];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init_from_env(env_logger::Env::default().default_filter_or("minilm=warn"));

    // What the app has anyway. It asks for no feature and no limit beyond WebGPU's defaults.
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?;
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()))?;

    let embedder = Embedder::builder().gpu(Gpu::from_device(device.clone(), queue.clone())).from_dir(default_model()?)?;
    let embeddings = embedder.embed_to_buffer(SENTENCES)?;

    let texts = SENTENCES.len() as u32;
    let size = u64::from(texts * texts) * 4;
    let buffer =
        |label, usage| device.create_buffer(&wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false });
    let cosines = buffer("cosines", wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC);
    let on_host = buffer("cosines on the host", wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
    let module = device
        .create_shader_module(wgpu::ShaderModuleDescriptor { label: Some("cosines"), source: wgpu::ShaderSource::Wgsl(COSINES.into()) });
    let constants = [("COLUMNS", embeddings.columns as f64)];
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some("cosines"),
        layout: None,
        module: &module,
        entry_point: None,
        compilation_options: wgpu::PipelineCompilationOptions { constants: &constants, ..Default::default() },
        cache: None,
    });
    let bindings = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some("cosines"),
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[
            wgpu::BindGroupEntry { binding: 0, resource: embeddings.buffer.as_entire_binding() },
            wgpu::BindGroupEntry { binding: 1, resource: cosines.as_entire_binding() },
        ],
    });

    // Submitted to the same queue after the embedder's work: no waiting in between.
    let mut encoder = device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    pass.set_pipeline(&pipeline);
    pass.set_bind_group(0, &bindings, &[]);
    pass.dispatch_workgroups(texts, texts, 1);
    drop(pass);
    encoder.copy_buffer_to_buffer(&cosines, 0, &on_host, 0, size);
    queue.submit([encoder.finish()]);
    on_host.map_async(wgpu::MapMode::Read, .., |_| ());
    device.poll(wgpu::PollType::wait_indefinitely())?;

    let values: Vec<f32> = bytemuck::cast_slice(&on_host.get_mapped_range(..)?).to_vec();
    for (sentence, row) in SENTENCES.iter().zip(values.chunks(SENTENCES.len())) {
        let row = row.iter().map(|cosine| format!("{cosine:.4}")).collect::<Vec<_>>().join("  ");
        println!("{row}  {}", &sentence["query: ".len()..]);
    }
    println!("{} bytes were read from the GPU by the embedder", embedder.model().stats().total.bytes_read);
    Ok(())
}
