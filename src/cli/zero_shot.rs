//! `minilm zero-shot`: any labels for texts, by a model that tells whether one sentence follows from another.

use clap::Args;
use minilm::{Result, ZeroShot, ZeroShotOptions};
use serde::Serialize;

use super::input::InputArguments;
use super::model::LoadArguments;
use super::output::{self, ByLabel};
use super::progress::Progress;
use super::stream::{Chunk, Faults, Line, Stream};

/// Classify texts by labels of your own, with a model trained on inference between sentences (MNLI, XNLI)
///
/// Prints a line of JSON for each text: {"index", "truncated", "label", "score", "scores"}, where "scores" goes by label, best first.
#[derive(Args)]
#[command(after_long_help = "Example:\n  minilm zero-shot --model xnli-model --labels sports,politics,weather 'It will rain tomorrow.'")]
pub struct Arguments {
    #[command(flatten)]
    input: InputArguments,
    /// The labels, separated by commas
    #[arg(long, value_name = "LABELS", value_delimiter = ',', required = true, num_args = 1, help_heading = "Labels")]
    labels: Vec<String>,
    /// The sentence that a label makes, with {} where it goes
    #[arg(long, value_name = "SENTENCE", default_value = ZeroShotOptions::default().template, help_heading = "Labels")]
    template: String,
    /// Each label is right or not by itself, rather than just one of them right
    #[arg(long, help_heading = "Labels")]
    multi_label: bool,
    #[command(flatten)]
    load: LoadArguments,
}

#[derive(Serialize)]
struct Row<'a> {
    index: u64,
    truncated: bool,
    label: &'a str,
    score: f64,
    scores: ByLabel<'a>,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let Arguments { input, labels, template, multi_label, load } = arguments;
    let options = ZeroShotOptions { template: &template, multi_label };
    // People write a blank after a comma.
    let labels: Vec<String> = labels.iter().map(|label| label.trim().to_owned()).collect();
    let hypotheses = options.hypotheses(&labels)?;
    let reader = input.open()?;
    let folder = load.open()?;
    let classifier = load.load(&folder, ZeroShot::builder())?;

    let stream = Stream::start(reader, Progress::beside_results(None), Faults::Report, move |item| {
        let text = item.single()?;
        hypotheses.iter().map(|hypothesis| classifier.encode(text, hypothesis)).collect::<Result<Vec<_>>>()
    });
    let find = |chunk: &Chunk<Vec<_>>| classifier.classify_encodings(&chunk.tokens(), &options);
    stream.write_each(classifier.model().max_length(), find, |lines, Line { index, found, .. }| {
        let sorted: Vec<String> = found.labels.iter().map(|label| labels[label.index].clone()).collect();
        let scores: Vec<f64> = found.labels.iter().map(|label| label.score).collect();
        let row = Row {
            index,
            truncated: found.length.truncated(),
            label: &sorted[0],
            score: scores[0],
            scores: ByLabel { labels: &sorted, scores: &scores },
        };
        output::push_json(lines, &row)
    })
}
