//! `minilm tokens`: what the model sees of a text. Needs no GPU.

use std::fmt::Write;

use clap::Args;
use minilm::{Checkpoint, Encoding, Error, Result};
use serde::Serialize;

use super::input::InputArguments;
use super::model::{Encode, ModelArguments, PromptArguments};
use super::output::{self, Format};
use super::progress::Progress;
use super::stream::{Chunk, Faults, Line, Stream};

/// Show the tokens of texts: ids and pieces, as the model sees them; no GPU is used
#[derive(Args)]
#[command(after_long_help = "Example:\n  minilm tokens 'A cat sits on the mat.'")]
pub struct Arguments {
    #[command(flatten)]
    input: InputArguments,
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    prompt: PromptArguments,
    /// text: a line of id:piece for each text; jsonl: {"index", "tokens", "truncated", "ids", "type_ids", "pieces"}
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t, help_heading = "Output")]
    format: Format,
}

#[derive(Serialize)]
struct Row<'a> {
    index: u64,
    tokens: usize,
    truncated: bool,
    ids: &'a [u32],
    type_ids: &'a [u32],
    pieces: &'a [String],
}

pub fn run(arguments: Arguments) -> Result<()> {
    let Arguments { input, model, prompt, format } = arguments;
    let reader = input.open()?;
    let folder = model.open()?;
    let prefix = prompt.prefix(&folder)?;
    let mut checkpoint = Checkpoint::open(&folder.path)?;
    if let Some(code) = &model.language {
        checkpoint.choose_language(code)?;
    }
    let most = checkpoint.config.max_tokens();
    let max_length = match model.max_length {
        None => checkpoint.max_length(),
        Some(length) if (1..=most).contains(&length) => length,
        Some(length) => {
            let problem = format!(
                "the maximum length {length} is not between 1 and {most}, the positions that the model in {} has",
                folder.path.display()
            );
            return Err(Error::Input { problem });
        }
    };

    let checkpoint = std::sync::Arc::new(checkpoint);
    let encoder = checkpoint.clone();
    let faults = if format == Format::Jsonl { Faults::Report } else { Faults::End };
    let stream = Stream::start(reader, Progress::beside_results(None), faults, move |item| {
        Encode { tokenizer: &encoder.tokenizer, max_length, prefix: &prefix }.encode(item)
    });
    let find = |chunk: &Chunk<Encoding>| Ok(chunk.good().map(|(_, encoding)| checkpoint.tokenizer.pieces(&encoding.ids)).collect());
    stream.write_each(max_length, find, |lines, Line { index, tokens: encoding, found: pieces, .. }| match format {
        Format::Text => {
            lines.extend(line(&encoding.ids, &pieces).bytes());
            Ok(())
        }
        Format::Jsonl => {
            let (tokens, truncated) = (encoding.ids.len(), encoding.truncated);
            output::push_json(lines, &Row { index, tokens, truncated, ids: &encoding.ids, type_ids: &encoding.type_ids, pieces: &pieces })
        }
    })
}

fn line(ids: &[u32], pieces: &[String]) -> String {
    let mut line = String::new();
    for (i, (id, piece)) in ids.iter().zip(pieces).enumerate() {
        let separator = if i == 0 { "" } else { " " };
        _ = write!(line, "{separator}{id}:{}", output::on_one_line(piece)); // Cannot fail: it goes to memory.
    }
    line + "\n"
}
