//! `minilm answer`: answers to questions, as pieces of a context.

use clap::Args;
use minilm::{Answer, AnswerOptions, Answerer, Error, Result, Sourced};
use serde::Serialize;

use super::input::{Fields, FileArguments, InputFormat, Reader};
use super::model::LoadArguments;
use super::output;
use super::progress::Progress;
use super::stream::{Chunk, Faults, Line, Stream};

/// Answer questions by pieces of a context: a line of JSON for each question
///
/// Without a question on the command line, lines of --input or of standard input are {"question", "context"}. A line of the result is
/// {"index", "answer", "score", "probability", "start", "end", "start_byte", "end_byte", "null_score"}, where "start" and "end" count
/// Unicode code points of the context, and "score" is the sum of the logits of start and end. "No answer" is an empty "answer", and its
/// score is "null_score". Long contexts are read in windows.
#[derive(Args)]
#[command(after_long_help = "Example:\n  minilm answer --model squad-model 'Where is the cat?' 'The cat sleeps on the sofa.'")]
pub struct Arguments {
    /// A question
    #[arg(requires = "context", conflicts_with = "input")]
    question: Option<String>,
    /// What holds its answer
    context: Option<String>,
    /// Read from this file, in UTF-8; `-` is standard input, which is also read where there is nothing else
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    input: Option<std::path::PathBuf>,
    /// Answers to each question; for more than one, "answers" lists them all
    #[arg(long, value_name = "N", default_value_t = AnswerOptions::default().n_best)]
    n_best: usize,
    /// Tokens of an answer, at most
    #[arg(long, value_name = "N", default_value_t = AnswerOptions::default().max_answer_length)]
    max_answer_length: usize,
    /// Allow "no answer", which wins where its score is above the best answer's by more than this; for models trained on questions
    /// without an answer, as SQuAD 2.0 has them
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    null_threshold: Option<f64>,
    /// Tokens of the context that neighbouring windows share [default: 128, or half of a smaller window]
    #[arg(long, value_name = "N")]
    stride: Option<usize>,
    #[command(flatten)]
    load: LoadArguments,
}

#[derive(Serialize)]
struct Row<'a> {
    index: u64,
    #[serde(flatten)]
    best: JsonAnswer<'a>,
    null_score: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    answers: Option<Vec<JsonAnswer<'a>>>,
}

#[derive(Serialize)]
struct JsonAnswer<'a> {
    answer: &'a str,
    score: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    probability: Option<f64>,
    start: usize,
    end: usize,
    start_byte: usize,
    end_byte: usize,
}

impl<'a> From<&'a Answer> for JsonAnswer<'a> {
    fn from(found: &'a Answer) -> Self {
        let Answer { score, probability, bytes, code_points, text } = found;
        let (start, end) = (code_points.start, code_points.end);
        Self { answer: text, score: *score, probability: Some(*probability), start, end, start_byte: bytes.start, end_byte: bytes.end }
    }
}

pub fn run(arguments: Arguments) -> Result<()> {
    let Arguments { question, context, input, n_best, max_answer_length, null_threshold, stride, load } = arguments;
    for (option, value) in [("--n-best", n_best), ("--max-answer-length", max_answer_length)] {
        if value == 0 {
            return Err(Error::Input { problem: format!("`{option}`: expected 1 or more, found 0: raise it") });
        }
    }
    let reader = match (question, context) {
        (Some(question), Some(context)) => Reader::of_question(question, context),
        _ => FileArguments { input, input_format: InputFormat::Jsonl }.open()?.with_fields(Fields::Question),
    };
    let folder = load.open()?;
    let mut builder = Answerer::builder().answers(AnswerOptions { n_best, max_answer_length, null_threshold });
    if let Some(stride) = stride {
        builder = builder.stride(stride);
    }
    let answerer = load.load(&folder, builder)?;

    let progress = Progress::beside_results(reader.size);
    let stream =
        Stream::start(reader, progress, Faults::Report, move |item| answerer.windows(&item.text, item.pair.as_deref().unwrap_or_default()));
    let find = |chunk: &Chunk<Vec<Sourced>>| {
        let contexts: Vec<&str> = chunk.good().map(|(item, _)| item.pair.as_deref().unwrap_or_default()).collect();
        answerer.answer_windows(&contexts, &chunk.tokens())
    };
    stream.write_each(answerer.model().max_length(), find, |lines, Line { index, found, .. }| {
        let null = JsonAnswer {
            answer: "",
            score: found.null_score,
            probability: found.null_probability,
            start: 0,
            end: 0,
            start_byte: 0,
            end_byte: 0,
        };
        let best = found.answers.first().filter(|_| !found.is_null).map_or(null, JsonAnswer::from);
        let answers = (n_best > 1).then(|| found.answers.iter().map(JsonAnswer::from).collect());
        output::push_json(lines, &Row { index, best, null_score: found.null_score, answers })
    })
}
