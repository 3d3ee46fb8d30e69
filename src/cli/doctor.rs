//! `minilm doctor`: whether this adapter computes right, in all that this project asks of it.

use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use minilm::{Checkpoint, Error, Gpu, Result, doctor};

use super::model::{GpuArguments, ModelArguments};
use super::output;

/// Try every kernel in every form on this adapter, and a whole model beside plain loops on the processor
///
/// The report is what to paste into a bug report. The exit status is 1 where anything is wrong.
#[derive(Args)]
#[command(after_long_help = "Examples:\n  minilm doctor\n  minilm doctor --model all-MiniLM-L6-v2 > report.txt")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    gpu: GpuArguments,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let Arguments { model, gpu } = arguments;
    let checkpoint = Checkpoint::open(&model.open()?.path)?;
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(200));
    let result = Gpu::new(gpu.options()).and_then(|gpu| doctor::examine(&gpu, checkpoint, &mut |next| bar.set_message(next.to_owned())));
    bar.finish_and_clear();
    let report = result?;
    output::write(report.to_string().as_bytes())?;
    match report.is_healthy() {
        true => Ok(()),
        false => {
            Err(Error::Device { problem: "this adapter computes wrong: report it, and use another adapter or driver meanwhile".into() })
        }
    }
}
