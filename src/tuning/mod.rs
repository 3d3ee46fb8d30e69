//! Which variant of each kernel runs: sound defaults by the kind of adapter, or what was measured on it.

use crate::gpu::Gpu;
use crate::kernels::attention::Attention;
use crate::kernels::matmul::Matmul;
use crate::kernels::{Sharing, Tile, Variant};

/// Rows up to which a batch of matrix products counts as small.
pub const FEW_ROWS: u32 = 64;

/// The choice for one adapter.
#[derive(Clone, Debug)]
pub struct Tuning {
    subgroup: Option<u32>,
    software: bool,
}

impl Tuning {
    /// Without any measurement.
    pub fn defaults(gpu: &Gpu) -> Self {
        Self { subgroup: Variant::subgroup(gpu), software: gpu.info().device_type == wgpu::DeviceType::Cpu }
    }

    fn subgroup_variant(&self, tile: Tile) -> Option<Variant> {
        // On lavapipe, where each lane's load is a gather of its own, sharing by subgroups is three times as fast.
        let size = self.subgroup.filter(|size| self.software && *size <= 16)?;
        Some(Variant { sharing: Sharing::Subgroup(size), tile: Tile { lanes: size, ..tile } })
    }

    /// For up to so many rows each, ascending.
    pub fn matmul(&self, _kernel: &Matmul) -> Vec<(u32, Variant)> {
        let tile = |name: &str, or: u32| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(or);
        match self.subgroup_variant(Tile::new(tile("ROWS", 16), tile("COLS", 1), 0, 1)) {
            Some(shared) => vec![(u32::MAX, shared)],
            None => vec![(FEW_ROWS, Variant { sharing: Sharing::Alone, tile: Tile::new(4, 1, 32, 2) }), (u32::MAX, Variant::default())],
        }
    }

    pub fn attention(&self, _kernel: &Attention) -> Variant {
        self.subgroup_variant(Tile::new(1, 1, 1, 1)).unwrap_or_default()
    }

    /// Of layer norm over rows of `hidden`.
    pub fn reduction(&self, _hidden: usize) -> Variant {
        self.subgroup_variant(Tile::new(1, 1, 1, 1)).unwrap_or_default()
    }
}
