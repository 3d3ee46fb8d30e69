//! Weights on their way to the device: what is there in the end is held to what was sent.

use crate::batch::Header;
use crate::error::{Error, Result};
use crate::gpu::{Arena, Gpu, Plan, Slice, When};
use crate::kernels::digest::{BlockDigests, Buffers, Digest};

/// What goes to a device at one load.
pub struct Delivery<'a> {
    gpu: &'a Gpu,
    /// Bytes so far.
    pub bytes: u64,
    /// Those that the GPU may not have yet.
    under_way: u64,
    sent: Vec<Sent>,
}

/// What was sent to a buffer.
struct Sent {
    /// Of a tensor that is in it.
    name: String,
    buffer: Slice,
    words: usize,
    digest: Digest,
}

impl<'a> Delivery<'a> {
    pub fn new(gpu: &'a Gpu) -> Self {
        Self { gpu, bytes: 0, under_way: 0, sent: Vec::new() }
    }

    /// Fills all of a buffer, as [`Gpu::upload`] does.
    ///
    /// # Errors
    /// As [`Gpu::upload`].
    pub fn send(
        &mut self,
        name: &str,
        buffer: &Slice,
        [rows, words]: [usize; 2],
        mut fill: impl FnMut(usize, &mut [u32]) -> Result<()>,
    ) -> Result<()> {
        let (gpu, place, mut digest) = (self.gpu, self.sent.len(), Digest::default());
        self.bytes += gpu.upload(buffer, rows, words, &mut self.under_way, |first, chunk| {
            fill(first, chunk)?;
            gpu.flip_in(When::Read, place, first * words, chunk);
            digest.add(chunk);
            gpu.flip_in(When::Sent, place, first * words, chunk);
            Ok(())
        })?;
        self.sent.push(Sent { name: name.to_owned(), buffer: buffer.clone(), words: rows * words, digest });
        Ok(())
    }

    /// Waits until everything is on the device, and holds what a kernel finds there to what was sent. Returns the digest of all of it in
    /// its order, which is the same on every adapter.
    ///
    /// # Errors
    /// [`Error::Device`] when a buffer holds anything else, and those of running kernels.
    pub fn arrive(self) -> Result<Digest> {
        let Self { gpu, sent, .. } = self;
        gpu.flush()?;
        let mut all = Digest::default();
        sent.iter().for_each(|sent| all.append(sent.digest));
        if !gpu.computes() || sent.is_empty() {
            return Ok(all);
        }
        let kernels: Vec<_> = sent.iter().map(|sent| BlockDigests { words: sent.words }).collect();
        let values: Vec<_> = kernels.iter().map(BlockDigests::values).collect();
        let mut arena = Arena::new(gpu, "digests of the weights");
        let y = arena.storage("digests", values.iter().copied().max().unwrap_or(0))?;
        let readback = arena.readback("digests", values.iter().sum())?;
        let step = |(kernel, sent): (&BlockDigests, &Sent)| kernel.step(gpu, &Buffers { x: &sent.buffer, y: &y });
        let plan = Plan::new(gpu, kernels.iter().zip(&sent).map(step).collect::<Result<_>>()?)?;
        let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("digests") });
        let mut end = 0;
        for (step, values) in plan.steps.iter().zip(&values) {
            step.record(&mut encoder.begin_compute_pass(&Default::default()), &Header::default());
            let bytes = *values as u64 * 4;
            y.copy(&mut encoder, 0, readback.buffer(), end, bytes);
            end += bytes;
        }
        let arrived = |mut found: &[f32]| {
            let own = |values: &usize| found.split_off(..*values).map_or(0, BlockDigests::total);
            values.iter().map(own).zip(&sent).find(|(found, sent)| *found != sent.digest.value()).map(|(_, sent)| &sent.name)
        };
        match gpu.read_back(encoder, &readback, end, arrived)? {
            None => Ok(all),
            Some(name) => Err(Error::Device {
                problem: format!(
                    "the weights `{name}` are not on {} as they were sent there: load the model again, and where that does not help, update \
                     the driver or choose another adapter",
                    gpu.describe()
                ),
            }),
        }
    }
}
