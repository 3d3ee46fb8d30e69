//! Runs a plan over batches: a few small uploads, one pass, one submit, one copy back, with several batches in flight.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures::channel::oneshot;

use crate::assembler::Inputs;
use crate::batch::{Batch, Bounds, Capacity, Header, Sequence, split};
use crate::error::{Error, Result};
use crate::gpu::{Arena, Count, Gpu, Plan, Readback};
use crate::pool::{Lease, Pool};
use crate::stats::{Counters, Stats};

/// Batches that may be under way at once: one on the GPU, one behind it, one being read.
const IN_FLIGHT: usize = 3;

/// Something that a plan leaves on the GPU.
#[derive(Debug)]
pub struct Output {
    pub buffer: wgpu::Buffer,
    /// A row for each text, token or selected token.
    pub rows: Count,
    /// Values of a row that count.
    pub columns: usize,
    /// Values from one row to the next.
    pub stride: usize,
}

impl Output {
    fn row_bytes(&self) -> u64 {
        self.stride as u64 * 4
    }

    /// Bytes that a batch leaves here.
    fn bytes(&self, batch: &Header) -> u64 {
        u64::from(self.rows.of(batch)) * self.row_bytes()
    }

    /// The values that count of `rows` with their padding.
    pub fn columns_of<'a>(&self, rows: &'a [f32]) -> impl Iterator<Item = &'a [f32]> {
        let columns = self.columns;
        rows.chunks_exact(self.stride).map(move |row| &row[..columns])
    }
}

/// Who waits for the GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The calling thread.
    Here,
    /// A thread of the [`Gpu`], which wakes the future.
    InBackground,
}

/// A model's plan with its inputs and its outputs.
pub struct Runner {
    gpu: Gpu,
    plan: Plan,
    inputs: Inputs,
    outputs: Vec<Output>,
    capacity: Capacity,
    bounds: Bounds,
    readbacks: Arc<Pool<Readback>>,
    /// Held from the first write of a batch's inputs to its submit: there is one set of inputs for all threads.
    order: Mutex<()>,
    stats: Mutex<Stats>,
}

impl Runner {
    pub fn new(
        gpu: Gpu,
        plan: Plan,
        inputs: Inputs,
        outputs: Vec<Output>,
        capacity: Capacity,
        bounds: Bounds,
        arena: &mut Arena,
    ) -> Result<Self> {
        // All outputs of a batch come back in one buffer, one after another.
        let values = outputs.iter().map(|output| capacity.rows(output.rows) * output.stride).sum();
        let readbacks = (0..IN_FLIGHT).map(|_| arena.readback("result", values)).collect::<Result<_>>()?;
        let readbacks = Pool::new(readbacks);
        Ok(Self { gpu, plan, inputs, outputs, capacity, bounds, readbacks, order: Mutex::default(), stats: Mutex::default() })
    }

    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub fn stats(&self) -> Stats {
        *self.lock_stats()
    }

    pub fn set_memory(&self, weight_bytes_uploaded: u64, weight_bytes: u64, activation_bytes: u64) {
        let mut stats = self.lock_stats();
        *stats = Stats { weight_bytes_uploaded, weight_bytes, activation_bytes, ..*stats };
    }

    /// Runs all `sequences` and hands each one's rows to `take(text, output, rows)`, `rows` with the output's stride, batch by batch.
    pub async fn run(&self, sequences: &[Sequence<'_>], wait: Wait, mut take: impl FnMut(usize, usize, &[f32])) -> Result<()> {
        let mut counters = Counters::default();
        let mut flying: VecDeque<Flight> = VecDeque::with_capacity(IN_FLIGHT);
        for members in self.split(sequences) {
            let begin = Instant::now();
            let batch = Batch::pack(sequences, &members, &self.bounds);
            counters.host_nanoseconds += begin.elapsed().as_nanos() as u64;
            // Whoever holds a readback never waits for another: that could be for ever.
            let readback = loop {
                if let Some(readback) = self.readbacks.try_take() {
                    break readback;
                }
                match flying.pop_front() {
                    Some(oldest) => oldest.land(self, wait, &mut take).await?,
                    None => break self.readbacks.take().await,
                }
            };
            flying.push_back(self.launch(batch, readback, &mut counters)?);
        }
        for flight in flying {
            flight.land(self, wait, &mut take).await?;
        }
        self.finish(counters);
        Ok(())
    }

    /// Runs all `sequences` and leaves one row of the first output's `columns` values for each, in the caller's order, in a new buffer.
    pub fn run_to_buffer(&self, sequences: &[Sequence]) -> Result<wgpu::Buffer> {
        let output = &self.outputs[0];
        let row_bytes = output.columns as u64 * 4;
        let size = sequences.len() as u64 * row_bytes;
        let limit = self.gpu.limits().max_buffer_size;
        if size > limit {
            return Err(Error::Memory {
                problem: format!("the result needs a buffer of {size} bytes, but this adapter allows {limit}: give fewer texts at a time"),
            });
        }
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let descriptor = wgpu::BufferDescriptor { label: Some("rows"), size, usage, mapped_at_creation: false };
        let rows = self.gpu.checked("a buffer for the result", || Ok(self.gpu.device().create_buffer(&descriptor)))?;
        let mut counters = Counters::default();
        for members in self.split(sequences) {
            let batch = Batch::pack(sequences, &members, &self.bounds);
            self.submit(&batch, &mut counters, |encoder| {
                for (i, text) in batch.texts.iter().enumerate() {
                    let from = i as u64 * output.row_bytes();
                    encoder.copy_buffer_to_buffer(&output.buffer, from, &rows, *text as u64 * row_bytes, row_bytes);
                }
            })?;
        }
        self.finish(counters);
        Ok(rows)
    }

    fn split(&self, sequences: &[Sequence]) -> Vec<Vec<usize>> {
        split(sequences, self.capacity)
    }

    fn launch(&self, batch: Batch, readback: Lease<Readback>, counters: &mut Counters) -> Result<Flight> {
        let mut bytes = 0;
        let submission = self.submit(&batch, counters, |encoder| {
            for output in &self.outputs {
                let more = output.bytes(&batch.header);
                encoder.copy_buffer_to_buffer(&output.buffer, 0, readback.buffer(), bytes, more);
                bytes += more;
            }
        })?;
        counters.bytes_read += bytes;
        let done = readback.request(bytes);
        Ok(Flight { batch, readback, requested: true, done, submission, bytes })
    }

    /// Records the pass and what follows it, then writes the inputs and submits.
    fn submit(
        &self,
        batch: &Batch,
        counters: &mut Counters,
        after: impl FnOnce(&mut wgpu::CommandEncoder),
    ) -> Result<wgpu::SubmissionIndex> {
        let begin = Instant::now();
        let submission = self.gpu.checked("running a batch", || {
            let mut encoder = self.gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("minilm") });
            self.plan.record(&mut encoder, &batch.header);
            after(&mut encoder);
            let commands = encoder.finish();
            let _in_order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
            self.write(batch);
            Ok(self.gpu.queue().submit([commands]))
        })?;
        *counters += Counters {
            texts: batch.header.texts as u64,
            tokens: batch.header.tokens as u64,
            batches: 1,
            submits: 1,
            dispatches: self.plan.steps.len() as u64,
            bytes_uploaded: batch.bytes(),
            bytes_read: 0,
            host_nanoseconds: begin.elapsed().as_nanos() as u64,
        };
        Ok(submission)
    }

    /// Hands the inputs to the queue; they are there for what is submitted next.
    fn write(&self, batch: &Batch) {
        let (queue, Inputs { header, offsets, ids, places, selected }) = (self.gpu.queue(), &self.inputs);
        queue.write_buffer(header, 0, bytemuck::bytes_of(&batch.header));
        queue.write_buffer(offsets, 0, bytemuck::cast_slice(&batch.offsets));
        queue.write_buffer(ids, 0, bytemuck::cast_slice(&batch.ids));
        queue.write_buffer(places, 0, bytemuck::cast_slice(&batch.places));
        if let Some(selected) = selected {
            queue.write_buffer(selected, 0, bytemuck::cast_slice(&batch.selected));
        }
    }

    /// Every step of the first batch of `sequences`, timed `runs` times by the GPU's own clock.
    #[cfg(feature = "bench")]
    pub fn profile(&self, sequences: &[Sequence], runs: usize) -> Result<Vec<Timed>> {
        let Some(members) = self.split(sequences).into_iter().next() else { return Ok(Vec::new()) };
        let batch = Batch::pack(sequences, &members, &self.bounds);
        let seconds = {
            let _in_order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
            self.write(&batch);
            self.gpu.profile(&self.plan, &batch.header, runs)?
        };
        let timed = self.plan.steps.iter().zip(self.plan.kernels()).zip(seconds).map(|((step, kernel), seconds)| {
            let (operations, bytes) = step.cost.of(&batch);
            Timed { kernel, seconds, operations, bytes }
        });
        Ok(timed.collect())
    }

    fn finish(&self, counters: Counters) {
        let mut stats = self.lock_stats();
        stats.last = counters;
        stats.total += counters;
    }

    fn lock_stats(&self) -> std::sync::MutexGuard<'_, Stats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One step of a pass, timed.
#[cfg(feature = "bench")]
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    pub kernel: &'static str,
    pub seconds: f64,
    /// At least.
    pub operations: f64,
    pub bytes: f64,
}

/// A batch on its way through the GPU.
struct Flight {
    batch: Batch,
    readback: Lease<Readback>,
    /// Whether the readback has a request that was neither served nor taken back.
    requested: bool,
    done: oneshot::Receiver<Result<(), wgpu::BufferAsyncError>>,
    submission: wgpu::SubmissionIndex,
    bytes: u64,
}

impl Flight {
    async fn land(mut self, runner: &Runner, wait: Wait, take: &mut impl FnMut(usize, usize, &[f32])) -> Result<()> {
        match wait {
            Wait::Here => runner.gpu.wait(self.submission.clone())?,
            Wait::InBackground => runner.gpu.wait_in_background(self.submission.clone()),
        }
        // Another thread's poll may be the one that calls back, a little later than ours returns.
        match (&mut self.done).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(runner.gpu.lost(error.to_string())),
            Err(_) => return Err(runner.gpu.lost("the driver dropped the request for a result".into())),
        }
        let batch = &self.batch;
        let result = self.readback.read(self.bytes, |values| {
            let mut values = values;
            for (index, output) in runner.outputs.iter().enumerate() {
                let (own, rest) = values.split_at((output.bytes(&batch.header) / 4) as usize);
                values = rest;
                for (i, text) in batch.texts.iter().enumerate() {
                    let rows = match output.rows {
                        Count::Tokens => batch.offsets[i].token..batch.offsets[i + 1].token,
                        Count::Selected => batch.selected_offsets[i]..batch.selected_offsets[i + 1],
                        _ => i as u32..i as u32 + 1,
                    };
                    take(*text, index, &own[rows.start as usize * output.stride..rows.end as usize * output.stride]);
                }
            }
        });
        self.requested = false;
        result.map_err(|error| Error::Device { problem: format!("reading a result: {error}") })
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.requested {
            self.readback.cancel();
        }
    }
}
