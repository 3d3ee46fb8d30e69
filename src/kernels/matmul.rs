//! Matrix product with bias, activation and residual in its epilogue.

use super::{Variant, activation_code, lib, padded, rows_code, unroll};
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

impl Matmul {
    pub fn source(&self, variant: Variant) -> Source {
        let tile = Tile::of(variant);
        // Each lane loads all rows of the tile, or, where the workgroup is one subgroup, some that it hands to the others; a broadcast
        // names its lane by a constant.
        let (loads, stride, own_row) = variant.subgroup.map_or((tile.rows, 1, "0u"), |lanes| (tile.rows.div_ceil(lanes), lanes, "lane.x"));
        let sizes = [
            ("ROWS", tile.rows),
            ("COLUMNS4", tile.columns4),
            ("LANES", tile.lanes),
            ("ROW_GROUPS", tile.row_groups),
            ("LOADS", loads),
            ("LOAD_STRIDE", stride),
        ];
        let mut body = unroll(include_str!("../../shaders/matmul.wgsl"), &sizes).replace("OWN_ROW", own_row);
        for row in 0..tile.rows {
            let value = match variant.subgroup {
                None => format!("x_{row}"),
                Some(lanes) => format!("subgroupBroadcast(x_{}, {}u)", row / lanes, row % lanes),
            };
            body = body.replace(&format!("ROW_{row};"), &format!("{value};"));
        }
        let pieces = [lib::BATCH, lib::ROW_COUNT, lib::ACTIVATION, &body];
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
