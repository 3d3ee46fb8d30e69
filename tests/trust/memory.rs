//! GPU memory: planned before it is taken, and an error where it runs out.

use minilm::gpu::GpuOptions;
use minilm::{Embedder, Error, Gpu, Pooling, WeightFormat, wgpu};

use super::common::fixture;
use super::common::gpu::gpu;
use super::{FOLDER, texts};

/// Bytes that a driver is asked for at least.
const PIECE: u64 = 4 << 20;

#[test]
fn memory_is_planned_before_it_is_taken() {
    for format in WeightFormat::ALL {
        let gpu = Gpu::new(GpuOptions::default()).unwrap();
        let builder = || Embedder::builder().gpu(gpu.clone()).weights(format);
        let plan = builder().memory_plan(fixture(FOLDER)).unwrap();
        let before = taken(&gpu);
        let embedder = builder().from_dir(fixture(FOLDER)).unwrap();
        let stats = embedder.model().stats();
        assert_eq!((plan.weight_bytes, plan.activation_bytes), (stats.weight_bytes, stats.activation_bytes));
        if let (Some((before, _)), Some((allocated, reserved))) = (before, taken(&gpu)) {
            let ratio = (allocated - before) as f64 / plan.total() as f64;
            assert!((0.95..1.05).contains(&ratio), "{format:?}: {ratio:.3} of the plan was allocated");
            // What is small shares pieces of memory, of which some are not full.
            let most = plan.total() + plan.total() / 20 + 3 * PIECE;
            assert!(reserved <= most, "{format:?}: the driver was asked for {reserved} bytes, with {} planned", plan.total());
        }

        // Half of what batches take beyond that of one text.
        let smallest = builder().token_budget(embedder.model().max_length()).memory_plan(fixture(FOLDER)).unwrap();
        let most = (plan.total() + smallest.total()) / 2;
        let capped = builder().max_gpu_memory(most).from_dir(fixture(FOLDER)).unwrap();
        let stats = capped.model().stats();
        let total = stats.weight_bytes + stats.activation_bytes;
        assert!(total <= most && total > most * 9 / 10, "{total} of {most} bytes");
        assert_eq!(capped.embed(&texts()).unwrap().as_slice(), embedder.embed(&texts()).unwrap().as_slice());

        builder().max_gpu_memory(smallest.total()).from_dir(fixture(FOLDER)).unwrap();
        let error = builder().max_gpu_memory(smallest.total() - 1).from_dir(fixture(FOLDER)).err().unwrap();
        let message = error.to_string();
        assert!(matches!(error, Error::Memory { .. }) && message.contains(&format!("needs {} bytes", smallest.total())), "{message}");
    }
}

/// Bytes of a device's buffers, and of the memory that its driver was asked for, where the backend tells.
fn taken(gpu: &Gpu) -> Option<(u64, u64)> {
    gpu.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
    let report = gpu.device().generate_allocator_report()?;
    Some((report.total_allocated_bytes, report.total_reserved_bytes))
}

/// On a software adapter the device's memory is the process's, which the system can limit: this test runs itself in such a process.
#[cfg(target_os = "linux")]
#[test]
fn memory_that_runs_out_is_an_error_and_the_runtime_stays_usable() {
    const NAME: &str = "memory_that_runs_out_is_an_error_and_the_runtime_stays_usable";
    /// Large enough to be a piece of memory of its own.
    const LARGE: usize = 256 << 20;
    const COLUMNS: usize = 64 * 96;
    if gpu().info().device_type != wgpu::DeviceType::Cpu {
        return println!("not tried on {}, whose memory others use too", gpu().info().name);
    }
    if gpu().info().backend == wgpu::Backend::Gl {
        return println!("not tried on GL: wgpu's binding to EGL panics where the driver has no memory left for itself");
    }
    if std::env::var_os(NAME).is_none() {
        let mut limited = std::process::Command::new("timeout");
        limited.args(["300", "sh", "-c", "ulimit -v 4000000 && exec \"$@\"", "sh"]).arg(std::env::current_exe().unwrap());
        // To trace a panic takes memory too.
        let output =
            limited.args(["--exact", &format!("memory::{NAME}"), "--nocapture"]).env(NAME, "").env("RUST_BACKTRACE", "0").output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        return assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }
    // An app whose device the model shares takes all there is.
    let own = Gpu::new(GpuOptions::default()).unwrap();
    let shared = Gpu::from_device(own.device().clone(), own.queue().clone());
    let load = |tokens| Embedder::builder().gpu(shared.clone()).pooling([Pooling::Mean; 64]).token_budget(tokens).from_dir(fixture(FOLDER));
    let embedder = load(512).unwrap();
    let expected = embedder.embed(&texts()).unwrap();
    let piece = || {
        let scope = own.device().push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let usage = wgpu::BufferUsages::STORAGE;
        let buffer =
            own.device().create_buffer(&wgpu::BufferDescriptor { label: None, size: LARGE as u64, usage, mapped_at_creation: false });
        pollster::block_on(scope.pop()).is_none().then_some(buffer)
    };
    let mut pieces: Vec<_> = std::iter::from_fn(piece).collect();
    assert!(pieces.pop().is_some(), "what the driver needs for itself");

    let out_of_memory = |error: Option<Error>, what: &str| {
        let error = error.unwrap_or_else(|| panic!("there was room: {what}"));
        let message = error.to_string();
        assert!(matches!(error, Error::Memory { .. }), "{error:?}");
        assert!(message.contains(what) && message.contains("out of memory; use a smaller token budget or model, or close"), "{message}");
    };
    let allocated = || taken(&own).map(|(allocated, _)| allocated);
    let before = allocated();
    // More than two pieces each.
    let (many, large) = (vec!["x"; 2 * LARGE / (COLUMNS * 4)], 40_000);
    for _ in 0..3 {
        out_of_memory(embedder.embed_to_buffer(&many).err(), "a buffer for the result");
        assert!(embedder.embed(&texts()).unwrap() == expected);
        out_of_memory(load(large).err(), "activations: buffer `");
        assert!(embedder.embed(&texts()).unwrap() == expected);
        assert_eq!(allocated(), before, "what a load took before it failed");
    }
    drop(pieces);
    assert!(load(large).unwrap().embed(&texts()).unwrap() == expected);
}
