//! Tries every kernel in every form that an adapter offers, at a model's shapes: what a bug report needs.

use std::fmt;

use crate::checkpoint::{Checkpoint, EncoderConfig, Pooling};
use crate::error::{Error, Result};
use crate::gpu::check::Check;
use crate::gpu::{Count, Form, Gpu, Grid};
use crate::kernels::attention::Attention;
use crate::kernels::digest::BlockDigests;
use crate::kernels::embedding::Embedding;
use crate::kernels::gather::Gather;
use crate::kernels::layer_norm::LayerNorm;
use crate::kernels::matmul::Matmul;
use crate::kernels::normalize::Normalize;
use crate::kernels::pooling::PooledRows;
use crate::kernels::quantize::Quantize;
use crate::kernels::top_k::TopK;
use crate::kernels::vocabulary::Vocabulary;
use crate::kernels::{Operands, Variant, WeightFormat};
use crate::reference;
use crate::tasks::features::FeatureExtractor;
use crate::tuning::Table;

/// What became of one kernel in one form at one shape.
#[derive(Clone, Debug)]
pub struct Finding {
    pub kernel: &'static str,
    pub shape: String,
    /// Empty where there is only one.
    pub variant: String,
    /// Seconds of a dispatch over the small input of its check, or what is wrong.
    pub outcome: Result<f64, String>,
}

/// A whole model on this adapter beside the same in f64 on the processor.
#[derive(Clone, Copy, Debug)]
pub struct Whole {
    /// Of the hidden states of a short text, between both.
    pub cosine: f64,
    pub largest_difference: f64,
}

/// All that was found.
#[derive(Clone, Debug)]
pub struct Report {
    /// `adapter (backend) with driver, version of the crate`
    pub adapter: String,
    /// What the device offers: features and limits.
    pub device: String,
    pub findings: Vec<Finding>,
    pub whole: Result<Whole, String>,
}

/// Hidden states of layer-normed rows are near 1: what f32 in another order leaves over twelve layers is far below this.
const ALLOWED: f64 = 2e-3;

impl Report {
    /// Whether everything is as it must be.
    pub fn is_healthy(&self) -> bool {
        let kernels = self.findings.iter().all(|finding| finding.outcome.is_ok());
        kernels && matches!(self.whole, Ok(Whole { largest_difference, .. }) if largest_difference <= ALLOWED)
    }
}

/// Examines an adapter with a model; `progress` is told what comes next.
///
/// # Errors
/// Those of opening the model. What is wrong with the adapter is in the report.
pub fn examine(gpu: &Gpu, checkpoint: Checkpoint, progress: &mut dyn FnMut(&str)) -> Result<Report> {
    let (mut findings, config) = (Vec::new(), checkpoint.config.clone());
    for (kernel, shape, form, check) in candidates(gpu, Variant::subgroup(gpu), &config) {
        let form = form?;
        progress(&format!("{kernel} {shape} {}", form.variant));
        let outcome = check().measure(gpu, &form).map(|measured| measured.seconds).map_err(|error| error.to_string());
        findings.push(Finding { kernel, shape, variant: form.variant, outcome });
    }
    progress("the whole model beside f64 on the processor");
    let whole = whole(gpu, checkpoint).map_err(|error| error.to_string());
    Ok(Report { adapter: Table::of(gpu).describe(), device: device(gpu), findings, whole })
}

fn device(gpu: &Gpu) -> String {
    let (info, limits) = (gpu.info(), gpu.limits());
    let features = gpu.device().features().iter_names().map(|(name, _)| name).collect::<Vec<_>>().join(" ");
    let units = gpu.matrix_units().map_or("none".to_owned(), |(size, _)| format!("{size}x{size}"));
    format!(
        "{} {}, {:?}\nfeatures: {features}; matrix units: {units}\nsubgroups of {} to {}; bindings of {} bytes, buffers of {}; workgroups of {} \
         invocations, {} bytes",
        std::env::consts::OS,
        std::env::consts::ARCH,
        info.device_type,
        info.subgroup_min_size,
        info.subgroup_max_size,
        limits.max_storage_buffer_binding_size,
        limits.max_buffer_size,
        limits.max_compute_invocations_per_workgroup,
        limits.max_compute_workgroup_storage_size
    )
}

/// The kernel, its shape, a form, and how to check it: made only when it is its turn, since checks of large matrices are large.
#[doc(hidden)]
pub type Candidate = (&'static str, String, Result<Form>, Box<dyn Fn() -> Check>);

/// Every kernel in every form, at the shapes of a model and of its heads, on an adapter with subgroups of this size.
#[doc(hidden)]
pub fn candidates(gpu: &Gpu, subgroup: Option<u32>, config: &EncoderConfig) -> Vec<Candidate> {
    let (hidden, epsilon, vocabulary) = (config.hidden, config.layer_norm_eps, config.vocabulary);
    let mut all: Vec<Candidate> = Vec::new();
    for variant in Variant::reductions(subgroup) {
        for weights in WeightFormat::ALL {
            let kernel = Embedding { hidden: config.embedding, epsilon, weights };
            all.push((
                "embedding",
                format!("{} {weights:?}", config.embedding),
                kernel.form(gpu, variant),
                Box::new(move || kernel.check()),
            ));
        }
        let kernel = LayerNorm { hidden, epsilon, rows: Count::Tokens };
        all.push(("layer_norm", format!("{hidden}"), kernel.form(gpu, variant), Box::new(move || kernel.check())));
    }
    for [inner, outer] in crate::tuning::shapes(config) {
        for operands in Operands::ALL {
            let (activation, residual) = (Some(config.activation), outer == hidden);
            let kernel = Matmul { inner, outer, operands, activation, residual, rows: Count::Tokens };
            let name = format!("{inner} x {outer} {operands}");
            all.extend(
                kernel.variants_with(gpu, subgroup).into_iter().map(|variant| -> Candidate {
                    ("matmul", name.clone(), kernel.form(gpu, variant), Box::new(move || kernel.check(65)))
                }),
            );
        }
    }
    let has_f16 = gpu.device().features().contains(wgpu::Features::SHADER_F16);
    for half in [false, true].into_iter().filter(|half| has_f16 || !half) {
        let kernel = Attention { heads: config.heads, head_dim: config.head_dim(), bias: config.relative_buckets > 0, half };
        let name = format!("{} heads of {}{}", config.heads, config.head_dim(), if half { " in f16" } else { "" });
        let variants = kernel.variants_with(gpu, subgroup).into_iter().filter(|variant| kernel.rounds(*variant) == half);
        all.extend(
            variants
                .map(|variant| -> Candidate { ("attention", name.clone(), kernel.form(gpu, variant), Box::new(move || kernel.check())) }),
        );
    }
    let single = |source, grid| Ok(Form { variant: String::new(), pipeline: gpu.pipeline(source)?, grid });
    for pooling in Pooling::ALL {
        let kernel = PooledRows { hidden, pooling, column: 0, columns: hidden };
        all.push((
            "pooling",
            format!("{} of {hidden}", pooling.name()),
            single(kernel.source(), Grid::each(Count::Texts)),
            Box::new(move || kernel.check()),
        ));
    }
    let kernel = Normalize { columns: hidden, stride: crate::kernels::padded(hidden), rows: Count::Texts };
    all.push(("normalize", format!("{hidden}"), single(kernel.source(), Grid::each(Count::Texts)), Box::new(move || kernel.check())));
    let kernel = Quantize { inner: hidden, rows: Count::Tokens };
    all.push(("quantize", format!("{hidden}"), single(kernel.source(), kernel.grid()), Box::new(move || kernel.check())));
    let kernel = Gather { width: hidden };
    all.push(("gather", format!("{hidden}"), single(kernel.source(), Grid::each(Count::Selected)), Box::new(move || kernel.check())));
    for weights in WeightFormat::ALL {
        let kernel = Vocabulary { width: config.embedding, vocabulary, weights };
        all.push((
            "vocabulary",
            format!("{vocabulary} words {weights:?}"),
            single(kernel.source(), kernel.grid(1)),
            Box::new(move || kernel.check()),
        ));
    }
    let kernel = BlockDigests { words: vocabulary * config.embedding };
    all.push(("digest", format!("{} words", kernel.words), single(kernel.source(), kernel.grid()), Box::new(move || kernel.check())));
    let kernel = TopK { vocabulary, top: 5.min(vocabulary) };
    all.push((
        "top_k",
        format!("5 of {vocabulary}"),
        single(kernel.source(), Grid::each(Count::Selected)),
        Box::new(move || kernel.check()),
    ));
    all
}

/// Finds what no kernel alone shows, such as a weight that did not arrive as it was sent.
fn whole(gpu: &Gpu, checkpoint: Checkpoint) -> Result<Whole> {
    let encoder = reference::Encoder::new(&checkpoint.config, &checkpoint.encoder()?)?;
    let path = checkpoint.path.clone();
    drop(checkpoint);
    let extractor = FeatureExtractor::builder().gpu(gpu.clone()).from_dir(path)?;
    let encodings = extractor.encode(["The quick brown fox jumps over the lazy dog."])?;
    let features = extractor.features_of_tokens(&[encodings[0].sequence()])?;
    let expected = encoder.hidden(&encodings[0].ids, &encodings[0].type_ids);
    let found = features[0].as_slice();
    if found.len() != expected.len() {
        return Err(Error::Device { problem: format!("{} values came back, expected {}", found.len(), expected.len()) });
    }
    let pairs = || found.iter().copied().map(f64::from).zip(expected.iter().copied());
    let product = pairs().map(|(a, b)| a * b).sum::<f64>();
    let norms = pairs().map(|(a, _)| a * a).sum::<f64>().sqrt() * pairs().map(|(_, b)| b * b).sum::<f64>().sqrt();
    Ok(Whole { cosine: product / norms, largest_difference: pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n", self.adapter, self.device)?;
        writeln!(f, "{:<11} {:<24} {:<64} outcome", "kernel", "shape", "form")?;
        for Finding { kernel, shape, variant, outcome } in &self.findings {
            write!(f, "{kernel:<11} {shape:<24} {variant:<64} ")?;
            match outcome {
                Ok(seconds) => writeln!(f, "right, {:.0} us", seconds * 1e6)?,
                Err(problem) => writeln!(f, "WRONG: {problem}")?,
            }
        }
        match &self.whole {
            Ok(Whole { cosine, largest_difference }) => {
                let verdict = if *largest_difference <= ALLOWED { "right" } else { "WRONG" };
                writeln!(f, "\nwhole model beside f64: {verdict}, cosine {cosine:.9}, largest difference {largest_difference:.2e}")?;
            }
            Err(problem) => writeln!(f, "\nwhole model: WRONG: {problem}")?,
        }
        let wrong = self.findings.iter().filter(|finding| finding.outcome.is_err()).count();
        let verdict = if self.is_healthy() { "all of it right" } else { "not healthy: please report this whole output" };
        writeln!(f, "{} of {} forms right; {verdict}", self.findings.len() - wrong, self.findings.len())
    }
}
