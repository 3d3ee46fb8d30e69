//! The forms that a kernel can have. All compute the same; which is fastest depends on the adapter.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::batch::TILE;
use crate::gpu::Gpu;

/// How the lanes of a workgroup come by what several of them need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// Each loads it for itself, or leaves it to the simplest means there is.
    #[default]
    Alone,
    /// The workgroup is one subgroup of so many lanes, and hands it from lane to lane.
    Subgroup(u32),
    /// They load it into workgroup memory together.
    Workgroup,
    /// Subgroups of so many lanes give it to the GPU's matrix units, from workgroup memory, in squares of so many numbers.
    Cooperative { size: u32, subgroup: u32 },
}

/// What a matrix product's lane and workgroup compute. With [`Sharing::Cooperative`] it is a subgroup rather than a lane, and squares rather than
/// rows and fours of columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tile {
    /// Rows of the result that a lane computes.
    pub rows: u32,
    /// Columns that it computes, in fours.
    pub columns4: u32,
    /// Lanes next to one another along the columns.
    pub lanes: u32,
    /// Lanes along the rows.
    pub row_groups: u32,
    /// Whether the lanes load the next block of a sum while they compute with this one, through two blocks of workgroup memory in turns.
    #[serde(default)]
    pub ahead: bool,
}

impl Tile {
    pub const fn new(rows: u32, columns4: u32, lanes: u32, row_groups: u32) -> Self {
        Self { rows, columns4, lanes, row_groups, ahead: false }
    }

    /// The same tile, loaded ahead.
    pub const fn ahead(self) -> Self {
        Self { ahead: true, ..self }
    }

    /// Blocks that workgroup memory has.
    pub(super) const fn blocks(self) -> u32 {
        1 + self.ahead as u32
    }

    /// Vectors of four sums that a lane has.
    pub const fn vectors(self) -> u32 {
        self.rows * self.columns4
    }
}

/// How a kernel is made for an adapter. The default needs nothing beyond WebGPU's default limits and works everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Variant {
    pub sharing: Sharing,
    /// Of matrix products, and of attention as two of them; other forms and kernels have none.
    pub tile: Tile,
}

impl Default for Variant {
    fn default() -> Self {
        Self { sharing: Sharing::Alone, tile: Tile::new(8, 2, 16, 4) }
    }
}

impl Variant {
    /// Lanes of a subgroup of this device, where all its subgroups have the same number.
    pub fn subgroup(gpu: &Gpu) -> Option<u32> {
        let (info, offered) = (gpu.info(), gpu.device().features().contains(wgpu::Features::SUBGROUP));
        let size = info.subgroup_max_size;
        (offered && info.subgroup_min_size == size && size.is_power_of_two() && (4..=64).contains(&size)).then_some(size)
    }

    /// The forms of a matrix product on a device with subgroups of this size, the safest first.
    pub fn matmuls(subgroup: Option<u32>) -> Vec<Self> {
        let mut offered = vec![Self::default()];
        let of = |sharing: Sharing| move |tile: Tile| Self { sharing, tile };
        offered.extend([Tile::new(2, 1, 32, 2), Tile::new(4, 1, 32, 2), Tile::new(4, 2, 16, 4)].map(of(Sharing::Alone)));
        // The first two are for few rows: many workgroups, each of which has long stretches of the sum under way at once.
        let staged =
            [Tile::new(1, 1, 4, 16), Tile::new(1, 1, 8, 16), Tile::new(4, 1, 16, 16), Tile::new(8, 2, 8, 8), Tile::new(8, 2, 16, 8)];
        offered.extend(staged.map(of(Sharing::Workgroup)));
        // For few rows and for many, of few lanes each: where there are many, others compute while some wait.
        offered.extend([Tile::new(1, 1, 4, 16), Tile::new(8, 2, 8, 8)].map(Tile::ahead).map(of(Sharing::Workgroup)));
        if let Some(size) = subgroup {
            let mut tiles = vec![(4, 1), (8, 1), (16, 1), (32, 1), (16, 2)];
            // A processor's lanes: sums that its registers do not hold wait in its first cache.
            if size <= 8 {
                tiles.extend([(32, 2), (64, 2)]);
            }
            let tiles = tiles.into_iter().map(|(rows, columns4)| Tile::new(rows, columns4, size, 1));
            offered.extend(tiles.map(of(Sharing::Subgroup(size))));
        }
        offered
    }

    /// The forms of a matrix product in f16 on matrix units of this size, on a device with subgroups of so many lanes.
    pub fn cooperative(size: u32, subgroup: u32) -> Vec<Self> {
        let tiles = [Tile::new(1, 2, 2, 1), Tile::new(2, 2, 2, 2), Tile::new(4, 2, 2, 2), Tile::new(4, 4, 2, 2)];
        // The registers of the largest are taken by its sums.
        let ahead = tiles[..3].iter().map(|tile| tile.ahead());
        tiles.into_iter().chain(ahead).map(|tile| Self { sharing: Sharing::Cooperative { size, subgroup }, tile }).collect()
    }

    /// As [`Variant::matmuls`], of attention. With subgroups it takes as many keys at a time as one has lanes; beyond sixteen the
    /// registers do not hold them.
    pub fn attentions(subgroup: Option<u32>) -> Vec<Self> {
        let of = |(rows, row_groups)| Self { sharing: Sharing::Workgroup, tile: Tile::new(rows, 1, 8, row_groups) };
        let shared = subgroup.filter(|size| *size <= 16).map(|size| Self { sharing: Sharing::Subgroup(size), ..Self::default() });
        [Self::default()].into_iter().chain([(2, 8), (2, 16), (4, 8)].map(of)).chain(shared).collect()
    }

    /// As [`Variant::cooperative`], of attention: fragments of keys at a time, and subgroups, which have a fragment of queries each.
    pub fn cooperative_attentions(size: u32, subgroup: u32) -> Vec<Self> {
        let all = TILE / size;
        let tiles = [(2, all), (4, all), (4, all / 2)].map(|(keys, row_groups)| Tile::new(1, keys, 1, row_groups));
        tiles.map(|tile| Self { sharing: Sharing::Cooperative { size, subgroup }, tile }).to_vec()
    }

    /// As [`Variant::matmuls`], of the kernels that add up rows.
    pub fn reductions(subgroup: Option<u32>) -> Vec<Self> {
        let shared = subgroup.map(|size| Self { sharing: Sharing::Subgroup(size), ..Self::default() });
        [Some(Self::default()), shared].into_iter().flatten().collect()
    }
}

impl fmt::Display for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alone => write!(f, "alone"),
            Self::Subgroup(size) => write!(f, "subgroups of {size}"),
            Self::Workgroup => write!(f, "workgroup memory"),
            Self::Cooperative { size, .. } => write!(f, "matrix units of {size}x{size}"),
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tile { rows, columns4, lanes, row_groups, ahead } = self.tile;
        let blocks = if ahead { ", two blocks" } else { "" };
        if let Sharing::Cooperative { .. } = self.sharing {
            return write!(f, "{}{blocks}, {rows}x{columns4} a subgroup, {lanes}x{row_groups} subgroups", self.sharing);
        }
        write!(f, "{}{blocks}, {rows}x{} outputs a lane, {lanes}x{row_groups} lanes", self.sharing, 4 * columns4)
    }
}
