//! Mistakes planted in kernels, bits flipped in weights, and numbers that are none: each is found.

use minilm::gpu::{Fault, Flip, GpuOptions, When};
use minilm::kernels::attention::Attention;
use minilm::kernels::matmul::Matmul;
use minilm::kernels::{Arithmetic, Operands, Sharing, Variant};
use minilm::tuning::{Choice, Kernel, Table};
use minilm::{Checkpoint, Embedder, Error, FillMask, Gpu, Pooling, Tuning, WeightFormat, doctor, wgpu};

use super::common::files::copy;
use super::common::fixture;
use super::common::gpu::gpu;
use super::{FOLDER, MASKED, place_of, texts};

fn fault(kernel: &'static str, right: &'static str, wrong: &'static str) -> Fault {
    Fault { kernel, only_with: "", right, wrong }
}

/// A device of its own, whose shaders have a mistake.
fn faulty(fault: Fault) -> Gpu {
    let gpu = Gpu::new(GpuOptions::default()).unwrap();
    gpu.plant(fault);
    gpu
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
