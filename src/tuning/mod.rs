//! Which variant of each kernel runs: sound defaults by the kind of adapter, or what was measured on it.
//!
//! A batch's size may choose between variants of a matrix product only where they give the same bits, so a text's result does not depend
//! on what else is in its batch.

mod measure;
mod store;

pub(crate) use measure::shapes;

use serde::{Deserialize, Serialize};

use crate::checkpoint::EncoderConfig;
use crate::error::Result;
use crate::gpu::Gpu;
use crate::kernels::attention::Attention;
use crate::kernels::matmul::Matmul;
use crate::kernels::{Operands, Sharing, Tile, Variant};

/// Rows up to which a batch of matrix products counts as small, and as middling.
pub const BUCKETS: [u32; 3] = [32, 256, u32::MAX];

/// Where a model's choice of kernels comes from.
#[derive(Clone, Debug, Default)]
pub enum Tuning {
    /// The table in the user's cache folder, where there is one for this adapter, driver and version of the crate. On a GPU whose table
    /// lacks the model's shapes they are measured first, which takes some hundred milliseconds, once; on a software adapter, where it
    /// would take seconds, only [`Table::measure`] does it.
    #[default]
    Auto,
    /// Nothing measured: defaults by the kind of adapter.
    Off,
    /// This table, such as one that came with the app. One of another adapter is ignored with a warning.
    Given(Table),
}

/// What was measured on one adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    pub adapter: String,
    pub backend: String,
    pub driver: String,
    /// Of the crate.
    pub version: String,
    pub choices: Vec<Choice>,
}

/// The fastest variant of a kernel at one shape.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    pub kernel: Kernel,
    /// The shape: of a matrix product inner and outer, of attention heads and their width, of layer norm the row and 1.
    pub shape: [usize; 2],
    #[serde(flatten)]
    pub operands: Operands,
    /// Most rows of a batch for which it counts.
    pub up_to: u32,
    pub variant: Variant,
    /// Of one dispatch, when it was measured.
    pub nanoseconds: u64,
}

/// Kernels that have variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kernel {
    Matmul,
    Attention,
    LayerNorm,
}

/// The choice for one model on one adapter.
#[derive(Debug)]
pub struct Chosen {
    gpu: Gpu,
    choices: Vec<Choice>,
}

impl Chosen {
    /// Without any measurement.
    pub fn defaults(gpu: &Gpu) -> Self {
        Self { gpu: gpu.clone(), choices: Vec::new() }
    }

    /// As the caller wants it for a model of this shape.
    pub fn new(gpu: &Gpu, config: &EncoderConfig, operands: Operands, tuning: &Tuning) -> Self {
        let table = match tuning {
            Tuning::Off => None,
            Tuning::Given(table) if table.is_of(gpu) => Some(table.clone()),
            Tuning::Given(table) => {
                let (theirs, ours) = (table.describe(), Table::of(gpu).describe());
                log::warn!("the tuning table is of {theirs}, this is {ours}: it is ignored; measure this adapter with `minilm tune`");
                None
            }
            Tuning::Auto if !gpu.computes() => None,
            Tuning::Auto => store::load(gpu).or_else(|| (!is_software(gpu)).then(|| Table::of(gpu))).map(|mut table| {
                if !is_software(gpu) && table.lacks(config, operands) {
                    match table.measure(gpu, config, operands).map(|()| table.store()) {
                        Ok(Ok(path)) => log::info!("tuned for {}, kept in {}", table.describe(), path.display()),
                        Ok(Err(error)) => log::warn!("{error}: kernels will be measured again at the next start"),
                        Err(error) => log::warn!("{error}: kernels are chosen without it"),
                    }
                }
                table
            }),
        };
        Self { choices: table.map_or_else(Vec::new, |table| table.choices), ..Self::defaults(gpu) }
    }

    /// What was measured for a shape, if this adapter can still do it.
    fn measured(&self, kernel: Kernel, shape: [usize; 2], operands: Operands, offered: &[Variant]) -> Vec<(u32, Variant)> {
        let here = |choice: &&Choice| choice.kernel == kernel && choice.shape == shape && choice.operands == operands;
        let mut found: Vec<(u32, Variant)> = self.choices.iter().filter(here).map(|choice| (choice.up_to, choice.variant)).collect();
        found.retain(|(_, variant)| offered.contains(variant));
        found.sort_by_key(|(up_to, _)| *up_to);
        found
    }

    /// Sharing by subgroups where it is known to be fastest: on lavapipe, where each lane's load is a gather of its own, it is three
    /// times as fast.
    fn subgroups(&self) -> Option<u32> {
        Variant::subgroup(&self.gpu).filter(|size| is_software(&self.gpu) && *size <= 16)
    }

    /// For up to so many rows each, ascending.
    pub fn matmul(&self, kernel: &Matmul) -> Vec<(u32, Variant)> {
        let offered = kernel.variants(&self.gpu);
        let measured = self.measured(Kernel::Matmul, [kernel.inner, kernel.outer], kernel.operands, &offered);
        if !measured.is_empty() {
            return measured;
        }
        // Tiles of 64 x 64 with squares of 16: a middle between few rows and many.
        let units = |variant: &&Variant| matches!(variant.sharing, Sharing::Cooperative { .. }) && variant.tile == Tile::new(2, 2, 2, 2);
        if let (false, Some(variant)) = (is_software(&self.gpu), offered.iter().find(units)) {
            return vec![(u32::MAX, *variant)];
        }
        match self.subgroups() {
            Some(size) => {
                // 32 x 8 outputs are some 14% faster for large batches, but lavapipe takes 4 s and 40 MB more to compile them: tuning may.
                let shared = |rows| Variant { sharing: Sharing::Subgroup(size), tile: Tile::new(rows, 1, size, 1) };
                vec![(BUCKETS[0], shared(16)), (u32::MAX, shared(32))]
            }
            None => vec![(BUCKETS[0], Variant { sharing: Sharing::Alone, tile: Tile::new(4, 1, 32, 2) }), (u32::MAX, Variant::default())],
        }
    }

    /// For any number of tokens. Where nothing was measured, matrix units where they are of use; else subgroups where they are known to be
    /// fastest; else keys and values go through workgroup memory, as other software through WebGPU does on Apple, NVIDIA and wherever there
    /// are no subgroups: alone, each lane would load every key itself and hold a whole head's numbers in registers.
    pub fn attention(&self, kernel: &Attention) -> Variant {
        let offered = kernel.variants(&self.gpu);
        let measured = self.measured(Kernel::Attention, [kernel.heads, kernel.head_dim], kernel.operands(), &offered);
        let units = || offered.iter().find(|variant| !is_software(&self.gpu) && matches!(variant.sharing, Sharing::Cooperative { .. }));
        let known = || Variant::attentions(self.subgroups()).pop();
        measured.first().map(|(_, variant)| *variant).or_else(|| units().copied()).or_else(known).unwrap_or_default()
    }

    /// Of the kernels that normalise rows of `hidden`.
    pub fn reduction(&self, hidden: usize) -> Variant {
        let offered = Variant::reductions(Variant::subgroup(&self.gpu));
        let measured = self.measured(Kernel::LayerNorm, [hidden, 1], Operands::default(), &offered);
        let known = || Variant::reductions(self.subgroups()).pop();
        measured.first().map(|(_, variant)| *variant).or_else(known).unwrap_or_default()
    }
}

fn is_software(gpu: &Gpu) -> bool {
    gpu.info().device_type == wgpu::DeviceType::Cpu
}

impl Table {
    /// An empty one of this adapter.
    pub fn of(gpu: &Gpu) -> Self {
        let info = gpu.info();
        Self {
            adapter: info.name.clone(),
            backend: info.backend.to_str().to_owned(),
            driver: [info.driver.as_str(), info.driver_info.as_str()].join(" ").trim().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            choices: Vec::new(),
        }
    }

    /// Whether it was measured on this adapter, with this driver, by this version of the crate.
    pub fn is_of(&self, gpu: &Gpu) -> bool {
        Self { choices: Vec::new(), ..self.clone() } == Self::of(gpu)
    }

    /// The adapter, driver and version, for people.
    pub fn describe(&self) -> String {
        format!("`{}` ({}) with driver `{}` by version {}", self.adapter, self.backend, self.driver, self.version)
    }

    fn lacks(&self, config: &EncoderConfig, operands: Operands) -> bool {
        measure::shapes(config).iter().any(|shape| {
            !self.choices.iter().any(|choice| choice.kernel == Kernel::Matmul && choice.shape == *shape && choice.operands == operands)
        })
    }

    /// The table that is kept for this adapter, if there is one.
    pub fn stored(gpu: &Gpu) -> Option<Self> {
        store::load(gpu)
    }

    /// Measures every variant that the adapter offers at a model's shapes, holds each to the reference, and takes over the fastest.
    ///
    /// # Errors
    /// Those of running a kernel; variants that fail are left out.
    pub fn measure(&mut self, gpu: &Gpu, config: &EncoderConfig, operands: impl Into<Operands>) -> Result<()> {
        for choice in measure::all(gpu, config, operands.into())? {
            let same = |other: &Choice| {
                (other.kernel, other.shape, other.operands, other.up_to) == (choice.kernel, choice.shape, choice.operands, choice.up_to)
            };
            self.choices.retain(|other| !same(other));
            self.choices.push(choice);
        }
        Ok(())
    }
}
