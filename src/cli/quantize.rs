//! `minilm quantize`: an eight-bit copy of a model folder. Needs no GPU.

use std::path::PathBuf;

use clap::Args;
use minilm::Result;
use minilm::checkpoint::{QuantizeReport, quantize};

use super::output;

/// Write an eight-bit copy of a model folder: about half the size of half precision
///
/// The large matrices become I8 with one 32-bit scale for each row; everything else stays as it is, in half precision where that loses
/// nothing. The copy is used like any other model folder.
#[derive(Args)]
#[command(after_long_help = "Example:\n  minilm quantize all-MiniLM-L6-v2 all-MiniLM-L6-v2-int8")]
pub struct Arguments {
    /// The model folder
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The folder to write; it must not exist, or be empty
    #[arg(value_name = "OUT")]
    output: PathBuf,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let QuantizeReport { tensors_quantized, bytes_in, bytes_out, max_relative_error, mean_relative_error } =
        quantize(&arguments.input, &arguments.output)?;
    let report = format!(
        "wrote {}\n\
         matrices quantized    {tensors_quantized}\n\
         size of the weights   {} -> {} ({:.0}%)\n\
         error of a matrix     {mean_relative_error:.5} on average, {max_relative_error:.5} at most (relative, Frobenius norm)\n",
        arguments.output.display(),
        output::bytes(bytes_in),
        output::bytes(bytes_out),
        bytes_out as f64 / bytes_in.max(1) as f64 * 100.0,
    );
    output::write(report.as_bytes())
}
