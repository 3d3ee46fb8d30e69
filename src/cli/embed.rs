//! `minilm embed`: a row of numbers for each text.

use std::io::{IsTerminal, Write};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use minilm::{Error, Result};
use serde::Serialize;

use super::input::InputArguments;
use super::model::{BatchArguments, Encode, GpuArguments, ModelArguments, PoolingArguments};
use super::output;
use super::progress::Progress;
use super::stream::Stream;

/// Embed texts: one row of numbers for each
///
/// Texts come from the command line, or line by line from a file or standard input, which may be of any size: rows are written as soon
/// as they are known, in the order of the texts.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    input: InputArguments,
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    pooling: PoolingArguments,
    /// Leave rows as long as they are [default: an L2 norm of 1, where the model says so]
    #[arg(long, help_heading = "Model")]
    no_normalize: bool,
    #[command(flatten)]
    batch: BatchArguments,
    #[command(flatten)]
    gpu: GpuArguments,
    /// How rows are written
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    format: RowFormat,
}

#[derive(Clone, Copy, Default, PartialEq, ValueEnum)]
enum RowFormat {
    /// A line for each text, numbers separated by spaces
    #[default]
    Text,
    /// A line for each text: {"index", "tokens", "truncated", "embedding"}
    Jsonl,
    /// Raw little-endian 32-bit floats, row after row, nothing else
    F32,
}

const EXAMPLES: &str = "\
Examples:
  minilm embed 'A cat sits on the mat.' 'Eine Katze sitzt auf der Matte.'
  minilm embed --input texts.txt --format f32 > rows.f32
  printf '%s\\n' '{\"text\": \"a question\", \"text_pair\": \"an answer\"}' | minilm embed --input-format jsonl --format jsonl";

#[derive(Serialize)]
struct Row<'a> {
    index: u64,
    /// As many as the model saw.
    tokens: usize,
    truncated: bool,
    embedding: &'a [f32],
}

pub fn run(arguments: Arguments) -> Result<()> {
    let Arguments { input, model, pooling, no_normalize, batch, gpu, format } = arguments;
    if format == RowFormat::F32 && std::io::stdout().is_terminal() {
        return Err(Error::Input { problem: "raw numbers are not for a terminal: send them to a file with `> FILE`, or to a pipe".into() });
    }
    let reader = input.open()?;
    let folder = model.open()?;
    let prefix = model.prefix(&folder)?;
    let mut builder = pooling.builder();
    if no_normalize {
        builder = builder.normalize(false);
    }
    let embedder = Arc::new(model.load(&folder, &gpu, Some(&batch), builder)?);

    let progress = Progress::beside_results(reader.size);
    let encoder = embedder.clone();
    let mut stream = Stream::start(reader, progress, move |item| Encode::of(encoder.model(), &prefix).encode(item));
    loop {
        let index = stream.texts();
        let Some(chunk) = stream.next()? else { break };
        let embeddings = embedder.embed_tokens(&chunk.sequences())?;
        let mut lines = Vec::new();
        for ((i, row), encoding) in (index..).zip(embeddings.rows()).zip(&chunk.encodings) {
            match format {
                RowFormat::Text => push_text(&mut lines, row),
                RowFormat::F32 => lines.extend(row.iter().flat_map(|value| value.to_le_bytes())),
                RowFormat::Jsonl => {
                    let row = Row { index: i, tokens: encoding.ids.len(), truncated: encoding.truncated, embedding: row };
                    output::push_json(&mut lines, &row)?;
                }
            }
        }
        output::write(&lines)?;
    }
    stream.warn_truncated(embedder.model().max_length());
    Ok(())
}

/// Shortest decimals that give the same bits again.
fn push_text(lines: &mut Vec<u8>, row: &[f32]) {
    for (i, value) in row.iter().enumerate() {
        let separator = if i == 0 { "" } else { " " };
        _ = write!(lines, "{separator}{value}"); // Cannot fail: it goes to memory.
    }
    lines.push(b'\n');
}
