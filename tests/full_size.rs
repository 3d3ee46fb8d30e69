//! The models of the MiniLM model card at full size, with generated weights: what comes out, and how much memory loading takes.

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use std::{env, fs};

use common::compare::{Bound, Table};
use common::gpu::{gpu, noop};
use common::memory::growth;
use common::synthetic::{Model, model_folder};
use minilm::{FeatureExtractor, Gpu, GpuOptions, Sequence, wgpu};

/// Bytes of weights from which on a model is tested only where MINILM_ALL_SYNTHETIC is 1: not every machine has that much to spare twice,
/// on disk and on the GPU.
const LARGE: usize = 1 << 30;

/// Memory beside the weights that loading may take: tokenizer, pipelines, what is under way to the GPU.
const BESIDE_WEIGHTS: u64 = 128 << 20;

/// The mean over tokens, and the first columns of each token. The folder is removed again.
fn check(table: &mut Table, gpu: &Gpu, model: &Model) {
    // One at a time, since memory is measured.
    static RUNNING: Mutex<()> = Mutex::new(());
    let _running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);

    let (name, start) = (&model.name, Instant::now());
    let folder = model_folder(name);
    let written = start.elapsed();
    let load = || FeatureExtractor::builder().gpu(gpu.clone()).token_budget(512).from_dir(&folder).unwrap();
    let (extractor, grown) = growth(load);
    let loaded = start.elapsed();
    let sequences: Vec<Sequence> = model
        .texts
        .iter()
        .map(|text| Sequence { ids: &text.ids, type_ids: text.token_type_ids.as_deref().unwrap_or(&[]), selected: &[] })
        .collect();
    let bound = Bound::absolute(model.atol());
    for (i, (features, text)) in extractor.features_of_tokens(&sequences).unwrap().iter().zip(&model.texts).enumerate() {
        let tokens = features.rows().len();
        let mean: Vec<f64> =
            (0..features.dimension()).map(|c| features.rows().map(|row| row[c] as f64).sum::<f64>() / tokens as f64).collect();
        table.close(format!("{name} text {i} mean"), &mean, &text.mean, bound);
        let first: Vec<f32> = features.rows().flat_map(|row| &row[..8]).copied().collect();
        table.close(format!("{name} text {i} first columns"), &first, &text.last_hidden_state_first_8.concat(), bound);
    }
    let ran = start.elapsed();
    println!("{name}: written in {written:.1?}, loaded in {:.1?}, ran in {:.1?}", loaded - written, ran - loaded);
    let weights = extractor.model().stats().weight_bytes;
    drop(extractor);
    if grown.is_some() {
        host_memory(table, name, &folder);
    }
    fs::remove_dir_all(folder).unwrap();

    let Some(grown) = grown else { return };
    let [own, of_files, weights_mib] = [grown.own, grown.of_files, weights].map(|bytes| bytes >> 20);
    println!("{name}: {weights_mib} MiB of weights, at most {own} MiB more in memory while loading, beside {of_files} MiB of files");
    // A software adapter's memory is that of the process, and holds the one copy that there should be. What comes beside it grows with the
    // model too, and is not the same in each run: 144 to 169 MiB where the tokenizer knows 250,000 words.
    table.at_most(format!("{name} memory"), grown.own as f64, (weights / 4 * 5 + BESIDE_WEIGHTS) as f64);
}

/// Names the folder that [`a_load_without_a_device`] loads.
const ON_THE_HOST: &str = "MINILM_TEST_LOAD_ON_THE_HOST";

/// What loading takes of the host: in a process of its own, which has no memory left over from other loads, on a device whose buffers are
/// the host's memory and that takes none beside them. The one copy of the weights that there should be is in it, and no second.
fn host_memory(table: &mut Table, name: &str, folder: &Path) {
    let mut process = Command::new(env::current_exe().unwrap());
    process.args(["--exact", "a_load_without_a_device", "--nocapture"]).env(ON_THE_HOST, folder);
    let output = process.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let grown = said.lines().find_map(|line| line.strip_prefix("grown by ")?.parse::<f64>().ok());
    let grown = grown.unwrap_or_else(|| panic!("{name}: {said}{}", String::from_utf8_lossy(&output.stderr)));
    let file = fs::metadata(folder.join("model.safetensors")).unwrap().len() as f64;
    println!("{name}: {:.0} MB in the file, at most {:.0} MB more in memory without a device", file / 1e6, grown / 1e6);
    table.at_most(format!("{name} host memory"), grown, 1.2 * file + 64e6);
}

/// What [`host_memory`] starts; alone it does nothing.
#[test]
fn a_load_without_a_device() {
    let Some(folder) = env::var_os(ON_THE_HOST) else { return };
    let (_, gpu) = noop(wgpu::Limits::default());
    let load = || FeatureExtractor::builder().gpu(gpu).token_budget(512).from_dir(&folder).unwrap();
    println!("\ngrown by {}", growth(load).1.unwrap().own);
}

fn check_all(are: impl Fn(&Model) -> bool, at_least: usize) {
    let mut models = Model::load_all();
    models.retain(are);
    assert!(models.len() >= at_least, "synthetic.json has {} such models", models.len());
    for model in &models {
        let mut table = Table::new(&model.name);
        check(&mut table, &gpu(), model);
        table.finish();
    }
}

fn is_large(model: &Model) -> bool {
    4 * model.parameters >= LARGE
}

#[test]
fn models_meet_the_reference() {
    check_all(|model| !is_large(model), 10);
}

/// XLM-R Base, and XLM-100, whose vocabulary alone takes 977 MiB.
#[test]
fn large_models_meet_the_reference() {
    match env::var("MINILM_ALL_SYNTHETIC").as_deref() {
        Ok("1") => check_all(is_large, 2),
        _ => eprintln!("MINILM_ALL_SYNTHETIC is not 1: models with {} MiB of weights or more are not tested", LARGE >> 20),
    }
}

/// Its vocabulary takes 366 MiB, three times the largest binding of WebGPU's default limits, with which this runs.
#[test]
fn multilingual_minilm_meets_the_reference_within_the_default_limits() {
    let options = GpuOptions { limits: Some(wgpu::Limits::default()), ..GpuOptions::default() };
    let mut table = Table::new("default limits");
    check(&mut table, &Gpu::new(options).unwrap(), &Model::load("Multilingual-MiniLM-L12-H384"));
    table.finish();
}
