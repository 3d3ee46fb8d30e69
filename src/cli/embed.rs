//! `minilm embed`: a row of numbers for each text.

use std::fmt::Display;
use std::io::{IsTerminal, Write};

use clap::{Args, ValueEnum};
use minilm::{Embeddings, Encoding, Error, Length, Precision, QuantizedEmbeddings, Ranges, Result, quantize_embeddings};
use serde::Serialize;

use super::input::InputArguments;
use super::model::{LoadArguments, PoolingArguments, PromptArguments};
use super::output;
use super::progress::Progress;
use super::stream::{Chunk, Faults, Line, Stream, Tokens};

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
    load: LoadArguments,
    #[command(flatten)]
    prompt: PromptArguments,
    #[command(flatten)]
    pooling: PoolingArguments,
    /// Leave rows as long as they are [default: an L2 norm of 1, where the model says so]
    #[arg(long, help_heading = "Model")]
    no_normalize: bool,
    /// What becomes of a text that is longer than the model takes
    #[arg(long, value_enum, value_name = "WHAT", default_value_t, help_heading = "Model")]
    overflow: Overflow,
    /// Tokens that neighbouring windows of a long text share [default: an eighth of the maximum length]
    #[arg(long, value_name = "N", help_heading = "Model")]
    stride: Option<usize>,
    /// How rows are written
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t, help_heading = "Output")]
    format: RowFormat,
    /// Numbers of a row in fewer bits, as sentence-transformers defines them. For int8 and uint8 all rows are held in memory: their
    /// least and largest numbers make the scale
    #[arg(long, value_enum, value_name = "PRECISION", default_value_t, help_heading = "Output")]
    precision: RowPrecision,
}

#[derive(Clone, Copy, Default, PartialEq, ValueEnum)]
enum RowFormat {
    /// A line for each text, numbers separated by spaces
    #[default]
    Text,
    /// A line for each text: {"index", "tokens", "truncated", "embedding"}
    Jsonl,
    /// Raw little-endian 32-bit floats (bytes, where there are fewer bits), row after row, nothing else
    F32,
}

#[derive(Clone, Copy, Default, PartialEq, ValueEnum)]
enum Overflow {
    /// It is cut, with a warning at the end
    #[default]
    Truncate,
    /// It becomes several windows, with a row for each; JSON lines number them as "window"
    Chunk,
    /// It becomes several windows, and one row: their mean, weighted by tokens
    Mean,
    /// It is refused
    Error,
}

#[derive(Clone, Copy, Default, PartialEq, ValueEnum)]
enum RowPrecision {
    #[default]
    Float32,
    Int8,
    Uint8,
    /// One bit a number, eight in a signed byte
    Binary,
    /// One bit a number, eight in a byte
    Ubinary,
}

impl RowPrecision {
    fn precision(self) -> Option<Precision> {
        match self {
            Self::Float32 => None,
            Self::Int8 => Some(Precision::Int8),
            Self::Uint8 => Some(Precision::Uint8),
            Self::Binary => Some(Precision::Binary),
            Self::Ubinary => Some(Precision::Ubinary),
        }
    }

    /// Whether the scale depends on all rows.
    fn needs_all(self) -> bool {
        matches!(self, Self::Int8 | Self::Uint8)
    }
}

const EXAMPLES: &str = "\
Examples:
  minilm embed 'A cat sits on the mat.' 'Eine Katze sitzt auf der Matte.'
  minilm embed --input texts.txt --format f32 > rows.f32
  printf '%s\\n' '{\"text\": \"a question\", \"text_pair\": \"an answer\"}' | minilm embed --input-format jsonl --format jsonl";

#[derive(Serialize)]
struct Row<'a, N: Serialize> {
    index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<usize>,
    /// As many as the model saw.
    tokens: usize,
    truncated: bool,
    embedding: &'a [N],
}

/// A text as one input, or as several where it is long.
struct Windows(Vec<Encoding>);

impl Tokens for Windows {
    fn length(&self) -> Length {
        self.0[0].length()
    }

    fn inputs(&self) -> usize {
        self.0.inputs()
    }
}

pub fn run(arguments: Arguments) -> Result<()> {
    let Arguments { input, load, prompt, pooling, no_normalize, overflow, stride, format, precision } = arguments;
    if format == RowFormat::F32 && std::io::stdout().is_terminal() {
        return Err(Error::Input { problem: "raw numbers are not for a terminal: send them to a file with `> FILE`, or to a pipe".into() });
    }
    let in_windows = matches!(overflow, Overflow::Chunk | Overflow::Mean);
    check_stride(stride, in_windows)?;
    let reader = input.open()?;
    let folder = load.open()?;
    prompt.prefix(&folder)?; // A wrong name ends it before anything large is loaded.
    let mut builder = pooling.builder();
    if let Some(name) = prompt.prompt {
        builder = builder.prompt(name);
    }
    if no_normalize {
        builder = builder.normalize(false);
    }
    let embedder = load.load(&folder, builder)?;
    let max_length = embedder.model().max_length();
    let stride = stride.unwrap_or(max_length / 8);

    let progress = Progress::beside_results(reader.size);
    // Only a line of JSON can say what is wrong with one text.
    let faults = if format == RowFormat::Jsonl { Faults::Report } else { Faults::End };
    let stream = Stream::start(reader, progress, faults, move |item| {
        let windows = match overflow {
            Overflow::Truncate => embedder.encode([item.input()])?,
            Overflow::Error => embedder.encode([item.input()])?.into_iter().map(whole).collect::<Result<_>>()?,
            Overflow::Chunk | Overflow::Mean => embedder.windows(item.input(), stride)?,
        };
        Ok(Windows(windows))
    });

    let find = |chunk: &Chunk<Windows>| -> Result<Vec<Embeddings>> {
        let windows = || chunk.good().map(|(_, Windows(windows))| windows);
        let rows = embedder.embed_windows(&windows().map(Vec::as_slice).collect::<Vec<_>>())?;
        let mean = |rows: Embeddings| if overflow == Overflow::Mean { embedder.mean_of_windows(&rows) } else { rows };
        Ok(rows.into_iter().map(mean).collect())
    };
    let push_line = |lines: &mut Vec<u8>, line: Line<'_, Windows, Embeddings>, ranges: Option<&Ranges>| {
        match precision.precision() {
            None => push(lines, &line, format, line.found.rows(), |value| value.to_le_bytes()),
            Some(precision) => push_codes(lines, &line, format, &quantize_embeddings(line.found.rows(), precision, ranges)?),
        }
        Ok(())
    };
    if !precision.needs_all() {
        return stream.write_each(max_length, find, |lines, line| push_line(lines, line, None));
    }
    let all = stream.collect(find)?;
    let rows: Vec<&[f32]> = all.chunks.iter().flat_map(|(_, found)| found).flat_map(Embeddings::rows).collect();
    // Where no text could be taken, there is still something to say of each.
    let ranges = if rows.is_empty() { None } else { Some(Ranges::of(rows)?) };
    all.write(max_length, |lines, line| push_line(lines, line, ranges.as_ref()))
}

/// Refuses a stride where it would do nothing.
pub fn check_stride(stride: Option<usize>, in_windows: bool) -> Result<()> {
    match stride {
        Some(_) if !in_windows => {
            let problem = "`--stride` is for texts that are read in windows: add --overflow chunk, or leave it out".into();
            Err(Error::Input { problem })
        }
        _ => Ok(()),
    }
}

/// Refuses a text that was cut.
pub fn whole<T: Tokens>(tokens: T) -> Result<T> {
    match tokens.length() {
        length if length.truncated() => {
            let problem = format!(
                "it has {} tokens, more than the maximum length of {}: shorten it, or choose another --overflow",
                length.total, length.used
            );
            Err(Error::Input { problem })
        }
        _ => Ok(tokens),
    }
}

fn push_codes(lines: &mut Vec<u8>, line: &Line<'_, Windows, Embeddings>, format: RowFormat, codes: &QuantizedEmbeddings) {
    match codes.as_signed() {
        Some(signed) => push(lines, line, format, signed.chunks_exact(codes.columns()), |value: i8| value.to_le_bytes()),
        None => push(lines, line, format, codes.rows(), |value: u8| [value]),
    }
}

/// Writes the rows of one text: one, or one for each window.
fn push<'r, N: Copy + Display + Serialize + 'r, const SIZE: usize>(
    lines: &mut Vec<u8>,
    line: &Line<'_, Windows, Embeddings>,
    format: RowFormat,
    rows: impl ExactSizeIterator<Item = &'r [N]>,
    bytes: impl Fn(N) -> [u8; SIZE],
) {
    let (windows, count) = (&line.tokens.0, rows.len());
    for (i, row) in rows.enumerate() {
        match format {
            RowFormat::Text => push_text(lines, row),
            RowFormat::F32 => lines.extend(row.iter().flat_map(|&value| bytes(value))),
            RowFormat::Jsonl => {
                let lengths = windows.iter().map(|window| window.ids.len());
                let tokens = if count < windows.len() { lengths.sum() } else { windows[i].ids.len() };
                let window = (count > 1).then_some(i);
                let row = Row { index: line.index, window, tokens, truncated: windows[0].truncated, embedding: row };
                _ = output::push_json(lines, &row); // Cannot fail: it goes to memory.
            }
        }
    }
}

/// Shortest decimals that give the same bits again.
fn push_text<N: Display>(lines: &mut Vec<u8>, row: &[N]) {
    for (i, value) in row.iter().enumerate() {
        let separator = if i == 0 { "" } else { " " };
        _ = write!(lines, "{separator}{value}"); // Cannot fail: it goes to memory.
    }
    lines.push(b'\n');
}
