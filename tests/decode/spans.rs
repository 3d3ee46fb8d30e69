//! Answers of question answering: against the SQuAD 2.0 script of transformers, plain loops, and golden spans.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;

use minilm::checkpoint::{Checkpoint, TokenSource};
use minilm::decode::spans::{AnswerOptions, Answers, Window, answers};
use serde::Deserialize;
use serde_json::Value;

use super::common::compare::{Bound, Table};
use super::common::golden::Golden;
use super::common::reference;
use super::{load, source};

#[derive(Deserialize)]
pub struct SpanCase {
    context: String,
    windows: Vec<WindowCase>,
    null_threshold: Option<f64>,
    max_answer_length: usize,
    /// Text, score, probability; the text of "no answer" is empty.
    expected: Vec<(String, f64, f64)>,
    is_null: bool,
    score_difference: Option<f64>,
}

#[derive(Deserialize)]
struct WindowCase {
    /// Text of the pair, first and last code point.
    tokens: Vec<(Option<usize>, usize, usize)>,
    start_logits: Vec<f32>,
    end_logits: Vec<f32>,
}

/// The byte at which a code point begins.
fn byte(text: &str, code_point: usize) -> usize {
    text.chars().take(code_point).map(char::len_utf8).sum()
}

#[test]
fn spans_are_those_of_the_squad_script() {
    let mut table = Table::new("spans");
    for (number, case) in load().spans.iter().enumerate() {
        let token = |&(sequence, start, end): &(Option<usize>, usize, usize)| match sequence {
            Some(1) => source(1, 0, byte(&case.context, start)..byte(&case.context, end)),
            sequence => source(sequence, 0, start..end),
        };
        let sources: Vec<Vec<_>> = case.windows.iter().map(|window| window.tokens.iter().map(token).collect()).collect();
        let windows: Vec<_> = case
            .windows
            .iter()
            .zip(&sources)
            .map(|(window, sources)| Window { start_logits: &window.start_logits, end_logits: &window.end_logits, sources, cls: 0 })
            .collect();
        let options = AnswerOptions { n_best: 20, max_answer_length: case.max_answer_length, null_threshold: case.null_threshold };
        let found = answers(&windows, &case.context, &options).unwrap();
        let (null, spans): (Vec<_>, Vec<_>) = case.expected.iter().cloned().partition(|(text, ..)| text.is_empty());

        let texts = |answers: &Answers| answers.answers.iter().map(|answer| answer.text.clone()).collect::<Vec<_>>();
        table.equal(format!("{number} texts"), &texts(&found), &spans.iter().map(|span| span.0.clone()).collect::<Vec<_>>());
        let actual: Vec<f64> = found.answers.iter().flat_map(|answer| [answer.score, answer.probability]).collect();
        let expected: Vec<f64> = spans.iter().flat_map(|&(_, score, probability)| [score, probability]).collect();
        table.close(format!("{number} scores and probabilities"), &actual, &expected, Bound::absolute(1e-11));
        table.check(format!("{number} null"), found.is_null == case.is_null, format!("is_null is {}", found.is_null));
        match null.first() {
            None => {
                table.check(format!("{number} null"), found.null_probability.is_none(), "a probability of an answer that is not allowed")
            }
            Some(&(_, score, probability)) => {
                let difference = found.null_score - found.answers[0].score;
                let actual = [found.null_score, found.null_probability.unwrap(), difference];
                let expected = [score, probability, case.score_difference.unwrap()];
                table.close(format!("{number} null"), &actual, &expected, Bound::absolute(1e-11));
            }
        }
        for answer in &found.answers {
            let points = &answer.code_points;
            let text: String = case.context.chars().skip(points.start).take(points.len()).collect();
            table.check(
                format!("{number} offsets"),
                text == answer.text && case.context[answer.bytes.clone()] == text,
                format!("{answer:?}"),
            );
        }
    }
    table.finish();
}

#[test]
fn golden_spans_come_out_of_golden_logits() {
    let Some(folder) = reference("tiny-head-bert-qa") else { return };
    #[derive(Deserialize)]
    struct Span {
        score: f64,
        start_char: usize,
        end_char: usize,
        start_byte: usize,
        end_byte: usize,
        answer: String,
    }
    let (golden, tokenizer) = (Golden::open(&folder), Checkpoint::open(&folder).unwrap().tokenizer);
    let json: Value = serde_json::from_slice(&fs::read(folder.join("golden.json")).unwrap()).unwrap();
    let mut table = Table::new("golden spans");
    for (index, case) in golden.cases.iter().enumerate() {
        let context = case.text_pair.as_deref().unwrap();
        let (_, sources) = tokenizer.encode_with_sources(&case.text, Some(context), golden.max_length).unwrap();
        let [start_logits, end_logits] = ["start", "end"].map(|side| &golden.tensor(&format!("{side}_logits.{}", case.id)).values[..]);
        let window = Window { start_logits, end_logits, sources: &sources, cls: 0 };
        let found = answers(&[window], context, &AnswerOptions::default()).unwrap();
        let span: Span = Deserialize::deserialize(&json["cases"][index]["span"]).unwrap();
        let [best] = &found.answers[..] else { panic!("{}: expected one answer, found {found:?}", case.id) };
        table.close(&case.id, &[best.score], &[span.score], Bound::absolute(1e-4));
        table.equal(&case.id, &[&best.bytes, &best.code_points], &[&(span.start_byte..span.end_byte), &(span.start_char..span.end_char)]);
        table.equal(&case.id, &[&best.text], &[&span.answer]);
    }
    table.finish();
}

/// Numbers that repeat after a long while.
fn noise(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 21) as f32 - 4.0
    }
}

/// Overlapping windows of a long context against every pair of tokens, listed and sorted.
#[test]
fn the_best_spans_of_overlapping_windows_are_those_of_plain_loops() {
    let mut table = Table::new("overlapping windows");
    let context: String = (0..120).map(|i| ["ab ", "é猫 ", "👩\u{200d}👧 "][i % 3]).collect();
    let words: Vec<Range<usize>> = context
        .split_inclusive(' ')
        .scan(0, |at, word| {
            *at += word.len();
            Some(*at - word.len()..*at - 1)
        })
        .collect();
    for (seed, stride, n_best, max_answer_length) in
        [(1, 20, 1, 30), (2, 40, 5, 1), (3, 7, 20, 3), (4, 13, 64, 30), (5, 20, 100_000, 1000), (6, 1, 3, 12)]
    {
        let mut next = noise(seed);
        // Rounded (and no zero negative), so that many scores are equal: of those the first in the text come first, whatever the order
        // of the windows.
        let mut logits = |tokens: usize| (0..tokens).map(|_| next().round() + 0.0).collect::<Vec<_>>();
        let windows: Vec<(Vec<TokenSource>, Vec<f32>, Vec<f32>)> = (0..words.len())
            .step_by(stride)
            .rev()
            .map(|first| {
                let part = words[first..words.len().min(first + 40)].iter().map(|bytes| source(1, 0, bytes.clone()));
                let head = [source(None, 0, 0..0), source(0, 0, 0..5), source(None, 0, 0..0)];
                let sources: Vec<_> = head.into_iter().chain(part).chain([source(None, 0, 0..0)]).collect();
                let (starts, ends) = (logits(sources.len()), logits(sources.len()));
                (sources, starts, ends)
            })
            .collect();

        let (mut scores, mut null_score) = (BTreeMap::new(), f64::INFINITY);
        for (sources, starts, ends) in &windows {
            null_score = null_score.min(starts[0] as f64 + ends[0] as f64);
            for start in 3..sources.len() - 1 {
                for end in start..(sources.len() - 1).min(start + max_answer_length) {
                    let score = starts[start] as f64 + ends[end] as f64;
                    let best = scores.entry((sources[start].bytes.start, sources[end].bytes.end)).or_insert(score);
                    *best = best.max(score);
                }
            }
        }
        let mut expected: Vec<_> = scores.into_iter().collect();
        expected.sort_by(|a, b| b.1.total_cmp(&a.1));
        expected.truncate(n_best.max(20));
        let total: f64 = expected.iter().map(|(_, score)| score.exp()).sum::<f64>() + null_score.exp();

        let windows: Vec<_> =
            windows.iter().map(|(sources, start_logits, end_logits)| Window { start_logits, end_logits, sources, cls: 0 }).collect();
        let options = AnswerOptions { n_best, max_answer_length, null_threshold: Some(0.0) };
        let found = answers(&windows, &context, &options).unwrap();
        let places: Vec<_> = found.answers.iter().map(|answer| (answer.bytes.start, answer.bytes.end)).collect();
        let case = format!("{seed}");
        table.equal(&case, &places, &expected.iter().map(|&(place, _)| place).take(n_best).collect::<Vec<_>>());
        let values: Vec<_> =
            found.answers.iter().flat_map(|answer| [answer.score, answer.probability]).chain(found.null_probability).collect();
        let wanted: Vec<_> =
            expected.iter().take(n_best).flat_map(|&(_, score)| [score, score.exp() / total]).chain([null_score.exp() / total]).collect();
        table.close(&case, &values, &wanted, Bound::absolute(1e-12));
        table.check(&case, found.null_score == null_score, found.null_score);
    }
    table.finish();
}

#[test]
fn spans_stay_within_the_context_and_have_text() {
    // The largest logits are those of the question, of specials, and of a piece without text.
    let context = " ab cd";
    let sources = [
        source(None, 0, 0..0),
        source(0, 0, 0..3),
        source(None, 0, 0..0),
        source(1, 0, 0..0),
        source(1, 0, 0..3),
        source(1, 1, 3..6),
        source(None, 0, 0..0),
    ];
    let (start_logits, end_logits) = ([9.0, 9.0, 9.0, 8.0, 2.0, 1.0, 9.0], [9.0, 9.0, 9.0, 8.0, 1.0, 2.0, 9.0]);
    let window = Window { start_logits: &start_logits, end_logits: &end_logits, sources: &sources, cls: 0 };
    let run =
        |window, null_threshold| answers(&[window], context, &AnswerOptions { n_best: 9, null_threshold, ..Default::default() }).unwrap();
    let found = run(window, Some(8.0));
    let texts: Vec<_> = found.answers.iter().map(|answer| (answer.text.as_str(), answer.score)).collect();
    // The piece without text may begin a span, and the tokenizer counts the space to the word.
    assert_eq!(texts, [(" ab cd", 10.0), (" ab", 9.0), (" cd", 3.0)]);
    assert!(!found.is_null, "18 is not above 10 by more than 8");
    assert!(run(window, Some(7.9)).is_null && !run(window, None).is_null);

    let window = Window { start_logits: &start_logits[..3], end_logits: &end_logits[..3], sources: &sources[..3], cls: 0 };
    let (null, nothing) = (run(window, Some(0.0)), run(window, None));
    assert!(null.answers.is_empty() && null.is_null && null.null_probability == Some(1.0), "{null:?}");
    assert!(nothing.answers.is_empty() && !nothing.is_null && nothing.null_score == 18.0, "{nothing:?}");
}

#[test]
fn windows_that_do_not_fit_are_refused() {
    let sources = [source(None, 0, 0..0), source(1, 0, 0..2)];
    let window = Window { start_logits: &[0.0, 0.0], end_logits: &[0.0, 0.0], sources: &sources, cls: 0 };
    let options = AnswerOptions::default();
    assert!(answers(&[window], "é", &options).is_ok());
    let cases: [(&[Window], &str, AnswerOptions, &str); 8] = [
        (&[], "é", options.clone(), "there are no windows"),
        (&[window], "é", AnswerOptions { n_best: 0, ..options.clone() }, "`n_best`: expected 1 or more"),
        (&[window], "é", AnswerOptions { max_answer_length: 0, ..options.clone() }, "`max_answer_length`: expected 1 or more"),
        (
            &[window, Window { end_logits: &[0.0], ..window }],
            "é",
            options.clone(),
            "window 1: expected logits for each of its 2 tokens, found 2 for the start and 1 for the end",
        ),
        (&[Window { cls: 2, ..window }], "é", options.clone(), "window 0: `cls`: expected one of its 2 tokens, found token 2"),
        (
            &[Window { start_logits: &[0.0, f32::NAN], ..window }],
            "é",
            options.clone(),
            "window 0: token 1: expected finite logits, found NaN",
        ),
        (
            &[window],
            "e",
            options.clone(),
            "window 0: token 1: expected a range of whole characters within the 1 bytes of the text, found bytes 0 to 2",
        ),
        (&[window], "e\u{301}", options.clone(), "whole characters within the 3 bytes"),
    ];
    for (windows, context, options, expected) in cases {
        let message = answers(windows, context, &options).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}
