//! One device for all tests of a program, and buffers with known contents.

use std::sync::OnceLock;

use minilm::gpu::{Gpu, GpuOptions, Slice};
use minilm::wgpu;

/// The device that `WGPU_*` choose. No adapter is a failure, never a silent skip: the message says what to install.
pub fn gpu() -> Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| Gpu::new(GpuOptions::default()).unwrap_or_else(|error| panic!("{error}"))).clone()
}

/// A device that does nothing, and the instance that knows what is allocated.
pub fn noop(limits: wgpu::Limits) -> (wgpu::Instance, Gpu) {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::NOOP;
    descriptor.backend_options.noop = wgpu::NoopBackendOptions { enable: true, limits: Some(limits.clone()), ..Default::default() };
    let instance = wgpu::Instance::new(descriptor);
    let adapter = pollster::block_on(instance.request_adapter(&Default::default())).unwrap();
    let descriptor = wgpu::DeviceDescriptor { required_limits: limits, ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
    (instance, Gpu::from_device(device, queue))
}

/// Where a [`storage`] begins in its buffer, in bytes, and how much lies behind it.
const AROUND: usize = 256;

/// `values` in the middle of a buffer that holds NaN else, as weights lie beside others.
pub fn storage<T: bytemuck::Pod>(gpu: &Gpu, values: &[T]) -> Slice {
    let size = (size_of_val(values) as u64).max(16);
    let around = [f32::NAN; AROUND / 4];
    let [begin, end] = [AROUND as u64, AROUND as u64 + size];
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
    let buffer = gpu.device().create_buffer(&wgpu::BufferDescriptor { label: None, size: end + begin, usage, mapped_at_creation: false });
    gpu.queue().write_buffer(&buffer, 0, bytemuck::bytes_of(&around));
    gpu.queue().write_buffer(&buffer, begin, bytemuck::cast_slice(values));
    gpu.queue().write_buffer(&buffer, end, bytemuck::bytes_of(&around));
    Slice { buffer, offset: begin, size }
}

/// A storage buffer of NaN: whatever a kernel forgets to write shows.
pub fn poisoned(gpu: &Gpu, values: usize) -> Slice {
    storage(gpu, &vec![f32::NAN; values])
}

/// What lies there.
pub fn read(gpu: &Gpu, slice: &Slice) -> Vec<f32> {
    let descriptor = wgpu::BufferDescriptor {
        label: None,
        size: slice.size,
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    };
    let copy = gpu.device().create_buffer(&descriptor);
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    slice.copy(&mut encoder, 0, &copy, 0, slice.size);
    gpu.queue().submit([encoder.finish()]);
    copy.map_async(wgpu::MapMode::Read, .., |result| result.unwrap());
    gpu.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
    let view = copy.get_mapped_range(..).unwrap();
    bytemuck::cast_slice(&view).to_vec()
}
