//! Holds a compiled kernel to its definition before anything depends on it: drivers have been seen that return wrong numbers in silence.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use super::plan::Dispatch;
use super::{Arena, Count, Form, Gpu, Grid, Pipeline, Plan, Slice};
use crate::batch::Header;
use crate::error::{Error, Result};

/// A small input for a kernel and what must come of it.
pub struct Check {
    pub batch: Header,
    /// What each variable of the shader holds, in words of four bytes, except the output.
    pub inputs: Vec<(&'static str, Vec<u32>)>,
    /// The variable that the kernel writes.
    pub output: &'static str,
    /// Values that it may write; whatever is behind them must stay as it is.
    pub written: usize,
    /// Some of these values, by their place.
    pub expected: Vec<(usize, f64)>,
    /// Largest absolute difference, and the difference in proportion to the value that is allowed on top of it.
    pub bound: (f64, f64),
}

/// Makes the check of a form, which knows how many rows a workgroup takes.
pub type CheckOf = dyn Fn(Grid) -> Check + Send + Sync;

/// Values behind the output that nobody may touch.
const CANARIES: usize = 16;

/// What the output holds before: a NaN of its own.
const POISON: u32 = 0x7fc0_1234;

impl Check {
    /// Runs the kernel on this input.
    ///
    /// # Errors
    /// [`Error::Kernel`] where a value is not the expected one or the kernel writes where it must not, and those of running a kernel.
    pub(super) fn run(&self, gpu: &Gpu, pipeline: &Pipeline, compiled: &wgpu::ComputePipeline, grid: Grid) -> Result<Vec<f32>> {
        let values = gpu.checked(&format!("trying kernel `{}`", pipeline.kernel), || {
            let mut arena = Arena::new(gpu, "self-check");
            let dispatch = self.dispatch(gpu, &mut arena, pipeline, compiled, grid)?;
            let bytes = (self.written + CANARIES) as u64 * 4;
            let readback = arena.readback("self-check", self.written + CANARIES)?;
            let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("self-check") });
            dispatch.record(&mut encoder.begin_compute_pass(&Default::default()), &self.batch);
            dispatch.output.copy(&mut encoder, 0, readback.buffer(), 0, bytes);
            gpu.read_back(encoder, &readback, bytes, <[f32]>::to_vec)
        })?;
        let outcome = self.compare(&values).map_err(|problem| {
            let device = gpu.describe();
            Error::Kernel {
                kernel: pipeline.kernel,
                problem: format!("gives wrong results on {device}: {problem}; update the driver or choose another adapter"),
            }
        });
        outcome.map(|()| values)
    }

    /// Runs a form on this input and times it: by the GPU's clock where it has one.
    ///
    /// # Errors
    /// [`Error::Kernel`] where it does not compile or a value is not the expected one, and those of running a kernel.
    pub(crate) fn measure(&self, gpu: &Gpu, form: &Form) -> Result<Measured> {
        const DISPATCHES: usize = 4;
        let compiled = form.pipeline.vetted(gpu, form.grid, None)?;
        let values = self.run(gpu, &form.pipeline, &compiled, form.grid)?;
        let mut hasher = DefaultHasher::new();
        values.iter().for_each(|value| value.to_bits().hash(&mut hasher));
        let seconds = gpu.checked("timing a kernel", || {
            let mut arena = Arena::new(gpu, "timing");
            let dispatch = |_| self.dispatch(gpu, &mut arena, &form.pipeline, &compiled, form.grid).map(|checked| checked.dispatch);
            let plan = Plan { steps: (0..DISPATCHES).map(dispatch).collect::<Result<_>>()? };
            if gpu.can_profile() {
                return Ok(gpu.profile(&plan, &self.batch, 1)?.into_iter().fold(f64::INFINITY, f64::min));
            }
            let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("timing") });
            plan.record(&mut encoder, &self.batch);
            let begin = Instant::now();
            let submission = gpu.queue().submit([encoder.finish()]);
            gpu.wait(submission)?;
            Ok(begin.elapsed().as_secs_f64() / DISPATCHES as f64)
        })?;
        Ok(Measured { seconds, digest: hasher.finish() })
    }

    /// One dispatch over buffers that hold the inputs, and a poisoned output.
    fn dispatch(&self, gpu: &Gpu, arena: &mut Arena, pipeline: &Pipeline, compiled: &wgpu::ComputePipeline, grid: Grid) -> Result<Checked> {
        let mut buffer = |label: &str, words: &[u32]| -> Result<Slice> {
            let buffer = arena.shared(label, words.len())?;
            gpu.write(&buffer, bytemuck::cast_slice(words));
            Ok(buffer)
        };
        let output = buffer(self.output, &vec![POISON; self.written + CANARIES])?;
        let mut buffers = vec![(self.output, output.clone())];
        for (name, words) in &self.inputs {
            buffers.push((name, buffer(name, words)?));
        }
        // Whatever else the shader names it does not read here, but a binding cannot be left empty.
        let unused = buffer("unused", &[0; 16])?;
        for (name, _) in &pipeline.bindings {
            if !buffers.iter().any(|(given, _)| given == name) {
                buffers.push((name, unused.clone()));
            }
        }
        let buffers: Vec<(&str, &Slice)> = buffers.iter().map(|(name, buffer)| (*name, buffer)).collect();
        let bind_group = pipeline.bind(gpu, &buffers)?;
        Ok(Checked { dispatch: Dispatch::one(pipeline.kernel, compiled.clone(), grid, bind_group), output })
    }

    fn compare(&self, values: &[f32]) -> Result<(), String> {
        let (written, canaries) = values.split_at(self.written);
        if canaries.iter().any(|value| value.to_bits() != POISON) {
            return Err("it writes beyond the end of its output".into());
        }
        let (absolute, relative) = self.bound;
        for &(place, expected) in &self.expected {
            let found = f64::from(written[place]);
            let allowed = absolute + relative * expected.abs();
            let difference = (found - expected).abs();
            if difference.is_nan() || difference > allowed {
                return Err(format!("value {place} is {found:.9}, expected {expected:.9} within {allowed:.1e}"));
            }
        }
        Ok(())
    }
}

/// How a form did.
pub(crate) struct Measured {
    /// Of one dispatch.
    pub seconds: f64,
    /// Of the bits of all results.
    pub digest: u64,
}

struct Checked {
    dispatch: Dispatch,
    output: Slice,
}

impl std::ops::Deref for Checked {
    type Target = Dispatch;

    fn deref(&self) -> &Dispatch {
        &self.dispatch
    }
}

/// Numbers in [-1, 1) that look random and are the same everywhere.
pub fn noise(seed: u32, count: usize) -> Vec<f32> {
    let number = |i: u32| {
        let mut bits = (i ^ seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b);
        bits = (bits ^ bits >> 15).wrapping_mul(0xc2b2_ae35);
        (bits ^ bits >> 16) as i32 as f32 / 2_147_483_648.0
    };
    (0..count as u32).map(number).collect()
}

/// A batch of rows of any kind, for kernels that know only how many there are.
pub fn rows(rows: Count, count: usize) -> Header {
    let count = count as u32;
    match rows {
        Count::Texts => Header { texts: count, tokens: 1, ..Header::default() },
        Count::Selected => Header { selected: count, tokens: 1, texts: 1, ..Header::default() },
        _ => Header { tokens: count, texts: 1, ..Header::default() },
    }
}
