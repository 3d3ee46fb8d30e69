//! `minilm classify`: labels for texts or pairs of texts.

use clap::{Args, ValueEnum};
use minilm::{Classifier, Encoding, Result, Score};
use serde::Serialize;

use super::input::InputArguments;
use super::model::{Encode, LoadArguments};
use super::output::{self, ByLabel};
use super::progress::Progress;
use super::stream::{Chunk, Faults, Line, Stream};

/// Classify texts, or pairs of texts: a line of JSON for each, with the best label and the scores of all
///
/// A line is {"index", "tokens", "truncated", "label", "score", "scores"}, where "scores" goes by label. --logits adds "logits".
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    input: InputArguments,
    #[command(flatten)]
    load: LoadArguments,
    /// How logits become scores [default: what the model says, else sigmoid for one label and softmax for several]
    #[arg(long, value_enum, value_name = "FUNCTION", help_heading = "Model")]
    score: Option<ScoreFunction>,
    /// Print the logits too, in the order of the model's labels
    #[arg(long, help_heading = "Output")]
    logits: bool,
}

const EXAMPLES: &str = "\
Examples:
  minilm classify --model sst2-model 'What a lovely film.'
  printf '%s\\n' '{\"text\": \"It rains.\", \"text_pair\": \"The street is wet.\"}' | minilm classify --model xnli-model --input-format jsonl";

#[derive(Clone, Copy, ValueEnum)]
pub enum ScoreFunction {
    /// Just one label is right
    Softmax,
    /// Each label is right or not
    Sigmoid,
    /// The logits themselves, as for regression
    Raw,
}

impl From<ScoreFunction> for Score {
    fn from(function: ScoreFunction) -> Self {
        match function {
            ScoreFunction::Softmax => Self::Softmax,
            ScoreFunction::Sigmoid => Self::Sigmoid,
            ScoreFunction::Raw => Self::Raw,
        }
    }
}

#[derive(Serialize)]
struct Row<'a> {
    index: u64,
    tokens: usize,
    truncated: bool,
    label: &'a str,
    score: f64,
    scores: ByLabel<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logits: Option<&'a [f32]>,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let Arguments { input, load, score, logits } = arguments;
    let reader = input.open()?;
    let folder = load.open()?;
    let mut builder = Classifier::builder();
    if let Some(function) = score {
        builder = builder.score(function.into());
    }
    let classifier = load.load(&folder, builder)?;

    let progress = Progress::beside_results(reader.size);
    let stream = Stream::start(reader, progress, Faults::Report, move |item| Encode::of(classifier.model(), "").encode(item));
    let find = |chunk: &Chunk<Encoding>| classifier.classify_encodings(&chunk.tokens());
    stream.write_each(classifier.model().max_length(), find, |lines, Line { index, tokens, found, .. }| {
        let (labels, best) = (classifier.labels(), found.best());
        let row = Row {
            index,
            tokens: tokens.ids.len(),
            truncated: tokens.truncated,
            label: &labels[best],
            score: found.scores[best],
            scores: ByLabel { labels, scores: &found.scores },
            logits: logits.then_some(&found.logits),
        };
        output::push_json(lines, &row)
    })
}
