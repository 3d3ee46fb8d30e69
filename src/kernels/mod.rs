//! One file for each kernel: its shapes, its constants, its number of workgroups, and the step that runs it. `shaders/` has the WGSL
//! of the same name, [`crate::reference`] the plain loops that it is held to.
//!
//! Rows of activations and weights are padded with zeros to multiples of 4 values ([`padded`]), so that no kernel has an edge in its
//! inner loop; what is padded stays zero through every kernel.

pub mod attention;
pub mod embedding;
pub mod gather;
pub mod layer_norm;
pub mod matmul;
pub mod normalize;
pub mod pooling;
pub mod top_k;
pub mod vocabulary;

use crate::checkpoint::{Activation, Pooling};
use crate::gpu::{Count, Gpu, Source};

/// `size` rounded up to whole `vec4`s.
pub fn padded(size: usize) -> usize {
    size.next_multiple_of(4)
}

/// How kernels are made for an adapter. The baseline needs nothing beyond WebGPU's default limits and always works; each other form
/// is chosen where it was measured to be faster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Variant {
    /// Lanes of a subgroup that is a whole workgroup and shares what its lanes load.
    pub subgroup: Option<u32>,
}

impl Variant {
    /// The forms that this device can run, the baseline first.
    pub fn offered(gpu: &Gpu) -> Vec<Self> {
        let info = gpu.info();
        let known_size = info.subgroup_min_size == info.subgroup_max_size && info.subgroup_max_size.is_power_of_two();
        let subgroups = gpu.device().features().contains(wgpu::Features::SUBGROUP) && known_size && info.subgroup_max_size <= 16;
        let mut offered = vec![Self::default()];
        offered.extend(subgroups.then_some(Self { subgroup: Some(info.subgroup_max_size) }));
        offered
    }

    /// The form to run. Sharing by subgroups is three times as fast on lavapipe, where each lane's load is a gather of its own; on real
    /// GPUs it has not been measured.
    pub fn choose(gpu: &Gpu) -> Self {
        let software = gpu.info().device_type == wgpu::DeviceType::Cpu;
        Self::offered(gpu).into_iter().rfind(|variant| variant.subgroup.is_none() || software).unwrap_or_default()
    }
}

/// The number of an activation in `shaders/lib/activation.wgsl`.
fn activation_code(activation: Option<Activation>) -> f64 {
    match activation {
        None => 0.0,
        Some(Activation::Gelu) => 1.0,
        Some(Activation::GeluTanh) => 2.0,
        Some(Activation::Relu) => 3.0,
        Some(Activation::Tanh) => 4.0,
    }
}

/// The number of what rows are in `shaders/lib/row_count.wgsl`.
fn rows_code(rows: Count) -> f64 {
    match rows {
        Count::Texts => 1.0,
        Count::Selected => 2.0,
        _ => 0.0,
    }
}

/// Lanes of the kernels that reduce over a row.
const REDUCE_LANES: usize = 64;

/// Shared pieces of WGSL.
mod lib {
    pub const ACTIVATION: &str = include_str!("../../shaders/lib/activation.wgsl");
    pub const BATCH: &str = include_str!("../../shaders/lib/batch.wgsl");
    pub const LAYER_NORM: &str = include_str!("../../shaders/lib/layer_norm.wgsl");
    pub const REDUCE: &str = include_str!("../../shaders/lib/reduce.wgsl");
    pub const ROW_COUNT: &str = include_str!("../../shaders/lib/row_count.wgsl");
}

/// Writes out the loops of a shader that are marked so: the lines between `#for i in SIZE` and its `#end` appear SIZE times, with `{i}` as
/// a number. SIZE is a name of `sizes` or a number.
fn unroll(wgsl: &str, sizes: &[(&str, u32)]) -> String {
    fn expand(lines: &mut std::str::Lines, sizes: &[(&str, u32)], out: &mut String) {
        while let Some(line) = lines.next() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["#end"] => return,
                ["#for", variable, "in", size] => {
                    let count = sizes.iter().find(|(name, _)| *name == size).map_or_else(|| size.parse().unwrap_or(0), |(_, count)| *count);
                    let mut body = String::new();
                    expand(lines, sizes, &mut body);
                    let place = format!("{{{variable}}}");
                    (0..count).for_each(|i| *out += &body.replace(&place, &i.to_string()));
                }
                _ => *out = format!("{out}{line}\n"),
            }
        }
    }
    let mut out = String::new();
    expand(&mut wgsl.lines(), sizes, &mut out);
    out
}

/// Every kernel in every form that a model can ask for, at small sizes: what the tests translate to each platform's language.
pub fn all_sources() -> Vec<Source> {
    let activations = [None, Some(Activation::Gelu), Some(Activation::GeluTanh), Some(Activation::Relu), Some(Activation::Tanh)];
    let mut sources = vec![
        embedding::Embedding { hidden: 30, epsilon: 1e-12 }.source(),
        layer_norm::LayerNorm { hidden: 30, epsilon: 1e-5, rows: Count::Texts }.source(),
        normalize::Normalize { columns: 30, stride: 32, rows: Count::Texts }.source(),
        gather::Gather { width: 30 }.source(),
        vocabulary::Vocabulary { width: 30, vocabulary: 50 }.source(),
        top_k::TopK { vocabulary: 50, top: 5 }.source(),
    ];
    for activation in activations {
        for residual in [false, true] {
            let kernel = matmul::Matmul { inner: 32, outer: 48, activation, residual, rows: Count::Selected };
            sources.extend([None, Some(4), Some(8), Some(16)].map(|subgroup| kernel.source(Variant { subgroup })));
        }
    }
    for head_dim in [8, 10, 32, 64, 128] {
        for bias in [false, true] {
            let kernel = attention::Attention { heads: 3, head_dim, bias };
            sources.extend([None, Some(4), Some(8), Some(16)].map(|subgroup| kernel.source(Variant { subgroup })));
        }
    }
    sources.extend(Pooling::ALL.map(|pooling| pooling::PooledRows { hidden: 30, pooling, column: 30, columns: 60 }.source()));
    sources
}
