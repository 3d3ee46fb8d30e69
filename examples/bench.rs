//! How fast models of the usual shapes run here, and what bounds them:
//! `cargo run --release --features bench --example bench [-- --json] [--quick] [--compare FILE]`

use minilm::bench::{self, Options, Report, Shape};
use minilm::{Gpu, GpuOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init_from_env(env_logger::Env::default().default_filter_or("minilm=warn"));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let mut options = Options::default();
    if has("--quick") {
        options = Options { shapes: vec![Shape::ALL[0]], runs: 3, patience: 2.0, ..options };
        options.workloads.truncate(3);
    }

    let report = bench::run(&Gpu::new(GpuOptions::default())?, &options, &mut |next| eprintln!("{next} ..."))?;
    match has("--json") {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print!("{report}"),
    }
    if let Some(at) = arguments.iter().position(|argument| argument == "--compare") {
        let path = arguments.get(at + 1).ok_or("--compare wants a file")?;
        let earlier: Report = serde_json::from_slice(&std::fs::read(path)?)?;
        for (what, ratio) in report.ratios(&earlier) {
            eprintln!("{what}: {ratio:.2} times the speed of {}", earlier.date);
        }
    }
    Ok(())
}
