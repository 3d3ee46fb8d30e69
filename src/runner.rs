//! Runs a plan over batches: a few small uploads, one pass, one submit, one copy back, with several batches in flight.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::assembler::Inputs;
use crate::batch::{Batch, Bounds, Capacity, Header, Sequence, sort, split};
use crate::error::{Error, Result};
use crate::gpu::{Arena, Count, Gpu, Plan, Readback, Slice};
use crate::pace::{Pace, UnderWay};
use crate::pool::{Lease, Pool};
use crate::stats::{Counters, Stats};

/// Batches that may be under way at once: one on the GPU, one behind it, one being read.
const IN_FLIGHT: usize = 3;

/// Something that a plan leaves on the GPU.
#[derive(Debug)]
pub struct Output {
    pub buffer: Slice,
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

/// Texts whose order a call's memory keeps room for when it is over.
const KEPT_ORDER: usize = 1 << 16;

/// A model's plan with its inputs and its outputs.
pub struct Runner {
    gpu: Gpu,
    plan: Plan,
    inputs: Inputs,
    outputs: Vec<Output>,
    capacity: Capacity,
    bounds: Bounds,
    slots: Arc<Pool<Slot>>,
    /// The memory of calls that are over.
    idle: Mutex<Vec<Memory>>,
    /// Held from the first write of a batch's inputs to its submit: there is one set of inputs for all threads.
    order: Mutex<()>,
    stats: Mutex<Stats>,
    pace: Arc<Pace>,
}

/// What a batch needs on the host.
pub struct Slot {
    readback: Readback,
    batch: Batch,
}

/// What a call needs on the host beside its batches.
#[derive(Default)]
struct Memory {
    order: Vec<usize>,
    flying: VecDeque<Flight>,
}

/// Room for the results of the batches that may be under way.
pub fn slots(arena: &mut Arena, outputs: &[Output], capacity: Capacity) -> Result<Arc<Pool<Slot>>> {
    // All outputs of a batch come back in one buffer, one after another.
    let values = outputs.iter().map(|output| capacity.rows(output.rows) * output.stride).sum();
    let slot = |_| Ok(Slot { readback: arena.readback("result", values)?, batch: Batch::default() });
    Ok(Pool::new((0..IN_FLIGHT).map(slot).collect::<Result<_>>()?))
}

impl Runner {
    pub fn new(
        gpu: Gpu,
        plan: Plan,
        inputs: Inputs,
        outputs: Vec<Output>,
        slots: Arc<Pool<Slot>>,
        capacity: Capacity,
        bounds: Bounds,
    ) -> Self {
        let (idle, order, stats) = Default::default();
        let pace = Pace::new(&plan);
        Self { gpu, plan, inputs, outputs, capacity, bounds, slots, idle, order, stats, pace }
    }

    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// What a batch may hold now: less than [`Runner::capacity`] where that would keep the GPU for too long.
    fn capacity_now(&self) -> Capacity {
        if self.gpu.computes() { self.pace.limit(self.capacity, self.bounds.max_tokens) } else { self.capacity }
    }

    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub fn stats(&self) -> Stats {
        *lock(&self.stats)
    }

    pub fn set_stats(&self, stats: Stats) {
        *lock(&self.stats) = stats;
    }

    /// Begins a call that hands each text's rows to `take(text, output, rows)`, `rows` with the output's stride, batch by batch.
    pub fn call<T: FnMut(usize, usize, &[f32])>(&self, wait: Wait, take: T) -> Call<'_, T> {
        let memory = lock(&self.idle).pop().unwrap_or_default();
        Call { runner: self, wait, take, counters: Counters::default(), memory }
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
        let (mut counters, mut order, mut batch) = (Counters::default(), Vec::new(), Batch::default());
        sort(sequences, &mut order);
        let (mut left, mut flying) = (order.as_slice(), VecDeque::<(_, UnderWay, _)>::with_capacity(IN_FLIGHT));
        while let Some(members) = split(sequences, left, self.capacity_now()).next() {
            left = &left[members.len()..];
            if flying.len() == IN_FLIGHT
                && let Some((submission, under_way, tokens)) = flying.pop_front()
            {
                // What the queue holds of a batch's inputs is given back, and how long it took is known.
                self.gpu.wait(submission)?;
                under_way.done(tokens);
            }
            batch.repack(sequences, members, &self.bounds);
            let under_way = self.pace.begin();
            let submission = self.submit(&batch, &mut counters, |encoder| {
                for (i, text) in batch.texts.iter().enumerate() {
                    let from = i as u64 * output.row_bytes();
                    output.buffer.copy(encoder, from, &rows, *text as u64 * row_bytes, row_bytes);
                }
            })?;
            flying.push_back((submission, under_way, batch.header.tokens));
        }
        self.finish(counters);
        Ok(rows)
    }

    /// Submits the batch of a slot, whose texts are the call's from `first` on, and asks for its results.
    fn launch(&self, first: usize, slot: Lease<Slot>, counters: &mut Counters) -> Result<Flight> {
        let Slot { batch, readback } = &*slot;
        let mut bytes = 0;
        let under_way = self.pace.begin();
        let submission = self.submit(batch, counters, |encoder| {
            for output in &self.outputs {
                let more = output.bytes(&batch.header);
                output.buffer.copy(encoder, 0, readback.buffer(), bytes, more);
                bytes += more;
            }
        })?;
        counters.bytes_read += bytes;
        readback.request(bytes);
        Ok(Flight { first, slot, requested: true, submission, bytes, under_way })
    }

    /// Records the pass and what follows it, then writes the inputs and submits.
    fn submit(
        &self,
        batch: &Batch,
        counters: &mut Counters,
        after: impl FnOnce(&mut wgpu::CommandEncoder),
    ) -> Result<wgpu::SubmissionIndex> {
        let begin = Instant::now();
        let (submission, record, submit) = self.gpu.checked("running a batch", || {
            let mut encoder = self.gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("minilm") });
            self.plan.record(&mut encoder, &batch.header);
            after(&mut encoder);
            let commands = encoder.finish();
            let record = begin.elapsed();
            let _in_order = lock(&self.order);
            let begin = Instant::now();
            self.write(batch);
            let submission = self.gpu.queue().submit([commands]);
            Ok((submission, record, begin.elapsed()))
        })?;
        *counters += Counters {
            texts: batch.header.texts as u64,
            tokens: batch.header.tokens as u64,
            batches: 1,
            submits: 1,
            dispatches: self.plan.steps.len() as u64,
            bytes_uploaded: batch.bytes(),
            record_nanoseconds: record.as_nanos() as u64,
            submit_nanoseconds: submit.as_nanos() as u64,
            ..Counters::default()
        };
        Ok(submission)
    }

    /// Hands the inputs to the queue.
    fn write(&self, batch: &Batch) {
        let (gpu, Inputs { header, offsets, ids, places, selected }) = (&self.gpu, &self.inputs);
        gpu.write(header, bytemuck::bytes_of(&batch.header));
        gpu.write(offsets, bytemuck::cast_slice(&batch.offsets));
        gpu.write(ids, bytemuck::cast_slice(&batch.ids));
        gpu.write(places, bytemuck::cast_slice(&batch.places));
        if let Some(selected) = selected {
            gpu.write(selected, bytemuck::cast_slice(&batch.selected));
        }
    }

    /// Every step of the first batch of `sequences`, timed `runs` times by the GPU's own clock.
    #[cfg(feature = "bench")]
    pub fn profile(&self, sequences: &[Sequence], runs: usize) -> Result<Vec<Timed>> {
        let mut order = Vec::new();
        sort(sequences, &mut order);
        let Some(members) = split(sequences, &order, self.capacity_now()).next() else { return Ok(Vec::new()) };
        let batch = Batch::pack(sequences, members, &self.bounds);
        let seconds = {
            let _in_order = lock(&self.order);
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
        let mut stats = lock(&self.stats);
        stats.last = counters;
        stats.total += counters;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

/// A call under way, with batches in flight. Dropping it gives them up.
pub struct Call<'r, T> {
    runner: &'r Runner,
    wait: Wait,
    take: T,
    pub counters: Counters,
    memory: Memory,
}

impl<T: FnMut(usize, usize, &[f32])> Call<'_, T> {
    /// Submits `sequences`, the call's texts from `first` on, and reads the batches that must make room. Others may still be in flight
    /// when it returns.
    pub async fn run(&mut self, first: usize, sequences: &[Sequence<'_>]) -> Result<()> {
        let Self { runner, wait, take, counters, memory: Memory { order, flying } } = self;
        let begin = Instant::now();
        sort(sequences, order);
        counters.pack_nanoseconds += begin.elapsed().as_nanos() as u64;
        let mut left = order.as_slice();
        while let Some(members) = split(sequences, left, runner.capacity_now()).next() {
            left = &left[members.len()..];
            // Whoever holds a slot never waits for another: that could be for ever.
            let mut slot = loop {
                if let Some(slot) = runner.slots.try_take() {
                    break slot;
                }
                match flying.pop_front() {
                    Some(oldest) => oldest.land(runner, *wait, take).await?,
                    None => break runner.slots.take().await,
                }
            };
            let begin = Instant::now();
            slot.batch.repack(sequences, members, &runner.bounds);
            counters.pack_nanoseconds += begin.elapsed().as_nanos() as u64;
            flying.push_back(runner.launch(first, slot, counters)?);
        }
        Ok(())
    }

    /// Reads what is still in flight.
    pub async fn finish(mut self) -> Result<()> {
        while let Some(oldest) = self.memory.flying.pop_front() {
            oldest.land(self.runner, self.wait, &mut self.take).await?;
        }
        self.runner.finish(self.counters);
        Ok(())
    }
}

impl<T> Drop for Call<'_, T> {
    fn drop(&mut self) {
        let mut memory = mem::take(&mut self.memory);
        memory.flying.clear();
        memory.order.clear();
        memory.order.shrink_to(KEPT_ORDER);
        lock(&self.runner.idle).push(memory);
    }
}

/// A batch on its way through the GPU.
struct Flight {
    /// The call's text that is the first of the batch's sequences.
    first: usize,
    slot: Lease<Slot>,
    /// Whether the readback has a request that was neither served nor taken back.
    requested: bool,
    submission: wgpu::SubmissionIndex,
    bytes: u64,
    under_way: UnderWay,
}

impl Flight {
    async fn land(mut self, runner: &Runner, wait: Wait, take: &mut impl FnMut(usize, usize, &[f32])) -> Result<()> {
        match wait {
            Wait::Here => runner.gpu.wait(self.submission.clone())?,
            Wait::InBackground => runner.gpu.wait_in_background(self.submission.clone()),
        }
        // Another thread's poll may be the one that calls back, a little later than ours returns.
        self.slot.readback.answered().await.map_err(|reason| runner.gpu.lost(reason))?;
        let Slot { batch, readback } = &*self.slot;
        self.under_way.done(batch.header.tokens);
        let mut not_finite = None;
        let result = readback.read(self.bytes, |values| {
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
                    let rows = &own[rows.start as usize * output.stride..rows.end as usize * output.stride];
                    let text = self.first + text;
                    // A sum is the fastest look at all of them: it is finite only where they are, or where they cancel beyond f32.
                    if !rows.iter().sum::<f32>().is_finite()
                        && let Some((at, value)) = rows.iter().enumerate().find(|(_, value)| !value.is_finite())
                    {
                        not_finite.get_or_insert(Error::NotFinite { text, at, value: *value });
                    }
                    take(text, index, rows);
                }
            }
        });
        self.requested = false;
        // A result that has come is only gone where its device is.
        result.map_err(|error| runner.gpu.lost(error.to_string()))?;
        not_finite.map_or(Ok(()), Err)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.requested {
            self.slot.readback.cancel();
        }
    }
}
