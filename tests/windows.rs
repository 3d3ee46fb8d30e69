//! Windows over long texts: they are those of the library, keep every token in its place, and take linear time.

mod common;

use std::path::PathBuf;
use std::time::Instant;

use common::compare::Table;
use common::files::{copy, read_json, write};
use common::fixture;
use minilm::checkpoint::{Encoding, Side, TokenSource, Tokenizer};
use serde::Deserialize;
use serde_json::json;

/// Windows as the library gives them through Python, with the bytes of each token.
#[test]
fn windows_are_those_of_the_library() {
    #[derive(Deserialize)]
    struct Windows {
        folder: String,
        text: String,
        pair: Option<String>,
        max_length: usize,
        stride: usize,
        cut: Option<String>,
        windows: Vec<Window>,
    }
    #[derive(Deserialize)]
    struct Window {
        ids: Vec<u32>,
        /// None where the library forgets the types of the template, in all windows but the first.
        type_ids: Option<Vec<u32>>,
        sequences: Vec<i64>,
        bytes: Vec<[usize; 2]>,
    }
    let mut table = Table::new("windows");
    for (number, case) in read_json::<Vec<Windows>>(&fixture("windows.json")).iter().enumerate() {
        let name = format!("{} {number}", case.folder);
        let tokenizer = Tokenizer::open(fixture(&case.folder)).unwrap();
        let cut = if case.cut.as_deref() == Some("first") { Side::First } else { Side::Second };
        let windows = tokenizer.windows(&case.text, case.pair.as_deref(), case.max_length, case.stride, cut).unwrap();
        table.equal(&name, &[windows.len()], &[case.windows.len()]);
        for ((encoding, sources), expected) in windows.iter().zip(&case.windows) {
            table.equal(&name, &encoding.ids, &expected.ids);
            if let Some(type_ids) = &expected.type_ids {
                table.equal(&name, &encoding.type_ids, type_ids);
            }
            table.equal(&name, &bytes_of(sources), &expected.bytes);
            let sequences: Vec<_> = sources.iter().map(|source| source.sequence.map_or(-1, |sequence| sequence as i64)).collect();
            table.equal(&name, &sequences, &expected.sequences);
            let whole = !encoding.truncated && encoding.total_tokens == encoding.ids.len();
            table.check(&name, whole, format!("{} tokens in all, truncated is {}", encoding.total_tokens, encoding.truncated));
        }
    }
    table.finish();
}

/// Every token of the text is in a window, in its place, also where a processor adds blanks before a text.
#[test]
fn windows_keep_the_places_of_the_whole_text() {
    let prefixed = copy(&fixture("roberta-tokenizer"), &["vocab.json", "merges.txt"]);
    write(prefixed.path(), "tokenizer_config.json", json!({"add_prefix_space": true}).to_string());
    let folders = ["roberta-tokenizer", "tiny-minilm-bert-l3-h96", "tiny-mminilm-bert-xlmr-l3-h96"].map(fixture);
    let mut table = Table::new("places in windows");
    for folder in folders.iter().map(PathBuf::as_path).chain([prefixed.path()]) {
        let tokenizer = Tokenizer::open(folder).unwrap();
        let text = "Some words, ünïcödé ones 東京 as well. ".repeat(20);
        let (whole, sources) = tokenizer.encode_with_sources("Which words?", Some(&text), 10_000).unwrap();
        let second = |encoding: &Encoding, sources: &[TokenSource]| -> Vec<(u32, u32, TokenSource)> {
            let tokens = encoding.ids.iter().copied().zip(encoding.type_ids.iter().copied()).zip(sources.iter().cloned());
            tokens.map(|((id, kind), source)| (id, kind, source)).filter(|token| token.2.sequence == Some(1)).collect()
        };
        let whole = second(&whole, &sources);
        for (max_length, stride) in [(40, 0), (40, 7), (33, 12), (5_000, 100)] {
            let windows = tokenizer.windows("Which words?", Some(&text), max_length, stride, Side::Second).unwrap();
            let mut joined = Vec::new();
            for (index, (encoding, sources)) in windows.iter().enumerate() {
                let window = second(encoding, sources);
                let shared = if index == 0 { 0 } else { stride };
                let name = format!("{} {max_length} {stride} {index}", folder.display());
                table.check(&name, encoding.ids.len() <= max_length, format!("{} tokens", encoding.ids.len()));
                table.check(&name, window.len() > shared, format!("{} tokens of the text", window.len()));
                table.equal(&name, &window[..shared.min(window.len())], &joined[joined.len() - shared..]);
                joined.extend_from_slice(&window[shared.min(window.len())..]);
            }
            table.equal(format!("{} {max_length} {stride}", folder.display()), &joined, &whole);
        }
    }
    table.finish();
}

#[test]
fn windows_need_room_for_the_text() {
    let tokenizer = Tokenizer::open(fixture("tiny-minilm-bert-l3-h96")).unwrap();
    let windows = |text, pair, max_length, stride, cut| tokenizer.windows(text, pair, max_length, stride, cut).map(|windows| windows.len());
    let mut table = Table::new("room");
    // "a" is one token; a pair has three special tokens.
    for (max_length, stride, expected) in
        [(2, 0, None), (3, 0, Some(4)), (4, 1, Some(3)), (4, 2, None), (6, 3, Some(1)), (6, 4, None), (9, 6, Some(1))]
    {
        table.equal(format!("text {max_length} {stride}"), &[windows("a a a a", None, max_length, stride, Side::First).ok()], &[expected]);
    }
    for (first, second, max_length, stride, cut, expected) in [
        ("a a", "a a a", 6, 0, Side::Second, Some(3)),
        ("a a", "a a a", 6, 0, Side::First, None),
        ("a a", "a a a", 7, 0, Side::First, Some(2)),
        ("a a", "a a a", 7, 1, Side::Second, Some(2)),
        ("a a", "a a a", 7, 2, Side::Second, None),
        ("a a", "a a a", 8, 4, Side::Second, Some(1)),
        ("a a", "", 5, 0, Side::Second, Some(1)),
        ("a a", "", 4, 0, Side::Second, None),
        ("a a", "a", 5, 0, Side::Second, None),
    ] {
        let found = windows(first, Some(second), max_length, stride, cut).ok();
        table.equal(format!("{first} | {second} {max_length} {stride} {cut:?}"), &[found], &[expected]);
    }
    for (case, error, words) in [
        ("specials", windows("a", None, 1, 0, Side::First), ["1 tokens", "2 special"]),
        ("first text", windows("a a a a a", Some("a"), 8, 0, Side::Second), ["8 tokens", "3 special tokens and 5 tokens"]),
        ("stride", windows("a a a a", None, 5, 3, Side::First), ["stride of 3", "3 tokens of a text"]),
        ("stride beyond all", windows("a", None, 5, 512, Side::First), ["stride of 512", "3 tokens of a text"]),
    ] {
        let message = error.unwrap_err().to_string();
        table.check(case, words.iter().all(|word| message.contains(word)), format!("{words:?} not in: {message}"));
    }
    table.finish();
}

/// Ten times the text takes about ten times as long, not a hundred times.
#[test]
fn windows_of_long_texts_take_linear_time() {
    for name in ["tiny-minilm-bert-l3-h96", "roberta-tokenizer", "tiny-mminilm-bert-xlmr-l3-h96"] {
        let tokenizer = Tokenizer::open(fixture(name)).unwrap();
        let seconds = |words: usize| {
            let text = "words of a text ".repeat(words / 4);
            let text = text.trim_end();
            let start = Instant::now();
            let windows = tokenizer.windows("Which words?", Some(text), 384, 128, Side::Second).unwrap();
            let last = windows.last().unwrap().1.iter().rev().find(|source| source.sequence == Some(1)).unwrap();
            assert_eq!(last.bytes.end, text.len(), "{name}");
            start.elapsed().as_secs_f64()
        };
        let (short, long) = (seconds(10_000), seconds(100_000));
        println!("{name}: {short:.3} s for 10,000 words, {long:.3} s for 100,000");
        assert!(long < 40.0 * short.max(0.01), "{name}: {short} s for 10,000 words, {long} s for 100,000");
    }
}

fn bytes_of(sources: &[TokenSource]) -> Vec<[usize; 2]> {
    sources.iter().map(|source| [source.bytes.start, source.bytes.end]).collect()
}
