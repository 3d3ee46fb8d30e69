//! All that knows wgpu: which adapter runs, buffers and uploads, kernels and their pipelines, and the list of steps of a pass.

pub mod adapter;
mod buffer;
pub mod check;
mod cost;
mod kernel;
mod plan;
mod poller;
mod profile;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

pub use adapter::{AdapterSummary, GpuOptions};
pub use buffer::{Arena, Readback, Slice};
pub use cost::{Amount, Cost};
pub use kernel::{Pipeline, Source};
pub(crate) use plan::prepare;
pub use plan::{Count, Form, Grid, Plan, Step};

use crate::error::{Error, Result};

/// A device and its queue, with the pipelines made so far. Cheap to clone; several models can share one.
#[derive(Clone)]
pub struct Gpu {
    shared: Arc<Shared>,
}

struct Shared {
    device: wgpu::Device,
    queue: wgpu::Queue,
    info: wgpu::AdapterInfo,
    limits: wgpu::Limits,
    pipelines: Mutex<HashMap<Source, Arc<Pipeline>>>,
    pipeline_nanoseconds: AtomicU64,
    check_nanoseconds: AtomicU64,
    /// Held while a kernel is compiled, where only one may be.
    compiling: Mutex<()>,
    rejected: Mutex<Vec<Rejected>>,
    faults: Mutex<Vec<Fault>>,
    flip: Mutex<Option<Flip>>,
    poller: poller::Poller,
    lost: Arc<OnceLock<String>>,
    /// Squares of f16 numbers, of so many each way, that the adapter multiplies with f32 sums.
    square: Option<u32>,
    /// How it was opened; nothing where the caller handed it in.
    options: Option<GpuOptions>,
    /// What took its place after it was lost.
    replacement: Mutex<Option<Gpu>>,
}

/// A form of a kernel that this adapter cannot do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    pub kernel: &'static str,
    pub variant: String,
    pub problem: String,
}

/// A mistake for tests to plant in a shader.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub kernel: &'static str,
    /// Only in forms whose shader contains this.
    pub only_with: &'static str,
    /// What is written `wrong`, wherever it stands.
    pub right: &'static str,
    pub wrong: &'static str,
}

/// A wrong word for tests to plant in a weight.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Flip {
    pub when: When,
    /// Counted in the order in which a model's buffers are filled.
    pub buffer: usize,
    pub word: usize,
    pub bits: u32,
}

/// Where a word goes wrong.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Between the file and the digest of what is sent.
    Read,
    /// Between that and the GPU.
    Sent,
}

impl Gpu {
    /// Opens the adapter that `options` and the variables `WGPU_BACKEND`, `WGPU_ADAPTER_NAME` and `WGPU_POWER_PREF` ask for; without
    /// any, the fastest kind there is. A software adapter is taken only when there is no other, with a logged warning.
    ///
    /// # Errors
    /// [`Error::Adapter`] when there is none or none matches, saying what there is or what to install.
    pub fn new(options: GpuOptions) -> Result<Self> {
        pollster::block_on(Self::new_async(options))
    }

    /// As [`Gpu::new`], for callers that must not block.
    ///
    /// # Errors
    /// As [`Gpu::new`].
    pub async fn new_async(options: GpuOptions) -> Result<Self> {
        let adapter::Opened { device, queue, square } = adapter::open(options.clone()).await?;
        let lost = Arc::new(OnceLock::new());
        let flag = lost.clone();
        device.set_device_lost_callback(move |_, message| _ = flag.set(message));
        // wgpu's own handler panics; what is not caught where it happens is logged.
        device.on_uncaptured_error(Arc::new(|error| log::error!("uncaptured GPU error: {error}")));
        Ok(Self::with_device(device, queue, lost, square, Some(options)))
    }

    /// Shares an app's own device and queue. Its error handler and its callback for a lost device stay as the app has set them.
    /// What the device offers in limits is used; WebGPU's default limits suffice.
    pub fn from_device(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        Self::with_device(device, queue, Arc::default(), None, None)
    }

    fn with_device(
        device: wgpu::Device,
        queue: wgpu::Queue,
        lost: Arc<OnceLock<String>>,
        square: Option<u32>,
        options: Option<GpuOptions>,
    ) -> Self {
        let (info, limits) = (device.adapter_info(), device.limits());
        let poller = poller::Poller::new(device.clone());
        Self {
            shared: Arc::new(Shared {
                device,
                queue,
                info,
                limits,
                pipelines: Mutex::default(),
                pipeline_nanoseconds: AtomicU64::new(0),
                check_nanoseconds: AtomicU64::new(0),
                compiling: Mutex::default(),
                rejected: Mutex::default(),
                faults: Mutex::default(),
                flip: Mutex::default(),
                poller,
                lost,
                square,
                options,
                replacement: Mutex::default(),
            }),
        }
    }

    /// The device, for buffers and passes of the caller's own.
    pub fn device(&self) -> &wgpu::Device {
        &self.shared.device
    }

    /// The queue that all work goes to.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.shared.queue
    }

    /// Which adapter this is.
    pub fn info(&self) -> &wgpu::AdapterInfo {
        &self.shared.info
    }

    /// The adapter and its driver, for messages.
    pub(crate) fn describe(&self) -> String {
        let wgpu::AdapterInfo { name, driver, driver_info, .. } = self.info();
        format!("`{name}` with driver `{}`", [driver.as_str(), driver_info].join(" ").trim())
    }

    /// The limits of the device.
    pub fn limits(&self) -> &wgpu::Limits {
        &self.shared.limits
    }

    /// Matrix units for f16 with f32 sums, where the device has them: the size of their squares, and the lanes of a subgroup, which
    /// gives them work. A device that the caller handed in does not tell.
    pub(crate) fn matrix_units(&self) -> Option<(u32, u32)> {
        let needed = wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP | wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        let lanes = self.info().subgroup_max_size;
        let fixed = self.info().subgroup_min_size == lanes && lanes.is_power_of_two();
        self.shared.square.filter(|_| fixed && self.device().features().contains(needed)).map(|size| (size, lanes))
    }

    /// The pipeline for this source and its constants; it is the same object at every call.
    ///
    /// # Errors
    /// [`Error::Kernel`] when the shader is no WGSL or contradicts the host.
    pub fn pipeline(&self, source: Source) -> Result<Arc<Pipeline>> {
        let cache = || self.shared.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = cache().get(&source) {
            return Ok(pipeline.clone());
        }
        let pipeline = Arc::new(Pipeline::new(self, &self.with_faults(source.clone()))?);
        // Another thread may have made it meanwhile: theirs counts.
        Ok(cache().entry(source).or_insert(pipeline).clone())
    }

    /// Kernels that did not compile or gave wrong results here, each replaced by another form of the same.
    pub fn rejected(&self) -> Vec<Rejected> {
        self.shared.rejected.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn reject(&self, kernel: &'static str, variant: &str, error: &Error) {
        let mut rejected = self.shared.rejected.lock().unwrap_or_else(PoisonError::into_inner);
        let this = Rejected { kernel, variant: variant.to_owned(), problem: error.to_string() };
        if !rejected.contains(&this) {
            log::warn!("kernel `{kernel}` runs in its simplest form instead of {variant}: {error}");
            rejected.push(this);
        }
    }

    /// Plants a mistake in the shaders that are made from now on, to see whether it is found.
    #[doc(hidden)]
    pub fn plant(&self, fault: Fault) {
        self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
    }

    /// Plants a wrong word in the weights that are loaded from now on, or no more.
    #[doc(hidden)]
    pub fn flip(&self, flip: Option<Flip>) {
        *self.shared.flip.lock().unwrap_or_else(PoisonError::into_inner) = flip;
    }

    /// Makes the mistake that was planted, if it is among a buffer's `words` from `first` on.
    pub(crate) fn flip_in(&self, when: When, buffer: usize, first: usize, words: &mut [u32]) {
        let flip = *self.shared.flip.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flip) = flip.filter(|flip| (flip.when, flip.buffer) == (when, buffer))
            && let Some(word) = flip.word.checked_sub(first).and_then(|at| words.get_mut(at))
        {
            *word ^= flip.bits;
        }
    }

    fn with_faults(&self, mut source: Source) -> Source {
        for Fault { kernel, only_with, right, wrong } in &*self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner) {
            if source.kernel == *kernel && source.wgsl.contains(only_with) {
                source.wgsl = source.wgsl.replace(right, wrong);
            }
        }
        source
    }

    /// Whether results are computed at all: wgpu's noop backend, for tests of the host side, computes nothing.
    pub(crate) fn computes(&self) -> bool {
        self.info().backend != wgpu::Backend::Noop
    }

    fn add_pipeline_time(&self, time: Duration) {
        self.shared.pipeline_nanoseconds.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Seconds spent on compiling kernels so far, of all threads together.
    pub fn pipeline_seconds(&self) -> f64 {
        self.shared.pipeline_nanoseconds.load(Ordering::Relaxed) as f64 * 1e-9
    }

    fn add_check_time(&self, time: Duration) {
        self.shared.check_nanoseconds.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Seconds spent on holding kernels to their definition so far, of all threads together.
    pub fn check_seconds(&self) -> f64 {
        self.shared.check_nanoseconds.load(Ordering::Relaxed) as f64 * 1e-9
    }

    /// Runs `work` and turns what the driver complains of meanwhile, on this thread, into an error that begins with `what`.
    pub(crate) fn checked<T>(&self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let scopes = [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation]
            .map(|filter| self.shared.device.push_error_scope(filter));
        let result = work();
        // The scope that was pushed last must go first.
        let [internal, memory, validation] = scopes;
        let errors = [pollster::block_on(validation.pop()), pollster::block_on(memory.pop()), pollster::block_on(internal.pop())];
        let [validation, memory, internal] = errors;
        if let Some(reason) = self.shared.lost.get() {
            return Err(self.lost(reason.clone()));
        }
        // What ran out of memory is refused wherever it is used afterwards.
        match memory.or(validation).or(internal) {
            Some(wgpu::Error::OutOfMemory { .. }) => Err(Error::Memory {
                problem: format!("{what}: the GPU is out of memory; use a smaller token budget or model, or close what else uses the GPU"),
            }),
            Some(error) => Err(Error::Device { problem: format!("{what}: {error}") }),
            None => result,
        }
    }

    /// Waits until `submission` is done and its callbacks have been called.
    pub(crate) fn wait(&self, submission: wgpu::SubmissionIndex) -> Result<()> {
        match self.shared.device.poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout: None }) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.lost(error.to_string())),
        }
    }

    /// Has a thread of this `Gpu` wait for `submission`, so that a future over its callbacks wakes up.
    pub(crate) fn wait_in_background(&self, submission: wgpu::SubmissionIndex) {
        self.shared.poller.wait(submission);
    }

    /// The error for work that did not come back.
    pub(crate) fn lost(&self, reason: String) -> Error {
        let advice = match self.shared.options {
            Some(_) => "open a new `Gpu` and load the model again",
            None => "it was handed in, so hand in a new device and its queue with `Gpu::from_device` and load the model again",
        };
        Error::DeviceLost { reason: self.shared.lost.get_or_init(|| reason).clone(), advice }
    }

    /// A device in the place of this one, which was lost: the same for all models that ran on it.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] where the caller handed the device in, and those of [`Gpu::new`].
    pub(crate) fn replacement(&self) -> Result<Self> {
        let Some(options) = &self.shared.options else { return Err(self.lost(String::new())) };
        let mut replacement = self.shared.replacement.lock().unwrap_or_else(PoisonError::into_inner);
        match &*replacement {
            Some(gpu) if gpu.shared.lost.get().is_some() => gpu.replacement(),
            Some(gpu) => Ok(gpu.clone()),
            None => Ok(replacement.insert(Self::new(options.clone())?).clone()),
        }
    }
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu").field("adapter", &self.info().name).field("backend", &self.info().backend).finish_non_exhaustive()
    }
}
