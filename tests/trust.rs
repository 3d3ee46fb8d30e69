//! What stands between a wrong driver, a lost device or a full memory and a wrong vector. Each guard is shown to hold and to fail.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};

use common::files::copy;
use common::fixture;
use common::golden::Golden;
use common::gpu::gpu;
use minilm::gpu::{Fault, GpuOptions};
use minilm::kernels::attention::Attention;
use minilm::kernels::{Sharing, Variant};
use minilm::tuning::{Choice, Kernel, Table};
use minilm::{Checkpoint, Embedder, Error, FillMask, Gpu, Pooling, Tuning, WeightFormat, wgpu};

const FOLDER: &str = "tiny-minilm-bert-l3-h96";
const MASKED: &str = "families/bert-masked";

fn fault(kernel: &'static str, only_with: &'static str, right: &'static str, wrong: &'static str) -> Fault {
    Fault { kernel, only_with, right, wrong }
}

/// A device of its own, whose shaders have a mistake.
fn faulty(fault: Fault) -> Gpu {
    let gpu = Gpu::new(GpuOptions::default()).unwrap();
    gpu.plant(fault);
    gpu
}

fn texts() -> Vec<String> {
    (1..20).map(|words| "a word and another ".repeat(words)).collect()
}

#[test]
fn a_mistake_in_any_kernel_is_found_before_the_model_is_used() {
    let faults = [
        fault("embedding", "", "place & 0xffffffu", "place & 0xfffffeu"),
        fault("embedding", "", "+ EPSILON", "- 1.0"),
        fault("matmul", "", "activate(sum + bias[column])", "activate(sum - bias[column])"),
        fault("matmul", "", "result += residual[at]", "result -= residual[at]"),
        fault("matmul", "", "row <= last_row", "row < last_row"),
        fault("matmul", "", "row <= last_row && ", ""), // writes beyond the end
        fault("matmul", "", "return 0.5 * x * (1.0 + erf(x * 0.70710678118654752))", "return 0.5 * x * (1.0 + erf(x * 0.7))"),
        fault("attention", "", "qkv[queries_at", "1.01 * qkv[queries_at"),
        fault("attention", "", "- offsets[text].tile", "+ 0u * offsets[text].tile"),
        fault("layer_norm", "", "select(vec4f(), value_0 - mean", "select(vec4f(), value_0 + mean"),
        fault("pooling", "", "value /= f32(length);", "value /= f32(length + 1u);"),
        fault("normalize", "", "squares += value * value;", "squares += abs(value);"),
    ];
    for fault in faults {
        let builder = Embedder::builder().gpu(faulty(fault)).pooling(Pooling::Mean).normalize(true);
        expect_refusal(fault, builder.from_dir(fixture(FOLDER)).err());
    }
    let faults = [
        fault("gather", "", "let token = selected[group.x];", "let token = selected[0];"),
        fault("vocabulary", "", "sums[r] * scale", "sums[0] * scale"),
        fault("top_k", "", "column < other_column", "column > other_column"),
        fault("top_k", "", "largest + log(total)", "log(total)"),
    ];
    for fault in faults {
        expect_refusal(fault, FillMask::builder().gpu(faulty(fault)).from_dir(fixture(MASKED)).err());
    }
}

fn expect_refusal(fault: Fault, error: Option<Error>) {
    let info = gpu().info().clone();
    let Some(Error::Kernel { kernel, problem }) = error else { panic!("{fault:?} was not found: {error:?}") };
    assert_eq!(kernel, fault.kernel, "{problem}");
    for expected in [info.name.as_str(), &info.driver, "update the driver or choose another adapter"] {
        assert!(problem.contains(expected), "{fault:?}: {problem}");
    }
}

#[test]
fn a_form_that_is_wrong_or_does_not_compile_gives_way_to_the_simplest() {
    let expected = Embedder::builder().gpu(gpu()).from_dir(fixture(FOLDER)).unwrap().embed(&texts()).unwrap();
    // What only forms with subgroups have; where the adapter has none, the simplest runs anyway.
    let faults = [
        fault("matmul", "subgroupBroadcast", "subgroupBroadcast(x_0, 1u)", "subgroupBroadcast(x_0, 2u)"),
        fault("attention", "subgroupBroadcast", "subgroupBroadcast(key_0_0, 1u)", "subgroupBroadcast(key_0_0, 0u)"),
        fault("layer_norm", "subgroupAdd", "subgroupAdd(value)", "subgroupMax(value)"),
        fault("embedding", "subgroupAdd", "@workgroup_size(WORKGROUP)", "@workgroup_size(WORKGROUP * 1024u)"),
        fault("matmul", "subgroupBroadcast", "@workgroup_size(LANES, ROW_GROUPS)", "@workgroup_size(LANES * 1024u, ROW_GROUPS)"),
    ];
    for fault in faults {
        let gpu = faulty(fault);
        let embedder = Embedder::builder().gpu(gpu.clone()).from_dir(fixture(FOLDER)).unwrap();
        let (found, rejected) = (embedder.embed(&texts()).unwrap(), gpu.rejected());
        let closest = found.rows().zip(expected.rows()).map(|(a, b)| minilm::cosine(a, b)).fold(1.0, f64::min);
        assert!(closest > 0.999_999, "{fault:?}: cosine {closest}");
        assert_eq!(embedder.model().stats().rejected_kernels, rejected.len());
        let subgroups = minilm::kernels::Variant::subgroup(&gpu).is_some_and(|size| size <= 16);
        let software = gpu.info().device_type == wgpu::DeviceType::Cpu;
        assert_eq!(!rejected.is_empty(), subgroups && software, "{fault:?}: {rejected:?}");
        assert!(rejected.iter().all(|rejected| rejected.kernel == fault.kernel), "{rejected:?}");
    }
}

#[test]
fn a_mistake_in_attention_through_workgroup_memory_is_found() {
    let checkpoint = Checkpoint::open(fixture(FOLDER)).unwrap();
    let expected = Embedder::builder().gpu(gpu()).from_dir(fixture(FOLDER)).unwrap().embed(&texts()).unwrap();
    let staged: Vec<Variant> = Variant::attentions(None).into_iter().filter(|variant| variant.sharing == Sharing::Workgroup).collect();
    let faults = [
        ("* TILE + group.y % PARTS * QUERIES", "* TILE"),   // only the first form has parts of tiles
        ("biased_0, is_key", "biased_0, vec4<bool>(true)"), // those beyond the text count
        ("< vec4u(length)", "< vec4u(length - 1u)"),        // the last of it does not
        ("min(LANES, (length - block + 3u) / 4u)", "min(LANES, (length - block) / 4u)"),
        ("select(0u, min(LANES, HEAD_DIM4 - 0u * LANES), is_needed)", "select(0u, LANES - 1u, is_needed)"),
        ("let shrink_1 = exp(maximum_1 - new_maximum_1)", "let shrink_1 = 1.0"),
        ("total_0 = total_0 * shrink_0", "total_0 = total_0"),
        ("total += parts[row_1 * LANES + i]", "total += parts[row_0 * LANES + i]"),
        ("min(block + 4u * (i % LANES) + i / LANES, length - 1u)", "min(block + i, length - 1u)"),
        ("if first_query + 0u < length", "if first_query < length + 1u"), // the next text's, or beyond the end
        ("group.y / PARTS", "group.y / PARTS * 0u"),
        ("context[context_at + 0u", "context[context_at + 1u"),
    ];
    for (&variant, (right, wrong)) in staged.iter().cycle().zip(faults) {
        let kernel = Attention { heads: checkpoint.config.heads, head_dim: checkpoint.config.head_dim(), bias: false };
        assert!(kernel.source(variant).wgsl.contains(right), "{right}");
        let gpu = faulty(fault("attention", "var<workgroup>", right, wrong));
        let mut table = Table::of(&gpu);
        let (shape, weights) = ([kernel.heads, kernel.head_dim], WeightFormat::F32);
        table.choices.push(Choice { kernel: Kernel::Attention, shape, weights, up_to: u32::MAX, variant, nanoseconds: 1 });
        let embedder = Embedder::builder().gpu(gpu.clone()).tuning(Tuning::Given(table)).from_dir(fixture(FOLDER)).unwrap();
        let rejected = gpu.rejected();
        assert_eq!(rejected.len(), 1, "{variant}: {right} as {wrong}: {rejected:?}");
        let found = embedder.embed(&texts()).unwrap();
        let closest = found.rows().zip(expected.rows()).map(|(a, b)| minilm::cosine(a, b)).fold(1.0, f64::min);
        assert!(closest > 0.999_999, "{variant}: {right} as {wrong}: cosine {closest}");
    }
}

/// A copy of a model whose last layer norm multiplies with numbers that f32 ends at.
fn with_huge_weights() -> tempfile::TempDir {
    let folder = copy(&fixture(FOLDER), &["config.json", "model.safetensors", "tokenizer.json"]);
    let path = folder.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let range = {
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let name = tensors.names().into_iter().find(|name| name.ends_with("layer.2.output.LayerNorm.weight")).unwrap().to_owned();
        let tensor = tensors.tensor(&name).unwrap();
        assert_eq!(tensor.dtype(), safetensors::Dtype::F32);
        let begin = tensor.data().as_ptr() as usize - bytes.as_ptr() as usize;
        begin..begin + tensor.data().len()
    };
    bytes[range].chunks_exact_mut(4).for_each(|value| value.copy_from_slice(&3.0e38f32.to_le_bytes()));
    std::fs::write(&path, bytes).unwrap();
    folder
}

#[test]
fn a_result_that_is_no_number_is_an_error_that_names_the_text() {
    let folder = with_huge_weights();
    let embedder = Embedder::builder().gpu(gpu()).from_dir(folder.path()).unwrap();
    let error = embedder.embed(["one", "two"]).unwrap_err();
    assert!(matches!(error, Error::NotFinite { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.starts_with("text ") && message.contains("expected a finite number"), "{message}");
    // The runtime stays usable.
    assert!(matches!(embedder.embed(["one"]), Err(Error::NotFinite { text: 0, .. })));
}

#[test]
fn memory_is_planned_before_it_is_taken() {
    for format in WeightFormat::ALL {
        let builder = || Embedder::builder().gpu(gpu()).weights(format);
        let plan = builder().memory_plan(fixture(FOLDER)).unwrap();
        let before = allocated();
        let embedder = builder().from_dir(fixture(FOLDER)).unwrap();
        let stats = embedder.model().stats();
        assert_eq!((plan.weight_bytes, plan.activation_bytes), (stats.weight_bytes, stats.activation_bytes));
        if let (Some(before), Some(after)) = (before, allocated()) {
            let ratio = (after - before) as f64 / plan.total() as f64;
            assert!((0.95..1.05).contains(&ratio), "{format:?}: {ratio:.3} of the plan was allocated");
        }

        // Half of what batches take beyond that of one text.
        let smallest = builder().token_budget(embedder.model().max_length()).memory_plan(fixture(FOLDER)).unwrap();
        let most = (plan.total() + smallest.total()) / 2;
        let capped = builder().max_gpu_memory(most).from_dir(fixture(FOLDER)).unwrap();
        let stats = capped.model().stats();
        let taken = stats.weight_bytes + stats.activation_bytes;
        assert!(taken <= most && taken > most * 9 / 10, "{taken} of {most} bytes");
        assert_eq!(capped.embed(&texts()).unwrap().as_slice(), embedder.embed(&texts()).unwrap().as_slice());

        builder().max_gpu_memory(smallest.total()).from_dir(fixture(FOLDER)).unwrap();
        let error = builder().max_gpu_memory(smallest.total() - 1).from_dir(fixture(FOLDER)).err().unwrap();
        let message = error.to_string();
        assert!(matches!(error, Error::Memory { .. }) && message.contains(&format!("needs {} bytes", smallest.total())), "{message}");
    }
}

/// Bytes that the device has allocated, where the backend tells.
fn allocated() -> Option<u64> {
    gpu().device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
    let report = gpu().device().generate_allocator_report()?;
    Some(report.total_allocated_bytes)
}

#[test]
fn a_lost_device_is_opened_again_and_the_call_repeated() {
    let golden = Golden::fixture(FOLDER);
    let gpu = Gpu::new(GpuOptions::default()).unwrap();
    let embedder = Embedder::builder().gpu(gpu.clone()).from_dir(&golden.folder).unwrap();
    let other = Embedder::builder().gpu(gpu.clone()).from_dir(&golden.folder).unwrap();
    let expected = embedder.embed(&texts()).unwrap();

    gpu.device().destroy();
    let right = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                assert_eq!(embedder.embed(&texts()).unwrap().as_slice(), expected.as_slice());
                right.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(right.into_inner(), 8);
    let stats = embedder.model().stats();
    assert_eq!(stats.recoveries, 1, "one of the threads did it for all");
    assert!(stats.total.batches >= 9);
    // Another model of the same device goes where this one went.
    assert_eq!(other.embed(&texts()).unwrap().as_slice(), expected.as_slice());
    assert!(other.model().gpu().device() == embedder.model().gpu().device());

    // And once more, with a future.
    embedder.model().gpu().device().destroy();
    assert_eq!(pollster::block_on(embedder.embed_async(&texts())).unwrap().as_slice(), expected.as_slice());
    assert_eq!(embedder.model().stats().recoveries, 2);
}

#[test]
fn who_does_not_want_that_or_handed_the_device_in_gets_an_error() {
    let gpu = Gpu::new(GpuOptions::default()).unwrap();
    let embedder = Embedder::builder().gpu(gpu.clone()).recover(false).from_dir(fixture(FOLDER)).unwrap();
    gpu.device().destroy();
    let error = embedder.embed(["x"]).unwrap_err();
    assert!(matches!(error, Error::DeviceLost { .. }) && error.to_string().contains("open a new `Gpu`"), "{error}");

    let own = Gpu::new(GpuOptions::default()).unwrap();
    let shared = Gpu::from_device(own.device().clone(), own.queue().clone());
    let embedder = Embedder::builder().gpu(shared).from_dir(fixture(FOLDER)).unwrap();
    own.device().destroy();
    let error = embedder.embed(["x"]).unwrap_err();
    assert!(matches!(error, Error::DeviceLost { .. }) && error.to_string().contains("Gpu::from_device"), "{error}");
}

#[test]
fn a_text_has_the_same_bits_in_a_thousand_random_batches() {
    let embedder = Embedder::builder().gpu(gpu()).token_budget(256).max_length(64).from_dir(fixture(FOLDER)).unwrap();
    let pool: Vec<String> = (0..40).map(|i| format!("{} {}", "word ".repeat(i * i % 37), "x ".repeat(i % 5))).collect();
    let alone: Vec<Vec<f32>> = pool.iter().map(|text| embedder.embed([text]).unwrap().as_slice().to_vec()).collect();
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for batch in 0..1000 {
        let members: Vec<usize> = (0..1 + random(12)).map(|_| random(pool.len())).collect();
        let rows = embedder.embed(members.iter().map(|&member| &pool[member])).unwrap();
        for (row, &member) in rows.rows().zip(&members) {
            let same = row.iter().zip(&alone[member]).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "batch {batch} of {members:?}: text {member} has other bits than alone");
        }
    }
}
