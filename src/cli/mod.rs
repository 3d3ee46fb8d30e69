//! The command line. One file for each command; what they share is in the other files.
//!
//! ```text
//! input: lines ──> stream: chunks of tokens, made on a thread of their own ──> a command: the GPU ──> output: whole lines
//! ```
//!
//! Results go to standard output, everything else to standard error.

mod answer;
mod bench;
mod classify;
mod doctor;
mod embed;
mod features;
mod fill_mask;
mod info;
mod input;
mod model;
mod output;
mod progress;
mod quantize;
mod rerank;
mod search;
mod similarity;
mod stream;
mod tag;
mod tokens;
mod tune;
mod zero_shot;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use log::Level;

use output::is_closed_pipe;

/// MiniLM and other BERT-like models on any GPU: sentence embeddings, and what such models were trained to say of texts.
///
/// Results go to standard output, everything else to standard error.
#[derive(Parser)]
#[command(name = "minilm", version, after_long_help = ENVIRONMENT, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Embed(embed::Arguments),
    Features(features::Arguments),
    Similarity(similarity::Arguments),
    Search(search::Arguments),
    Classify(classify::Arguments),
    Rerank(rerank::Arguments),
    ZeroShot(zero_shot::Arguments),
    Tag(tag::Arguments),
    Answer(answer::Arguments),
    FillMask(fill_mask::Arguments),
    Tokens(tokens::Arguments),
    Info(info::Arguments),
    Quantize(quantize::Arguments),
    Bench(bench::Arguments),
    Tune(tune::Arguments),
    Doctor(doctor::Arguments),
}

const ENVIRONMENT: &str = "\
Examples:
  minilm similarity 'A cat sits on the mat.' 'Eine Katze sitzt auf der Matte.'
  minilm search 'opening hours' --input notes.txt --top 5
  minilm embed --format jsonl < texts.txt > embeddings.jsonl
  minilm tag --model ner-model --aggregation simple 'Ada Lovelace lived in London.'
  minilm info --model ner-model

Environment (an option on the command line goes first):
  MINILM_MODEL       the model folder, where --model is not given
  MINILM_CACHE       where tables of `minilm tune` are kept, rather than in the user's cache folder
  WGPU_BACKEND       backends to use, as in --backend: vulkan, metal, dx12, gl
  WGPU_ADAPTER_NAME  a part of the adapter's name, as in --adapter
  WGPU_POWER_PREF    low or high, as in --power-preference
  RUST_LOG           what is logged to standard error: error, warn, info, debug, or a filter such as minilm=debug

Exit status: 0 where all went well, also when the reader of a pipe has seen enough; 1 after an error, or where a line of
JSON could not be taken and says so as `error`; 2 for a wrong command line; 130 after Ctrl-C.";

/// Runs the command that the command line names.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_logging();
    output::handle_interrupts();
    let result = match arguments.command {
        Command::Embed(arguments) => embed::run(arguments),
        Command::Features(arguments) => features::run(arguments),
        Command::Similarity(arguments) => similarity::run(arguments),
        Command::Search(arguments) => search::run(arguments),
        Command::Classify(arguments) => classify::run(arguments),
        Command::Rerank(arguments) => rerank::run(arguments),
        Command::ZeroShot(arguments) => zero_shot::run(arguments),
        Command::Tag(arguments) => tag::run(arguments),
        Command::Answer(arguments) => answer::run(arguments),
        Command::FillMask(arguments) => fill_mask::run(arguments),
        Command::Tokens(arguments) => tokens::run(arguments),
        Command::Info(arguments) => info::run(arguments),
        Command::Quantize(arguments) => quantize::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Tune(arguments) => tune::run(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed as well.
            _ = writeln!(std::io::stderr(), "minilm: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Warnings of this crate and errors of the layers below, as sentences. Who sets RUST_LOG gets what it asks for, with times and modules.
fn start_logging() {
    let default = "warn,wgpu=error,wgpu_core=error,wgpu_hal=error,naga=error";
    let mut builder = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(default));
    if std::env::var_os("RUST_LOG").is_none() {
        builder.format(|out, record| {
            let level = if record.level() == Level::Error { "error" } else { "warning" };
            writeln!(out, "minilm: {level}: {}", record.args())
        });
    }
    builder.init();
}
