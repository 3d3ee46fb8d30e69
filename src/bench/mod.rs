//! How fast a model runs here, and what bounds it: whole workloads from token ids to embeddings in host memory, each kernel by the GPU's
//! own clock, and what the adapter can do at most, all in one run.
//!
//! Feature `bench`.

mod peaks;
mod report;
mod synthetic;
mod workloads;

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::batch::{Bounds, Sequence};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::tasks::embedder::Embedder;
use crate::{AdapterSummary, Checkpoint, Pooling};

pub use peaks::Peaks;
pub use report::{Adapter, ColdStart, KernelReport, ModelReport, Report, WorkloadReport};
pub use synthetic::Shape;
pub use workloads::Workload;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// A model folder, rather than [`Options::shapes`] with synthetic weights.
    pub model: Option<PathBuf>,
    pub shapes: Vec<Shape>,
    pub workloads: Vec<Workload>,
    /// Runs of each workload, of which the median counts; fewer where they take long.
    pub runs: usize,
    /// Seconds after which no further run of a workload begins.
    pub patience: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { model: None, shapes: Shape::ALL.to_vec(), workloads: Workload::all(), runs: 10, patience: 20.0 }
    }
}

/// Runs everything; `progress` is told what comes next.
///
/// # Errors
/// Those of loading and running a model.
pub fn run(gpu: &Gpu, options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Report> {
    progress("what the adapter can do at most");
    let peaks = Peaks::measure(gpu)?;
    let mut report = Report::new(gpu, peaks);
    match &options.model {
        Some(folder) => {
            let name = folder.file_name().map_or_else(|| folder.display().to_string(), |name| name.to_string_lossy().into_owned());
            report.models.push(measure(gpu, &name, folder, options, &peaks, progress)?);
        }
        None => {
            for shape in &options.shapes {
                progress(&format!("{shape}: writing synthetic weights"));
                let folder = synthetic::Folder::write(*shape)?;
                report.models.push(measure(gpu, &shape.to_string(), folder.path(), options, &peaks, progress)?);
            }
        }
    }
    Ok(report)
}

fn measure(gpu: &Gpu, name: &str, folder: &Path, options: &Options, peaks: &Peaks, progress: &mut dyn FnMut(&str)) -> Result<ModelReport> {
    progress(&format!("{name}: cold start"));
    let begin = Instant::now();
    drop(Checkpoint::open(folder)?);
    let file = begin.elapsed().as_secs_f64();
    let (begin, pipelines_before) = (Instant::now(), gpu.pipeline_seconds());
    let embedder = Embedder::builder().gpu(gpu.clone()).pooling(Pooling::Mean).normalize(true).from_dir(folder)?;
    let load = begin.elapsed().as_secs_f64();
    let pipelines = gpu.pipeline_seconds() - pipelines_before;
    let begin = Instant::now();
    embedder.embed_tokens(&[Sequence { ids: &[0; 12], ..Default::default() }])?;
    let first_batch = begin.elapsed().as_secs_f64();

    let (model, config) = (embedder.model(), embedder.model().config());
    let stats = model.stats();
    let mut report = ModelReport {
        name: name.to_owned(),
        layers: config.layers,
        hidden: config.hidden,
        intermediate: config.intermediate,
        cold_start: ColdStart { file, upload: (load - file - pipelines).max(0.0), pipelines, first_batch },
        weight_bytes: stats.weight_bytes,
        activation_bytes: stats.activation_bytes,
        dispatches: model.kernels().len(),
        workloads: Vec::new(),
        kernels: Vec::new(),
    };
    for workload in &options.workloads {
        let longest = workload.lengths.iter().max().copied().unwrap_or(1);
        if longest > model.max_length() {
            continue;
        }
        progress(&format!("{name}: {workload}"));
        let texts = workload.ids(config.vocabulary);
        let sequences: Vec<_> = texts.iter().map(|ids| Sequence { ids, ..Default::default() }).collect();
        embedder.embed_tokens(&sequences)?; // warm
        let (mut seconds, begin) = (Vec::new(), Instant::now());
        while seconds.len() < options.runs && (seconds.is_empty() || begin.elapsed().as_secs_f64() < options.patience) {
            let begin = Instant::now();
            embedder.embed_tokens(&sequences)?;
            seconds.push(begin.elapsed().as_secs_f64());
        }
        let last = model.stats().last;
        report.workloads.push(WorkloadReport::new(workload, &seconds, &last, report::operations(config, &workload.lengths)));
        if gpu.can_profile() {
            report.kernels.extend(KernelReport::of(workload, &model.profile(&sequences, 3)?, peaks));
        }
    }
    Ok(report)
}

/// Bounds that any batch of a measurement meets.
fn no_bounds() -> Bounds {
    Bounds {
        vocabulary: usize::MAX,
        token_types: 1,
        default_type: 0,
        position_offset: 0,
        padding: None,
        max_tokens: usize::MAX,
        max_selected: usize::MAX,
    }
}

/// Everything about the adapter that a report says.
fn adapter(gpu: &Gpu) -> Adapter {
    let info = gpu.info();
    let software = AdapterSummary { info: info.clone(), features: gpu.device().features(), limits: gpu.limits().clone() }.is_software();
    Adapter {
        name: info.name.clone(),
        backend: info.backend.to_str().to_owned(),
        driver: [info.driver.as_str(), info.driver_info.as_str()].join(" ").trim().to_owned(),
        software,
    }
}
