//! Matrix product with bias, activation and residual in its epilogue.

use super::{Variant, activation_code, lib, padded, rows_code};
use crate::checkpoint::Activation;
use crate::error::Result;
use crate::gpu::{Amount, Cost, Count, Gpu, Grid, Source, Step};

/// `y[rows, outer] = activation(x[rows, inner] * weight[inner, outer] + bias[outer]) + residual[rows, outer]`.
#[derive(Clone, Copy, Debug)]
pub struct Matmul {
    pub inner: usize,
    pub outer: usize,
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
    /// `[inner, outer]`: torch's `[outer, inner]` transposed
    pub weight: &'a wgpu::Buffer,
    /// `[outer]`
    pub bias: &'a wgpu::Buffer,
    /// `[rows, outer]`, just where [`Matmul::residual`] says so
    pub residual: Option<&'a wgpu::Buffer>,
    /// `[rows, outer]`
    pub y: &'a wgpu::Buffer,
}

/// The register tile of a lane, and the workgroup: `lanes` along the columns, `row_groups` along the rows.
#[derive(Clone, Copy)]
struct Tile {
    rows: u32,
    columns4: u32,
    lanes: u32,
    row_groups: u32,
}

impl Tile {
    fn of(variant: Variant) -> Self {
        match variant.subgroup {
            None => Tile { rows: 8, columns4: 2, lanes: 16, row_groups: 4 },
            Some(lanes) => Tile { rows: 16, columns4: 1, lanes, row_groups: 1 },
        }
    }
}

/// `load_rows` for a workgroup of one subgroup: each lane loads some rows and hands them to the others. A broadcast names its lane by
/// a constant, so the loop is written out.
fn load_rows_by_subgroup(tile: Tile) -> String {
    let mut wgsl =
        String::from("fn load_rows(first: u32, last: u32, k: u32, lane: u32) -> array<vec4f, ROWS> {\n    var rows: array<vec4f, ROWS>;\n");
    for row in 0..tile.rows {
        let (load, lane) = (row / tile.lanes, row % tile.lanes);
        if lane == 0 {
            wgsl += &format!("    let own{load} = x[min(first + {row}u + lane, last) * INNER4 + k];\n");
        }
        wgsl += &format!("    rows[{row}] = subgroupBroadcast(own{load}, {lane}u);\n");
    }
    wgsl + "    return rows;\n}\n"
}

impl Matmul {
    pub fn source(&self, variant: Variant) -> Source {
        let tile = Tile::of(variant);
        let sizes = [("ROWS", tile.rows), ("COLUMNS4", tile.columns4), ("LANES", tile.lanes), ("ROW_GROUPS", tile.row_groups)];
        let load_rows = if variant.subgroup.is_some() { &load_rows_by_subgroup(tile) } else { lib::ROWS };
        let pieces = [lib::BATCH, lib::ROW_COUNT, lib::ACTIVATION, load_rows, include_str!("../../shaders/matmul.wgsl")];
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
        let Self { inner, outer, residual, rows, .. } = *self;
        let operations = Amount { per_row: 2 * inner * outer, ..Amount::default() };
        let per_row = 4 * (inner + outer * (1 + usize::from(residual)));
        Cost { rows, operations, bytes: Amount { fixed: 4 * (inner * outer + outer), per_row, per_pair: 0 } }
    }

    pub fn step(&self, gpu: &Gpu, variant: Variant, buffers: &Buffers) -> Result<Step> {
        let pipeline = gpu.pipeline(self.source(variant))?;
        let bind_group = pipeline.bind(
            gpu,
            &[
                ("batch", buffers.batch),
                ("x", buffers.x),
                ("weight", buffers.weight),
                ("bias", buffers.bias),
                // A binding cannot be left empty; without a residual nothing reads it.
                ("residual", buffers.residual.unwrap_or(buffers.bias)),
                ("y", buffers.y),
            ],
        )?;
        let columns = (padded(self.outer) / 4) as u32;
        let tile = Tile::of(variant);
        let grid = Grid { x: Count::Fixed(columns.div_ceil(tile.lanes * tile.columns4)), y: self.rows, rows: tile.rows * tile.row_groups };
        Ok(Step { pipeline, bind_group, grid, cost: self.cost() })
    }
}
