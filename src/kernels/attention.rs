//! Self-attention within each text of a packed batch, softmax in one pass over the keys, or two on matrix units.

use half::f16;

use super::check::{Check, noise, padded_words, places, texts, wide, words};
use super::{Arithmetic, Operands, Sharing, Tile, Variant, lib, padded, unroll};
use crate::batch::TILE;
use crate::checkpoint::weights::RELATIVE_RANGE;
use crate::error::Result;
use crate::gpu::{Amount, Cost, Count, Form, Gpu, Grid, Slice, Source, Step};
use crate::reference;

/// `context[tokens, heads, head_dim] = softmax(q * transpose(k) / sqrt(head_dim) + bias) * v`.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    pub heads: usize,
    pub head_dim: usize,
    /// Whether the distance of two tokens adds to their score.
    pub bias: bool,
    /// Whether queries, keys, values and the softmax's weights may be rounded to f16 before they are multiplied. Forms through workgroup memory then
    /// take half of it, and matrix units may multiply. Sums are f32.
    pub half: bool,
}

/// What the kernel reads and writes; each head's values are [padded].
pub struct Buffers<'a> {
    /// The batch's uniform.
    pub batch: &'a Slice,
    /// `[texts + 1]`, see [`crate::batch::Offset`]
    pub offsets: &'a Slice,
    /// `[tokens, 3, heads, head_dim]`: queries, keys, values
    pub qkv: &'a Slice,
    /// `[heads, 2 * RELATIVE_RANGE + 1]` by distance, just where [`Attention::bias`] says so; see [`RELATIVE_RANGE`]
    pub bias: Option<&'a Slice>,
    /// `[tokens, heads, head_dim]`
    pub context: &'a Slice,
}

/// Keys that are taken at a time between two looks at the running maximum, where each lane loads all of them.
const KEYS: u32 = 4;

/// Fragments of a row of the context that a subgroup holds on matrix units: half of the registers for squares of 16.
const MOST_SLICES: u32 = 8;

/// A kernel's sizes and its WGSL.
type Body = (Vec<(&'static str, u32)>, String);

/// Each lane keeps its query and its sums in registers; keys are loaded by each lane, or by one that hands them to the others.
fn unstaged(head_dim4: u32, keys: u32, shared: bool) -> Body {
    let loads = if shared { 1 } else { keys };
    let sizes = [("KEYS", keys), ("LOADS", loads), ("HEAD_DIM4", head_dim4)];
    let mut body = unroll(include_str!("../../shaders/attention.wgsl"), &sizes);
    let lane_in_subgroup = if shared { ", @builtin(subgroup_invocation_id) lane_in_subgroup: u32" } else { "" };
    body = body.replace("LANE_IN_SUBGROUP", lane_in_subgroup);
    for load in 0..loads {
        let key = if shared { "lane_in_subgroup".to_owned() } else { format!("{load}u") };
        body = body.replace(&format!("KEY_OF_LOAD_{load},"), &format!("{key},"));
    }
    for (key, d) in (0..keys).flat_map(|key| (0..head_dim4).map(move |d| (key, d))) {
        for (name, loaded, end) in [("KEY", "key", ")"), ("VALUE", "value", ",")] {
            // A broadcast names its lane by a constant.
            let value = if shared { format!("subgroupBroadcast({loaded}_0_{d}, {key}u)") } else { format!("{loaded}_{key}_{d}") };
            body = body.replace(&format!("{name}_{key}_{d}{end}"), &format!("{value}{end}"));
        }
    }
    (vec![("KEYS", keys)], body)
}

/// As two matrix products through workgroup memory, of which it takes at most 10 KB.
fn staged(head_dim4: u32, Tile { rows, lanes, row_groups, .. }: Tile) -> Body {
    let unrolled = [("ROWS", rows), ("SLICES", head_dim4.div_ceil(lanes))];
    let sizes = [&unrolled[..], &[("LANES", lanes), ("ROW_GROUPS", row_groups)]].concat();
    (sizes, unroll(include_str!("../../shaders/attention_staged.wgsl"), &unrolled))
}

/// As two matrix products on matrix units.
fn cooperative(slices: u32, size: u32, subgroup: u32, Tile { columns4: columns, row_groups, .. }: Tile) -> Body {
    let unrolled = [("SLICES", slices), ("LANE_ROWS", size.div_ceil(subgroup))];
    let sizes = [&unrolled[..], &[("COLUMNS", columns), ("SIZE", size), ("SUBGROUP", subgroup), ("ROW_GROUPS", row_groups)]].concat();
    let body = unroll(include_str!("../../shaders/attention_cooperative.wgsl"), &unrolled);
    (sizes, body.replace("SIZExSIZE", &format!("{size}x{size}")))
}

impl Attention {
    pub fn source(&self, variant: Variant) -> Source {
        let head_dim4 = (padded(self.head_dim) / 4) as u32;
        let (more, body) = match variant.sharing {
            Sharing::Workgroup => staged(head_dim4, variant.tile),
            Sharing::Cooperative { size, subgroup } => cooperative(self.slices(size), size, subgroup, variant.tile),
            // Each lane loads one key and hands it to the others.
            Sharing::Subgroup(lanes) => unstaged(head_dim4, lanes, true),
            _ => unstaged(head_dim4, KEYS, false),
        };
        let sizes = [&[("TILE", TILE), ("HEAD_DIM4", head_dim4), ("BIAS_RANGE", RELATIVE_RANGE as u32)], &more[..]].concat();
        let scale = 1.0 / (self.head_dim as f64).sqrt();
        let constants = vec![("HEADS", self.heads as f64), ("SCALE", scale), ("BIAS", self.bias as u8 as f64)];
        let (enabled, held) = match (variant.sharing, self.rounds(variant)) {
            (Sharing::Cooperative { .. }, _) => (lib::COOPERATIVE, lib::HELD_F16),
            (_, true) => ("enable f16;\n", lib::HELD_F16),
            (Sharing::Workgroup, false) => ("", lib::HELD_F32),
            _ => ("", ""),
        };
        let mut source = Source::compose("attention", &sizes, &[lib::BATCH, lib::ATTENTION, held, &body], constants);
        source.wgsl.insert_str(0, enabled);
        source
    }

    /// Whether this form is one that rounds to f16.
    pub fn rounds(&self, variant: Variant) -> bool {
        self.half && matches!(variant.sharing, Sharing::Workgroup | Sharing::Cooperative { .. })
    }

    /// What its choice of a form is kept under.
    pub(crate) fn operands(&self) -> Operands {
        let arithmetic = if self.half { Arithmetic::F16 } else { Arithmetic::F32 };
        Operands { arithmetic, ..Operands::default() }
    }

    /// The forms that an adapter can have, the safest first.
    pub fn variants(&self, gpu: &Gpu) -> Vec<Variant> {
        self.variants_with(gpu, Variant::subgroup(gpu))
    }

    /// As [`Attention::variants`], with subgroups of this size.
    pub(crate) fn variants_with(&self, gpu: &Gpu, subgroup: Option<u32>) -> Vec<Variant> {
        let mut variants = Variant::attentions(subgroup);
        if let (true, Some((size, subgroup))) = (self.half, gpu.matrix_units()) {
            let limits = gpu.limits();
            let fits = |variant: &Variant| {
                self.slices(size) <= MOST_SLICES
                    && self.workgroup_bytes(*variant) <= limits.max_compute_workgroup_storage_size
                    && variant.tile.row_groups * subgroup <= limits.max_compute_invocations_per_workgroup
            };
            variants.extend(Variant::cooperative_attentions(size, subgroup).into_iter().filter(fits));
        }
        variants
    }

    /// Fragments that a head takes on matrix units of this size.
    fn slices(&self, size: u32) -> u32 {
        (self.head_dim as u32).div_ceil(size)
    }

    /// Bytes of workgroup memory that a form on matrix units takes, as `attention_cooperative.wgsl` lays it out.
    fn workgroup_bytes(&self, Variant { sharing, tile }: Variant) -> u32 {
        let Sharing::Cooperative { size, subgroup } = sharing else { return 0 };
        let (queries, keys, depth) = (tile.row_groups * size, tile.columns4 * size, self.slices(size) * size);
        2 * ((queries + keys) * (depth + 8) + queries * (keys + 8)) + 4 * queries * (keys + 4 + (subgroup / size).max(1))
    }

    fn cost(&self) -> Cost {
        let width = self.heads * self.head_dim;
        // Both products; the exponential of each score is one more.
        let operations = Amount { per_pair: 4 * width + self.heads, ..Amount::default() };
        Cost { rows: Count::Tokens, operations, bytes: Amount { per_row: 16 * width, ..Amount::default() } }
    }

    pub fn form(&self, gpu: &Gpu, variant: Variant) -> Result<Form> {
        let (parts, name) = match variant.sharing {
            Sharing::Workgroup => (TILE / (variant.tile.rows * variant.tile.row_groups), variant.to_string()),
            Sharing::Cooperative { size, .. } => (TILE / (size * variant.tile.row_groups), variant.to_string()),
            _ => (1, variant.sharing.to_string()),
        };
        let grid = Grid { x: Count::Tiles, y: Count::Fixed(self.heads as u32 * parts), rows: 1 };
        Ok(Form { variant: name, pipeline: gpu.pipeline(self.source(variant))?, grid })
    }

    /// Texts of more than a tile, and than a block of keys on matrix units, where they may run; of just one, which is also a block of keys in
    /// workgroup memory; of a token alone; and last one of less that ends where a lane's queries do: the next lane would write beyond the end.
    pub fn check(&self) -> Check {
        let tile = TILE as usize;
        self.check_of(&[if self.half { 2 * tile } else { tile } + 5, tile, 1, 12])
    }

    /// Texts of these lengths.
    pub fn check_of(&self, lengths: &[usize]) -> Check {
        let Self { heads, head_dim, bias, half } = *self;
        let batch = texts(lengths, 10, 1);
        let mut qkv = noise(1, batch.ids.len() * 3 * heads * head_dim);
        // What is rounded then is a weight, which is at most 1, to one in 2048, or in 1024 where a driver cuts off.
        let bound = if half { (1e-3, 1e-5) } else { (2e-5, 1e-5) };
        if half {
            qkv.iter_mut().for_each(|value| *value = f16::from_f32(*value).to_f32());
        }
        let by_distance = noise(2, heads * (2 * RELATIVE_RANGE + 1));
        let expected = reference::attention(&wide(&qkv), lengths, heads, head_dim, bias.then(|| wide(&by_distance)).as_deref());
        let inputs = vec![
            ("batch", bytemuck::cast_slice(&[batch.header]).to_vec()),
            ("offsets", bytemuck::cast_slice(&batch.offsets).to_vec()),
            ("qkv", padded_words(&qkv, head_dim)),
            ("bias", words(&by_distance)),
        ];
        let written = batch.ids.len() * heads * padded(head_dim);
        Check { batch: batch.header, inputs, output: "context", written, expected: places(&expected, head_dim), bound }
    }

    pub fn step(&self, gpu: &Gpu, variant: Variant, buffers: &Buffers) -> Result<Step> {
        let buffers = [
            ("batch", buffers.batch),
            ("offsets", buffers.offsets),
            ("qkv", buffers.qkv),
            // A binding cannot be left empty; without a bias nothing reads it.
            ("bias", buffers.bias.unwrap_or(buffers.qkv)),
            ("context", buffers.context),
        ];
        let kernel = *self;
        let step = Step::new(gpu, Count::Tokens, vec![(u32::MAX, self.form(gpu, variant)?)], &buffers, self.cost())?;
        Ok(step.checked_by(move |_| kernel.check()).or(self.form(gpu, Variant::default())?))
    }
}
