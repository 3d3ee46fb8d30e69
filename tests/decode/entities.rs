//! Entities of token classification: against the pipeline of transformers, and by hand where words or labels differ from it.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;

use minilm::checkpoint::{Checkpoint, TokenSource, Tokenizer};
use minilm::decode::entities::{Aggregation, Entity, EntityOptions, entities, merge_windows};
use serde::Deserialize;
use serde_json::Value;

use super::common::compare::{Bound, Table};
use super::common::golden::Golden;
use super::common::{fixture, reference};
use super::{load, source};

#[derive(Deserialize)]
pub struct Entities {
    labels: Vec<String>,
    cases: Vec<EntityCase>,
    windows: Vec<WindowsCase>,
}

#[derive(Deserialize)]
struct EntityCase {
    tokenizer: String,
    text: String,
    logits: Vec<Vec<f32>>,
    /// By aggregation: label, score, first and last code point, and the token where there is one.
    expected: BTreeMap<String, Vec<Value>>,
}

/// Label, score, first and last code point of an entity.
type Labelled = (String, f64, usize, usize);

#[derive(Deserialize)]
struct WindowsCase {
    windows: Vec<Vec<Labelled>>,
    expected: Vec<Labelled>,
}

const AGGREGATIONS: [(&str, Aggregation); 5] = [
    ("none", Aggregation::None),
    ("simple", Aggregation::Simple),
    ("first", Aggregation::First),
    ("average", Aggregation::Average),
    ("max", Aggregation::Max),
];

#[test]
fn entities_are_those_of_transformers() {
    let mut table = Table::new("entities");
    let Entities { labels, cases, .. } = load().entities;
    for case in &cases {
        let tokenizer = Tokenizer::open(fixture(&case.tokenizer)).unwrap();
        let (_, sources) = tokenizer.encode_with_sources(&case.text, None, 512).unwrap();
        for (name, aggregation) in AGGREGATIONS {
            let options = EntityOptions { aggregation, ..Default::default() };
            let found = entities(&case.logits.concat(), &sources, &case.text, &labels, &options).unwrap();
            let (name, expected) = (format!("{name} of {:?}", case.text), &case.expected[name]);
            let places: Vec<_> =
                found.iter().map(|entity| (entity.label.clone(), entity.code_points.start, entity.code_points.end, entity.token)).collect();
            let number = |value: &Value| value.as_u64().map(|number| number as usize);
            let wanted: Vec<_> = expected
                .iter()
                .map(|e| (e[0].as_str().unwrap().to_owned(), number(&e[2]).unwrap(), number(&e[3]).unwrap(), number(&e[4])))
                .collect();
            table.equal(&name, &places, &wanted);
            if !expected.is_empty() {
                let scores: Vec<_> = found.iter().map(|entity| entity.score).collect();
                table.close(&name, &scores, &expected.iter().map(|e| e[1].as_f64().unwrap()).collect::<Vec<_>>(), Bound::absolute(1e-11));
            }
            for entity in &found {
                let text: String = case.text.chars().skip(entity.code_points.start).take(entity.code_points.len()).collect();
                table.check(&name, entity.text == text && case.text[entity.bytes.clone()] == text, format!("{entity:?}"));
            }
        }
    }
    table.finish();
}

#[test]
fn golden_labels_come_out_of_golden_logits() {
    let Some(folder) = reference("tiny-head-bert-tokcls5") else { return };
    let read = |name| serde_json::from_slice::<Value>(&fs::read(folder.join(name)).unwrap()).unwrap();
    let (json, config, golden) = (read("golden.json"), read("config.json"), Golden::open(&folder));
    let labels: Vec<String> = (0..5).map(|label| config["id2label"][label.to_string()].as_str().unwrap().to_owned()).collect();
    let tokenizer = Checkpoint::open(&folder).unwrap().tokenizer;
    let options = EntityOptions { ignore_labels: Vec::new(), ..Default::default() };
    let mut table = Table::new("golden labels");
    for (index, case) in golden.single_texts() {
        let (_, sources) = tokenizer.encode_with_sources(&case.text, None, golden.max_length).unwrap();
        let logits = &golden.tensor(&format!("logits.{}", case.id)).values;
        let found = entities(logits, &sources, &case.text, &labels, &options).unwrap();
        let found: Vec<_> = found.iter().map(|entity| (entity.token.unwrap(), entity.label.as_str())).collect();
        let case_json = &json["cases"][index];
        let texts = |token: &usize| case_json["special_tokens_mask"][token] == 0;
        let expected = (0..case.n_tokens).filter(texts).map(|token| (token, case_json["labels"][token].as_str().unwrap()));
        table.equal(&case.id, &found, &expected.collect::<Vec<_>>());
    }
    table.finish();
}

#[test]
fn entities_of_windows_merge_as_in_transformers() {
    let mut table = Table::new("entities of windows");
    let entity = |(label, score, start, end): &Labelled| Entity {
        label: label.clone(),
        score: *score,
        bytes: *start..*end,
        code_points: *start..*end,
        text: String::new(),
        token: None,
    };
    for (number, case) in load().entities.windows.iter().enumerate() {
        let found = merge_windows(case.windows.iter().map(|window| window.iter().map(entity).collect()));
        table.equal(number, &found, &case.expected.iter().map(entity).collect::<Vec<_>>());
    }
    table.finish();
    assert!(merge_windows([]).is_empty());
}

/// Runs tokens of one byte each, which surely have these labels.
fn labelled(tokens: &[&str], aggregation: Aggregation, ignored: &[&str]) -> Vec<(String, Range<usize>)> {
    let mut labels: Vec<String> = tokens.iter().map(|&label| label.to_owned()).collect();
    labels.sort();
    labels.dedup();
    let logits: Vec<f32> = tokens.iter().flat_map(|token| labels.iter().map(move |label| if label == token { 9.0 } else { 0.0 })).collect();
    let sources: Vec<_> = (0..tokens.len()).map(|i| source(0, i as u32, i..i + 1)).collect();
    let options = EntityOptions { aggregation, ignore_labels: ignored.iter().map(|&label| label.to_owned()).collect() };
    let found = entities(&logits, &sources, &"x".repeat(tokens.len()), &labels, &options).unwrap();
    found.into_iter().map(|entity| (entity.label, entity.bytes)).collect()
}

#[test]
fn labels_group_by_their_prefixes() {
    type Groups<'a> = &'a [(&'a str, Range<usize>)];
    let cases: [(&[&str], &[&str], Groups); 7] = [
        // IOB2, IOB1 (`B-` only between neighbours of the same kind), another kind without `B-`, and a gap.
        (&["B-PER", "I-PER", "B-PER", "O", "B-LOC"], &["O"], &[("PER", 0..2), ("PER", 2..3), ("LOC", 4..5)]),
        (&["I-PER", "I-PER", "B-PER", "I-PER", "I-LOC"], &["O"], &[("PER", 0..2), ("PER", 2..4), ("LOC", 4..5)]),
        (&["B-PER", "O", "I-PER"], &["O"], &[("PER", 0..1), ("PER", 2..3)]),
        // No prefix counts as `I-`, also after `B-`.
        (&["NOUN", "NOUN", "B-NOUN", "NOUN"], &[], &[("NOUN", 0..2), ("NOUN", 2..4)]),
        // The end of BIOES is an entity of its own, as in transformers.
        (&["B-LOC", "E-LOC", "S-LOC"], &[], &[("LOC", 0..1), ("LOC", 1..2), ("LOC", 2..3)]),
        // A hyphen alone makes no prefix.
        (&["B-date-time", "I-date-time", "date-time", "x-y", "B-"], &[], &[("date-time", 0..3), ("x-y", 3..4), ("B-", 4..5)]),
        // What is left out still separates; labels to leave out are those that groups bear.
        (&["B-PER", "I-LOC", "I-PER", "O"], &["LOC", "B-PER"], &[("PER", 0..1), ("PER", 2..3), ("O", 3..4)]),
    ];
    for (tokens, ignored, expected) in cases {
        let expected: Vec<_> = expected.iter().map(|(label, bytes)| (label.to_string(), bytes.clone())).collect();
        for aggregation in [Aggregation::Simple, Aggregation::First, Aggregation::Average, Aggregation::Max] {
            assert_eq!(labelled(tokens, aggregation, ignored), expected, "{tokens:?} {aggregation:?}");
        }
    }
    assert_eq!(labelled(&["B-PER", "I-PER", "O"], Aggregation::None, &["O", "PER", "I-PER"]), [("B-PER".to_owned(), 0..1)]);
}

/// The pipeline takes a word with a combining mark for the rest of the word before it.
#[test]
fn words_are_those_of_the_tokenizer() {
    // A byte-level tokenizer makes three tokens of an emoji, each with all its bytes.
    let text = "la e\u{301}cole 👩";
    let emoji = text.len() - 4..text.len();
    let sources = [
        source(None, 0, 0..0),
        source(0, 0, 0..2),
        source(0, 1, 3..6),
        source(0, 1, 6..10),
        source(0, 2, emoji.clone()),
        source(0, 2, emoji.clone()),
        source(0, 2, emoji),
    ];
    let labels = ["O", "B-A", "B-C"].map(str::to_owned);
    let logits = [[0.0; 3], [0.0, 3.0, 0.0], [0.0, 2.0, 1.0], [0.0, 0.0, 4.0], [0.0, 1.0, 2.0], [9.0, 0.0, 0.0], [0.0; 3]].concat();
    let run = |aggregation| {
        let found = entities(&logits, &sources, text, &labels, &EntityOptions { aggregation, ..Default::default() }).unwrap();
        found.into_iter().map(|entity| (entity.label, entity.code_points, entity.text)).collect::<Vec<_>>()
    };
    let entity = |label: &str, code_points: Range<usize>, text: &str| (label.to_owned(), code_points, text.to_owned());
    assert_eq!(run(Aggregation::First), [entity("A", 0..2, "la"), entity("A", 3..9, "e\u{301}cole"), entity("C", 10..11, "👩")]);
    assert_eq!(run(Aggregation::Max), [entity("A", 0..2, "la"), entity("C", 3..9, "e\u{301}cole")]);
    assert_eq!(run(Aggregation::Average), run(Aggregation::Max));
}

#[test]
fn tokens_and_logits_that_do_not_fit_are_refused() {
    let (labels, sources) = (["O".to_owned(), "A".to_owned()], [source(None, 0, 0..0), source(0, 0, 0..2)]);
    let run = |logits: &[f32], sources: &[TokenSource], text: &str, labels: &[String]| {
        entities(logits, sources, text, labels, &EntityOptions::default()).unwrap_err().to_string()
    };
    assert!(entities(&[0.0; 4], &sources, "é", &labels, &EntityOptions::default()).unwrap().is_empty());
    let other = [source(1, 0, 0..2)];
    let cases = [
        (&[0.0; 3][..], &sources[..], "é", "a logit for each of 2 tokens and 2 labels, found 3"),
        (&[0.0, 0.0, 0.0, f32::INFINITY], &sources, "é", "token 1: expected finite logits, found inf"),
        (&[0.0; 4], &sources, "e", "token 1: expected a range of whole characters"),
        (&[0.0; 4], &sources, "猫", "token 1: expected a range of whole characters"),
        (&[0.0; 2], &other, "é", "token 0: expected a token of text 0, found one of text 1"),
    ];
    for (logits, sources, text, expected) in cases {
        let message = run(logits, sources, text, &labels);
        assert!(message.contains(expected), "{message}");
    }
    assert!(run(&[], &[], "", &[]).contains("there are no labels"));
    assert!(entities(&[], &[], "", &labels, &EntityOptions::default()).unwrap().is_empty());
}
