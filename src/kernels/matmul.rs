//! Matrix product with bias, activation and residual in its epilogue.

use super::check::{Check, noise, rows, samples, words};
use super::{Sharing, Tile, Variant, WeightFormat, activation_code, lib, padded, rows_code, unroll};
use crate::checkpoint::Activation;
use crate::error::Result;
use crate::gpu::{Amount, Cost, Count, Form, Gpu, Grid, Source, Step};
use crate::reference::activate;

/// `y[rows, outer] = activation(x[rows, inner] * weight[inner, outer] + bias[outer]) + residual[rows, outer]`.
#[derive(Clone, Copy, Debug)]
pub struct Matmul {
    pub inner: usize,
    pub outer: usize,
    /// How numbers of the weight are stored. Products and sums are f32.
    pub weights: WeightFormat,
    pub activation: Option<Activation>,
    pub residual: bool,
    /// What the rows are: tokens, texts or selected tokens.
    pub rows: Count,
}

/// What the kernel reads and writes; rows, and the rows' number of `weight`, are [padded].
pub struct Buffers<'a> {
    /// The batch's uniform.
    pub batch: &'a wgpu::Buffer,
    /// `[rows, inner]`
    pub x: &'a wgpu::Buffer,
    /// `[inner, outer]`: torch's `[outer, inner]` transposed, in the format that the kernel is made for
    pub weight: &'a wgpu::Buffer,
    /// `[inner / GROUP, outer]`, rounded up, just where [`WeightFormat::is_scaled`]: each number of the weight counts times the scale of its
    /// [`GROUP`](WeightFormat::GROUP)
    pub scale: Option<&'a wgpu::Buffer>,
    /// `[outer]`
    pub bias: &'a wgpu::Buffer,
    /// `[rows, outer]`, just where [`Matmul::residual`] says so
    pub residual: Option<&'a wgpu::Buffer>,
    /// `[rows, outer]`
    pub y: &'a wgpu::Buffer,
}

/// How deep a block in workgroup memory is, in fours: with the largest tile, 16 KB, what every adapter has, suffice.
const DEPTH4: u32 = 4;

/// Rows of a check: one more than the largest tile has.
const CHECKED_ROWS: usize = 65;

impl Matmul {
    pub fn source(&self, variant: Variant) -> Source {
        let Variant { sharing, tile: Tile { rows, columns4, lanes, row_groups } } = variant;
        let sizes =
            [("ROWS", rows), ("COLUMNS4", columns4), ("LANES", lanes), ("ROW_GROUPS", row_groups), ("GROUP", WeightFormat::GROUP as u32)];
        // Each lane loads all rows of the tile, or, where the workgroup is one subgroup, some that it hands to the others.
        let (loads, stride, own_row) = match sharing {
            Sharing::Subgroup(size) => (rows.div_ceil(size), size, "lane.x"),
            _ => (rows, 1, "0u"),
        };
        let (body, more) = match sharing {
            Sharing::Workgroup => (include_str!("../../shaders/matmul_staged.wgsl"), vec![("DEPTH4", DEPTH4)]),
            _ => (include_str!("../../shaders/matmul.wgsl"), vec![("LOADS", loads), ("LOAD_STRIDE", stride)]),
        };
        let sizes = [&sizes[..], &more].concat();
        let mut body = unroll(body, &sizes).replace("OWN_ROW", own_row);
        for row in 0..rows {
            let value = match sharing {
                // A broadcast names its lane by a constant.
                Sharing::Subgroup(size) => format!("subgroupBroadcast(x_{}, {}u)", row / size, row % size),
                _ => format!("x_{row}"),
            };
            body = body.replace(&format!("ROW_{row};"), &format!("{value};"));
        }
        let pieces = [lib::BATCH, lib::ROW_COUNT, lib::ACTIVATION, self.weights.wgsl(), lib::MATMUL, &body];
        let constants = vec![
            ("INNER4", (padded(self.inner) / 4) as f64),
            ("OUTER4", (padded(self.outer) / 4) as f64),
            ("ACTIVATION", activation_code(self.activation)),
            ("RESIDUAL", self.residual as u8 as f64),
            ("ROWS_ARE", rows_code(self.rows)),
        ];
        Source::compose("matmul", &sizes, &pieces, constants)
    }

    fn cost(&self) -> Cost {
        let Self { inner, outer, residual, rows, weights, .. } = *self;
        let operations = Amount { per_row: 2 * inner * outer, ..Amount::default() };
        let per_row = 4 * (inner + outer * (1 + usize::from(residual)));
        Cost { rows, operations, bytes: Amount { fixed: weights.bytes(inner * outer) + 4 * outer, per_row, per_pair: 0 } }
    }

    fn grid(&self, tile: Tile) -> Grid {
        let columns = (padded(self.outer) / 4) as u32;
        Grid { x: Count::Fixed(columns.div_ceil(tile.lanes * tile.columns4)), y: self.rows, rows: tile.rows * tile.row_groups }
    }

    pub fn form(&self, gpu: &Gpu, variant: Variant) -> Result<Form> {
        Ok(Form { variant: variant.to_string(), pipeline: gpu.pipeline(self.source(variant))?, grid: self.grid(variant.tile) })
    }

    /// So many rows of numbers that look random; of the result some rows and columns are known.
    pub fn check(&self, count: usize) -> Check {
        let (inner, outer) = (padded(self.inner), padded(self.outer));
        let size = 1.5 / (inner as f32).sqrt(); // keeps sums near 1
        let (x, mut weight) = (noise(1, count * inner), noise(2, inner * outer));
        if !self.weights.is_scaled() {
            weight.iter_mut().for_each(|value| *value *= size);
        }
        let [bias, residual] = [noise(3, outer), noise(4, count * outer)];
        let scale = |row: usize| size / (127 + row / WeightFormat::GROUP) as f32;
        let mut packed = vec![0; inner * self.weights.words(outer)];
        for (words, row) in packed.chunks_exact_mut(self.weights.words(outer)).zip(weight.chunks_exact(outer)) {
            self.weights.pack(row, |_| 127.0, words);
        }
        let scales: Vec<f32> = (0..inner.div_ceil(WeightFormat::GROUP) * outer).map(|at| scale(at / outer * WeightFormat::GROUP)).collect();

        // In a check every row: a mistake may be in what one lane hands to others.
        let sampled_rows = if count <= CHECKED_ROWS { (0..count).collect() } else { samples(count) };
        let mut expected = Vec::new();
        for column in samples(outer) {
            let weights: Vec<f64> = (0..inner).map(|k| self.weights.meant(weight[k * outer + column], 127.0, scale(k))).collect();
            for &row in &sampled_rows {
                let place = row * outer + column;
                let sum: f64 = x[row * inner..][..inner].iter().zip(&weights).map(|(x, weight)| f64::from(*x) * weight).sum();
                let added = if self.residual { f64::from(residual[place]) } else { 0.0 };
                expected.push((place, activate(self.activation, sum + f64::from(bias[column])) + added));
            }
        }
        let batch = rows(self.rows, count);
        let mut inputs = vec![("batch", bytemuck::cast_slice(&[batch]).to_vec()), ("x", words(&x)), ("weight", packed)];
        inputs.extend([("bias", words(&bias)), ("scale", words(&scales)), ("residual", words(&residual))]);
        Check { batch, inputs, output: "y", written: count * outer, expected, bound: (2e-5, 1e-5) }
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
        Ok(step.checked_by(move || kernel.check(CHECKED_ROWS)).or(self.form(gpu, Variant::default())?))
    }
}
