//! What the host does for a call, without a GPU: tokens, batches, passes. The device is wgpu's noop backend, which takes all commands
//! and runs none.
//!
//! `cargo bench --bench host`

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use minilm::batch::{Batch, Bounds, Capacity, Sequence, sort, split};
use minilm::gpu::Count;
use minilm::kernels::WeightFormat;
use minilm::kernels::attention::Attention;
use minilm::kernels::layer_norm::LayerNorm;
use minilm::kernels::matmul::Matmul;
use minilm::{Counters, Embedder, Gpu, wgpu};

/// 12 layers with a hidden size of 384.
const FOLDER: &str = "examples/models/e5-small-multilingual-19k-int8";

const BOUNDS: Bounds =
    Bounds { vocabulary: 30_522, token_types: 2, default_type: 0, position_offset: 0, padding: None, max_tokens: 512, max_selected: 0 };

fn main() {
    let embedder = embedder();
    for (texts, tokens) in [(1, 12), (256, 32)] {
        let ids = vec![7; tokens];
        let sequences = vec![sequence(&ids); texts];
        let mut rows = vec![0.0; texts * embedder.dimension()];
        let counted = (0..500).map(|_| {
            embedder.embed_tokens_into(&sequences, &mut rows).expect("a call");
            embedder.model().stats().last
        });
        let counted: Vec<Counters> = counted.collect();
        let median = |nanoseconds: fn(&Counters) -> u64| {
            let mut all: Vec<u64> = counted.iter().map(nanoseconds).collect();
            all.sort_unstable();
            all[all.len() / 2] as f64 / 1e3
        };
        println!(
            "a batch of {texts} texts of {tokens} tokens, {} dispatches, medians: pack {:.1} us, record {:.1} us, submit {:.1} us",
            embedder.model().kernels().len(),
            median(|counters| counters.pack_nanoseconds),
            median(|counters| counters.record_nanoseconds),
            median(|counters| counters.submit_nanoseconds)
        );
    }
    divan::main();
}

fn gpu() -> Gpu {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::NOOP;
    descriptor.backend_options.noop = wgpu::NoopBackendOptions { enable: true, ..Default::default() };
    let adapter = pollster::block_on(wgpu::Instance::new(descriptor).request_adapter(&Default::default())).expect("the noop adapter");
    let (device, queue) = pollster::block_on(adapter.request_device(&Default::default())).expect("a device");
    Gpu::from_device(device, queue)
}

fn embedder() -> Embedder {
    Embedder::builder().gpu(gpu()).from_dir(FOLDER).expect("the model of the repository")
}

fn sequence(ids: &[u32]) -> Sequence<'_> {
    Sequence { ids, ..Default::default() }
}

/// Sentences of some 12 tokens.
fn sentences(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("The train number {i} to the old harbour leaves at noon.")).collect()
}

#[divan::bench(args = [1, 8, 64, 1024])]
fn tokenize(bencher: Bencher, texts: usize) {
    let (embedder, texts) = (embedder(), sentences(texts));
    bencher.counter(ItemsCount::new(texts.len())).bench(|| embedder.encode(&texts).expect("tokens"));
}

/// Texts of 1 to 256 tokens.
fn mixed(ids: &[u32], count: usize) -> Vec<Sequence<'_>> {
    (0..count).map(|i| sequence(&ids[..1 + i * 7919 % 256])).collect()
}

const CAPACITY: Capacity = Capacity { tokens: 8192, texts: 1024, selected: 0 };

#[divan::bench(args = [64, 1024, 16_384])]
fn sort_and_split(bencher: Bencher, texts: usize) {
    let (ids, mut order) = ([7; 256], Vec::new());
    let sequences = mixed(&ids, texts);
    bencher.counter(ItemsCount::new(texts)).bench_local(|| {
        sort(&sequences, &mut order);
        split(&sequences, &order, CAPACITY).count()
    });
}

/// A whole batch of 8192 tokens.
#[divan::bench(args = [8, 32, 256])]
fn pack(bencher: Bencher, tokens: usize) {
    let (ids, mut batch) = (vec![7; tokens], Batch::default());
    let sequences = vec![sequence(&ids); CAPACITY.tokens / tokens];
    let members: Vec<usize> = (0..sequences.len()).collect();
    bencher.counter(ItemsCount::new(CAPACITY.tokens)).bench_local(|| {
        batch.repack(&sequences, &members, &BOUNDS);
        black_box(&batch).bytes()
    });
}

#[divan::bench(args = [1, 64, 1024])]
fn call(bencher: Bencher, texts: usize) {
    let (embedder, texts) = (embedder(), sentences(texts));
    bencher.counter(ItemsCount::new(texts.len())).bench(|| embedder.embed(&texts).expect("rows"));
}

/// A whole call of texts that are tokens already.
#[divan::bench(args = [1, 64, 256])]
fn call_of_tokens(bencher: Bencher, texts: usize) {
    let (embedder, ids) = (embedder(), [7; 32]);
    let sequences = vec![sequence(&ids); texts];
    let mut rows = vec![0.0; texts * embedder.dimension()];
    bencher.counter(ItemsCount::new(texts)).bench_local(|| embedder.embed_tokens_into(&sequences, &mut rows).expect("rows"));
}

/// What it costs to catch a batch's errors where they happen.
#[divan::bench]
fn error_scopes(bencher: Bencher) {
    let gpu = gpu();
    bencher.bench_local(|| {
        let filters = [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation];
        let [internal, memory, validation] = filters.map(|filter| gpu.device().push_error_scope(filter));
        [validation, memory, internal].map(|scope| pollster::block_on(scope.pop()).is_none())
    });
}

/// Inputs and expected results of the checks that a load makes: the matrix products of a layer, attention and layer norm. The rest of a
/// check is one small dispatch on the device.
#[divan::bench(args = [384, 768])]
fn checks_of_a_load(bencher: Bencher, hidden: usize) {
    bencher.bench(|| {
        for (inner, outer) in [(hidden, 3 * hidden), (hidden, hidden), (hidden, 4 * hidden), (4 * hidden, hidden)] {
            let kernel = Matmul { inner, outer, operands: WeightFormat::F32.into(), activation: None, residual: true, rows: Count::Tokens };
            black_box(kernel.check(65));
        }
        black_box(Attention { heads: 12, head_dim: hidden / 12, bias: false, half: false }.check());
        black_box(LayerNorm { hidden, epsilon: 1e-12, rows: Count::Tokens }.check());
    });
}
