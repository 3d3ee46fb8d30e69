//! `minilm bench`: how fast a model runs here, and what bounds it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use minilm::bench::{self, Options, Report, Shape, Workload};
use minilm::{Error, Gpu, Result};

use super::model::{GpuArguments, OperandArguments};
use super::output;

/// Measure how fast a model runs here, kernel by kernel, and what this adapter can do at most
///
/// Without --model, synthetic weights of the usual shapes are run: MiniLM with 6 and 12 layers and BERT-Base.
#[derive(Args)]
#[command(
    after_long_help = "Examples:\n  minilm bench --quick\n  minilm bench --json > today.json\n  minilm bench --compare yesterday.json"
)]
pub struct Arguments {
    /// Measure this model folder
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Only these workloads, separated by commas: W1 to W6, W3u, L16 to L128
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    workloads: Vec<String>,
    /// Runs of each workload, of which the median counts; fewer where they take long
    #[arg(long, value_name = "N", default_value_t = Options::default().runs)]
    runs: usize,
    /// Only the smallest shape, W1, W2, W3 and W5, and three runs
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    operands: OperandArguments,
    #[command(flatten)]
    gpu: GpuArguments,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show the ratio to an earlier report, a file written with --json
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let Arguments { model, workloads, runs, quick, operands, gpu, json, compare } = arguments;
    if runs == 0 {
        return Err(Error::Input { problem: "`--runs`: expected 1 or more, found 0: raise it".into() });
    }
    let earlier = compare.map(read).transpose()?;
    let gpu = Gpu::new(gpu.options())?;
    let mut options = Options { model, runs, operands: operands.of(&gpu)?, ..Options::default() };
    if quick {
        options = Options { shapes: vec![Shape::ALL[0]], runs: 3, patience: 2.0, ..options };
        options.workloads.truncate(3);
    }
    if !workloads.is_empty() {
        (options.workloads, options.products) = chosen(&workloads)?;
    }

    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(200));
    let result = bench::run(&gpu, &options, &mut |next| bar.set_message(next.to_owned()));
    bar.finish_and_clear();
    let report = result?;
    let mut lines = Vec::new();
    match json {
        true => output::push_json(&mut lines, &report)?,
        false => lines.extend(report.to_string().bytes()),
    }
    output::write(&lines)?;
    if let Some(earlier) = earlier {
        let ratios = report.ratios(&earlier);
        if ratios.is_empty() {
            log::warn!("the report of {} has no workload of these models: there is nothing to compare", earlier.date);
        }
        for (what, ratio) in ratios {
            eprintln!("{what}: {ratio:.2} times the speed of {}", earlier.date);
        }
    }
    Ok(())
}

fn read(path: PathBuf) -> Result<Report> {
    let bytes = std::fs::read(&path).map_err(|source| Error::Io { path: path.clone(), problem: "the report cannot be read", source })?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let problem = format!("{}: expected a report of `minilm bench --json`, found {error}: write it again", path.display());
        Error::Input { problem }
    })
}

/// The workloads of these names, and whether W5, which has no texts, is among them.
fn chosen(names: &[String]) -> Result<(Vec<Workload>, bool)> {
    const PRODUCTS: &str = "W5";
    let all = Workload::all();
    let known = all.iter().map(|workload| workload.name).chain([PRODUCTS]).collect::<Vec<_>>().join(", ");
    let (products, names): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.eq_ignore_ascii_case(PRODUCTS));
    let find = |name: &String| {
        let found = all.iter().find(|workload| workload.name.eq_ignore_ascii_case(name)).cloned();
        found.ok_or_else(|| Error::Input { problem: format!("there is no workload `{name}`: choose from {known}") })
    };
    Ok((names.into_iter().map(find).collect::<Result<_>>()?, !products.is_empty()))
}
