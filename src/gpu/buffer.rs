//! Buffers that are made at load, what they take, and how values get in and out of them.

use std::future::poll_fn;
use std::num::NonZero;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use futures::task::AtomicWaker;

use super::Gpu;
use crate::error::{Error, Result};

/// Bytes that are converted and handed to the queue at a time.
const CHUNK: usize = 4 << 20;
/// Bytes that may be under way to the GPU before an upload waits for them.
const IN_FLIGHT: u64 = 8 << 20;

/// A buffer, or the part of one that a tensor lies in.
#[derive(Clone, Debug)]
pub struct Slice {
    pub buffer: wgpu::Buffer,
    /// In bytes.
    pub offset: u64,
    /// In bytes, at least 16: an empty binding is not allowed.
    pub size: u64,
}

impl From<wgpu::Buffer> for Slice {
    fn from(buffer: wgpu::Buffer) -> Self {
        Self { offset: 0, size: buffer.size(), buffer }
    }
}

impl Slice {
    /// As what a shader's variable is bound to. Always with its size: where DX12 rounds up a buffer that may be a uniform too, `arrayLength`
    /// would count what nobody wrote.
    pub fn binding(&self) -> wgpu::BindingResource<'_> {
        wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: &self.buffer, offset: self.offset, size: NonZero::new(self.size) })
    }

    /// Records a copy of `bytes` from byte `from` on, to byte `at` of a buffer.
    pub fn copy(&self, encoder: &mut wgpu::CommandEncoder, from: u64, to: &wgpu::Buffer, at: u64, bytes: u64) {
        encoder.copy_buffer_to_buffer(&self.buffer, self.offset + from, to, at, bytes);
    }
}

/// Makes buffers within the adapter's limits and adds up what they take.
pub struct Arena<'g> {
    gpu: &'g Gpu,
    what: &'static str,
    bytes: u64,
    /// Stands for every buffer where none is made.
    placeholder: Option<Slice>,
    slabs: Slabs,
}

/// Tensors that nothing writes after the load lie behind one another in a few buffers, each as large as the plan found that it must be. A driver
/// gives a large buffer a piece of memory of just its size, while many small ones would share pieces that they leave a part of unused.
#[derive(Debug, Default)]
struct Slabs {
    /// Sizes in bytes.
    planned: Vec<u64>,
    buffers: Vec<wgpu::Buffer>,
    /// Bytes of each that are taken so far.
    taken: Vec<u64>,
}

impl Slabs {
    /// Most bytes of one, unless a single tensor has more.
    const MOST: u64 = 64 << 20;
    /// Where a binding may begin on any adapter.
    const ALIGNMENT: u64 = 256;

    /// The place of the next `size` bytes in a buffer of at most `most`, and by how much they make what is taken grow.
    fn place(&mut self, size: u64, most: u64) -> (usize, u64, u64) {
        let begin = |taken: u64| taken.next_multiple_of(Self::ALIGNMENT);
        if self.taken.last().is_none_or(|taken| begin(*taken) + size > most) {
            self.taken.push(0);
        }
        let slab = self.taken.len() - 1;
        let offset = begin(self.taken[slab]);
        let growth = offset + size - std::mem::replace(&mut self.taken[slab], offset + size);
        (slab, offset, growth)
    }
}

impl<'g> Arena<'g> {
    /// `what` the buffers are for, in messages: `weights`, `activations`.
    pub fn new(gpu: &'g Gpu, what: &'static str) -> Self {
        Self { gpu, what, bytes: 0, placeholder: None, slabs: Slabs::default() }
    }

    /// An arena that only adds up: all its buffers are one small one, which may be bound as anything.
    pub fn planning(gpu: &'g Gpu, what: &'static str) -> Result<Self> {
        let mut arena = Self::new(gpu, what);
        let placeholder = arena.shared("placeholder", 4)?;
        Ok(Self { bytes: 0, placeholder: Some(placeholder), ..arena })
    }

    /// An arena for what was planned with another, whose [`Arena::slabs`] these are.
    pub fn planned(gpu: &'g Gpu, what: &'static str, slabs: Vec<u64>) -> Self {
        Self { slabs: Slabs { planned: slabs, ..Slabs::default() }, ..Self::new(gpu, what) }
    }

    /// Whether there is nothing to write to.
    pub fn is_planning(&self) -> bool {
        self.placeholder.is_some()
    }

    /// Bytes of all buffers made so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of each buffer that [`Arena::constant`] asks for.
    pub fn slabs(&self) -> Vec<u64> {
        self.slabs.taken.clone()
    }

    /// A storage buffer of `values` 4-byte values.
    ///
    /// # Errors
    /// [`Error::Memory`] when it is larger than a binding of this adapter may be, or than what is left of its memory.
    pub fn storage(&mut self, label: &str, values: usize) -> Result<Slice> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        self.buffer(label, values as u64 * 4, usage, self.gpu.max_binding())
    }

    /// A place for `values` 4-byte values that no kernel writes to.
    ///
    /// # Errors
    /// As [`Arena::storage`].
    pub fn constant(&mut self, label: &str, values: usize) -> Result<Slice> {
        let size = self.allowed(label, values as u64 * 4, self.gpu.max_binding())?;
        // What there is ends where the plan ended it, and without a plan with the tensor that it was made for.
        let most = self.slabs.buffers.last().map_or(Slabs::MOST.min(self.gpu.limits().max_buffer_size), wgpu::Buffer::size);
        let (slab, offset, growth) = self.slabs.place(size, most);
        self.bytes += growth;
        if let Some(placeholder) = &self.placeholder {
            return Ok(placeholder.clone());
        }
        if self.slabs.buffers.len() == slab {
            let whole = self.slabs.planned.get(slab).copied().unwrap_or(size);
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
            self.slabs.buffers.push(self.make(&format!("{label} and what lies behind it"), whole, usage)?);
        }
        Ok(Slice { buffer: self.slabs.buffers[slab].clone(), offset, size })
    }

    /// A buffer of `words` words that can be bound as anything.
    ///
    /// # Errors
    /// As [`Arena::storage`].
    pub(super) fn shared(&mut self, label: &str, words: usize) -> Result<Slice> {
        use wgpu::BufferUsages as Usages;
        let usage = Usages::STORAGE | Usages::UNIFORM | Usages::COPY_DST | Usages::COPY_SRC;
        self.buffer(label, words as u64 * 4, usage, self.gpu.max_binding())
    }

    /// A uniform buffer of `bytes`.
    ///
    /// # Errors
    /// As [`Arena::storage`].
    pub fn uniform(&mut self, label: &str, bytes: usize) -> Result<Slice> {
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        self.buffer(label, bytes as u64, usage, self.gpu.limits().max_uniform_buffer_binding_size)
    }

    /// A buffer that results are copied to and read from.
    ///
    /// # Errors
    /// As [`Arena::storage`].
    pub fn readback(&mut self, label: &str, values: usize) -> Result<Readback> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let slice = self.buffer(label, values as u64 * 4, usage, self.gpu.limits().max_buffer_size)?;
        Ok(Readback { buffer: slice.buffer, answer: Arc::default() })
    }

    fn buffer(&mut self, label: &str, size: u64, usage: wgpu::BufferUsages, limit: u64) -> Result<Slice> {
        let size = self.allowed(label, size, limit)?;
        self.bytes += size;
        match &self.placeholder {
            Some(placeholder) => Ok(placeholder.clone()),
            None => self.make(label, size, usage).map(Slice::from),
        }
    }

    /// What is taken for `size` bytes.
    fn allowed(&self, label: &str, size: u64, limit: u64) -> Result<u64> {
        let size = size.max(16);
        if size <= limit {
            return Ok(size);
        }
        Err(Error::Memory {
            problem: format!(
                "{}: buffer `{label}` needs {size} bytes, but this adapter allows {limit}: use a smaller token budget or model",
                self.what
            ),
        })
    }

    /// At once: what is put into a buffer that is not there would be refused too, one after another.
    fn make(&self, label: &str, size: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        self.gpu.checked(&format!("{}: buffer `{label}` of {size} bytes", self.what), || {
            Ok(self.gpu.device().create_buffer(&wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false }))
        })
    }
}

impl Gpu {
    /// The largest storage binding, in bytes.
    pub fn max_binding(&self) -> u64 {
        self.limits().max_storage_buffer_binding_size.min(self.limits().max_buffer_size)
    }

    /// Hands `bytes` to the queue, for the begin of `slice`: they are there for what is submitted next.
    pub fn write(&self, slice: &Slice, bytes: &[u8]) {
        self.queue().write_buffer(&slice.buffer, slice.offset, bytes);
    }

    /// Fills `slice` with `rows` rows of `words` words of four bytes: `fill(first, words)` writes whole rows from row `first` on. Only a few
    /// megabytes are ever converted or under way at once: `under_way` counts them from one upload to the next, since many small buffers
    /// take as much as one large. Returns the bytes that were uploaded.
    ///
    /// # Errors
    /// Those of `fill`, and [`Error::DeviceLost`].
    pub fn upload(
        &self,
        slice: &Slice,
        rows: usize,
        words: usize,
        under_way: &mut u64,
        mut fill: impl FnMut(usize, &mut [u32]) -> Result<()>,
    ) -> Result<u64> {
        let rows_at_once = (CHUNK / 4 / words.max(1)).clamp(1, rows.max(1));
        let mut chunk = vec![0; rows_at_once * words];
        let mut uploaded = 0;
        for first in (0..rows).step_by(rows_at_once) {
            let chunk = &mut chunk[..rows_at_once.min(rows - first) * words];
            fill(first, chunk)?;
            let bytes = bytemuck::cast_slice(chunk);
            self.queue().write_buffer(&slice.buffer, slice.offset + uploaded, bytes);
            uploaded += bytes.len() as u64;
            *under_way += bytes.len() as u64;
            if *under_way >= IN_FLIGHT {
                self.flush()?;
                *under_way = 0;
            }
        }
        Ok(uploaded)
    }

    /// Submits `encoder`, which copies `bytes` to `readback`, waits, and hands them to `read`.
    pub(crate) fn read_back<T>(
        &self,
        encoder: wgpu::CommandEncoder,
        readback: &Readback,
        bytes: u64,
        read: impl FnOnce(&[f32]) -> T,
    ) -> Result<T> {
        let submission = self.queue().submit([encoder.finish()]);
        readback.request(bytes);
        self.wait(submission)?;
        pollster::block_on(readback.answered()).map_err(|reason| self.lost(reason))?;
        readback.read(bytes, read).map_err(|error| self.lost(error.to_string()))
    }

    /// Uploads what has been written so far and waits, so that the driver gives its staging memory back.
    pub fn flush(&self) -> Result<()> {
        let submission = self.queue().submit([]);
        self.wait(submission)
    }
}

/// A buffer in the memory of the host, for one result at a time.
#[derive(Debug)]
pub struct Readback {
    buffer: wgpu::Buffer,
    answer: Arc<Answer>,
}

/// What the driver says of the last request. It outlives the request, as a channel for each would not.
#[derive(Debug, Default)]
struct Answer {
    last: Mutex<Last>,
    waker: AtomicWaker,
}

#[derive(Debug, Default)]
struct Last {
    /// Requests so far: the answer to one that was taken back may come after the next was made.
    request: u64,
    result: Option<Result<(), String>>,
}

impl Answer {
    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The driver's end of a request. A driver that drops it has answered too.
struct Answering {
    answer: Arc<Answer>,
    request: u64,
    result: Option<Result<(), wgpu::BufferAsyncError>>,
}

impl Answering {
    fn give(&mut self, result: Result<(), wgpu::BufferAsyncError>) {
        self.result = Some(result);
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let mut last = self.answer.last();
        if last.request == self.request {
            last.result = Some(match self.result.take() {
                Some(result) => result.map_err(|error| error.to_string()),
                None => Err("the driver dropped the request for a result".into()),
            });
            drop(last);
            self.answer.waker.wake();
        }
    }
}

impl Readback {
    /// Where to copy the result to.
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// Asks for the first `bytes`, once the work that was submitted before is done.
    pub fn request(&self, bytes: u64) {
        let request = {
            let mut last = self.answer.last();
            *last = Last { request: last.request + 1, result: None };
            last.request
        };
        let mut answering = Answering { answer: self.answer.clone(), request, result: None };
        self.buffer.map_async(wgpu::MapMode::Read, 0..bytes, move |result| answering.give(result));
    }

    /// Waits until the request that was made last is answered.
    ///
    /// # Errors
    /// What the driver says of a request that it could not serve.
    pub async fn answered(&self) -> Result<(), String> {
        let answer = &self.answer;
        let poll = |context: &mut std::task::Context| {
            answer.waker.register(context.waker());
            answer.last().result.take().map_or(Poll::Pending, Poll::Ready)
        };
        poll_fn(poll).await
    }

    /// Hands the first `bytes` to `read`, after the request was answered.
    pub fn read<T>(&self, bytes: u64, read: impl FnOnce(&[f32]) -> T) -> Result<T, wgpu::MapRangeError> {
        let view = self.buffer.get_mapped_range(0..bytes)?;
        let result = read(bytemuck::cast_slice(&view));
        drop(view);
        self.buffer.unmap();
        Ok(result)
    }

    /// Takes a request back, if one is open.
    pub fn cancel(&self) {
        self.buffer.unmap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_lie_behind_one_another_and_begin_where_a_binding_may() {
        let mut slabs = Slabs::default();
        let places = [16, 1000, 300, 5000, 256].map(|size| slabs.place(size, 2048));
        assert_eq!(places, [(0, 0, 16), (0, 256, 1240), (0, 1280, 324), (1, 0, 5000), (2, 0, 256)]);
        assert_eq!(slabs.taken, [1580, 5000, 256]);
    }

    #[test]
    fn every_request_is_answered_once_and_only_by_its_own_answer() {
        let answer = Arc::new(Answer::default());
        let request = |request| {
            *answer.last() = Last { request, result: None };
            Answering { answer: answer.clone(), request, result: None }
        };
        let taken_back = request(1);
        let mut open = request(2);
        drop(taken_back);
        assert_eq!(answer.last().result, None, "an answer to an earlier request");
        open.give(Ok(()));
        drop(open);
        assert_eq!(answer.last().result.take(), Some(Ok(())));
        drop(request(3));
        assert!(answer.last().result.take().is_some_and(|result| result.unwrap_err().contains("dropped")));
    }
}
