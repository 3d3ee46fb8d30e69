//! What the adapter can do at most, measured: bytes a second through its memory, operations a second in its registers.

use serde::{Deserialize, Serialize};

use crate::batch::{Batch, Sequence};
use crate::bench::no_bounds;
use crate::error::Result;
use crate::gpu::{Amount, Arena, Cost, Count, Gpu, Grid, Plan, Source, Step};
use crate::kernels::unroll;

/// The adapter's own limits.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Peaks {
    /// Read and written together; 0 where the adapter has no timestamps.
    pub bytes_per_second: f64,
    /// Multiplications and additions in f32.
    pub operations_per_second: f64,
}

const LANES: u32 = 64;

/// Steps of a sum that are written out.
const STEPS: usize = 16;

/// `y = x` over a buffer that no cache holds.
const COPY: &str = "
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    for (var i = 0u; i < PER_LANE; i++) {
        let at = (group.x * PER_LANE + i) * LANES + lane;
        y[at] = x[at];
    }
}";

/// Sixteen sums that do not wait for one another, of numbers that stay small; several steps written out, so that the loop costs nothing.
const MULTIPLY_ADD: &str = "
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let at = group.x * LANES + lane;
    let factor = x[at];
    var a = factor; var b = factor + 1.0; var c = factor + 2.0; var d = factor + 3.0;
    for (var i = 0u; i < PER_LANE; i++) {
#for step in STEPS
        a = fma(a, factor, b);
        b = fma(b, factor, c);
        c = fma(c, factor, d);
        d = fma(d, factor, a);
#end
    }
    y[at] = a + b + c + d;
}";

impl Peaks {
    /// The larger of the shares of the two limits that so many operations and bytes reach in so many seconds; 0 where none was measured.
    pub(super) fn share(&self, operations: f64, bytes: f64, seconds: f64) -> f64 {
        let share = |amount: f64, peak: f64| if peak > 0.0 { amount / seconds / peak } else { 0.0 };
        share(operations, self.operations_per_second).max(share(bytes, self.bytes_per_second))
    }

    /// # Errors
    /// Those of running a kernel.
    pub fn measure(gpu: &Gpu) -> Result<Self> {
        if !gpu.can_profile() {
            return Ok(Self { bytes_per_second: 0.0, operations_per_second: 0.0 });
        }
        // Large enough to be out of every cache, small enough for WebGPU's default binding.
        let bytes = (96usize << 20).min(gpu.max_binding() as usize);
        let groups = 4096;
        let per_lane = bytes / 16 / LANES as usize / groups;
        let bytes = 2 * per_lane * groups * LANES as usize * 16;
        let copy = time(gpu, "peak_copy", COPY, per_lane, groups, bytes / 2)?;
        let (per_lane, groups) = if gpu.info().device_type == wgpu::DeviceType::Cpu { (512 / STEPS, 256) } else { (16_384 / STEPS, 8192) };
        let operations = per_lane * groups * LANES as usize * STEPS * 4 * 4 * 2;
        let multiply_add = time(gpu, "peak_fma", MULTIPLY_ADD, per_lane, groups, groups * LANES as usize * 16)?;
        Ok(Self { bytes_per_second: bytes as f64 / copy, operations_per_second: operations as f64 / multiply_add })
    }
}

/// Seconds of one dispatch over two buffers of `bytes`.
fn time(gpu: &Gpu, kernel: &'static str, wgsl: &str, per_lane: usize, groups: usize, bytes: usize) -> Result<f64> {
    let mut arena = Arena::new(gpu, "peaks");
    let [x, y] = [arena.storage("x", bytes / 4)?, arena.storage("y", bytes / 4)?];
    let source = Source::compose(
        kernel,
        &[("LANES", LANES), ("PER_LANE", per_lane as u32)],
        &[&unroll(wgsl, &[("STEPS", STEPS as u32)])],
        Vec::new(),
    );
    let pipeline = gpu.pipeline(source)?;
    let cost = Cost { rows: Count::Texts, operations: Amount::default(), bytes: Amount::default() };
    let step = Step::single(gpu, pipeline, Grid::each(Count::Fixed(groups as u32)), &[("x", &x), ("y", &y)], cost)?;
    let plan = Plan::new(gpu, vec![step])?;
    let batch = Batch::pack(&[Sequence { ids: &[0], ..Default::default() }], &[0], &no_bounds());
    Ok(gpu.profile(&plan, &batch.header, 5)?[0])
}
