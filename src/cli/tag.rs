//! `minilm tag`: entities in texts.

use clap::{Args, ValueEnum};
use minilm::{Aggregation, Entity, EntityOptions, Result, Sourced, Tagger};
use serde::Serialize;

use super::embed::{check_stride, whole};
use super::input::InputArguments;
use super::model::LoadArguments;
use super::output;
use super::progress::Progress;
use super::stream::{Chunk, Faults, Line, Stream};

/// Find names, places and other entities in texts: a line of JSON for each text
///
/// A line is {"index", "tokens", "truncated", "entities"}; an entity is {"label", "score", "start", "end", "start_byte", "end_byte",
/// "text"}, where "start" and "end" count Unicode code points. --logits adds "logits". Of a text in windows "tokens" are those of all.
#[derive(Args)]
#[command(after_long_help = "Example:\n  minilm tag --model ner-model --aggregation simple 'Ada Lovelace lived in London.'")]
pub struct Arguments {
    #[command(flatten)]
    input: InputArguments,
    #[command(flatten)]
    load: LoadArguments,
    /// What becomes of a text that is longer than the model takes
    #[arg(long, value_enum, value_name = "WHAT", default_value_t, help_heading = "Model")]
    overflow: Overflow,
    /// Tokens that neighbouring windows of a long text share [default: an eighth of the maximum length]
    #[arg(long, value_name = "N", help_heading = "Model")]
    stride: Option<usize>,
    /// How tokens become entities
    #[arg(long, value_enum, value_name = "HOW", default_value_t, help_heading = "Output")]
    aggregation: Together,
    /// Print the logits of each token too, specials included, in the order of the model's labels
    #[arg(long, help_heading = "Output")]
    logits: bool,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Overflow {
    /// It is cut, with a warning at the end
    #[default]
    Truncate,
    /// It is read in several windows; where entities of two overlap, the longer one counts, and of two as long the surer one
    Chunk,
    /// It is refused
    Error,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Together {
    /// Each token for itself, with its full label
    #[default]
    None,
    /// Neighbouring tokens of one label
    Simple,
    /// Words by their first token
    First,
    /// Words by the mean of their tokens
    Average,
    /// Words by their surest token
    Max,
}

#[derive(Serialize)]
struct Row<'a> {
    index: u64,
    tokens: usize,
    truncated: bool,
    entities: Vec<JsonEntity<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logits: Option<Vec<&'a [f32]>>,
}

#[derive(Serialize)]
struct JsonEntity<'a> {
    label: &'a str,
    score: f64,
    start: usize,
    end: usize,
    start_byte: usize,
    end_byte: usize,
    text: &'a str,
}

impl<'a> From<&'a Entity> for JsonEntity<'a> {
    fn from(entity: &'a Entity) -> Self {
        let Entity { label, score, bytes, code_points, text, .. } = entity;
        let (start, end) = (code_points.start, code_points.end);
        Self { label, score: *score, start, end, start_byte: bytes.start, end_byte: bytes.end, text }
    }
}

pub fn run(arguments: Arguments) -> Result<()> {
    let Arguments { input, load, overflow, stride, aggregation, logits } = arguments;
    check_stride(stride, matches!(overflow, Overflow::Chunk))?;
    let reader = input.open()?;
    let folder = load.open()?;
    let aggregation = match aggregation {
        Together::None => Aggregation::None,
        Together::Simple => Aggregation::Simple,
        Together::First => Aggregation::First,
        Together::Average => Aggregation::Average,
        Together::Max => Aggregation::Max,
    };
    let builder = Tagger::builder().entities(EntityOptions { aggregation, ..EntityOptions::default() });
    let tagger = load.load(&folder, builder)?;
    let max_length = tagger.model().max_length();
    let stride = stride.unwrap_or(max_length / 8);

    let progress = Progress::beside_results(reader.size);
    let stream = Stream::start(reader, progress, Faults::Report, move |item| {
        let text = item.single()?;
        match overflow {
            Overflow::Truncate => Ok(vec![tagger.encode(text)?]),
            Overflow::Error => Ok(vec![whole(tagger.encode(text)?)?]),
            Overflow::Chunk => tagger.windows(text, stride),
        }
    });
    let find = |chunk: &Chunk<Vec<Sourced>>| {
        let texts: Vec<&str> = chunk.good().map(|(item, _)| &*item.text).collect();
        tagger.tag_windows(&texts, &chunk.tokens())
    };
    stream.write_each(max_length, find, |lines, Line { index, found, .. }| {
        let row = Row {
            index,
            tokens: found.length.used,
            truncated: found.length.truncated(),
            entities: found.entities.iter().map(JsonEntity::from).collect(),
            logits: logits.then(|| found.logits.chunks_exact(tagger.labels().len()).collect()),
        };
        output::push_json(lines, &row)
    })
}
