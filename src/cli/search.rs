//! `minilm search`: the lines that are nearest to a query.

use std::io::Write;
use std::num::NonZeroUsize;

use clap::Args;
use minilm::{Result, cosine};
use serde::Serialize;

use super::input::{FileArguments, Reader};
use super::model::{Encode, Folder, LoadArguments, PoolingArguments, PromptArguments};
use super::output::{self, Format};
use super::progress::Progress;
use super::stream::{Faults, Stream};

/// Search by meaning: rank the lines of a file or of standard input by how near they are to a query
///
/// Prints rank, cosine, line number and line. Where the model has a prompt for queries (`query`) or for what is searched (`passage`,
/// `document` or `corpus`), it is used, unless --prompt names one for both.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// What to search for
    query: String,
    #[command(flatten)]
    file: FileArguments,
    #[command(flatten)]
    load: LoadArguments,
    #[command(flatten)]
    prompt: PromptArguments,
    #[command(flatten)]
    pooling: PoolingArguments,
    /// How many lines to print
    #[arg(long, value_name = "K", default_value = "10", help_heading = "Output")]
    top: NonZeroUsize,
    /// How they are printed; a JSON line is {"rank", "score", "line", "text"}
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t, help_heading = "Output")]
    format: Format,
}

const EXAMPLES: &str = "\
Examples:
  minilm search 'opening hours' --input notes.txt --top 5
  cat *.txt | minilm search 'how do I cook rice?' --format jsonl";

/// A line that was found.
struct Hit {
    score: f64,
    line: u64,
    text: String,
}

#[derive(Serialize)]
struct JsonHit<'a> {
    rank: usize,
    score: f64,
    line: u64,
    text: &'a str,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let Arguments { query, file, load, prompt, pooling, top, format } = arguments;
    let reader = file.open()?;
    let folder = load.open()?;
    let (query_prefix, prefix) =
        (role_prefix(&prompt, &folder, &["query"])?, role_prefix(&prompt, &folder, &["passage", "document", "corpus"])?);
    let embedder = load.load(&folder, pooling.builder())?;

    let mut queries = Stream::start(Reader::of_texts(vec![query]), Progress::new(None), Faults::End, move |item| {
        Encode::of(embedder.model(), &query_prefix).encode(item)
    });
    let mut query = Vec::new();
    while let Some(chunk) = queries.next()? {
        query = embedder.embed_tokens(&chunk.sequences())?.into_vec();
    }

    let progress = Progress::new(reader.size);
    let mut stream = Stream::start(reader, progress, Faults::End, move |item| Encode::of(embedder.model(), &prefix).encode(item));
    let mut best = Best { hits: Vec::new(), top: top.get() };
    while let Some(chunk) = stream.next()? {
        let embeddings = embedder.embed_tokens(&chunk.sequences()).map_err(|error| chunk.placed(error))?;
        for (row, (item, _)) in embeddings.rows().zip(chunk.results.into_iter().flatten()) {
            best.offer(Hit { score: cosine(&query, row), line: item.line, text: item.text });
        }
    }
    output::write(&lines(&best.finish(), format)?)?;
    queries.finish(embedder.model().max_length())?;
    stream.finish(embedder.model().max_length())
}

/// The prompt for a role, by the names that sentence-transformers tries, unless one was named for all.
fn role_prefix(prompt: &PromptArguments, folder: &Folder, names: &[&str]) -> Result<String> {
    let of_role = names.iter().find_map(|name| folder.settings.prompts.get(*name));
    match of_role {
        Some(text) if prompt.prompt.is_none() => Ok(text.clone()),
        _ => prompt.prefix(folder),
    }
}

fn lines(hits: &[Hit], format: Format) -> Result<Vec<u8>> {
    let mut lines = Vec::new();
    let rank_width = hits.len().to_string().len();
    let line_width = hits.iter().map(|hit| hit.line).max().unwrap_or(0).to_string().len();
    for (rank, Hit { score, line, text }) in (1..).zip(hits) {
        match format {
            Format::Jsonl => output::push_json(&mut lines, &JsonHit { rank, score: *score, line: *line, text })?,
            // Cannot fail: it goes to memory.
            Format::Text => _ = writeln!(lines, "{rank:rank_width$}  {score:.4}  {line:line_width$}  {}", output::on_one_line(text)),
        }
    }
    Ok(lines)
}

/// The nearest lines so far; of equals, the earlier.
struct Best {
    hits: Vec<Hit>,
    top: usize,
}

impl Best {
    fn offer(&mut self, hit: Hit) {
        self.hits.push(hit);
        // Sorted now and then, so that each line costs little and a long file needs little memory.
        if self.hits.len() >= self.top.saturating_mul(2).max(1024) {
            self.sort();
        }
    }

    fn sort(&mut self) {
        self.hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.line.cmp(&b.line)));
        self.hits.truncate(self.top);
    }

    fn finish(mut self) -> Vec<Hit> {
        self.sort();
        self.hits
    }
}
