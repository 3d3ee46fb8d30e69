//! Self-attention within each text of a packed batch, softmax in one pass over the keys.

use super::check::{Check, noise, padded_words, places, texts, wide, words};
use super::{Sharing, Tile, Variant, lib, padded, unroll};
use crate::batch::TILE;
use crate::checkpoint::weights::RELATIVE_RANGE;
use crate::error::Result;
use crate::gpu::{Amount, Cost, Count, Form, Gpu, Grid, Source, Step};
use crate::reference;

/// `context[tokens, heads, head_dim] = softmax(q * transpose(k) / sqrt(head_dim) + bias) * v`.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    pub heads: usize,
    pub head_dim: usize,
    /// Whether the distance of two tokens adds to their score.
    pub bias: bool,
}

/// What the kernel reads and writes; each head's values are [padded].
pub struct Buffers<'a> {
    /// The batch's uniform.
    pub batch: &'a wgpu::Buffer,
    /// `[texts + 1]`, see [`crate::batch::Offset`]
    pub offsets: &'a wgpu::Buffer,
    /// `[tokens, 3, heads, head_dim]`: queries, keys, values
    pub qkv: &'a wgpu::Buffer,
    /// `[heads, 2 * RELATIVE_RANGE + 1]` by distance, just where [`Attention::bias`] says so; see [`RELATIVE_RANGE`]
    pub bias: Option<&'a wgpu::Buffer>,
    /// `[tokens, heads, head_dim]`
    pub context: &'a wgpu::Buffer,
}

/// Keys that are taken at a time between two looks at the running maximum, where each lane loads all of them.
const KEYS: u32 = 4;

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

impl Attention {
    pub fn source(&self, variant: Variant) -> Source {
        let head_dim4 = (padded(self.head_dim) / 4) as u32;
        let (more, body) = match variant.sharing {
            Sharing::Workgroup => staged(head_dim4, variant.tile),
            // Each lane loads one key and hands it to the others.
            Sharing::Subgroup(lanes) => unstaged(head_dim4, lanes, true),
            _ => unstaged(head_dim4, KEYS, false),
        };
        let sizes = [&[("TILE", TILE), ("HEAD_DIM4", head_dim4), ("BIAS_RANGE", RELATIVE_RANGE as u32)], &more[..]].concat();
        let scale = 1.0 / (self.head_dim as f64).sqrt();
        let constants = vec![("HEADS", self.heads as f64), ("SCALE", scale), ("BIAS", self.bias as u8 as f64)];
        Source::compose("attention", &sizes, &[lib::BATCH, lib::ATTENTION, &body], constants)
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
            _ => (1, variant.sharing.to_string()),
        };
        let grid = Grid { x: Count::Tiles, y: Count::Fixed(self.heads as u32 * parts), rows: 1 };
        Ok(Form { variant: name, pipeline: gpu.pipeline(self.source(variant))?, grid })
    }

    /// Texts of more than a tile, of just one, which is also a block of keys, of a token alone, and last one of less that ends where a
    /// lane's queries do: the next lane would write beyond the end.
    pub fn check(&self) -> Check {
        self.check_of(&[TILE as usize + 5, TILE as usize, 1, 12])
    }

    /// Texts of these lengths.
    pub fn check_of(&self, lengths: &[usize]) -> Check {
        let Self { heads, head_dim, bias } = *self;
        let batch = texts(lengths, 10, 1);
        let qkv = noise(1, batch.ids.len() * 3 * heads * head_dim);
        let by_distance = noise(2, heads * (2 * RELATIVE_RANGE + 1));
        let expected = reference::attention(&wide(&qkv), lengths, heads, head_dim, bias.then(|| wide(&by_distance)).as_deref());
        let inputs = vec![
            ("batch", bytemuck::cast_slice(&[batch.header]).to_vec()),
            ("offsets", bytemuck::cast_slice(&batch.offsets).to_vec()),
            ("qkv", padded_words(&qkv, head_dim)),
            ("bias", words(&by_distance)),
        ];
        let written = batch.ids.len() * heads * padded(head_dim);
        Check { batch: batch.header, inputs, output: "context", written, expected: places(&expected, head_dim), bound: (2e-5, 1e-5) }
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
        Ok(step.checked_by(move || kernel.check()).or(self.form(gpu, Variant::default())?))
    }
}
