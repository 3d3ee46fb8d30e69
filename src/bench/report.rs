//! What was measured, as JSON and as a table.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::peaks::Peaks;
use super::workloads::Workload;
use crate::checkpoint::EncoderConfig;
use crate::gpu::Gpu;
use crate::kernels::Operands;
use crate::runner::Timed;
use crate::stats::Counters;

/// One run over all models and workloads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub version: String,
    /// In UTC.
    pub date: String,
    pub adapter: Adapter,
    /// What matrix products were made of.
    #[serde(default)]
    pub operands: Operands,
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

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)] // reports of earlier versions can be compared with
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
    /// What the times of several workloads say together.
    pub ratios: Vec<Ratio>,
    /// W5.
    pub products: Vec<ProductReport>,
    pub kernels: Vec<KernelReport>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ratio {
    pub what: String,
    pub ratio: f64,
}

/// Seconds from nothing to the first result.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct ColdStart {
    /// Opening and checking the folder, tokenizer included.
    pub file: f64,
    /// Converting and uploading weights, making buffers and bind groups.
    pub upload: f64,
    /// Making pipelines; nothing where another model made them.
    pub pipelines: f64,
    /// Holding each kernel to its definition, all threads together, most of it while weights are on their way; nothing where another
    /// model did.
    #[serde(default)]
    pub checks: f64,
    /// One text of 12 tokens; some drivers compile only now.
    pub first_batch: f64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
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
    /// To make as many tokens of texts, with one thread.
    pub tokenize_seconds: f64,
    /// The same on all cores.
    pub tokenize_all_cores_seconds: f64,
    /// Of all batches: sorting texts and packing them.
    pub pack_seconds: f64,
    /// Of all batches: recording the passes.
    pub record_seconds: f64,
    /// Of all batches: handing inputs and passes to the driver.
    pub submit_seconds: f64,
    /// Between the dispatches of a pass.
    pub barriers: u64,
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

/// The matrix product alone: `[rows, inner] * [inner, outer]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProductReport {
    pub name: String,
    /// The form that was chosen.
    #[serde(default)]
    pub variant: String,
    pub rows: usize,
    pub inner: usize,
    pub outer: usize,
    pub seconds: f64,
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
    pub(super) fn new(gpu: &Gpu, operands: Operands, peaks: Peaks) -> Self {
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M").to_string();
        Self { version: env!("CARGO_PKG_VERSION").to_owned(), date, adapter: super::adapter(gpu), operands, peaks, models: Vec::new() }
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
    /// Of runs that each took so many seconds and counted so, and of making the tokens with one thread and on all cores.
    pub(super) fn new(workload: &Workload, runs: &[(f64, Counters)], [tokenize, tokenize_all_cores]: [f64; 2], operations: f64) -> Self {
        let sorted = |value: &dyn Fn(&(f64, Counters)) -> f64| {
            let mut values: Vec<f64> = runs.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let median = |value: &dyn Fn(&(f64, Counters)) -> f64| sorted(value)[runs.len() / 2];
        let (seconds, last) = (median(&|run| run.0), &runs[runs.len() - 1].1);
        let (texts, tokens) = (workload.lengths.len(), workload.tokens());
        Self {
            name: workload.name.to_owned(),
            what: workload.what.to_owned(),
            texts,
            tokens,
            batches: last.batches,
            runs: runs.len(),
            seconds,
            fastest: sorted(&|run| run.0)[0],
            texts_per_second: texts as f64 / seconds,
            tokens_per_second: tokens as f64 / seconds,
            operations_per_second: operations / seconds,
            tokenize_seconds: tokenize,
            tokenize_all_cores_seconds: tokenize_all_cores,
            pack_seconds: median(&|run| run.1.pack_nanoseconds as f64 * 1e-9),
            record_seconds: median(&|run| run.1.record_nanoseconds as f64 * 1e-9),
            submit_seconds: median(&|run| run.1.submit_nanoseconds as f64 * 1e-9),
            barriers: last.dispatches.saturating_sub(last.batches),
            bytes_uploaded: last.bytes_uploaded,
            bytes_read: last.bytes_read,
        }
    }
}

impl ModelReport {
    /// Fills in the ratios of the workloads that were run, by the fastest run of each: what else a machine does only adds to one.
    pub(super) fn compare(&mut self) {
        let time = |name: &str| self.workloads.iter().find(|workload| workload.name == name).map(|workload| workload.fastest);
        let mut ratios = Vec::new();
        if let (Some(mixed), Some(uniform)) = (time("W3"), time("W3u")) {
            let what = "mixed lengths against one length: time of W3 / W3u".to_owned();
            ratios.push(Ratio { what, ratio: mixed / uniform });
        }
        let names = Workload::SWEEP.map(|(name, _)| name);
        for pair in names.windows(2) {
            if let [Some(short), Some(long)] = [time(pair[0]), time(pair[1])] {
                let what = format!("as many tokens in texts twice as long: time of {} / {}", pair[1], pair[0]);
                ratios.push(Ratio { what, ratio: long / short });
            }
        }
        self.ratios = ratios;
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
            kernel.share_of_peak = peaks.share(kernel.operations, kernel.bytes, kernel.seconds);
        }
        kernels
    }
}
