//! `minilm similarity`: how alike two texts are.

use clap::Args;
use minilm::{Result, cosine};

use super::input::Reader;
use super::model::{Encode, LoadArguments, PoolingArguments, PromptArguments};
use super::output;
use super::progress::Progress;
use super::stream::{Faults, Stream};

/// Compare two texts: print the cosine of their embeddings, 1 for the same direction
#[derive(Args)]
#[command(after_long_help = "Example:\n  minilm similarity 'A cat sits on the mat.' 'Eine Katze sitzt auf der Matte.'")]
pub struct Arguments {
    /// One text. After `--` it may begin with a dash
    #[arg(value_name = "A")]
    first: String,
    /// The other text
    #[arg(value_name = "B")]
    second: String,
    #[command(flatten)]
    load: LoadArguments,
    #[command(flatten)]
    prompt: PromptArguments,
    #[command(flatten)]
    pooling: PoolingArguments,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let Arguments { first, second, load, prompt, pooling } = arguments;
    let folder = load.open()?;
    let prefix = prompt.prefix(&folder)?;
    let embedder = load.load(&folder, pooling.builder())?;

    let encode = move |item: &_| Encode::of(embedder.model(), &prefix).encode(item);
    let mut stream = Stream::start(Reader::of_texts(vec![first, second]), Progress::new(None), Faults::End, encode);
    while let Some(chunk) = stream.next()? {
        let embeddings = embedder.embed_tokens(&chunk.sequences())?;
        if let (Some(first), Some(second)) = (embeddings.row(0), embeddings.row(1)) {
            output::write(format!("{:.6}\n", cosine(first, second)).as_bytes())?;
        }
    }
    stream.finish(embedder.model().max_length())
}
