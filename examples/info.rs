//! The adapters of this machine, the one that runs, and what a model takes on it: `cargo run --release --example info [MODEL]`

use minilm::{AdapterSummary, Embedder, GpuOptions, default_model};

fn main() -> minilm::Result<()> {
    env_logger::init_from_env(env_logger::Env::default().default_filter_or("minilm=warn"));
    for (i, adapter) in AdapterSummary::list(&GpuOptions::default())?.iter().enumerate() {
        let (mark, kind) = (if i == 0 { '*' } else { ' ' }, if adapter.is_software() { "software" } else { "hardware" });
        println!(
            "{mark} {} ({}, {kind}), driver {} {}",
            adapter.info.name, adapter.info.backend, adapter.info.driver, adapter.info.driver_info
        );
    }

    let dir = std::env::args_os().nth(1).map_or_else(default_model, |dir| Ok(dir.into()))?;
    let embedder = Embedder::from_dir(dir)?;
    let model = embedder.model();
    let (config, stats) = (model.config(), model.stats());
    println!("{} layers of {}, {} heads, texts of up to {} tokens", config.layers, config.hidden, config.heads, model.max_length());
    println!("{:?} pooling, normalised: {}, prompts: {:?}", embedder.pooling(), embedder.normalizes(), model.sentence().prompts);
    println!(
        "{:.1} MB of weights and {:.1} MB of activations on the GPU",
        stats.weight_bytes as f64 / 1e6,
        stats.activation_bytes as f64 / 1e6
    );
    Ok(())
}
