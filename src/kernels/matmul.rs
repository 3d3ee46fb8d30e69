//! Matrix product with bias, activation and residual in its epilogue.

use half::f16;

use super::check::{Check, noise, rows, samples, wide, words};
use super::quantize::quantized;
use super::{Arithmetic, Operands, Sharing, Tile, Variant, WeightFormat, activation_code, lib, padded, rows_code, unroll};
use crate::checkpoint::Activation;
use crate::error::Result;
use crate::gpu::{Amount, Cost, Count, Form, Gpu, Grid, Slice, Source, Step};
use crate::reference::activate;

/// `y[rows, outer] = activation(x[rows, inner] * weight[inner, outer] + bias[outer]) + residual[rows, outer]`.
#[derive(Clone, Copy, Debug)]
pub struct Matmul {
    pub inner: usize,
    pub outer: usize,
    /// How numbers of the weight are stored, and what they are multiplied with. Sums are f32.
    pub operands: Operands,
    pub activation: Option<Activation>,
    pub residual: bool,
    /// What the rows are: tokens, texts or selected tokens.
    pub rows: Count,
}

/// What the kernel reads and writes; rows, and the rows' number of `weight`, are [padded].
pub struct Buffers<'a> {
    /// The batch's uniform.
    pub batch: &'a Slice,
    /// `[rows, inner]`; for [`Arithmetic::Int8`] what [`Quantize`](super::quantize::Quantize) makes of that
    pub x: &'a Slice,
    /// `[inner, outer]`: torch's `[outer, inner]` transposed, in the format that the kernel is made for, see [`WeightFormat::pack_rows`]
    pub weight: &'a Slice,
    /// `[inner / GROUP, outer]`, rounded up, just where [`WeightFormat::is_scaled`]: each number of the weight counts times the scale of its
    /// [`GROUP`](WeightFormat::GROUP)
    pub scale: Option<&'a Slice>,
    /// `[outer]`
    pub bias: &'a Slice,
    /// `[rows, outer]`, just where [`Matmul::residual`] says so
    pub residual: Option<&'a Slice>,
    /// `[rows, outer]`
    pub y: &'a Slice,
}

/// Vectors of four that blocks in workgroup memory may have: 16 KB, what every adapter has.
const STAGED: u32 = 1024;

/// How deep a block in workgroup memory is, in fours, and how far its rows of x are apart. It is as deep as there is room for, up to 64 numbers, so
/// that many loads are under way at once. Rows are one further apart than is used, in different banks, unless two blocks just fit without.
fn staged_block(tile: Tile) -> (u32, u32) {
    let stride = |depth4: u32| depth4 + u32::from(!tile.ahead);
    let vectors = |depth4: u32| tile.rows * tile.row_groups * stride(depth4) + 4 * depth4 * tile.columns4 * tile.lanes;
    let depth4 = [16, 8].into_iter().find(|depth4| tile.blocks() * vectors(*depth4) <= STAGED).unwrap_or(4);
    (depth4, stride(depth4))
}

/// How deep such a block is for matrix units, in their squares.
const COOPERATIVE_DEPTH: u32 = 2;

/// Most rows of which a check looks at all: one more than the largest tile has, of squares of 16.
const CHECKED_ROWS: usize = 129;

impl Matmul {
    pub fn source(&self, variant: Variant) -> Source {
        let Variant { sharing, tile } = variant;
        let Tile { rows, columns4, lanes, row_groups, ahead } = tile;
        let mut sizes = vec![
            ("ROWS", rows),
            ("COLUMNS4", columns4),
            ("LANES", lanes),
            ("ROW_GROUPS", row_groups),
            ("GROUP", WeightFormat::GROUP as u32),
            ("AHEAD", u32::from(ahead)),
            ("NOW", u32::from(!ahead)),
            ("BLOCKS", tile.blocks()),
        ];
        // Each lane loads all rows of the tile, or, where the workgroup is one subgroup, some that it hands to the others.
        // That has one group of rows, and must not seem to part ways by lanes.
        let (loads, stride, own_row, row_group) = match sharing {
            Sharing::Subgroup(size) => (rows.div_ceil(size), size, "lane.x", "0u"),
            _ if row_groups == 1 => (rows, 1, "0u", "0u"),
            _ => (rows, 1, "0u", "lane.y"),
        };
        let (body, more) = match (sharing, self.operands.arithmetic) {
            (Sharing::Workgroup, _) => {
                let (depth4, stride) = staged_block(tile);
                let block = [("DEPTH4", depth4), ("ROW_STRIDE", stride)];
                // Every lane has as many.
                let loads = [("X_LOADS", rows * depth4 / lanes), ("WEIGHT_LOADS", 4 * depth4 * columns4 / row_groups)];
                (include_str!("../../shaders/matmul_staged.wgsl"), [block, loads].concat())
            }
            (Sharing::Cooperative { size, subgroup }, _) => {
                let (depth4, all_lanes) = (COOPERATIVE_DEPTH * size / 4, lanes * row_groups * subgroup);
                let [x, weight] = [rows * row_groups, columns4 * lanes].map(|squares| (squares * size * depth4).div_ceil(all_lanes));
                let loads = [("X_LOADS", x), ("WEIGHT_LOADS", weight)];
                let units = [("SIZE", size), ("SUBGROUP", subgroup), ("DEPTH", COOPERATIVE_DEPTH)];
                (include_str!("../../shaders/matmul_cooperative.wgsl"), [&units[..], &loads].concat())
            }
            (_, Arithmetic::Int8) => (include_str!("../../shaders/matmul_int8.wgsl"), vec![("LOADS", loads), ("LOAD_STRIDE", stride)]),
            _ => (include_str!("../../shaders/matmul.wgsl"), vec![("LOADS", loads), ("LOAD_STRIDE", stride)]),
        };
        sizes.extend(more);
        let mut body = unroll(body, &sizes).replace("OWN_ROW", own_row).replace("ROW_GROUP_OF_LANE", row_group);
        for row in 0..rows {
            let value = match sharing {
                // A broadcast names its lane by a constant.
                Sharing::Subgroup(size) => format!("subgroupBroadcast(x_{}, {}u)", row / size, row % size),
                _ => format!("x_{row}"),
            };
            body = body.replace(&format!("ROW_{row};"), &format!("{value};"));
        }
        let mut pieces = vec![lib::BATCH, lib::ROW_COUNT, lib::ACTIVATION, lib::MATMUL];
        let mut constants = vec![
            ("INNER4", (padded(self.inner) / 4) as f64),
            ("OUTER4", (padded(self.outer) / 4) as f64),
            ("ACTIVATION", activation_code(self.activation)),
            ("RESIDUAL", self.residual as u8 as f64),
            ("ROWS_ARE", rows_code(self.rows)),
        ];
        match (sharing, self.operands.arithmetic) {
            (Sharing::Cooperative { size, .. }, _) => body = body.replace("SIZExSIZE", &format!("{size}x{size}")),
            (_, Arithmetic::Int8) => {}
            (_, arithmetic) => {
                pieces.extend([self.operands.weights.wgsl(), lib::OPERANDS]);
                constants.push(("HALF", (arithmetic == Arithmetic::F16) as u8 as f64));
            }
        }
        pieces.push(&body);
        let mut source = Source::compose("matmul", &sizes, &pieces, constants);
        if let Sharing::Cooperative { .. } = sharing {
            source.wgsl.insert_str(0, lib::COOPERATIVE);
        }
        source
    }

    /// The forms of this product that an adapter can have, the safest first.
    pub fn variants(&self, gpu: &Gpu) -> Vec<Variant> {
        self.variants_with(gpu, Variant::subgroup(gpu))
    }

    /// As [`Matmul::variants`], with subgroups of this size.
    pub(crate) fn variants_with(&self, gpu: &Gpu, subgroup: Option<u32>) -> Vec<Variant> {
        let mut variants = self.without_matrix_units(subgroup);
        if let (Arithmetic::F16, Some((size, subgroup))) = (self.operands.arithmetic, gpu.matrix_units()) {
            let limits = gpu.limits();
            let fits = |variant: &Variant| {
                self.workgroup_bytes(*variant) <= limits.max_compute_workgroup_storage_size
                    && variant.tile.lanes * variant.tile.row_groups * subgroup <= limits.max_compute_invocations_per_workgroup
            };
            variants.extend(Variant::cooperative(size, subgroup).into_iter().filter(fits));
        }
        variants
    }

    pub(super) fn without_matrix_units(&self, subgroup: Option<u32>) -> Vec<Variant> {
        let mut variants = Variant::matmuls(subgroup);
        // The largest tiles take seconds to compile where they are of use, on a processor, and there other arithmetic is not.
        variants.retain(|Variant { sharing, tile }| match self.operands.arithmetic {
            Arithmetic::F32 => true,
            Arithmetic::F16 => tile.vectors() <= 32,
            Arithmetic::Int8 => tile.vectors() <= 32 && *sharing != Sharing::Workgroup,
        });
        variants
    }

    pub(crate) fn cost(&self) -> Cost {
        let Self { inner, outer, residual, rows, operands: Operands { weights, .. }, .. } = *self;
        let operations = Amount { per_row: 2 * inner * outer, ..Amount::default() };
        let per_row = 4 * (inner + outer * (1 + usize::from(residual)));
        Cost { rows, operations, bytes: Amount { fixed: weights.bytes(inner * outer) + 4 * outer, per_row, per_pair: 0 } }
    }

    fn grid(&self, Variant { sharing, tile: Tile { rows, columns4, lanes, row_groups, .. } }: Variant) -> Grid {
        let (height, width4) = match sharing {
            Sharing::Cooperative { size, .. } => (size, size / 4),
            _ => (1, 1),
        };
        let columns4 = lanes * columns4 * width4;
        let x = Count::Fixed(((padded(self.outer) / 4) as u32).div_ceil(columns4));
        Grid { x, y: self.rows, rows: rows * row_groups * height }
    }

    /// Bytes of workgroup memory that a form on matrix units takes, as `matmul_cooperative.wgsl` lays it out.
    fn workgroup_bytes(&self, Variant { sharing, tile }: Variant) -> u32 {
        let Sharing::Cooperative { size, .. } = sharing else { return 0 };
        let Tile { rows, columns4, lanes, row_groups, .. } = tile;
        let depth = COOPERATIVE_DEPTH * size;
        let block = rows * row_groups * size * (depth + 8) + depth * (columns4 * lanes * size + 8);
        2 * tile.blocks() * block + 4 * lanes * row_groups * size * size
    }

    pub fn form(&self, gpu: &Gpu, variant: Variant) -> Result<Form> {
        Ok(Form { variant: variant.to_string(), pipeline: gpu.pipeline(self.source(variant))?, grid: self.grid(variant) })
    }

    /// Of a form's whole tile of rows, and of a tile that ends early.
    pub fn check_for(&self, grid: Grid) -> Check {
        self.check(grid.rows as usize + 1)
    }

    /// So many rows of numbers that look random; of the result some rows and columns are known.
    pub fn check(&self, count: usize) -> Check {
        let (inner, outer, Operands { weights, arithmetic }) = (padded(self.inner), padded(self.outer), self.operands);
        let size = 1.5 / (inner as f32).sqrt(); // keeps sums near 1
        let (x, mut weight) = (noise(1, count * inner), noise(2, inner * outer));
        if !weights.is_scaled() {
            weight.iter_mut().for_each(|value| *value *= size);
        }
        let [bias, residual] = [noise(3, outer), noise(4, count * outer)];
        let scale = |row: usize| size / (127 + row / WeightFormat::GROUP) as f32;
        let mut packed = vec![0; inner * weights.words(outer)];
        for (words, rows) in packed.chunks_exact_mut(4 * weights.words(outer)).zip(weight.chunks_exact(4 * outer)) {
            weights.pack_rows(rows, &vec![127.0; outer], words);
        }
        let scales: Vec<f32> = (0..inner.div_ceil(WeightFormat::GROUP) * outer).map(|at| scale(at / outer * WeightFormat::GROUP)).collect();
        let (x, given) = match arithmetic {
            Arithmetic::F32 => (wide(&x), words(&x)),
            Arithmetic::F16 => (x.iter().map(|value| f16::from_f32(*value).to_f64()).collect(), words(&x)),
            Arithmetic::Int8 => quantized(&x, inner),
        };

        // In a check every row: a mistake may be in what one lane hands to others.
        let sampled_rows = if count <= CHECKED_ROWS { (0..count).collect() } else { samples(count) };
        let mut expected = Vec::new();
        for column in samples(outer) {
            let weights: Vec<f64> = (0..inner).map(|k| weights.meant(weight[k * outer + column], 127.0, scale(k))).collect();
            for &row in &sampled_rows {
                let place = row * outer + column;
                let sum: f64 = x[row * inner..][..inner].iter().zip(&weights).map(|(x, weight)| x * weight).sum();
                let added = if self.residual { f64::from(residual[place]) } else { 0.0 };
                expected.push((place, activate(self.activation, sum + f64::from(bias[column])) + added));
            }
        }
        let batch = rows(self.rows, count);
        let mut inputs = vec![("batch", bytemuck::cast_slice(&[batch]).to_vec()), ("x", given), ("weight", packed)];
        inputs.extend([("bias", words(&bias)), ("scale", words(&scales)), ("residual", words(&residual))]);
        // Matrix units may cut off what they add up rather than round it.
        let bound = if arithmetic == Arithmetic::F16 { (1e-4, 1e-4) } else { (2e-5, 1e-5) };
        Check { batch, inputs, output: "y", written: count * outer, expected, bound }
    }

    /// `variants` are those for up to so many rows each, ascending.
    pub fn step(&self, gpu: &Gpu, variants: &[(u32, Variant)], buffers: &Buffers) -> Result<Step> {
        let form = |(up_to, variant): &(u32, Variant)| Ok((*up_to, self.form(gpu, *variant)?));
        let forms = variants.iter().map(form).collect::<Result<_>>()?;
        let kernel = *self;
        let buffers = [
            ("batch", buffers.batch),
            ("x", buffers.x),
            ("weight", buffers.weight),
            ("bias", buffers.bias),
            // A binding cannot be left empty; without scales or a residual nothing reads these.
            ("scale", buffers.scale.unwrap_or(buffers.bias)),
            ("residual", buffers.residual.unwrap_or(buffers.bias)),
            ("y", buffers.y),
        ];
        let step = Step::new(gpu, self.rows, forms, &buffers, self.cost())?;
        Ok(step.checked_by(move |grid| kernel.check_for(grid)).or(self.form(gpu, Variant::default())?))
    }
}
