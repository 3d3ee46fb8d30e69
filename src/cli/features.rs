//! `minilm features`: the last hidden state of each text, in a safetensors file.

use std::path::PathBuf;

use clap::Args;
use minilm::{Encoding, Error, FeatureExtractor, Result};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::input::InputArguments;
use super::model::{Encode, LoadArguments, PromptArguments};
use super::output::WholeFile;
use super::progress::Progress;
use super::stream::{Faults, Stream};

/// Write the hidden states of texts: one row of numbers for each token, in a safetensors file
///
/// The file holds `last_hidden_state.0`, `last_hidden_state.1`, ... `[tokens, hidden]`, one for each text, as 32-bit floats. With
/// --all-layers there is also `hidden_states.0`, ... `[layers, tokens, hidden]`: the embeddings and every layer but the last; with --pooler
/// `pooler_output.0`, ... `[hidden]`. The file appears under its name when it is whole; one of this name is replaced.
#[derive(Args)]
#[command(after_long_help = "Example:\n  minilm features --input texts.txt --output features.safetensors")]
pub struct Arguments {
    #[command(flatten)]
    input: InputArguments,
    /// The file to write
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    output: PathBuf,
    /// The embeddings and every layer's state too
    #[arg(long, help_heading = "Output")]
    all_layers: bool,
    /// The pooler's output too, where the model has a pooler
    #[arg(long, help_heading = "Output")]
    pooler: bool,
    #[command(flatten)]
    load: LoadArguments,
    #[command(flatten)]
    prompt: PromptArguments,
}

/// Tokens that are run and written at once: a few batches, so that the GPU is kept busy.
const CHUNK_TOKENS: usize = 1 << 14;

/// Readers of safetensors refuse longer headers.
const LONGEST_HEADER: usize = 100_000_000;

pub fn run(arguments: Arguments) -> Result<()> {
    let Arguments { input, output, all_layers, pooler, load, prompt } = arguments;
    let reader = input.open()?;
    let folder = load.open()?;
    let prefix = prompt.prefix(&folder)?;
    let builder = FeatureExtractor::builder().all_layers(all_layers).pooler(pooler);
    let extractor = load.load(&folder, builder)?;
    let mut file = WholeFile::create(&output)?;

    // The header comes first and holds all shapes: all tokens must be known, which take a hundredth of what they become.
    let progress = Progress::new(reader.size);
    let mut stream = Stream::start(reader, progress, Faults::End, move |item| Encode::of(extractor.model(), &prefix).encode(item));
    let mut encodings = Vec::new();
    while let Some(chunk) = stream.next()? {
        encodings.extend(chunk.results.into_iter().flatten().map(|(_, encoding)| encoding));
    }
    let (hidden, layers) = (extractor.model().config().hidden, extractor.model().config().layers);
    let shapes = Shapes { hidden, states: all_layers.then_some(layers + 1), pooler };
    file.write(&header(&encodings, &shapes)?)?;

    let tokens = encodings.iter().map(|encoding| encoding.ids.len() as u64).sum();
    let mut progress = Progress::new(Some(tokens));
    let (mut done, mut texts) = (0, 0);
    for chunk in chunks(&encodings) {
        progress.set(done, texts);
        let sequences: Vec<_> = chunk.iter().map(Encoding::sequence).collect();
        let found = extractor.features_of_tokens(&sequences).map_err(|error| match error {
            Error::NotFinite { text, at, value } => Error::NotFinite { text: text + texts as usize, at, value },
            error => error,
        });
        for features in found? {
            done += features.length().used as u64;
            for state in features.states() {
                file.write(bytemuck::cast_slice(state))?;
            }
            file.write(bytemuck::cast_slice(features.pooler_output().unwrap_or_default()))?;
        }
        texts += chunk.len() as u64;
    }
    progress.finish();
    file.finish()?;
    stream.finish(extractor.model().max_length())
}

/// What there is for each text.
struct Shapes {
    hidden: usize,
    /// How many states, where not only the last one is asked for.
    states: Option<usize>,
    pooler: bool,
}

/// Length of the header, and the header, padded so that numbers lie at multiples of 8 bytes.
fn header(encodings: &[Encoding], shapes: &Shapes) -> Result<Vec<u8>> {
    let mut end = 0;
    let mut tensors = Vec::new();
    let mut add = |name: String, shape: Vec<usize>| {
        let start = end;
        end += shape.iter().product::<usize>() * size_of::<f32>();
        tensors.push((name, TensorInfo { dtype: Dtype::F32, shape, data_offsets: (start, end) }));
    };
    for (i, encoding) in encodings.iter().enumerate() {
        let tokens = encoding.ids.len();
        match shapes.states {
            None => add(format!("last_hidden_state.{i}"), vec![tokens, shapes.hidden]),
            Some(states) => {
                add(format!("hidden_states.{i}"), vec![states - 1, tokens, shapes.hidden]);
                add(format!("last_hidden_state.{i}"), vec![tokens, shapes.hidden]);
            }
        }
        if shapes.pooler {
            add(format!("pooler_output.{i}"), vec![shapes.hidden]);
        }
    }
    let wrong = |error: String| Error::Input { problem: format!("the header of the safetensors file cannot be made: {error}") };
    let metadata = Metadata::new(None, tensors).map_err(|error| wrong(error.to_string()))?;
    let mut header = serde_json::to_vec(&metadata).map_err(|error| wrong(error.to_string()))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    if header.len() > LONGEST_HEADER {
        let problem = format!("{} texts are too many for one safetensors file: split the input", encodings.len());
        return Err(Error::Input { problem });
    }
    Ok([&(header.len() as u64).to_le_bytes(), header.as_slice()].concat())
}

/// Texts of some tokens each, in order.
fn chunks(mut encodings: &[Encoding]) -> impl Iterator<Item = &[Encoding]> {
    std::iter::from_fn(move || {
        let mut tokens = 0;
        let full = encodings.iter().position(|encoding| {
            tokens += encoding.ids.len();
            tokens >= CHUNK_TOKENS
        });
        let (chunk, rest) = encodings.split_at(full.map_or(encodings.len(), |last| last + 1));
        encodings = rest;
        (!chunk.is_empty()).then_some(chunk)
    })
}
