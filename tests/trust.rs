//! What stands between a wrong driver, a lost device or a full memory and a wrong vector. Each guard is shown to hold and to fail.

mod common;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use common::files::copy;
use common::fixture;
use common::golden::Golden;
use common::gpu::gpu;
use futures::FutureExt;
use minilm::gpu::{Fault, Flip, GpuOptions, When};
use minilm::kernels::attention::Attention;
use minilm::kernels::matmul::Matmul;
use minilm::kernels::{Arithmetic, Operands, Sharing, Variant};
use minilm::tuning::{Choice, Kernel, Table};
use minilm::{Checkpoint, Embedder, Embeddings, Error, FillMask, Gpu, Pooling, Tuning, WeightFormat, doctor, wgpu};

const FOLDER: &str = "tiny-minilm-bert-l3-h96";
const MASKED: &str = "families/bert-masked";

fn fault(kernel: &'static str, right: &'static str, wrong: &'static str) -> Fault {
    Fault { kernel, only_with: "", right, wrong }
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
        fault("embedding", "place & 0xffffffu", "place & 0xfffffeu"),
        fault("embedding", "+ EPSILON", "- 1.0"),
        fault("matmul", "activate(sum + bias_of_column)", "activate(sum - bias_of_column)"),
        fault("matmul", "result += residual[at]", "result -= residual[at]"),
        fault("matmul", "row <= last_row", "row < last_row"),
        fault("matmul", "row <= last_row && ", ""), // writes beyond the end
        fault("matmul", "return 0.5 * x * (1.0 + erf(x * 0.70710678118654752))", "return 0.5 * x * (1.0 + erf(x * 0.7))"),
        fault("attention", "qkv[queries_at", "1.01 * qkv[queries_at"),
        fault("attention", "- offsets[text].tile", "+ 0u * offsets[text].tile"),
        fault("layer_norm", "select(vec4f(), value_0 - mean", "select(vec4f(), value_0 + mean"),
        fault("pooling", "value /= f32(length);", "value /= f32(length + 1u);"),
        fault("normalize", "squares += value * value;", "squares += abs(value);"),
        fault("digest", "word >> 16u", "word >> 15u"),
        fault("gather", "let token = selected[group.x];", "let token = selected[0];"),
        fault("vocabulary", "sums[r] * scale", "sums[0] * scale"),
        fault("top_k", "column < other_column", "column > other_column"),
        fault("top_k", "logits[row + c] - largest", "logits[row + c]"),
        fault("quantize", "whole - 128.0 * upper", "0.0 * upper"),
        fault("quantize", "MOST / largest", "MOST / (largest + 1.0)"),
        fault("quantize", "largest / MOST", "1.0 / MOST"),
    ];
    let info = gpu().info().clone();
    for fault in faults {
        let gpu = faulty(fault);
        let error = match fault.kernel {
            "quantize" => Embedder::builder().gpu(gpu).arithmetic(Arithmetic::Int8).from_dir(fixture(FOLDER)).err(),
            "gather" | "vocabulary" | "top_k" => FillMask::builder().gpu(gpu).from_dir(fixture(MASKED)).err(),
            _ => Embedder::builder().gpu(gpu).pooling(Pooling::Mean).normalize(true).from_dir(fixture(FOLDER)).err(),
        };
        let Some(Error::Kernel { kernel, problem }) = error else { panic!("{fault:?} was not found: {error:?}") };
        assert_eq!(kernel, fault.kernel, "{problem}");
        for expected in [info.name.as_str(), &info.driver, "update the driver or choose another adapter"] {
            assert!(problem.contains(expected), "{fault:?}: {problem}");
        }
    }
}

#[test]
fn a_kernel_that_was_only_compiled_before_is_still_checked() {
    // As tuning and doctor do with all forms, of which they leave out what is wrong.
    let config = Checkpoint::open(fixture(FOLDER)).unwrap().config;
    let kernel = Attention { heads: config.heads, head_dim: config.head_dim(), bias: false, half: false };
    let gpu = faulty(fault("attention", "- offsets[text].tile", "+ 0u * offsets[text].tile"));
    for variant in Variant::attentions(Variant::subgroup(&gpu)) {
        let form = kernel.form(&gpu, variant).unwrap();
        form.pipeline.vetted(&gpu, form.grid, None).unwrap();
    }
    let error = Embedder::builder().gpu(gpu).from_dir(fixture(FOLDER)).err();
    assert!(matches!(error, Some(Error::Kernel { kernel: "attention", .. })), "{error:?}");
}

#[test]
fn a_form_that_is_wrong_or_does_not_compile_gives_way_to_the_simplest() {
    let expected = Embedder::builder().gpu(gpu()).from_dir(fixture(FOLDER)).unwrap().embed(&texts()).unwrap();
    // What only forms with subgroups have; where the adapter has none, the simplest runs anyway.
    let faults = [
        fault("matmul", "subgroupBroadcast(x_0, 1u)", "subgroupBroadcast(x_0, 2u)"),
        fault("attention", "subgroupBroadcast(key_0_0, 1u)", "subgroupBroadcast(key_0_0, 0u)"),
        fault("layer_norm", "subgroupAdd(value)", "subgroupMax(value)"),
        fault("embedding", "@workgroup_size(WORKGROUP)", "@workgroup_size(WORKGROUP * 1024u)"),
        fault("matmul", "@workgroup_size(LANES, ROW_GROUPS)", "@workgroup_size(LANES * 1024u, ROW_GROUPS)"),
    ];
    for fault in faults.map(|fault| Fault { only_with: "subgroup", ..fault }) {
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
        assert!(rejected.iter().all(|rejected| rejected.problem.matches("kernel `").count() == 1), "{rejected:?}");
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
        let kernel = Attention { heads: checkpoint.config.heads, head_dim: checkpoint.config.head_dim(), bias: false, half: false };
        assert!(kernel.source(variant).wgsl.contains(right), "{right}");
        let gpu = faulty(Fault { only_with: "var<workgroup>", ..fault("attention", right, wrong) });
        let mut table = Table::of(&gpu);
        let (shape, operands) = ([kernel.heads, kernel.head_dim], Operands::default());
        table.choices.push(Choice { kernel: Kernel::Attention, shape, operands, up_to: u32::MAX, variant, nanoseconds: 1 });
        let embedder = Embedder::builder().gpu(gpu.clone()).tuning(Tuning::Given(table)).from_dir(fixture(FOLDER)).unwrap();
        let rejected = gpu.rejected();
        assert_eq!(rejected.len(), 1, "{variant}: {right} as {wrong}: {rejected:?}");
        let found = embedder.embed(&texts()).unwrap();
        let closest = found.rows().zip(expected.rows()).map(|(a, b)| minilm::cosine(a, b)).fold(1.0, f64::min);
        assert!(closest > 0.999_999, "{variant}: {right} as {wrong}: cosine {closest}");
    }
}

#[test]
fn a_mistake_in_attention_in_f16_is_found() {
    type Has = fn(Sharing) -> bool;
    let (staged, units): (Has, Has) = (|sharing| sharing == Sharing::Workgroup, |s| matches!(s, Sharing::Cooperative { .. }));
    // Heads that end within a square of either size.
    let kernel = Attention { heads: 3, head_dim: 20, bias: true, half: true };
    let faults = [
        (staged, "held(exp(score_0 - maximum_0))", "held(exp(score_1 - maximum_0))"),
        (staged, "vec4f(right[(1u * LANES + i)", "vec4f(right[(0u * LANES + i)"),
        (units, "i * KEYS + k < length", "true"), // keys beyond the text count
        (units, "f32(weight)", "f32(exp(scores[k]))"),
        (units, "(i - 1u) * KEYS", "i * KEYS"), // of more than one block
        (units, "maximum_0 = max(maximum_0, score)", "maximum_0 = -100.0"),
        (units, "0u * SIZE], STRIDE", "1u * SIZE], STRIDE"),
        (units, "c * SIZE * STRIDE", "0u * c"),
        (units, "weights[own * WEIGHT_STRIDE", "weights[0u * own"),
        (units, "if d < HEAD_DIM4 {", "if true {"),    // the next head's numbers
        (units, "first_query + row < length && ", ""), // the next text's, or beyond the end
        (units, "parts[row * ROW_LANES + j]", "parts[j]"),
    ];
    let mut found_in = Vec::new();
    for (has, right, wrong) in faults {
        for variant in kernel.variants(&gpu()).into_iter().filter(|variant| has(variant.sharing)) {
            assert!(kernel.source(variant).wgsl.contains(right), "{variant}: {right}");
            let gpu = faulty(fault("attention", right, wrong));
            let form = kernel.form(&gpu, variant).unwrap();
            let error = form.pipeline.vetted(&gpu, form.grid, Some(&move |_| kernel.check())).err();
            assert!(matches!(error, Some(Error::Kernel { .. })), "{variant}: {right} as {wrong}: {error:?}");
            found_in.push(variant);
        }
    }
    assert!(!found_in.is_empty());
}

#[test]
fn a_mistake_in_any_form_of_a_product_is_found() {
    type Has = fn(Variant) -> bool;
    let (alone, subgroup): (Has, Has) = (|v| v.sharing == Sharing::Alone, |v| matches!(v.sharing, Sharing::Subgroup(_)));
    let (staged, units): (Has, Has) = (|v| v.sharing == Sharing::Workgroup, |v| matches!(v.sharing, Sharing::Cooperative { .. }));
    let ahead: Has = |v| v.tile.ahead;
    let [f32, f16, int8] = [Operands::ALL[0], Operands::ALL[3], Operands::ALL[4]];
    let faults = [
        (f32, alone, "k < INNER4; k++", "k < INNER4 - 1u; k++"),
        (f32, alone, "min(first_row + 1u", "min(first_row + 0u"),
        (f32, staged, "block + x_0 % DEPTH4", "block"),
        (f32, staged, "k_0 % 4u, column_of", "0u, column_of"),
        (f32, ahead, "load(index, block + DEPTH4", "load(index, block"),
        (f32, ahead, "turn * X_BLOCK + x_0", "x_0"), // the second block is what memory held
        (f16, ahead, "turn * WEIGHT_BLOCK + weight_0", "weight_0"),
        (f16, alone, "vec4u(0xffffe000u)", "vec4u(0xffff0000u)"),
        (f16, staged, "vec4u(0xffffe000u)", "vec4u(0xffff0000u)"),
        (f16, units, "1u * SIZE * WEIGHT_STRIDE", "0u * SIZE * WEIGHT_STRIDE"),
        (f16, units, "x_block[at + 3u]", "x_block[at + 2u]"),
        (f16, units, "depth_0 < INNER4", "depth_0 < INNER4 - 1u"),
        (int8, alone, "vec4f(128 * half_0", "vec4f(127 * half_0"),
        (int8, alone, "scale[block *", "scale[0u *"),
        (int8, subgroup, "at + 1u * GROUP4", "at"),
        (int8, subgroup, "k < min(begin + GROUP4", "k < min(begin + GROUP4 - 1u"),
        (Operands::ALL[2], alone, "8u * j, 8u", "8u * j, 7u"),
    ];
    for (operands, has, right, wrong) in faults {
        let kernel = Matmul { inner: 100, outer: 72, operands, activation: None, residual: true, rows: minilm::gpu::Count::Tokens };
        for variant in kernel.variants(&gpu()).into_iter().filter(|variant| has(*variant)) {
            assert!(kernel.source(variant).wgsl.contains(right), "{variant}: {right}");
            let found = |gpu: &Gpu| {
                let form = kernel.form(gpu, variant).unwrap();
                form.pipeline.vetted(gpu, form.grid, Some(&move |grid| kernel.check_for(grid))).err()
            };
            let error = found(&faulty(fault("matmul", right, wrong)));
            assert!(matches!(error, Some(Error::Kernel { .. })), "{operands}, {variant}: {right} as {wrong}: {error:?}");
        }
    }
}

#[test]
fn a_weight_that_does_not_arrive_as_it_was_sent_is_found_at_load() {
    let gpu = Gpu::new(GpuOptions::default()).unwrap();
    let load = |weights| Embedder::builder().gpu(gpu.clone()).weights(weights).from_dir(fixture(FOLDER));
    // The lowest bit and the highest; in the first block, at the edge of two, and at the end.
    let flips = [
        (0, 0, 1, "embeddings.word_embeddings.weight"),
        (0, (1 << 14) - 1, 1 << 31, "embeddings.word_embeddings.weight"),
        (0, 1 << 14, 1, "embeddings.word_embeddings.weight"),
        (1, 0, 1 << 31, "token types"),
        (5, 100, 1 << 16, "encoder.layer.0.attention.self.query.weight"),
        (6, 96 * 3 - 1, 1, "bias of "),
    ];
    for weights in WeightFormat::ALL {
        for (buffer, word, bits, name) in flips {
            // With scales there is one more buffer before the bias, and fewer words before the end.
            let name = if weights == WeightFormat::Int8 && buffer == 6 { "scales of " } else { name };
            gpu.flip(Some(Flip { when: When::Sent, buffer, word, bits }));
            let error = load(weights).err().unwrap_or_else(|| panic!("{weights:?}: a flip in {name} was not found"));
            let message = error.to_string();
            assert!(matches!(error, Error::Device { .. }), "{error:?}");
            for expected in [name, &gpu.info().name, &gpu.info().driver, "not on", "load the model again"] {
                assert!(message.contains(expected), "{weights:?} {name}: {message}");
            }
        }
        gpu.flip(None);
        load(weights).unwrap().embed(["usable"]).unwrap();
    }
}

#[test]
fn doctor_names_what_is_off() {
    let gpu = Gpu::new(GpuOptions::default()).unwrap();
    let report = |when| {
        gpu.flip(Some(Flip { when, buffer: 5, word: 100, bits: 1 << 30 }));
        let checkpoint = Checkpoint::open(fixture(FOLDER)).unwrap();
        let report = doctor::examine(&gpu, checkpoint, &mut |_| {}).unwrap();
        assert!(!report.is_healthy() && report.findings.iter().all(|finding| finding.outcome.is_ok()), "{report}");
        let text = report.to_string();
        let binding = format!("bindings of {} bytes", gpu.limits().max_storage_buffer_binding_size);
        for expected in [gpu.info().name.as_str(), &gpu.info().driver, std::env::consts::ARCH, &binding, "not healthy"] {
            assert!(text.contains(expected), "{text}");
        }
        (report.whole, text)
    };
    let (whole, text) = report(When::Sent);
    assert!(whole.is_err() && text.contains("whole model: WRONG: the weights `encoder.layer.0.attention.self.query.weight`"), "{text}");
    // What went wrong before, no comparison with what was sent shows, but one with what is in the file does.
    let (whole, text) = report(When::Read);
    assert!(whole.unwrap().largest_difference > 0.1, "{text}");
    assert!(text.contains("whole model beside f64: WRONG, cosine ") && text.contains("largest difference "), "{text}");
}

/// Where a tensor of f32 lies in a file.
fn place_of(suffix: &str, file: &[u8]) -> Range<usize> {
    let tensors = safetensors::SafeTensors::deserialize(file).unwrap();
    let (_, tensor) = tensors.iter().find(|(name, _)| name.ends_with(suffix)).unwrap();
    assert_eq!(tensor.dtype(), safetensors::Dtype::F32);
    let begin = tensor.data().as_ptr() as usize - file.as_ptr() as usize;
    begin..begin + tensor.data().len()
}

/// A copy of a model whose last layer norm multiplies with numbers that f32 ends at.
fn with_huge_weights() -> tempfile::TempDir {
    let folder = copy(&fixture(FOLDER), &["config.json", "model.safetensors", "tokenizer.json"]);
    let path = folder.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let range = place_of("layer.2.output.LayerNorm.weight", &bytes);
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

/// On a software adapter the device's memory is the process's, which the system can limit: this test runs itself in such a process.
#[cfg(target_os = "linux")]
#[test]
fn memory_that_runs_out_is_an_error_and_the_runtime_stays_usable() {
    const NAME: &str = "memory_that_runs_out_is_an_error_and_the_runtime_stays_usable";
    // Large enough to be a piece of memory of its own, of which the driver makes no larger block.
    const PIECE: usize = 256 << 20;
    const COLUMNS: usize = 64 * 96;
    if gpu().info().device_type != wgpu::DeviceType::Cpu {
        return println!("not tried on {}, whose memory others use too", gpu().info().name);
    }
    if std::env::var_os(NAME).is_none() {
        let mut limited = std::process::Command::new("timeout");
        limited.args(["300", "sh", "-c", "ulimit -v 4000000 && exec \"$@\"", "sh"]).arg(std::env::current_exe().unwrap());
        // To trace a panic takes memory too.
        let output = limited.args(["--exact", NAME, "--nocapture"]).env(NAME, "").env("RUST_BACKTRACE", "0").output().unwrap();
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
            own.device().create_buffer(&wgpu::BufferDescriptor { label: None, size: PIECE as u64, usage, mapped_at_creation: false });
        pollster::block_on(scope.pop()).is_none().then_some(buffer)
    };
    let mut taken: Vec<_> = std::iter::from_fn(piece).collect();
    assert!(taken.pop().is_some(), "what the driver needs for itself");

    let out_of_memory = |error: Option<Error>, what: &str| {
        let error = error.unwrap_or_else(|| panic!("there was room: {what}"));
        let message = error.to_string();
        assert!(matches!(error, Error::Memory { .. }), "{error:?}");
        assert!(message.contains(what) && message.contains("out of memory; use a smaller token budget or model, or close"), "{message}");
    };
    let allocated = || {
        own.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
        own.device().generate_allocator_report().unwrap().total_allocated_bytes
    };
    let before = allocated();
    // More than two pieces each.
    let (many, large) = (vec!["x"; 2 * PIECE / (COLUMNS * 4)], 40_000);
    for _ in 0..3 {
        out_of_memory(embedder.embed_to_buffer(&many).err(), "a buffer for the result");
        assert!(embedder.embed(&texts()).unwrap() == expected);
        out_of_memory(load(large).err(), "activations: buffer `");
        assert!(embedder.embed(&texts()).unwrap() == expected);
        assert_eq!(allocated(), before, "what a load took before it failed");
    }
    drop(taken);
    assert!(load(large).unwrap().embed(&texts()).unwrap() == expected);
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

    // In the middle of a call, with batches in flight.
    let many = vec!["some words of a text"; 600];
    let row = embedder.embed(&many[..1]).unwrap();
    let mut future = Box::pin(embedder.embed_async(&many));
    if future.as_mut().now_or_never().is_none() {
        embedder.model().gpu().device().destroy();
        assert!(pollster::block_on(future).unwrap().rows().all(|other| other == row.as_slice()));
        assert_eq!(embedder.model().stats().recoveries, 3);
    }
}

#[test]
fn a_lost_device_gets_the_same_model_again_or_none() {
    let folder = copy(&fixture(FOLDER), &["config.json", "model.safetensors", "tokenizer.json"]);
    let path = folder.path().join("model.safetensors");
    let embedder = Embedder::builder().gpu(Gpu::new(GpuOptions::default()).unwrap()).from_dir(folder.path()).unwrap();
    let expected = embedder.embed(&texts()).unwrap();
    let lose = || embedder.model().gpu().device().destroy();

    // Another number in the same file: the last bit of one weight.
    let right = std::fs::read(&path).unwrap();
    let mut wrong = right.clone();
    wrong[place_of("layer.1.intermediate.dense.weight", &right).start + 400] ^= 1;
    std::fs::write(&path, wrong).unwrap();
    lose();
    for _ in 0..2 {
        let error = embedder.embed(&texts()).err().unwrap();
        let message = error.to_string();
        assert!(matches!(error, Error::Checkpoint { .. }), "{error:?}");
        assert!(
            message.contains(folder.path().to_str().unwrap()) && message.contains("have changed since the model was loaded"),
            "{message}"
        );
    }
    std::fs::write(&path, &right[..right.len() / 2]).unwrap();
    let message = embedder.embed(&texts()).err().unwrap().to_string();
    assert!(message.contains("was cut since"), "{message}");
    std::fs::write(&path, right).unwrap();
    assert!(embedder.embed(&texts()).unwrap() == expected);

    // Another model in the place of this one: what is loaded is still this one.
    let other = fixture("tiny-minilm-bert-odd-h80");
    for name in ["config.json", "model.safetensors"] {
        std::fs::remove_file(folder.path().join(name)).unwrap();
        std::fs::copy(other.join(name), folder.path().join(name)).unwrap();
    }
    lose();
    assert!(embedder.embed(&texts()).unwrap() == expected);
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

/// What `work` gives, on a thread of its own; fails where it takes minutes, since a call that hangs would hang the test too.
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(std::time::Duration::from_secs(120)).expect("a call on a lost device hangs, or it panicked")
}

/// As for a device of the app's own: the batches that it holds never come back, and the call must not wait for them for ever.
#[test]
fn a_shared_device_that_is_lost_in_the_middle_of_a_call_is_an_error_and_never_a_hang() {
    let many = vec!["some words of a text"; 1000];
    let mut lost = [0; 2];
    for round in 0..4 {
        let own = Gpu::new(GpuOptions::default()).unwrap();
        let shared = Gpu::from_device(own.device().clone(), own.queue().clone());
        let embedder = Arc::new(Embedder::builder().gpu(shared).token_budget(256).from_dir(fixture(FOLDER)).unwrap());
        let row = embedder.embed(&many[..1]).unwrap();
        let begin = Instant::now();
        embedder.embed(&many).unwrap();
        let whole = begin.elapsed();
        let mut ended = |how: usize, outcome: Result<Embeddings, Error>| match outcome {
            // It was faster.
            Ok(rows) => assert!(rows.rows().len() == many.len() && rows.rows().all(|other| other == row.as_slice())),
            Err(error) => {
                assert!(matches!(error, Error::DeviceLost { .. }) && error.to_string().contains("Gpu::from_device"), "{error:?}");
                lost[how] += 1;
            }
        };
        let (device, texts, model) = (own.device().clone(), many.clone(), embedder.clone());
        if round % 2 == 0 {
            ended(
                0,
                in_time(move || {
                    let mut future = Box::pin(model.embed_async(&texts));
                    let first = future.as_mut().now_or_never();
                    device.destroy();
                    first.unwrap_or_else(|| pollster::block_on(future))
                }),
            );
        } else {
            ended(
                1,
                in_time(move || {
                    let calling = std::thread::spawn(move || model.embed(&texts));
                    std::thread::sleep(whole / 2);
                    device.destroy();
                    calling.join().unwrap()
                }),
            );
        }
        // Whoever asks again is told the same.
        let error = in_time(move || embedder.embed(["x"])).unwrap_err();
        assert!(matches!(error, Error::DeviceLost { .. }), "{error:?}");
    }
    assert!(lost.iter().all(|&lost| lost > 0), "every call was over before its device was lost: {lost:?}");
}

/// By the GPU's own clock, with a limit that this adapter would miss by far: it stands for one that is as much slower.
#[cfg(feature = "bench")]
#[test]
fn no_dispatch_takes_longer_than_the_limit_once_the_adapter_is_known() {
    let embedder = Embedder::builder().gpu(gpu()).from_dir(fixture(FOLDER)).unwrap();
    let model = embedder.model();
    if !gpu().can_profile() {
        return println!("not tried on {}, which has no timestamps", gpu().info().name);
    }
    let ids: Vec<u32> = (5..5 + model.max_length() as u32).collect();
    let texts = vec![minilm::Sequence { ids: &ids, ..Default::default() }; model.token_budget() / ids.len()];
    let longest = || {
        embedder.embed_tokens(&texts).unwrap(); // as a warm-up
        let timed = model.profile(&texts, 5).unwrap();
        timed.into_iter().map(|step| (step.seconds, step.kernel)).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
    };
    model.set_longest_dispatch(f64::INFINITY);
    longest(); // The first batches are small, whatever the limit.
    let (unlimited, _) = longest();
    assert_eq!(model.stats().last.batches, 1);
    let limit = unlimited / 16.0;
    model.set_longest_dispatch(limit);
    // What else the machine does makes some longer.
    let (seconds, kernel) = (0..5).map(|_| longest()).min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    println!("{kernel}: {seconds:.6} s, limit {limit:.6} s, {} batches", model.stats().last.batches);
    // How much of a batch's time its longest dispatch takes is known by its share of the work alone, and some kernels do more in a second.
    assert!(seconds < 2.0 * limit, "{kernel} took {seconds} s, with a limit of {limit}");
    // Not by batches of a few tokens, of which a submit would take most of the time.
    assert!(model.stats().last.batches < 100, "{:?}", model.stats().last);
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
