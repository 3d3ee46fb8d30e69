//! The host side on wgpu's noop backend, which runs no shader: many requests in little time, on limits of one's own choice. And a part of
//! it where shaders run.

mod common;

use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::fixture;
use common::gpu::{gpu, noop};
use minilm::{Embedder, Gpu, Sequence, wgpu};

const FOLDER: &str = "tiny-minilm-bert-l3-h96";

/// Held by each test: they share a process, whose memory one of them measures.
fn alone() -> MutexGuard<'static, ()> {
    static RUNNING: Mutex<()> = Mutex::new(());
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Objects of each kind that the crate holds.
fn alive(instance: &wgpu::Instance) -> [usize; 5] {
    let report = instance.generate_report().unwrap();
    let hub = report.hub_report();
    [&hub.buffers, &hub.bind_groups, &hub.compute_pipelines, &hub.command_encoders, &hub.command_buffers].map(|report| report.num_allocated)
}

/// Bytes of this process in memory, where the system tells.
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split(' ').nth(1)?.parse::<u64>().ok()? * 4096)
}

#[test]
fn nothing_grows_over_a_thousand_requests() {
    let _alone = alone();
    let (instance, gpu) = noop(wgpu::Limits::default());
    let embedder = Embedder::builder().gpu(gpu).token_budget(128).from_dir(fixture(FOLDER)).unwrap();
    let texts: Vec<String> = (0..20).map(|i| "word ".repeat(1 + i)).collect();
    embedder.embed(&texts).unwrap();
    for _ in 0..100 {
        embedder.embed(&texts).unwrap();
    }
    let before = resident();
    let (objects, stats) = (alive(&instance), embedder.model().stats());
    assert!(objects[1] > 20 && stats.last.batches > 1, "{objects:?} {stats:?}");
    for i in 0..1000 {
        embedder.embed(&texts[i % 20..]).unwrap();
    }
    assert_eq!(alive(&instance), objects, "buffers, bind groups, pipelines, encoders, command buffers");
    if let (Some(before), Some(after)) = (before, resident()) {
        assert!(after < before + (4 << 20), "{before} bytes in memory became {after}");
    }
    let after = embedder.model().stats();
    assert_eq!(
        (after.weight_bytes_uploaded, after.weight_bytes, after.activation_bytes),
        (stats.weight_bytes_uploaded, stats.weight_bytes, stats.activation_bytes)
    );
    drop(embedder);
    assert_eq!(alive(&instance)[..2], [0, 0], "buffers and bind groups are given back");
}

#[test]
fn the_token_budget_shrinks_to_the_adapters_bindings() {
    let _alone = alone();
    // The widest rows are those of the intermediate, 384 values: 100 of them fit.
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 100 * 384 * 4, ..wgpu::Limits::default() };
    let (_, gpu) = noop(limits);
    let embedder = Embedder::builder().gpu(gpu.clone()).from_dir(fixture(FOLDER)).unwrap();
    embedder.embed(vec!["word"; 200]).unwrap();
    let last = embedder.model().stats().last;
    assert!(last.tokens >= 600 && last.batches >= last.tokens.div_ceil(100), "{last:?}");
    // The vocabulary's 1200 rows of 96 values need three such bindings.
    let parts = embedder.model().kernels().iter().filter(|kernel| **kernel == "embedding").count();
    assert_eq!(parts, (embedder.model().config().vocabulary * 96).div_ceil(100 * 384));

    let limits = wgpu::Limits { max_storage_buffer_binding_size: 20 * 384 * 4, ..wgpu::Limits::default() };
    let message = Embedder::builder().gpu(noop(limits).1).from_dir(fixture(FOLDER)).err().unwrap().to_string();
    assert!(message.contains("does not fit in this adapter's largest binding, which holds 20"), "{message}");
}

#[test]
fn a_lost_device_is_an_error_and_never_a_hang() {
    let _alone = alone();
    let (_instance, gpu) = noop(wgpu::Limits::default());
    let embedder = Embedder::builder().gpu(gpu.clone()).from_dir(fixture(FOLDER)).unwrap();
    embedder.embed(["text"]).unwrap();
    gpu.device().destroy();
    for _ in 0..5 {
        let error = embedder.embed(["text"]).unwrap_err();
        assert!(matches!(error, minilm::Error::DeviceLost { .. }), "{error:?}");
    }
    let error = pollster::block_on(embedder.embed_async(["text"])).unwrap_err();
    assert!(matches!(error, minilm::Error::DeviceLost { .. }), "{error:?}");
}

#[test]
fn two_hundred_models_and_a_hundred_thousand_requests_leave_nothing_behind() {
    let _alone = alone();
    let (instance, gpu) = noop(wgpu::Limits::default());
    // Buffers, bind groups, pipelines, encoders, command buffers.
    leave_nothing_behind(&gpu, || alive(&instance), [20, 200], [2_000, 100_000]);
}

/// The same where batches are computed, and a driver has memory of its own to keep: fewer of them, since they take their time.
#[test]
fn models_and_requests_leave_nothing_behind_on_an_adapter_that_computes() {
    let _alone = alone();
    let gpu = gpu();
    let held = || {
        gpu.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
        gpu.device().generate_allocator_report().map(|report| (report.allocations.len(), report.total_allocated_bytes))
    };
    leave_nothing_behind(&gpu, held, [10, 30], [200, 1_000]);
}

/// Loads models and runs requests of random lengths, some to warm up and then many, and compares what is `held` after each.
fn leave_nothing_behind<T: Debug + PartialEq>(gpu: &Gpu, held: impl Fn() -> T, loads: [usize; 2], requests: [usize; 2]) {
    let load = || Embedder::builder().gpu(gpu.clone()).token_budget(128).from_dir(fixture(FOLDER)).unwrap();
    let load_and_run = |count| (0..count).for_each(|_| _ = load().embed(["one", "and another"]).unwrap());
    load_and_run(loads[0]);
    let (objects, before) = (held(), resident());
    load_and_run(loads[1]);
    assert_eq!(held(), objects, "{} loads", loads[1]);
    if let (Some(before), Some(after)) = (before, resident()) {
        assert!(after < before + (8 << 20), "{} loads: {before} bytes in memory became {after}", loads[1]);
    }

    let embedder = load();
    let ids: Vec<u32> = (0..300).map(|i| i % 100).collect();
    let mut random = 1u32;
    let mut request = |count: usize| {
        for _ in 0..count {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let texts = 1 + (random >> 28) as usize % 3;
            let length = 1 + (random >> 8) as usize % 60;
            let texts: Vec<_> = (0..texts).map(|i| Sequence { ids: &ids[i..i + length], ..Default::default() }).collect();
            embedder.embed_tokens(&texts).unwrap();
        }
    };
    request(requests[0]);
    let (objects, before) = (held(), resident());
    request(requests[1]);
    assert_eq!(held(), objects, "{} requests", requests[1]);
    if let (Some(before), Some(after)) = (before, resident()) {
        assert!(after < before + (4 << 20), "{} requests: {before} bytes in memory became {after}", requests[1]);
    }
}
