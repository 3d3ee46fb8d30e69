//! How a model comes onto a device: what it may take, its steps laid out and planned, its weights uploaded.

use std::sync::{Arc, OnceLock};

use crate::assembler::{Assembler, Inputs};
use crate::batch::{Bounds, Capacity, MAX_POSITIONS, MAX_TOKEN_TYPES};
use crate::builder::Options;
use crate::checkpoint::{Checkpoint, EncoderConfig};
use crate::encoder::{self, Encoded, widest_row};
use crate::error::{Error, Result};
use crate::gpu::{Arena, Gpu, Plan, Step, prepare};
use crate::kernels::Operands;
use crate::kernels::digest::Digest;
use crate::memory::{self, MemoryPlan};
use crate::pool::Pool;
use crate::runner::{self, Output, Runner, Slot};
use crate::stats::Stats;
use crate::tuning::Chosen;
use crate::weights::Upload;

/// Tokens of a batch where the caller does not say.
const DEFAULT_TOKEN_BUDGET: usize = 8192;

/// Bytes that rows of selected tokens may take.
const SELECTED_BYTES: u64 = 16 << 20;

/// Selected tokens that fit in any case, where the adapter's bindings are large enough.
const FEWEST_SELECTED: u64 = 64;

/// What a head needs before the encoder is laid out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Needs {
    /// The embeddings and every layer's hidden state, not only the last.
    pub all_layers: bool,
    /// Values that each selected token takes; 0 where nothing is selected.
    pub selected_row: usize,
}

/// What a pass is made of.
struct Layout {
    inputs: Inputs,
    outputs: Vec<Output>,
    slots: Arc<Pool<Slot>>,
    steps: Vec<Step>,
    /// Bytes of weights.
    uploaded: u64,
    /// Of the weights.
    digest: Digest,
    memory: MemoryPlan,
    /// Bytes of each buffer that weights share.
    slabs: Vec<u64>,
}

/// Adds the steps that make results of the hidden states.
pub(crate) type Head = Box<dyn Fn(&Checkpoint, &mut Assembler, &Encoded) -> Result<Vec<Output>> + Send + Sync>;

/// A model folder and what it is loaded as: kept, since it may have to come onto another device.
pub(crate) struct Loader {
    /// Its files stay open, so what is replaced in the folder meanwhile changes nothing.
    pub checkpoint: Checkpoint,
    pub options: Options,
    /// Tokens beyond which a text is cut.
    pub max_length: usize,
    needs: Needs,
    head: Head,
    /// Of the weights that were loaded first.
    weights: OnceLock<Digest>,
}

impl Loader {
    /// # Errors
    /// [`Error::Input`] for a language or a maximum length that the model does not have.
    pub fn new(mut checkpoint: Checkpoint, options: Options, needs: Needs, head: Head) -> Result<Self> {
        if let Some(code) = &options.language {
            checkpoint.choose_language(code)?;
        }
        let max_tokens = max_tokens(&checkpoint.config);
        let max_length = match options.max_length {
            None => checkpoint.max_length(),
            Some(length) if (1..=max_tokens).contains(&length) => length,
            Some(length) => {
                return Err(Error::input(format!(
                    "the maximum length {length} is not between 1 and {max_tokens}, the positions that the model in {} has",
                    checkpoint.path.display()
                )));
            }
        };
        Ok(Self { checkpoint, options, max_length, needs, head, weights: OnceLock::new() })
    }

    /// Puts the model on a device.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] when the weights are no longer those of the first time, and what is wrong with them or with the GPU.
    pub fn load(&self, gpu: &Gpu) -> Result<Runner> {
        let Self { checkpoint, options, needs, max_length, .. } = self;
        let config = &checkpoint.config;
        let capacity = capacity(gpu, config, options.token_budget, *max_length, needs.selected_row)?;
        let operands = options.operands(gpu)?;
        let tuning = Chosen::new(gpu, config, operands, &options.tuning);
        let what = format!("loading {}", checkpoint.path.display());
        let (capacity, memory, (planned, slabs)) = gpu.checked(&what, || {
            memory::fit(capacity, *max_length, options.max_gpu_memory, &what, |capacity| {
                let arenas = [Arena::planning(gpu, "weights")?, Arena::planning(gpu, "activations")?];
                let Layout { memory, steps, slabs, .. } = self.lay_out(gpu, operands, &tuning, capacity, arenas)?;
                Ok((memory, (steps, slabs)))
            })
        })?;
        if let Some(plan) = &options.plan_only {
            _ = plan.set(memory);
            return Err(Error::input("the model was planned, not loaded"));
        }
        let bounds = Bounds {
            vocabulary: config.vocabulary,
            token_types: config.types().min(MAX_TOKEN_TYPES),
            default_type: config.default_type() as u32,
            position_offset: config.position_offset,
            padding: config.padding().map(|id| id as u32),
            max_tokens: max_tokens(config),
            max_selected: capacity.selected,
        };
        // Kernels are compiled and checked while the weights are on their way.
        std::thread::scope(|scope| {
            scope.spawn(|| prepare(gpu, &planned));
            gpu.checked(&what, || {
                let arenas = [Arena::planned(gpu, "weights", slabs), Arena::new(gpu, "activations")];
                let Layout { inputs, outputs, slots, steps, uploaded, digest, memory, .. } =
                    self.lay_out(gpu, operands, &tuning, capacity, arenas)?;
                if *self.weights.get_or_init(|| digest) != digest {
                    let problem = "the weights have changed since the model was loaded: load it again";
                    return Err(Error::checkpoint(&checkpoint.path, problem));
                }
                let plan = Plan::new(gpu, steps)?;
                let runner = Runner::new(gpu.clone(), plan, inputs, outputs, slots, capacity, bounds);
                let MemoryPlan { weight_bytes, activation_bytes, .. } = memory;
                let rejected_kernels = gpu.rejected().len();
                runner.set_stats(Stats {
                    weight_bytes_uploaded: uploaded,
                    weight_bytes,
                    activation_bytes,
                    rejected_kernels,
                    ..runner.stats()
                });
                Ok(runner)
            })
        })
    }

    /// The pass, its weights and activations in `arenas`.
    fn lay_out(
        &self,
        gpu: &Gpu,
        operands: Operands,
        tuning: &Chosen,
        capacity: Capacity,
        [mut weights, mut activations]: [Arena; 2],
    ) -> Result<Layout> {
        let Self { checkpoint, needs, .. } = self;
        let config = &checkpoint.config;
        let tensors = checkpoint.encoder()?;
        let inputs = Inputs::new(&mut activations, capacity)?;
        let mut pass = Assembler {
            gpu,
            config,
            inputs: &inputs,
            capacity,
            tuning,
            upload: Upload::new(gpu, &mut weights, config, operands),
            activations: &mut activations,
            steps: Vec::new(),
            quantized: None,
        };
        let encoded = encoder::assemble(&mut pass, &tensors, needs.all_layers)?;
        let outputs = (self.head)(checkpoint, &mut pass, &encoded)?;
        let (steps, uploaded) = (pass.steps, pass.upload.delivery.bytes);
        let digest = pass.upload.delivery.arrive()?;
        let slots = runner::slots(&mut activations, &outputs, capacity)?;
        let (weight_bytes, activation_bytes) = (weights.bytes(), activations.bytes());
        let memory = MemoryPlan { weight_bytes, activation_bytes, token_budget: capacity.tokens };
        Ok(Layout { inputs, outputs, slots, steps, uploaded, digest, memory, slabs: weights.slabs() })
    }
}

fn max_tokens(config: &EncoderConfig) -> usize {
    config.max_tokens().min(MAX_POSITIONS - config.position_offset)
}

/// What the adapter can hold in one batch, and at least one text of the maximum length.
fn capacity(gpu: &Gpu, config: &EncoderConfig, budget: Option<usize>, max_length: usize, selected_row: usize) -> Result<Capacity> {
    let row = widest_row(config) as u64 * 4;
    let limit = (gpu.max_binding() / row).min(gpu.limits().max_compute_workgroups_per_dimension as u64) as usize;
    if max_length > limit {
        return Err(Error::Memory {
            problem: format!(
                "a text of {max_length} tokens does not fit in this adapter's largest binding, which holds {limit}: set a smaller maximum \
                 length"
            ),
        });
    }
    let tokens = match budget {
        None => DEFAULT_TOKEN_BUDGET.max(max_length).min(limit),
        Some(budget) if (max_length..=limit).contains(&budget) => budget,
        Some(budget) => {
            return Err(Error::input(format!(
                "the token budget {budget} is not between {max_length}, the maximum length of a text, and {limit}, what this adapter can hold"
            )));
        }
    };
    let selected = match selected_row as u64 * 4 {
        0 => 0,
        row => (SELECTED_BYTES / row).max(FEWEST_SELECTED).min(gpu.max_binding() / row).clamp(1, tokens as u64) as usize,
    };
    Ok(Capacity { tokens, texts: 0, selected }.with_tokens(tokens))
}
