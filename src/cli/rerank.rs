//! `minilm rerank`: passages sorted by how well they answer a query.

use clap::Args;
use minilm::{Encoding, Reranker, Result};
use serde::Serialize;

use super::classify::ScoreFunction;
use super::input::FileArguments;
use super::model::{Encode, LoadArguments};
use super::output;
use super::progress::Progress;
use super::stream::{Chunk, Faults, Stream};

/// Sort passages by how well each answers a query, with a model that reads both together (a cross-encoder)
///
/// Passages are the lines of a file or of standard input. Prints a line of JSON for each, best first: {"index", "rank", "score", "tokens",
/// "truncated", "text"}. --logits adds "logits".
#[derive(Args)]
#[command(after_long_help = "Example:\n  minilm rerank --model ms-marco-MiniLM-L6-v2 'how do I bake bread?' --input passages.txt --top 3")]
pub struct Arguments {
    /// The query
    query: String,
    #[command(flatten)]
    file: FileArguments,
    #[command(flatten)]
    load: LoadArguments,
    /// How the logit becomes the score [default: what the model says, else sigmoid]
    #[arg(long, value_enum, value_name = "FUNCTION", help_heading = "Model")]
    score: Option<ScoreFunction>,
    /// Print only the first K
    #[arg(long, value_name = "K", help_heading = "Output")]
    top: Option<usize>,
    /// Print the logit of each too
    #[arg(long, help_heading = "Output")]
    logits: bool,
}

#[derive(Serialize)]
struct Row<'a> {
    index: u64,
    rank: usize,
    score: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    logits: Option<[f32; 1]>,
    tokens: usize,
    truncated: bool,
    text: &'a str,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let Arguments { query, file, load, score, top, logits } = arguments;
    let reader = file.open()?;
    let folder = load.open()?;
    let mut builder = Reranker::builder();
    if let Some(function) = score {
        builder = builder.score(function.into());
    }
    let reranker = load.load(&folder, builder)?;
    let max_length = reranker.model().max_length();

    let progress = Progress::new(reader.size);
    let stream = Stream::start(reader, progress, Faults::Report, move |item| {
        let passage = item.single()?;
        let Encode { tokenizer, max_length, .. } = Encode::of(reranker.model(), "");
        tokenizer.encode(&query, Some(passage), max_length)
    });
    // Their order is known when all are.
    let all = stream.collect(|chunk: &Chunk<Encoding>| reranker.classifier().classify_encodings(&chunk.tokens()))?;
    let mut ranked: Vec<_> = all.good().collect();
    ranked.sort_by(|a, b| b.found.logits[0].total_cmp(&a.found.logits[0]));
    let mut lines = Vec::new();
    for (rank, line) in (1..).zip(&ranked).take(top.unwrap_or(usize::MAX)) {
        let row = Row {
            index: line.index,
            rank,
            score: line.found.scores[0],
            logits: logits.then_some([line.found.logits[0]]),
            tokens: line.tokens.ids.len(),
            truncated: line.tokens.truncated,
            text: &line.item.text,
        };
        output::push_json(&mut lines, &row)?;
    }
    all.push_faults(&mut lines)?;
    output::write(&lines)?;
    all.finish(max_length)
}
