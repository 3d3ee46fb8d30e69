//! How long each step of a plan takes, by the GPU's own clock.

use super::{Gpu, Plan, Readback};
use crate::batch::Header;
use crate::error::{Error, Result};
use crate::gpu::Arena;

/// Most queries that a set of them may have.
const MOST_QUERIES: usize = 4096;

impl Gpu {
    /// Whether [`Gpu::profile`] can run here.
    pub fn can_profile(&self) -> bool {
        self.device().features().contains(wgpu::Features::TIMESTAMP_QUERY)
    }

    /// Seconds for each step of a plan over a batch whose inputs have been written: each runs in a pass of its own, `runs` times, and
    /// the least time counts.
    ///
    /// # Errors
    /// [`Error::Input`] where the device has no timestamps, and those of running a batch.
    pub fn profile(&self, plan: &Plan, batch: &Header, runs: usize) -> Result<Vec<f64>> {
        if !self.can_profile() {
            return Err(Error::input("this device has no timestamps (TIMESTAMP_QUERY): profile on another one"));
        }
        let steps = plan.steps.len().min(MOST_QUERIES / 2);
        let queries = 2 * steps;
        let mut arena = Arena::new(self, "timestamps");
        let readback = arena.readback("timestamps", 2 * queries)?;
        let mut least = vec![f64::INFINITY; steps];
        for _ in 0..runs {
            let times = self.checked("profiling a batch", || self.time(plan, batch, queries, &readback))?;
            for (least, pair) in least.iter_mut().zip(times.chunks_exact(2)) {
                *least = least.min(pair[1].saturating_sub(pair[0]) as f64 * f64::from(self.queue().get_timestamp_period()) * 1e-9);
            }
        }
        Ok(least)
    }

    fn time(&self, plan: &Plan, batch: &Header, queries: usize, readback: &Readback) -> Result<Vec<u64>> {
        let device = self.device();
        let set = device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("steps"),
            ty: wgpu::QueryType::Timestamp,
            count: queries as u32,
        });
        let size = queries as u64 * 8;
        let resolved = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("timestamps"),
            size,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("profile") });
        plan.record_timed(&mut encoder, batch, &set);
        encoder.resolve_query_set(&set, 0..queries as u32, &resolved, 0);
        encoder.copy_buffer_to_buffer(&resolved, 0, readback.buffer(), 0, size);
        let submission = self.queue().submit([encoder.finish()]);
        readback.request(size);
        self.wait(submission)?;
        pollster::block_on(readback.answered()).map_err(|reason| self.lost(reason))?;
        let times = readback.read(size, bytemuck::pod_collect_to_vec);
        times.map_err(|error| Error::Device { problem: format!("reading timestamps: {error}") })
    }
}
