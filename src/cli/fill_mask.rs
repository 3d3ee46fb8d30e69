//! `minilm fill-mask`: the likeliest words for the masks in texts.

use std::num::NonZeroUsize;

use clap::Args;
use minilm::{Encoding, FillMask, Result, Word};
use serde::Serialize;

use super::input::InputArguments;
use super::model::{Encode, LoadArguments};
use super::output;
use super::progress::Progress;
use super::stream::{Chunk, Faults, Line, Stream};

/// Find the likeliest words for the masks in texts ([MASK] or <mask>, by the model): a line of JSON for each text
///
/// A line is {"index", "tokens", "truncated", "masks"}, where "masks" has for each mask of the text a list of {"token", "id", "score"},
/// best first. --logits adds "logit" to each.
#[derive(Args)]
#[command(after_long_help = "Example:\n  minilm fill-mask --model bert-base-uncased 'The cat sits on the [MASK].'")]
pub struct Arguments {
    #[command(flatten)]
    input: InputArguments,
    #[command(flatten)]
    load: LoadArguments,
    /// Words for each mask
    #[arg(long, value_name = "K", default_value = "5", help_heading = "Output")]
    top: NonZeroUsize,
    /// Print the logit of each word too
    #[arg(long, help_heading = "Output")]
    logits: bool,
}

#[derive(Serialize)]
struct Row {
    index: u64,
    tokens: usize,
    truncated: bool,
    masks: Vec<Vec<JsonWord>>,
}

#[derive(Serialize)]
struct JsonWord {
    token: String,
    id: u32,
    score: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    logit: Option<f32>,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let Arguments { input, load, top, logits } = arguments;
    let reader = input.open()?;
    let folder = load.open()?;
    let filler = load.load(&folder, FillMask::builder().top(top.get()))?;

    let progress = Progress::beside_results(reader.size);
    let stream = Stream::start(reader, progress, Faults::Report, move |item| {
        let encoding = Encode::of(filler.model(), "").encode(item)?;
        filler.masks(&encoding)?;
        Ok(encoding)
    });
    let find = |chunk: &Chunk<Encoding>| filler.fill_encodings(&chunk.tokens());
    stream.write_each(filler.model().max_length(), find, |lines, Line { index, tokens, found, .. }| {
        let word = |Word { id, token, logit, score }: &Word| JsonWord {
            token: token.clone(),
            id: *id,
            score: *score,
            logit: logits.then_some(*logit),
        };
        let masks = found.masks.iter().map(|mask| mask.words.iter().map(word).collect());
        let row = Row { index, tokens: tokens.ids.len(), truncated: tokens.truncated, masks: masks.collect() };
        output::push_json(lines, &row)
    })
}
