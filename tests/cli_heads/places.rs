//! Places in texts whose characters have several bytes, or make one letter of several.

use std::fs;
use std::path::Path;

use minilm::{Aggregation, EntityOptions, Tagger};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::compare::{Bound, Table};
use crate::common::files::{read_json, with_labels, write};
use crate::common::golden::Golden;
use crate::common::gpu::gpu;
use crate::{common, family, json_lines, lines_of, numbers, run_with, some_words};

/// As many tokens as the checkpoints have rows for; the specials have the ids that their configuration says.
const VOCABULARY: &str = "[CLS] [PAD] [SEP] [UNK] [MASK] 猫 在 垫 子 上 。 👩 ##👩 💻 ##💻 🎉 e ##e n ##n a ##a c ##c f ##f x ##x w ##w .";

/// A checkpoint with a WordPiece tokenizer in place of its own, and labels all of which are shown.
fn folder(name: &str) -> TempDir {
    let folder = with_labels(&family(name), ["A", "B", "C"]);
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let unused = (VOCABULARY.split(' ').count()..48).map(|i| format!("[unused{i}]"));
    let pieces: Vec<String> = VOCABULARY.split(' ').map(str::to_owned).chain(unused).collect();
    write(folder.path(), "vocab.txt", pieces.join("\n") + "\n");
    write(folder.path(), "tokenizer_config.json", json!({"tokenizer_class": "BertTokenizer"}).to_string());
    folder
}

/// A text, and the first and last code point of each of its tokens, as the tokenizers library 0.23 gives them through Python. What the
/// tokenizer drops (accents, joiners) belongs to no token.
const TEXTS: [(&str, &[[usize; 2]]); 5] = [
    ("猫在 垫子。", &[[0, 1], [1, 2], [3, 4], [4, 5], [5, 6]]),
    ("ne\u{301}e", &[[0, 1], [1, 2], [3, 4]]),
    ("a👩\u{200d}💻👩\u{200d}👩 e", &[[0, 1], [1, 2], [3, 4], [4, 5], [6, 7], [8, 9]]),
    ("cafe\u{301} 👩\u{200d}💻 猫x", &[[0, 1], [1, 2], [2, 3], [3, 4], [6, 7], [8, 9], [10, 11], [11, 12]]),
    ("🎉 e\u{301}\u{301}n", &[[0, 1], [2, 3], [5, 6]]),
];

/// `[text, start, end, start_byte, end_byte]` of the code points `range`.
fn place(text: &str, [start, end]: [usize; 2]) -> Value {
    let part: String = text.chars().skip(start).take(end - start).collect();
    let byte = |place: usize| text.chars().take(place).map(char::len_utf8).sum::<usize>();
    json!([part, start, end, byte(start), byte(end)])
}

fn found(value: &Value, text: &str) -> Value {
    json!([text, "start", "end", "start_byte", "end_byte"].map(|key| value[key].clone()))
}

#[test]
fn entities() {
    let folder = folder("bert-token");
    let mut table = Table::new("places of entities");
    let lines = lines_of(folder.path(), &["tag"], &TEXTS.map(|(text, _)| json!({ "text": text })));
    for (line, (text, tokens)) in lines.iter().zip(TEXTS) {
        let expected: Vec<Value> = tokens.iter().map(|&range| place(text, range)).collect();
        let entities: Vec<Value> = line["entities"].as_array().unwrap().iter().map(|entity| found(entity, "text")).collect();
        table.equal(text, &entities, &expected);
    }
    table.finish();
}

#[test]
fn long_texts_are_cut_or_read_in_windows_or_refused() {
    let folder = family("bert-token");
    let (short, long) = (some_words(0, 3), some_words(1, 60));
    let tag = |more: &[&str]| {
        lines_of(
            &folder,
            &[&["tag", "--max-length", "20", "--aggregation", "simple"], more].concat(),
            &[json!({"text": short}), json!({"text": long})],
        )
    };
    let fields = |line: &Value| ["index", "tokens", "truncated"].map(|key| line[key].clone());
    let options = EntityOptions { aggregation: Aggregation::Simple, ..EntityOptions::default() };
    let tagger = Tagger::builder().gpu(gpu()).max_length(20).entities(options).from_dir(&folder).unwrap();
    let mut table = Table::new("overflow");
    let mut entities = |name: &str, line: &Value, text: &str, expected: &[minilm::Entity]| {
        let places = |expected: &minilm::Entity| place(text, [expected.code_points.start, expected.code_points.end]);
        let lines: Vec<Value> = line["entities"].as_array().unwrap().iter().map(|entity| found(entity, "text")).collect();
        table.equal(name, &lines, &expected.iter().map(places).collect::<Vec<_>>());
    };
    let cut = tag(&["--overflow", "truncate"]);
    assert_eq!(cut, tag(&[]));
    assert_eq!(cut.iter().map(fields).collect::<Vec<_>>(), [[json!(0), json!(5), json!(false)], [json!(1), json!(20), json!(true)]]);
    for (stride, more) in [(8, &["--stride", "8"][..]), (2, &[])] {
        let chunks = tag(&[&["--overflow", "chunk", "--logits"], more].concat());
        let tokens: usize = tagger.windows(&long, stride).unwrap().iter().map(|window| window.encoding.ids.len()).sum();
        assert!(tokens > 62);
        assert_eq!(
            chunks.iter().map(fields).collect::<Vec<_>>(),
            [[json!(0), json!(5), json!(false)], [json!(1), json!(tokens), json!(false)]]
        );
        assert_eq!(chunks[1]["logits"].as_array().unwrap().len(), tokens);
        entities("short", &chunks[0], &short, &tagger.tag(&[&short]).unwrap()[0].entities);
        entities("long", &chunks[1], &long, &tagger.tag_long(&long, stride).unwrap());
    }
    table.finish();
    let run = run_with(&folder, &["tag", "--max-length", "20", "--overflow", "error", &long], "");
    assert!(
        run.text().contains("it has 62 tokens, more than the maximum length of 20: shorten it, or choose another --overflow"),
        "{}",
        run.text()
    );
}

#[test]
fn words_are_joined() {
    let folder = folder("bert-token");
    let text = "ne\u{301}e a👩\u{200d}💻 cafe\u{301} 猫x xen 👩\u{200d}👩 faxe wnx";
    let mut table = Table::new("aggregation");
    let mut all: Vec<Vec<Value>> = Vec::new();
    for (name, aggregation) in
        [("simple", Aggregation::Simple), ("first", Aggregation::First), ("average", Aggregation::Average), ("max", Aggregation::Max)]
    {
        let builder = Tagger::builder().gpu(gpu()).entities(EntityOptions { aggregation, ..EntityOptions::default() });
        let expected = builder.from_dir(folder.path()).unwrap().tag(&[text]).unwrap().remove(0).entities;
        let line = &lines_of(folder.path(), &["tag", "--aggregation", name], &[json!({ "text": text })])[0];
        let entities = line["entities"].as_array().unwrap();
        table.equal(name, &[entities.len()], &[expected.len()]);
        for (entity, expected) in entities.iter().zip(&expected) {
            let range = [expected.code_points.start, expected.code_points.end];
            table.equal(name, &[found(entity, "text")], &[place(text, range)]);
            table.equal(name, &[&entity["label"]], &[&json!(expected.label)]);
            table.close(name, &numbers(&entity["score"]), &[expected.score], Bound::absolute(1e-12));
        }
        table.check(name, !all.contains(entities), "another aggregation gives the same");
        all.push(entities.clone());
    }
    // What the tokenizer drops between two tokens of a word belongs to the word.
    let first = all[1].iter().map(|entity| entity["text"].as_str().unwrap()).collect::<Vec<_>>();
    table.check("first", first.iter().any(|entity| entity.contains('\u{200d}')), format!("{first:?}"));
    table.finish();
}

#[test]
fn answers() {
    let mut table = Table::new("places of answers");
    for name in ["bert-span", "electra-span"] {
        let folder = folder(name);
        let input = TEXTS.map(|(text, _)| json!({"question": "👩 e\u{301} 猫", "context": text}));
        // Every span of two tokens or fewer, best first.
        let lines = lines_of_questions(folder.path(), &["--n-best", "99", "--max-answer-length", "2"], &input);
        for (line, (text, tokens)) in lines.iter().zip(TEXTS) {
            let pairs = tokens.windows(2).map(|pair| [pair[0][0], pair[1][1]]);
            let by_start = |spans: &mut Vec<Value>| spans.sort_by_key(|span| (span[1].as_u64(), span[2].as_u64()));
            let mut expected: Vec<Value> = tokens.iter().copied().chain(pairs).map(|range| place(text, range)).collect();
            by_start(&mut expected);
            let mut answers: Vec<Value> = line["answers"].as_array().unwrap().iter().map(|answer| found(answer, "answer")).collect();
            table.equal(format!("{name} {text}"), &answers[..1], &[found(line, "answer")]);
            by_start(&mut answers);
            table.equal(format!("{name} {text}"), &answers, &expected);
        }
    }
    table.finish();
}

fn lines_of_questions(folder: &Path, arguments: &[&str], input: &[Value]) -> Vec<Value> {
    run_with(folder, &[&["answer"], arguments].concat(), json_lines(input)).succeeded().json_lines()
}

/// What `golden.json` of a model with such a head has beside what every one has.
#[derive(serde::Deserialize)]
struct Cases {
    cases: Vec<Value>,
}

#[test]
fn entities_of_the_reference() {
    let Some(folder) = common::reference("tiny-head-bert-tokcls5") else { return };
    let (golden, cases) = (Golden::open(&folder), read_json::<Cases>(&folder.join("golden.json")).cases);
    let max_length = golden.max_length.to_string();
    let mut table = Table::new("entities of the reference");
    for (i, case) in golden.single_texts() {
        let arguments = ["tag", "--logits", "--max-length", &max_length];
        let line = &lines_of(&folder, &arguments, &[json!({ "text": case.text })])[0];
        table.equal(&case.id, &[line["tokens"].as_u64()], &[Some(case.n_tokens as u64)]);
        let logits = &golden.tensor(&format!("logits.{}", case.id)).values;
        table.close(&case.id, &numbers(&line["logits"]), logits, Bound::absolute(golden.atol("logits")));
        let tokens = cases[i]["labels"].as_array().unwrap().iter().zip(cases[i]["special_tokens_mask"].as_array().unwrap());
        let labels: Vec<&Value> = tokens.filter(|(label, special)| *label != "O" && **special == 0).map(|(label, _)| label).collect();
        let entities = line["entities"].as_array().unwrap();
        table.equal(&case.id, &entities.iter().map(|entity| &entity["label"]).collect::<Vec<_>>(), &labels);
        for entity in entities {
            let range = ["start", "end"].map(|key| entity[key].as_u64().unwrap() as usize);
            table.equal(&case.id, &[found(entity, "text")], &[place(&case.text, range)]);
        }
    }
    table.finish();
}

#[test]
fn answers_of_the_reference() {
    let Some(folder) = common::reference("tiny-head-bert-qa") else { return };
    let (golden, cases) = (Golden::open(&folder), read_json::<Cases>(&folder.join("golden.json")).cases);
    let max_length = golden.max_length.to_string();
    let mut table = Table::new("answers of the reference");
    for (case, golden_case) in golden.cases.iter().zip(&cases) {
        let context = case.text_pair.as_deref().unwrap();
        let input = [json!({"question": case.text, "context": context})];
        let line = &lines_of_questions(&folder, &["--n-best", "1000", "--max-length", &max_length], &input)[0];
        let bound = Bound::absolute(golden.atol("start_logits") + golden.atol("end_logits"));
        let span = &golden_case["span"];
        // The goldens end where the first window does; the best answer of all windows is as good or better.
        let fields = |value: &Value, ends: [&str; 2]| {
            json!([value["answer"], value[ends[0]], value[ends[1]], value["start_byte"], value["end_byte"]])
        };
        let expected = fields(span, ["start_char", "end_char"]);
        let answers = line["answers"].as_array().unwrap();
        match answers.iter().find(|answer| fields(answer, ["start", "end"]) == expected) {
            Some(found) if case.truncated => {
                table.at_least(&case.id, numbers(&found["score"])[0], numbers(&span["score"])[0] - bound.absolute)
            }
            Some(found) => table.close(&case.id, &numbers(&found["score"]), &numbers(&span["score"]), bound),
            None => table.fail(&case.id, format!("{expected} is not among the answers")),
        }
        if !case.truncated {
            table.equal(&case.id, &[fields(line, ["start", "end"])], &[expected]);
            let null: f64 =
                ["start", "end"].map(|end| f64::from(golden.tensor(&format!("{end}_logits.{}", case.id)).values[0])).iter().sum();
            table.close(&case.id, &numbers(&line["null_score"]), &[null], bound);
        }
    }
    table.finish();
}
