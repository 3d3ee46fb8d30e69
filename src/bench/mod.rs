//! How fast a model runs here, and what bounds it: whole workloads from token ids to embeddings in host memory, each kernel by the GPU's
//! own clock, and what the adapter can do at most, all in one run.
//!
//! Feature `bench`.

mod peaks;
mod products;
mod report;
mod synthetic;
mod table;
mod workloads;

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::batch::{Bounds, Sequence};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::kernels::Operands;
use crate::tasks::embedder::Embedder;
use crate::{AdapterSummary, Checkpoint, Pooling};

pub use peaks::Peaks;
pub use report::{Adapter, ColdStart, KernelReport, ModelReport, ProductReport, Ratio, Report, WorkloadReport};
pub use synthetic::Shape;
pub use workloads::Workload;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// A model folder, rather than [`Options::shapes`] with synthetic weights.
    pub model: Option<PathBuf>,
    pub shapes: Vec<Shape>,
    pub workloads: Vec<Workload>,
    /// What the encoder's matrix products are made of: see [`Builder::weights`](crate::Builder::weights) and
    /// [`Builder::arithmetic`](crate::Builder::arithmetic).
    pub operands: Operands,
    /// W5: the matrix product alone, at the shapes of each model.
    pub products: bool,
    /// Runs of each workload, of which the median counts; fewer where they take long.
    pub runs: usize,
    /// Seconds after which no further run of a workload begins.
    pub patience: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            model: None,
            shapes: Shape::ALL.to_vec(),
            workloads: Workload::all(),
            operands: Operands::default(),
            products: true,
            runs: 10,
            patience: 20.0,
        }
    }
}

/// Runs everything; `progress` is told what comes next.
///
/// # Errors
/// Those of loading and running a model.
pub fn run(gpu: &Gpu, options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Report> {
    progress("what the adapter can do at most");
    let peaks = Peaks::measure(gpu)?;
    let mut report = Report::new(gpu, options.operands, peaks);
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
    let (begin, pipelines_before, checks_before) = (Instant::now(), gpu.pipeline_seconds(), gpu.check_seconds());
    let Operands { weights, arithmetic } = options.operands;
    let builder = Embedder::builder().gpu(gpu.clone()).pooling(Pooling::Mean).normalize(true);
    let embedder = builder.weights(weights).arithmetic(arithmetic).from_dir(folder)?;
    let load = begin.elapsed().as_secs_f64();
    let pipelines = gpu.pipeline_seconds() - pipelines_before;
    let checks = gpu.check_seconds() - checks_before;
    let begin = Instant::now();
    embedder.embed_tokens(&[sequence(&[0; 12])])?;
    let first_batch = begin.elapsed().as_secs_f64();

    let (model, config) = (embedder.model(), embedder.model().config());
    let stats = model.stats();
    let mut report = ModelReport {
        name: name.to_owned(),
        layers: config.layers,
        hidden: config.hidden,
        intermediate: config.intermediate,
        cold_start: ColdStart { file, upload: (load - file - pipelines).max(0.0), pipelines, checks, first_batch },
        weight_bytes: stats.weight_bytes,
        activation_bytes: stats.activation_bytes,
        dispatches: model.kernels().len(),
        ..ModelReport::default()
    };
    let (fitting, others): (Vec<_>, Vec<_>) =
        options.workloads.iter().partition(|workload| workload.lengths.iter().all(|&length| length <= model.max_length()));
    for workload in others {
        log::warn!("{name}: left out {workload}: the model takes texts of up to {} tokens", model.max_length());
    }
    let texts: Vec<_> = fitting.into_iter().map(|workload| (workload, workload.ids(config.vocabulary))).collect();
    let sequences: Vec<Vec<Sequence>> = texts.iter().map(|(_, texts)| texts.iter().map(|ids| sequence(ids)).collect()).collect();
    let mut runs = vec![Vec::new(); texts.len()];
    // In turns: a machine whose speed drifts is then as fast for one workload as for another.
    for turn in 0..=options.runs.max(1) {
        for (((workload, _), sequences), runs) in texts.iter().zip(&sequences).zip(&mut runs) {
            if !runs.is_empty() && runs.iter().map(|(seconds, _)| seconds).sum::<f64>() >= options.patience {
                continue;
            }
            progress(&format!("{name}: {workload}"));
            let begin = Instant::now();
            embedder.embed_tokens(sequences)?;
            if turn > 0 {
                runs.push((begin.elapsed().as_secs_f64(), model.stats().last)); // the first is to warm up
            }
        }
    }
    for (((workload, texts), sequences), runs) in texts.iter().zip(&sequences).zip(&runs) {
        progress(&format!("{name}: {workload}, its parts"));
        let tokenize = tokenize(&embedder, texts)?;
        report.workloads.push(WorkloadReport::new(workload, runs, tokenize, report::operations(config, &workload.lengths)));
        if workload.kernels && gpu.can_profile() {
            report.kernels.extend(KernelReport::of(workload, &model.profile(sequences, 3)?, peaks));
        }
    }
    report.compare();
    if options.products {
        progress(&format!("{name}: W5 (the matrix product alone)"));
        report.products = products::measure(gpu, config, options.operands, peaks)?;
    }
    Ok(report)
}

fn sequence(ids: &[u32]) -> Sequence<'_> {
    Sequence { ids, ..Sequence::default() }
}

/// Seconds to make as many tokens as `ids` has of texts: with one thread, and on all cores.
fn tokenize(embedder: &Embedder, ids: &[Vec<u32>]) -> Result<[f64; 2]> {
    let (model, tokenizer) = (embedder.model(), embedder.model().tokenizer());
    let texts: Vec<String> = ids.iter().map(|ids| workloads::text(&tokenizer.pieces(ids))).collect();
    let wanted: usize = ids.iter().map(Vec::len).sum();
    let begin = Instant::now();
    let encodings = texts.iter().map(|text| tokenizer.encode(text, None, model.max_length())).collect::<Result<Vec<_>>>()?;
    let one_thread = begin.elapsed().as_secs_f64();
    let begin = Instant::now();
    embedder.encode(&texts)?;
    let all_cores = begin.elapsed().as_secs_f64();
    // The pieces of a vocabulary are not always whole words.
    let made: usize = encodings.iter().map(|encoding| encoding.total_tokens).sum();
    Ok([one_thread, all_cores].map(|seconds| seconds * wanted as f64 / made.max(1) as f64))
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
