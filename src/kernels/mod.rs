//! One file for each kernel: its shapes, its constants, its number of workgroups, and the step that runs it. `shaders/` has the WGSL
//! of the same name, [`crate::reference`] the plain loops that it is held to.
//!
//! Rows of activations and weights are padded with zeros to multiples of 4 values ([`padded`]), so that no kernel has an edge in its
//! inner loop; what is padded stays zero through every kernel.

pub mod attention;
mod check;
pub mod digest;
pub mod embedding;
pub mod gather;
pub mod layer_norm;
pub mod matmul;
pub mod normalize;
pub mod pooling;
pub mod quantize;
pub mod top_k;
mod variant;
pub mod vocabulary;
mod weights;

use std::collections::HashSet;

use crate::checkpoint::{Activation, Pooling};
use crate::gpu::{Count, Source};

pub use variant::{Sharing, Tile, Variant};
pub use weights::{Arithmetic, Operands, WeightFormat};

/// `size` rounded up to whole `vec4`s.
pub fn padded(size: usize) -> usize {
    size.next_multiple_of(4)
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

/// Lanes of the kernels that reduce over a row, unless a subgroup does it.
const REDUCE_LANES: usize = 64;

/// What layer norm over rows of `hidden` is made of: lanes of a workgroup, and the pieces of WGSL.
fn reduction(variant: Variant, hidden: usize) -> (usize, [String; 2]) {
    let (lanes, reduce) = match variant.sharing {
        Sharing::Subgroup(size) => (size as usize, lib::REDUCE_SUBGROUP),
        _ => (REDUCE_LANES, lib::REDUCE),
    };
    let per_lane = (padded(hidden) / 4).div_ceil(lanes) as u32;
    (lanes, [reduce.to_owned(), unroll(lib::LAYER_NORM, &[("PER_LANE", per_lane)])])
}

/// Shared pieces of WGSL.
mod lib {
    pub const ACTIVATION: &str = include_str!("../../shaders/lib/activation.wgsl");
    pub const ATTENTION: &str = include_str!("../../shaders/lib/attention.wgsl");
    /// What a shader on matrix units begins with.
    pub const COOPERATIVE: &str = "enable f16;\nenable wgpu_cooperative_matrix;\n";
    pub const BATCH: &str = include_str!("../../shaders/lib/batch.wgsl");
    pub const HELD_F16: &str = include_str!("../../shaders/lib/held_f16.wgsl");
    pub const HELD_F32: &str = include_str!("../../shaders/lib/held_f32.wgsl");
    pub const LAYER_NORM: &str = include_str!("../../shaders/lib/layer_norm.wgsl");
    pub const MATMUL: &str = include_str!("../../shaders/lib/matmul.wgsl");
    pub const OPERANDS: &str = include_str!("../../shaders/lib/operands.wgsl");
    pub const REDUCE: &str = include_str!("../../shaders/lib/reduce.wgsl");
    pub const REDUCE_SUBGROUP: &str = include_str!("../../shaders/lib/reduce_subgroup.wgsl");
    pub const ROW_COUNT: &str = include_str!("../../shaders/lib/row_count.wgsl");
}

/// Writes out the loops of a shader that are marked so: the lines between `#for i in SIZE` and its `#end` appear SIZE times, with `{i}` as
/// a number. SIZE is a name of `sizes` or a number.
pub(crate) fn unroll(wgsl: &str, sizes: &[(&str, u32)]) -> String {
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
        normalize::Normalize { columns: 30, stride: 32, rows: Count::Texts }.source(),
        gather::Gather { width: 30 }.source(),
        top_k::TopK { vocabulary: 50, top: 5 }.source(),
        quantize::Quantize { inner: 30, rows: Count::Tokens }.source(),
        digest::BlockDigests { words: 50 }.source(),
    ];
    sources.extend(Pooling::ALL.map(|pooling| pooling::PooledRows { hidden: 30, pooling, column: 30, columns: 60 }.source()));
    sources.extend(WeightFormat::ALL.map(|weights| vocabulary::Vocabulary { width: 30, vocabulary: 50, weights }.source()));
    for subgroup in [None, Some(4), Some(8), Some(16), Some(32), Some(64)] {
        for variant in Variant::reductions(subgroup) {
            sources.push(layer_norm::LayerNorm { hidden: 30, epsilon: 1e-5, rows: Count::Texts }.source(variant));
            sources.extend(WeightFormat::ALL.map(|weights| embedding::Embedding { hidden: 30, epsilon: 1e-12, weights }.source(variant)));
        }
        for operands in Operands::ALL {
            let kernel =
                |activation, residual| matmul::Matmul { inner: 32, outer: 48, operands, activation, residual, rows: Count::Selected };
            let mut variants = kernel(None, false).without_matrix_units(subgroup);
            if let (Arithmetic::F16, Some(subgroup)) = (operands.arithmetic, subgroup) {
                variants.extend([8, 16].into_iter().flat_map(|size| Variant::cooperative(size, subgroup)));
            }
            for variant in variants {
                // What follows a sum is the same in every form.
                let activations = if variant == Variant::default() { &activations[..] } else { &activations[1..2] };
                sources.extend(activations.iter().flat_map(|a| [(*a, false), (*a, true)]).map(|(a, r)| kernel(a, r).source(variant)));
            }
        }
        for (head_dim, bias) in [1, 8, 10, 32, 64, 128].into_iter().flat_map(|head_dim| [(head_dim, false), (head_dim, true)]) {
            let kernel = |half| attention::Attention { heads: 3, head_dim, bias, half };
            sources.extend(Variant::attentions(subgroup).into_iter().map(|variant| kernel(false).source(variant)));
            let units = subgroup.into_iter().flat_map(|lanes| [8, 16].map(|size| Variant::cooperative_attentions(size, lanes)));
            let forms = Variant::attentions(None).into_iter().chain(units.flatten());
            sources.extend(forms.filter(|variant| kernel(true).rounds(*variant)).map(|variant| kernel(true).source(variant)));
        }
    }
    // Forms without subgroups are the same for every size of them.
    let mut seen = HashSet::new();
    sources.retain(|source| seen.insert(format!("{:?} {}", source.constants, source.wgsl)));
    sources
}
