//! What was measured, as JSON and as a table.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::peaks::Peaks;
use super::workloads::Workload;
use crate::checkpoint::EncoderConfig;
use crate::gpu::Gpu;
use crate::runner::Timed;
use crate::stats::Counters;

/// One run over all models and workloads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub version: String,
    /// In UTC.
    pub date: String,
    pub adapter: Adapter,
    pub peaks: Peaks,
    pub models: Vec<ModelReport>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Adapter {
    pub name: String,
    pub backend: String,
    pub driver: String,
    pub software: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelReport {
    pub name: String,
    pub layers: usize,
    pub hidden: usize,
    pub intermediate: usize,
    pub cold_start: ColdStart,
    pub weight_bytes: u64,
    pub activation_bytes: u64,
    /// In a batch, with a barrier between each and the next.
    pub dispatches: usize,
    pub workloads: Vec<WorkloadReport>,
    pub kernels: Vec<KernelReport>,
}

/// Seconds from nothing to the first result.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ColdStart {
    /// Opening and checking the folder, tokenizer included.
    pub file: f64,
    /// Converting and uploading weights, making buffers and bind groups.
    pub upload: f64,
    /// Making pipelines; nothing where another model made them.
    pub pipelines: f64,
    /// One text of 12 tokens; some drivers compile only now.
    pub first_batch: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkloadReport {
    pub name: String,
    pub what: String,
    pub texts: usize,
    pub tokens: usize,
    pub batches: u64,
    pub runs: usize,
    /// The median.
    pub seconds: f64,
    pub fastest: f64,
    pub texts_per_second: f64,
    pub tokens_per_second: f64,
    /// Of the encoder's matrix products and attention.
    pub operations_per_second: f64,
    /// Of a batch: packing, recording, writing and submitting.
    pub host_seconds: f64,
    pub bytes_uploaded: u64,
    pub bytes_read: u64,
}

/// All dispatches of one kernel in the workload's first batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KernelReport {
    pub workload: String,
    pub kernel: String,
    pub dispatches: usize,
    pub seconds: f64,
    /// At least.
    pub operations: f64,
    pub bytes: f64,
    /// The larger of its shares of the adapter's two limits.
    pub share_of_peak: f64,
}

/// Operations of an encoder's matrix products and attention over texts of these lengths.
pub(super) fn operations(config: &EncoderConfig, lengths: &[usize]) -> f64 {
    let (hidden, wide) = (config.hidden as f64, config.intermediate as f64);
    let (tokens, pairs) = lengths.iter().fold((0.0, 0.0), |(t, p), &n| (t + n as f64, p + (n * n) as f64));
    config.layers as f64 * (tokens * 2.0 * (4.0 * hidden * hidden + 2.0 * hidden * wide) + pairs * 4.0 * hidden)
}

impl Report {
    pub(super) fn new(gpu: &Gpu, peaks: Peaks) -> Self {
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M").to_string();
        Self { version: env!("CARGO_PKG_VERSION").to_owned(), date, adapter: super::adapter(gpu), peaks, models: Vec::new() }
    }

    /// Ratios of this report's speed to an earlier one's, by model and workload: above 1 it has become faster.
    pub fn ratios(&self, earlier: &Self) -> Vec<(String, f64)> {
        let key = |model: &ModelReport, workload: &WorkloadReport| format!("{} {}", model.name, workload.name);
        let all = |report: &Self| -> BTreeMap<String, f64> {
            let workloads = report.models.iter().flat_map(|model| model.workloads.iter().map(move |workload| (model, workload)));
            workloads.map(|(model, workload)| (key(model, workload), workload.texts_per_second)).collect()
        };
        let before = all(earlier);
        all(self).into_iter().filter_map(|(key, now)| before.get(&key).map(|before| (key, now / before))).collect()
    }
}

impl WorkloadReport {
    pub(super) fn new(workload: &Workload, seconds: &[f64], last: &Counters, operations: f64) -> Self {
        let mut sorted = seconds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let median = sorted[sorted.len() / 2];
        let (texts, tokens) = (workload.lengths.len(), workload.tokens());
        Self {
            name: workload.name.to_owned(),
            what: workload.what.to_owned(),
            texts,
            tokens,
            batches: last.batches,
            runs: sorted.len(),
            seconds: median,
            fastest: sorted[0],
            texts_per_second: texts as f64 / median,
            tokens_per_second: tokens as f64 / median,
            operations_per_second: operations / median,
            host_seconds: (last.pack_nanoseconds + last.record_nanoseconds + last.submit_nanoseconds) as f64 * 1e-9
                / last.batches.max(1) as f64,
            bytes_uploaded: last.bytes_uploaded,
            bytes_read: last.bytes_read,
        }
    }
}

impl KernelReport {
    pub(super) fn of(workload: &Workload, steps: &[Timed], peaks: &Peaks) -> Vec<Self> {
        let mut kernels: Vec<Self> = Vec::new();
        for step in steps {
            let at = kernels.iter().position(|kernel| kernel.kernel == step.kernel).unwrap_or_else(|| {
                let (workload, kernel) = (workload.name.to_owned(), step.kernel.to_owned());
                kernels.push(Self { workload, kernel, dispatches: 0, seconds: 0.0, operations: 0.0, bytes: 0.0, share_of_peak: 0.0 });
                kernels.len() - 1
            });
            let kernel = &mut kernels[at];
            kernel.dispatches += 1;
            kernel.seconds += step.seconds;
            kernel.operations += step.operations;
            kernel.bytes += step.bytes;
        }
        for kernel in &mut kernels {
            let share = |amount: f64, peak: f64| if peak > 0.0 { amount / kernel.seconds / peak } else { 0.0 };
            kernel.share_of_peak = share(kernel.operations, peaks.operations_per_second).max(share(kernel.bytes, peaks.bytes_per_second));
        }
        kernels
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, date, adapter, peaks, models } = self;
        let kind = if adapter.software { ", software" } else { "" };
        writeln!(f, "minilm {version}, {date} UTC")?;
        writeln!(f, "{} ({}{kind}), driver {}", adapter.name, adapter.backend, adapter.driver)?;
        let (bandwidth, operations) = (peaks.bytes_per_second / 1e9, peaks.operations_per_second / 1e9);
        writeln!(f, "measured limits: {bandwidth:.1} GB/s through memory, {operations:.0} GFLOP/s in registers")?;
        for model in models {
            write!(f, "\n{model}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ModelReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ColdStart { file, upload, pipelines, first_batch } = self.cold_start;
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        writeln!(f, "{}: {} layers, hidden {}, intermediate {}", self.name, self.layers, self.hidden, self.intermediate)?;
        let (weights, activations) = (megabytes(self.weight_bytes), megabytes(self.activation_bytes));
        writeln!(
            f,
            "  memory      {weights:.0} MB of weights, {activations:.0} MB of activations; {} dispatches a batch",
            self.dispatches
        )?;
        let all = [file, upload, pipelines, first_batch].map(|seconds| seconds * 1e3);
        writeln!(
            f,
            "  cold start  file {:.0} ms, upload {:.0} ms, pipelines {:.0} ms, first batch {:.0} ms",
            all[0], all[1], all[2], all[3]
        )?;
        writeln!(f, "  workload                          median ms     texts/s    tokens/s   GFLOP/s  host us a batch")?;
        for w in &self.workloads {
            writeln!(
                f,
                "  {:<2} {:<30} {:>9.2} {:>11.1} {:>11.0} {:>9.1} {:>16.0}",
                w.name,
                w.what,
                w.seconds * 1e3,
                w.texts_per_second,
                w.tokens_per_second,
                w.operations_per_second / 1e9,
                w.host_seconds * 1e6
            )?;
        }
        if !self.kernels.is_empty() {
            writeln!(f, "  kernel (first batch)        dispatches         ms   GFLOP/s      GB/s   of the limit")?;
        }
        for k in &self.kernels {
            writeln!(
                f,
                "  {:<2} {:<24} {:>10} {:>10.3} {:>9.1} {:>9.1} {:>13.0}%",
                k.workload,
                k.kernel,
                k.dispatches,
                k.seconds * 1e3,
                k.operations / k.seconds / 1e9,
                k.bytes / k.seconds / 1e9,
                k.share_of_peak * 100.0
            )?;
        }
        Ok(())
    }
}
