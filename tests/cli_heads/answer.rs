//! `minilm answer` against a search of all spans by hand, over windows cut by hand.

use serde_json::{Value, json};

use crate::common::compare::Table;
use crate::{BOUND, Plain, family, keys, numbers, run_with, softmax, some_words};

const QUESTION: &str = "w5 w6";
/// Words of the context in a window of 24 tokens: three are specials, and two the question.
const ROOM: usize = 19;
const STRIDE: usize = 4;
/// Tokens of an answer, at most.
const LONGEST: usize = 3;

/// Of words, each of which is a token.
struct Span {
    score: f64,
    first: usize,
    last: usize,
}

/// All spans, best first, and the score of "no answer".
fn spans(plain: &Plain, words: &[&str]) -> (Vec<Span>, f64) {
    let (mut spans, mut null, mut at): (Vec<Span>, _, _) = (Vec::new(), f64::INFINITY, 0);
    loop {
        let window = &words[at..words.len().min(at + ROOM)];
        let [start, end] = plain.span(&plain.encode(QUESTION, &window.join(" ")));
        null = null.min(start[0] + end[0]);
        // The context follows the question and two specials.
        for first in 0..window.len() {
            for last in first..window.len().min(first + LONGEST) {
                spans.push(Span { score: start[first + 4] + end[last + 4], first: at + first, last: at + last });
            }
        }
        if at + ROOM >= words.len() {
            break;
        }
        at += ROOM - STRIDE;
    }
    spans.sort_by(|a, b| b.score.total_cmp(&a.score));
    // A span of two windows counts once, with its best score.
    let mut best: Vec<Span> = Vec::new();
    for span in spans {
        if !best.iter().any(|kept| (kept.first, kept.last) == (span.first, span.last)) {
            best.push(span);
        }
    }
    (best, null)
}

fn compare(table: &mut Table, case: &str, found: &Value, words: &[&str], span: &Span) {
    let place = |word: usize| words[..word].iter().map(|word| word.len() + 1).sum::<usize>();
    let (start, end) = (place(span.first), place(span.last) + words[span.last].len());
    table.equal(case, &[&found["answer"]], &[&json!(words[span.first..=span.last].join(" "))]);
    let places = ["start", "end", "start_byte", "end_byte"].map(|key| found[key].as_u64().unwrap_or(u64::MAX) as usize);
    table.equal(case, &places, &[start, end, start, end]);
    table.close(case, &numbers(&found["score"]), &[span.score], BOUND);
}

#[test]
fn answers_are_the_best_spans() {
    let mut table = Table::new("minilm answer");
    for name in ["distilbert-span", "bert-span"] {
        let folder = family(name);
        let plain = Plain::open(&folder);
        for count in [1, 7, 40] {
            let (case, context) = (format!("{name}, {count} words"), some_words(2, count));
            let words: Vec<&str> = context.split(' ').collect();
            let (best, null) = spans(&plain, &words);
            let input = format!("{}\n", json!({"question": QUESTION, "context": context}));
            let ask = |more: &[&str]| {
                let (longest, stride) = (LONGEST.to_string(), STRIDE.to_string());
                let arguments = [&["answer", "--max-answer-length", &longest, "--stride", &stride], more].concat();
                run_with(&folder, &arguments, &input).succeeded().json_lines().remove(0)
            };

            let line = ask(&[]);
            let fields = ["answer", "end", "end_byte", "index", "null_score", "probability", "score", "start", "start_byte"];
            table.equal(&case, &keys(&line), &fields);
            table.equal(&case, &[&line["index"]], &[&json!(0)]);
            table.close(&case, &numbers(&line["null_score"]), &[null], BOUND);
            compare(&mut table, &case, &line, &words, &best[0]);

            let line = ask(&["--n-best", "3"]);
            let answers = line["answers"].as_array().unwrap();
            table.equal(&case, &[answers.len()], &[best.len().min(3)]);
            for (found, span) in answers.iter().zip(&best) {
                compare(&mut table, &format!("{case}, three"), found, &words, span);
            }
            let scores: Vec<f64> = best.iter().take(20).map(|span| span.score).collect();
            let probabilities = softmax(&scores);
            table.close(&case, &numbers(&line["probability"]), &probabilities[..1], BOUND);
            table.close(&case, &numbers(&answers[answers.len() - 1]["probability"]), &probabilities[answers.len() - 1..][..1], BOUND);

            // "No answer" wins by a little more than the threshold, and not by a little less.
            let threshold = |more: f64| (null - best[0].score + more).to_string();
            let line = ask(&["--null-threshold", &threshold(-0.01)]);
            table.equal(&case, &keys(&line), &fields);
            table.equal(&case, &[&line["answer"], &line["start"], &line["end_byte"]], &[&json!(""), &json!(0), &json!(0)]);
            table.equal(&case, &[&line["score"]], &[&line["null_score"]]);
            let with_null = softmax(&[&scores[..], &[null]].concat());
            table.close(&case, &numbers(&line["probability"]), &with_null[scores.len()..], BOUND);
            compare(&mut table, &format!("{case}, not null"), &ask(&["--null-threshold", &threshold(0.01)]), &words, &best[0]);
        }
    }
    table.finish();
}

#[test]
fn a_question_and_its_context_may_stand_on_the_command_line() {
    let folder = family("distilbert-span");
    let by_arguments = run_with(&folder, &["answer", QUESTION, "w1 w2 w3"], "not read").succeeded();
    let by_line = run_with(&folder, &["answer"], format!("{}\n", json!({"question": QUESTION, "context": "w1 w2 w3"}))).succeeded();
    assert_eq!(by_arguments.text(), by_line.text());
    // Without a context there is nothing to find.
    let nothing = run_with(&folder, &["answer", QUESTION, ""], "").succeeded().json_lines().remove(0);
    assert_eq!((&nothing["answer"], &nothing["score"]), (&json!(""), &nothing["null_score"]));
}
