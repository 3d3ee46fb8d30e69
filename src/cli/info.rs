//! `minilm info`: which adapters there are, which one would run, and what a model is and costs.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use minilm::checkpoint::{EncoderWeights, LayerWeights, Linear, Norm, Tensor};
use minilm::{AdapterSummary, Checkpoint, Embedder, GpuOptions, Result, wgpu};
use serde::Serialize;

use super::model::{self, BatchArguments, GpuArguments, LoadArguments, ModelArguments};
use super::output;

/// Show the GPU adapters and which one would run; with --model, also the model and the memory that it takes
#[derive(Args)]
#[command(after_long_help = "Examples:\n  minilm info\n  minilm info --model all-MiniLM-L6-v2 --json")]
pub struct Arguments {
    /// Load this model folder and show its shape and memory too
    #[arg(long, value_name = "DIR", help_heading = "Model")]
    model: Option<PathBuf>,
    #[command(flatten)]
    batch: BatchArguments,
    #[command(flatten)]
    gpu: GpuArguments,
    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    json: bool,
}

#[derive(Serialize)]
struct Info {
    version: &'static str,
    /// Best first.
    adapters: Vec<Adapter>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Model>,
}

#[derive(Serialize)]
struct Adapter {
    name: String,
    /// Whether this one would run.
    selected: bool,
    backend: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    driver: String,
    driver_info: String,
    features: Features,
    subgroup_sizes: [u32; 2],
    limits: Limits,
}

#[derive(Serialize)]
struct Features {
    subgroup: bool,
    shader_f16: bool,
    timestamp_query: bool,
}

/// Bytes, except invocations.
#[derive(Serialize)]
struct Limits {
    max_storage_buffer_binding_size: u64,
    max_buffer_size: u64,
    max_compute_workgroup_storage_size: u32,
    max_compute_invocations_per_workgroup: u32,
}

#[derive(Serialize)]
struct Model {
    path: String,
    family: &'static str,
    layers: usize,
    hidden: usize,
    heads: usize,
    intermediate: usize,
    activation: String,
    vocabulary: usize,
    max_length: usize,
    /// Of the encoder.
    parameters: u64,
    /// Type of the largest matrix in the file.
    stored_as: String,
    /// Several lie next to one another.
    pooling: Vec<&'static str>,
    normalize: bool,
    /// Values of a row.
    dimension: usize,
    /// The program's commands that this folder can do.
    tasks: Vec<&'static str>,
    labels: Vec<String>,
    prompts: std::collections::BTreeMap<String, String>,
    default_prompt: Option<String>,
    /// GPU memory, in bytes.
    weight_bytes: u64,
    activation_bytes: u64,
    /// Tokens of one batch.
    token_budget: usize,
    /// Forms of kernels that this adapter cannot do: `kernel, form: problem`.
    rejected_kernels: Vec<String>,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let Arguments { model, batch, gpu, json } = arguments;
    let adapters = adapters(&gpu.options())?;
    let model = model.map(|path| describe(path, batch, gpu)).transpose()?;
    let info = Info { version: env!("CARGO_PKG_VERSION"), adapters, model };
    let mut lines = Vec::new();
    match json {
        true => output::push_json(&mut lines, &info)?,
        false => lines.extend(for_people(&info).bytes()),
    }
    output::write(&lines)
}

/// All adapters of the backends that `options` allow, the one that would run marked.
fn adapters(options: &GpuOptions) -> Result<Vec<Adapter>> {
    let chosen = AdapterSummary::list(options)?;
    // An empty name matches every adapter, also where a variable names one.
    let all = AdapterSummary::list(&GpuOptions { adapter_name: Some(String::new()), ..options.clone() })?;
    let chosen = chosen.first().and_then(|chosen| all.iter().position(|adapter| adapter.info == chosen.info));
    Ok(all.into_iter().enumerate().map(|(i, summary)| adapter(summary, chosen == Some(i))).collect())
}

fn adapter(summary: AdapterSummary, selected: bool) -> Adapter {
    let AdapterSummary { info, features, limits, .. } = summary;
    Adapter {
        name: info.name,
        selected,
        backend: info.backend.to_str(),
        kind: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete",
            wgpu::DeviceType::IntegratedGpu => "integrated",
            wgpu::DeviceType::VirtualGpu => "virtual",
            wgpu::DeviceType::Cpu => "software",
            wgpu::DeviceType::Other => "other",
        },
        driver: info.driver,
        driver_info: info.driver_info,
        features: Features {
            subgroup: features.contains(wgpu::Features::SUBGROUP),
            shader_f16: features.contains(wgpu::Features::SHADER_F16),
            timestamp_query: features.contains(wgpu::Features::TIMESTAMP_QUERY),
        },
        subgroup_sizes: [info.subgroup_min_size, info.subgroup_max_size],
        limits: Limits {
            max_storage_buffer_binding_size: limits.max_storage_buffer_binding_size,
            max_buffer_size: limits.max_buffer_size,
            max_compute_workgroup_storage_size: limits.max_compute_workgroup_storage_size,
            max_compute_invocations_per_workgroup: limits.max_compute_invocations_per_workgroup,
        },
    }
}

/// Loads the model to see what it takes.
fn describe(path: PathBuf, batch: BatchArguments, gpu: GpuArguments) -> Result<Model> {
    let load = LoadArguments { model: ModelArguments { model: Some(path), max_length: None, language: None }, batch, gpu };
    let folder = load.open()?;
    of_loaded(&folder.path, load.load(&folder, Embedder::builder())?)
}

fn of_loaded(path: &Path, embedder: &Embedder) -> Result<Model> {
    let checkpoint = Checkpoint::open(path)?;
    let weights = checkpoint.encoder()?;
    let (config, stats, sentence) = (embedder.model().config(), embedder.model().stats(), embedder.model().sentence());
    Ok(Model {
        path: path.display().to_string(),
        family: config.family.name,
        layers: config.layers,
        hidden: config.hidden,
        heads: config.heads,
        intermediate: config.intermediate,
        activation: format!("{:?}", config.activation),
        vocabulary: config.vocabulary,
        max_length: embedder.model().max_length(),
        parameters: parameters(&weights),
        stored_as: format!("{:?}", weights.word.dtype),
        pooling: embedder.pooling().iter().map(|pooling| pooling.name()).collect(),
        normalize: embedder.normalizes(),
        dimension: embedder.dimension(),
        tasks: checkpoint.tasks(),
        labels: embedder.model().heads().labels.clone(),
        prompts: sentence.prompts.clone(),
        default_prompt: sentence.default_prompt.clone(),
        weight_bytes: stats.weight_bytes,
        activation_bytes: stats.activation_bytes,
        token_budget: embedder.model().token_budget(),
        rejected_kernels: embedder.model().gpu().rejected().iter().map(|r| format!("{}, {}: {}", r.kernel, r.variant, r.problem)).collect(),
    })
}

/// How many numbers the encoder has, pooler excluded: sentence embeddings do not use it.
fn parameters(weights: &EncoderWeights) -> u64 {
    let tensor = |tensor: &Tensor| tensor.shape.iter().map(|&size| size as u64).product::<u64>();
    let linear = |linear: &Linear| tensor(&linear.weight) + tensor(&linear.bias);
    let norm = |norm: &Norm| tensor(&norm.weight) + tensor(&norm.bias);
    let layer = |layer: &LayerWeights| {
        let LayerWeights { query, key, value, attention_output, attention_norm, up, down, output_norm } = layer;
        [query, key, value, attention_output, up, down].map(linear).iter().sum::<u64>() + norm(attention_norm) + norm(output_norm)
    };
    let tables = [Some(&weights.word), Some(&weights.position), weights.token_type.as_ref()];
    tables.into_iter().flatten().map(tensor).sum::<u64>() + norm(&weights.embedding_norm) + weights.layers.iter().map(layer).sum::<u64>()
}

fn for_people(info: &Info) -> String {
    let mut text = String::from("Adapters, best first:\n");
    for adapter in &info.adapters {
        let (mark, note) = if adapter.selected { ('*', "  <- would run") } else { (' ', "") };
        let Features { subgroup, shader_f16, timestamp_query } = adapter.features;
        let features = [("SUBGROUP", subgroup), ("SHADER_F16", shader_f16), ("TIMESTAMP_QUERY", timestamp_query)];
        let features = features.map(|(name, there)| format!("{name} {}", if there { "yes" } else { "no" })).join(", ");
        let limits = &adapter.limits;
        _ = write!(
            text,
            "\n{mark} {}{note}\n\
             \x20   backend             {}, {}\n\
             \x20   driver              {}\n\
             \x20   features            {features}\n\
             \x20   subgroup sizes      {}\n\
             \x20   storage binding     {}\n\
             \x20   buffer              {}\n\
             \x20   workgroup memory    {}\n\
             \x20   workgroup size      {} invocations\n",
            adapter.name,
            adapter.backend,
            adapter.kind,
            [adapter.driver.as_str(), adapter.driver_info.as_str()].join(" ").trim(),
            sizes(adapter.subgroup_sizes),
            output::bytes(limits.max_storage_buffer_binding_size),
            output::bytes(limits.max_buffer_size),
            output::bytes(limits.max_compute_workgroup_storage_size.into()),
            limits.max_compute_invocations_per_workgroup,
        );
    }
    if let Some(model) = &info.model {
        text += &model_for_people(model);
    }
    text
}

fn sizes(sizes: [u32; 2]) -> String {
    let [smallest, largest] = sizes;
    if smallest == largest { smallest.to_string() } else { format!("{smallest} to {largest}") }
}

fn model_for_people(model: &Model) -> String {
    let prompts = model.prompts.iter().map(|(name, prompt)| format!("{name} {prompt:?}")).collect::<Vec<_>>().join(", ");
    let default = model.default_prompt.as_ref().map(|name| format!(" (default: {name})")).unwrap_or_default();
    format!(
        "\nModel {}:\n\
         \x20   family              {}\n\
         \x20   shape               {} layers, hidden {}, {} heads, intermediate {}, {}\n\
         \x20   vocabulary          {}\n\
         \x20   maximum length      {} tokens\n\
         \x20   tasks               {}\n\
         \x20   labels              {}\n\
         \x20   pooling             {}{}, rows of {}\n\
         \x20   prompts             {}{default}\n\
         \x20   parameters          {:.1} million, stored as {}\n\
         \x20   GPU memory          {} for weights, {} for batches of up to {} tokens\n\
         \x20   kernels             {}\n",
        model::name(Path::new(&model.path)),
        model.family,
        model.layers,
        model.hidden,
        model.heads,
        model.intermediate,
        model.activation,
        model.vocabulary,
        model.max_length,
        model.tasks.join(", "),
        if model.labels.is_empty() { "none".to_owned() } else { model.labels.join(", ") },
        model.pooling.join(", "),
        if model.normalize { ", normalized" } else { "" },
        model.dimension,
        if prompts.is_empty() { "none" } else { &prompts },
        model.parameters as f64 / 1e6,
        model.stored_as,
        output::bytes(model.weight_bytes),
        output::bytes(model.activation_bytes),
        model.token_budget,
        match model.rejected_kernels.as_slice() {
            [] => "all right on this adapter".to_owned(),
            rejected => format!("in simpler forms, since some are wrong here: {}", rejected.join("; ")),
        },
    )
}

#[cfg(test)]
mod tests {
    use minilm::Gpu;
    use minilm::gpu::Fault;
    use minilm::kernels::{Operands, Sharing, Variant};
    use minilm::tuning::{Choice, Kernel, Table, Tuning};

    use super::*;

    #[test]
    fn a_kernel_that_was_replaced_is_named() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-minilm-bert-l3-h96");
        let gpu = Gpu::new(GpuOptions::default()).unwrap();
        // A form that every adapter can do, and that is not the simplest.
        let staged = Variant::attentions(None).into_iter().find(|variant| variant.sharing == Sharing::Workgroup).unwrap();
        let config = Checkpoint::open(&path).unwrap().config;
        let (shape, operands) = ([config.heads, config.head_dim()], Operands::default());
        let mut table = Table::of(&gpu);
        table.choices.push(Choice { kernel: Kernel::Attention, shape, operands, up_to: u32::MAX, variant: staged, nanoseconds: 1 });
        let described = |gpu: &Gpu| {
            let builder = Embedder::builder().gpu(gpu.clone()).tuning(Tuning::Given(table.clone()));
            let model = of_loaded(&path, &builder.from_dir(&path).unwrap()).unwrap();
            let info = Info { version: "", adapters: Vec::new(), model: Some(model) };
            (serde_json::to_value(&info).unwrap()["model"]["rejected_kernels"].clone(), for_people(&info))
        };
        let (rejected, text) = described(&gpu);
        assert_eq!(rejected, serde_json::json!([]));
        assert!(text.contains("kernels             all right on this adapter\n"), "{text}");

        let gpu = Gpu::new(GpuOptions::default()).unwrap();
        gpu.plant(Fault {
            kernel: "attention",
            only_with: "var<workgroup>",
            right: "@workgroup_size(LANES",
            wrong: "@workgroup_size(4096u",
        });
        let (rejected, text) = described(&gpu);
        let named = rejected[0].as_str().unwrap();
        assert!(named.starts_with(&format!("attention, {staged}: ")) && rejected.as_array().unwrap().len() == 1, "{rejected}");
        assert!(text.contains(&format!("kernels             in simpler forms, since some are wrong here: {named}\n")), "{text}");
    }
}
