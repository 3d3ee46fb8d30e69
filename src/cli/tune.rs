//! `minilm tune`: measures which form of each kernel is fastest here, for later starts to take.

use std::path::PathBuf;

use clap::Args;
use minilm::kernels::Sharing;
use minilm::tuning::{Choice, Kernel, Table};
use minilm::{Checkpoint, Gpu, Result};

use super::model::{GpuArguments, ModelArguments, OperandArguments};
use super::output;

/// Measure which form of each kernel is fastest on this adapter, at a model's shapes, and keep the choice for later starts
///
/// On a GPU the first start with a model does this by itself; on software adapters, where it takes seconds, only this command does.
#[derive(Args)]
#[command(after_long_help = "Examples:\n  minilm tune --model all-MiniLM-L6-v2\n  minilm tune --output table.json\n  \
                             minilm embed --tuning table.json 'a text'")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    operands: OperandArguments,
    #[command(flatten)]
    gpu: GpuArguments,
    /// Write the table here, for an app to bring along, rather than to the user's cache folder
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    output: Option<PathBuf>,
    /// Print the table as JSON
    #[arg(long, help_heading = "Output")]
    json: bool,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let Arguments { model, operands, gpu, output, json } = arguments;
    if let Some(path) = &output {
        output::replaceable(path)?;
    }
    let checkpoint = Checkpoint::open(&model.open()?.path)?;
    let gpu = Gpu::new(gpu.options())?;
    let mut table = match &output {
        Some(_) => Table::of(&gpu),
        None => Table::stored(&gpu).unwrap_or_else(|| Table::of(&gpu)),
    };
    table.measure(&gpu, &checkpoint.config, operands.of(&gpu)?)?;
    let path = match output {
        Some(path) => table.write(&path).map(|()| path)?,
        None => table.store()?,
    };
    let mut lines = Vec::new();
    if json {
        output::push_json(&mut lines, &table)?;
    } else {
        for choice in &table.choices {
            lines.extend(line(choice).bytes());
        }
        lines.extend(format!("written to {}\n", path.display()).bytes());
    }
    output::write(&lines)
}

fn line(choice: &Choice) -> String {
    let Choice { kernel, shape: [a, b], operands, up_to, variant, nanoseconds } = choice;
    let rows = if *up_to == u32::MAX { "any number of rows".to_owned() } else { format!("up to {up_to} rows") };
    // Other forms have no tile.
    let form = match (kernel, variant.sharing) {
        (Kernel::Matmul, _) | (_, Sharing::Workgroup | Sharing::Cooperative { .. }) => variant.to_string(),
        (_, sharing) => sharing.to_string(),
    };
    let kernel = format!("{kernel:?}");
    format!("{kernel:<10} {:<12} {:<12} {rows:<19} {form:<58} {:>9} us\n", format!("{a} x {b}"), operands.to_string(), nanoseconds / 1000)
}
