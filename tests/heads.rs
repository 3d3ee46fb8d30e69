//! Models with heads against golden outputs of another implementation, from texts to labels, spans and words. Where MINILM_REFERENCE is
//! not set nothing here runs: `families.rs` covers heads from token ids on.

mod common;

use std::ops::Range;

use common::compare::{Bound, Table};
use common::golden::{Case, Golden};
use common::gpu::gpu;
use minilm::checkpoint::TokenSource;
use minilm::{AnswerOptions, Answerer, Answers, Builder, Classifier, FillMask, Input, Model, Reranker, Score, Sourced, Tagger, Task};
use serde::Deserialize;

/// Kinds of golden files with a test below.
const KINDS: [&str; 4] = ["logits1", "logitsT", "qa", "mlm"];

fn builder<T: Task>(golden: &Golden) -> Builder<T> {
    Builder::default().gpu(gpu()).max_length(golden.max_length)
}

fn inputs<'a>(cases: &[&'a Case]) -> Vec<Input<'a>> {
    cases.iter().map(|case| case.input()).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

fn softmax(logits: &[f32]) -> Vec<f64> {
    let exponentials: Vec<_> = logits.iter().map(|&logit| f64::from(logit).exp()).collect();
    exponentials.iter().map(|exponential| exponential / exponentials.iter().sum::<f64>()).collect()
}

/// Runs one check over every folder of a kind, of which there are `at_least` so many.
fn check_folders(kind: &str, at_least: usize, check: impl Fn(&mut Table, &Golden, &[&Case], Bound)) {
    for golden in Golden::references(|found| found == kind, at_least) {
        let mut table = Table::new(golden.name());
        let bound = if kind == "qa" { golden.atol("start_logits") + golden.atol("end_logits") } else { golden.atol("logits") };
        check(&mut table, &golden, &golden.cases.iter().collect::<Vec<_>>(), Bound::absolute(bound));
        table.finish();
    }
}

#[test]
fn every_kind_of_reference_model_is_tested() {
    let heads = Golden::references(|kind| kind != "base", 6);
    let unknown: Vec<_> = heads.iter().filter(|golden| !KINDS.contains(&&*golden.kind)).map(Golden::name).collect();
    assert!(unknown.is_empty(), "nothing tests {unknown:?}");
}

#[derive(Deserialize)]
struct Classified {
    scores: Vec<f64>,
    score_function: String,
    /// Only of several labels.
    label: Option<String>,
}

#[test]
fn classifiers_of_texts_and_pairs() {
    check_folders("logits1", 3, |table, golden, cases, bound| {
        let name = golden.name();
        let classifier: Classifier = builder(golden).from_dir(&golden.folder).unwrap();
        let found = classifier.classify(inputs(cases)).unwrap();
        for ((case, found), logits) in cases.iter().zip(&found).zip(golden.tensor("logits").rows()) {
            let (place, expected) = (format!("{name} {}", case.id), case.outputs::<Classified>());
            table.close(format!("{place} logits"), &found.logits, logits, bound);
            // Neither function makes a difference larger.
            table.close(format!("{place} scores"), &found.scores, &expected.scores, bound);
            let function = if classifier.score() == Score::Sigmoid { "sigmoid" } else { "softmax" };
            table.equal(format!("{place} score function"), &[function], &[&*expected.score_function]);
            let label = &classifier.labels()[found.best()];
            table.equal(format!("{place} label"), &[label], &[expected.label.as_ref().unwrap_or(label)]);
            let length = (found.length.used, found.length.truncated());
            table.equal(format!("{place} length"), &[length], &[(case.n_tokens, case.truncated)]);
        }
        golden.same_bits_alone_and_in_batches(table, "logits", |cases| {
            classifier.classify(inputs(cases)).unwrap().iter().map(|found| wide(&found.logits)).collect()
        });
    });
}

/// Every second text of a pair as a passage for every first one.
#[test]
fn rerankers() {
    check_folders("logits1", 3, |table, golden, cases, bound| {
        let labels = golden.tensor("logits").columns();
        let reranker = builder::<Reranker>(golden).from_dir(&golden.folder);
        if labels > 1 {
            return table.check(golden.name(), reranker.is_err(), "a classifier of several labels ranks passages");
        }
        let reranker = reranker.unwrap();
        let pairs: Vec<_> = cases.iter().enumerate().filter_map(|(index, case)| Some((index, case, case.text_pair.as_deref()?))).collect();
        let passages: Vec<&str> = pairs.iter().map(|(_, _, passage)| *passage).collect();
        for (own, &(index, case, _)) in pairs.iter().enumerate() {
            let place = format!("{} {}", golden.name(), case.id);
            let ranked = reranker.rerank(&case.text, &passages).unwrap();
            let found = ranked.iter().find(|ranked| ranked.index == own).unwrap();
            table.close(format!("{place} logit"), &[found.logit], golden.tensor("logits").row(index), bound);
            table.close(format!("{place} score"), &[found.score], &case.outputs::<Classified>().scores, bound);
            let classified = reranker.classifier().classify(passages.iter().map(|passage| (&*case.text, *passage))).unwrap();
            let mut expected: Vec<_> = classified.iter().map(|found| wide(&found.logits)[0]).enumerate().collect();
            expected.sort_by(|a, b| b.1.total_cmp(&a.1));
            let ranked: Vec<_> = ranked.iter().map(|ranked| (ranked.index, f64::from(ranked.logit))).collect();
            table.equal(format!("{place} order"), &ranked, &expected);
        }
        table.check(golden.name(), pairs.len() > 1, "there are no passages to sort");
    });
}

#[derive(Deserialize)]
struct Labelled {
    labels: Vec<String>,
    special_tokens_mask: Vec<u8>,
}

/// A text or a pair as tokens, and where each is from.
fn encode(model: &Model, case: &Case) -> Sourced {
    let (encoding, sources) = model.tokenizer().encode_with_sources(&case.text, case.text_pair.as_deref(), model.max_length()).unwrap();
    Sourced { encoding, sources }
}

#[test]
fn classifiers_of_tokens() {
    check_folders("logitsT", 1, |table, golden, cases, bound| {
        let tagger: Tagger = builder(golden).from_dir(&golden.folder).unwrap();
        let (name, labels) = (golden.name(), tagger.labels());
        let best = |row: &[f32]| (0..row.len()).rev().max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
        // Entities are of one text: of pairs the goldens have logits, for which no token needs a place.
        let tag = |cases: &[&Case]| {
            let nowhere = TokenSource { sequence: None, word: None, bytes: 0..0 };
            let encode = |case: &&Case| {
                let Sourced { encoding, sources } = encode(tagger.model(), case);
                let sources = if case.text_pair.is_some() { vec![nowhere.clone(); sources.len()] } else { sources };
                Sourced { encoding, sources }
            };
            let texts: Vec<_> = cases.iter().map(|case| &case.text).collect();
            tagger.tag_encoded(&texts, &cases.iter().map(encode).collect::<Vec<_>>()).unwrap()
        };
        for (case, tagged) in cases.iter().zip(tag(cases)) {
            let (place, expected) = (format!("{name} {}", case.id), case.outputs::<Labelled>());
            let logits = golden.tensor(&format!("logits.{}", case.id));
            table.close(format!("{place} logits"), &tagged.logits, &logits.values, bound);
            let found: Vec<_> = tagged.logits.chunks_exact(labels.len()).map(|row| labels[best(row)].clone()).collect();
            table.equal(format!("{place} labels"), &found, &expected.labels);
            let Sourced { encoding, sources } = encode(tagger.model(), case);
            table.equal(format!("{place} token ids"), &encoding.ids, &case.input_ids);
            let specials: Vec<_> = sources.iter().map(|source| u8::from(source.sequence.is_none())).collect();
            table.equal(format!("{place} special tokens"), &specials, &expected.special_tokens_mask);
        }
        let single: Vec<&Case> = golden.single_texts().map(|(_, case)| case).collect();
        let texts: Vec<&str> = single.iter().map(|case| &*case.text).collect();
        for (case, tagged) in single.iter().zip(tagger.tag(&texts).unwrap()) {
            let (place, expected) = (format!("{name} {} alone", case.id), case.outputs::<Labelled>());
            let logits = golden.tensor(&format!("logits.{}", case.id));
            table.close(format!("{place} logits"), &tagged.logits, &logits.values, bound);
            // Each token that is neither special nor outside of all entities.
            let inside = |&at: &usize| expected.special_tokens_mask[at] == 0 && expected.labels[at] != "O";
            let inside: Vec<_> = (0..case.n_tokens).filter(inside).collect();
            let found: Vec<_> = tagged.entities.iter().map(|entity| (entity.token.unwrap(), &entity.label, &entity.bytes)).collect();
            let sources = tagger.encode(&case.text).unwrap().sources;
            let wanted: Vec<_> = inside.iter().map(|&at| (at, &expected.labels[at], &sources[at].bytes)).collect();
            table.equal(format!("{place} entities"), &found, &wanted);
            for (entity, &at) in tagged.entities.iter().zip(&inside) {
                let row = logits.row(at);
                table.close(format!("{place} score of {at}"), &[entity.score], &softmax(row)[best(row)..][..1], bound);
                check_place(table, format!("{place} place of {at}"), &case.text, &entity.bytes, &entity.code_points, &entity.text);
            }
        }
        golden.same_bits_alone_and_in_batches(table, "logits", |cases| tag(cases).iter().map(|tagged| wide(&tagged.logits)).collect());
    });
}

/// The same piece of the text by bytes and by characters.
fn check_place(table: &mut Table, place: String, text: &str, bytes: &Range<usize>, characters: &Range<usize>, found: &str) {
    let by_characters: String = text.chars().skip(characters.start).take(characters.len()).collect();
    table.equal(place, &[found, &by_characters], &[&text[bytes.clone()]; 2]);
}

#[derive(Deserialize)]
struct Answered {
    /// -1 for special tokens, 0 for the question, 1 for the context.
    sequence_ids: Vec<i8>,
    span: Span,
}

/// The best span of one window.
#[derive(Deserialize)]
struct Span {
    start_token: usize,
    end_token: usize,
    score: f64,
    start_char: usize,
    end_char: usize,
    start_byte: usize,
    end_byte: usize,
    answer: String,
}

#[test]
fn answers() {
    check_folders("qa", 1, |table, golden, cases, bound| {
        let answerer: Answerer = builder(golden).from_dir(&golden.folder).unwrap();
        let contexts: Vec<&str> = cases.iter().map(|case| case.text_pair.as_deref().unwrap()).collect();
        // As the goldens have it, one window with as much of the context as fits.
        let windows: Vec<_> = cases.iter().map(|case| vec![encode(answerer.model(), case)]).collect();
        let found = answerer.answer_windows(&contexts, &windows).unwrap();
        let whole = answerer.answer(cases.iter().map(|case| &*case.text).zip(contexts.iter().copied())).unwrap();
        for (index, case) in cases.iter().enumerate() {
            let (place, Answered { sequence_ids, span }) = (format!("{} {}", golden.name(), case.id), case.outputs());
            let Sourced { encoding, sources } = &windows[index][0];
            table.equal(format!("{place} token ids"), &encoding.ids, &case.input_ids);
            table.equal(format!("{place} token types"), &encoding.type_ids, case.token_type_ids.as_deref().unwrap_or(&encoding.type_ids));
            table.equal(format!("{place} truncated"), &[encoding.truncated], &[case.truncated]);
            let sequences: Vec<_> = sources.iter().map(|source| source.sequence.map_or(-1, |sequence| sequence as i8)).collect();
            table.equal(format!("{place} sequences"), &sequences, &sequence_ids);
            let ends = |range: &Range<usize>| [range.start, range.end];
            let (start, end) = (&sources[span.start_token].bytes, &sources[span.end_token].bytes);
            table.equal(format!("{place} tokens of the span"), &[start.start, end.end], &[span.start_byte, span.end_byte]);

            let answer = &found[index].answers[0];
            table.equal(format!("{place} bytes"), &ends(&answer.bytes), &[span.start_byte, span.end_byte]);
            table.equal(format!("{place} characters"), &ends(&answer.code_points), &[span.start_char, span.end_char]);
            table.equal(format!("{place} answer"), &[&answer.text], &[&span.answer]);
            table.close(format!("{place} score"), &[answer.score], &[span.score], bound);

            // Where the context is longer than the window, more windows find at least as much.
            let read = answerer.windows(&case.text, contexts[index]).unwrap();
            table.check(format!("{place} windows"), (read.len() > 1) == case.truncated, format!("{} windows", read.len()));
            table.at_least(format!("{place} in windows"), whole[index].answers[0].score, answer.score);
        }
    });
}

/// With every token taken for a letter of the context, specials and question too, every pair of tokens is a span.
#[test]
fn logits_of_every_span() {
    check_folders("qa", 1, |table, golden, cases, bound| {
        let length = golden.max_length;
        let options = AnswerOptions { n_best: length * length, max_answer_length: length, null_threshold: None };
        let answerer: Answerer = builder(golden).answers(options).from_dir(&golden.folder).unwrap();
        let context = "x".repeat(length);
        let answer = |cases: &[&Case]| -> Vec<Answers> {
            let window = |case: &&Case| {
                let Sourced { encoding, .. } = encode(answerer.model(), case);
                let letter = |at| TokenSource { sequence: Some(1), word: None, bytes: at..at + 1 };
                vec![Sourced { sources: (0..encoding.ids.len()).map(letter).collect(), encoding }]
            };
            answerer.answer_windows(&vec![&*context; cases.len()], &cases.iter().map(window).collect::<Vec<_>>()).unwrap()
        };
        for (case, found) in cases.iter().zip(answer(cases)) {
            let [starts, ends] = ["start", "end"].map(|side| &golden.tensor(&format!("{side}_logits.{}", case.id)).values);
            let sum = |bytes: &Range<usize>| f64::from(starts[bytes.start]) + f64::from(ends[bytes.end - 1]);
            let spans = case.n_tokens * (case.n_tokens + 1) / 2;
            table.equal(format!("{} {} spans", golden.name(), case.id), &[found.answers.len()], &[spans]);
            let (scores, expected): (Vec<_>, Vec<_>) = found.answers.iter().map(|answer| (answer.score, sum(&answer.bytes))).unzip();
            table.close(format!("{} {} scores", golden.name(), case.id), &scores, &expected, bound);
        }
        golden.same_bits_alone_and_in_batches(table, "scores", |cases| {
            answer(cases).iter().map(|found| found.answers.iter().map(|answer| answer.score).collect()).collect()
        });
    });
}

#[derive(Deserialize)]
struct Masked {
    mask_positions: Vec<usize>,
    /// Best first, for each mask.
    top5: Vec<Vec<Word>>,
}

#[derive(Deserialize)]
struct Word {
    id: u32,
    token: String,
    logit: f64,
}

#[test]
fn masked_words() {
    check_folders("mlm", 1, |table, golden, cases, bound| {
        let filler: FillMask = builder(golden).from_dir(&golden.folder).unwrap();
        for (case, filled) in cases.iter().zip(filler.fill(inputs(cases)).unwrap()) {
            let (place, expected) = (format!("{} {}", golden.name(), case.id), case.outputs::<Masked>());
            let positions: Vec<_> = filled.masks.iter().map(|mask| mask.position).collect();
            table.equal(format!("{place} masks"), &positions, &expected.mask_positions);
            let logits = golden.tensor(&format!("mask_logits.{}", case.id));
            for ((mask, top5), logits) in filled.masks.iter().zip(&expected.top5).zip(logits.rows()) {
                let place = format!("{place} mask at {}", mask.position);
                let found: Vec<_> = mask.words.iter().map(|word| (word.id, &word.token)).collect();
                table.equal(format!("{place} words"), &found, &top5.iter().map(|word| (word.id, &word.token)).collect::<Vec<_>>());
                let [found, scores] = [false, true].map(|score| -> Vec<f64> {
                    mask.words.iter().map(|word| if score { word.score } else { word.logit.into() }).collect()
                });
                table.close(format!("{place} logits"), &found, &top5.iter().map(|word| word.logit).collect::<Vec<_>>(), bound);
                let expected: Vec<_> = top5.iter().map(|word| softmax(logits)[word.id as usize]).collect();
                // A logit, and the logarithm of the sum over all of them, move a score by as much as a part of it.
                table.close(format!("{place} scores"), &scores, &expected, Bound::new(0.0, 2.0 * bound.absolute));
            }
        }
        // Far more words than anyone asks for: those that are left out have smaller logits than all others.
        let vocabulary = filler.model().config().vocabulary;
        let filler: FillMask = builder(golden).top(vocabulary.min(1000)).from_dir(&golden.folder).unwrap();
        for (case, filled) in cases.iter().zip(filler.fill(inputs(cases)).unwrap()) {
            for (mask, logits) in filled.masks.iter().zip(golden.tensor(&format!("mask_logits.{}", case.id)).rows()) {
                let place = format!("{} {} mask at {}", golden.name(), case.id, mask.position);
                let (found, expected): (Vec<_>, Vec<_>) = mask.words.iter().map(|word| (word.logit, logits[word.id as usize])).unzip();
                table.close(format!("{place} many logits"), &found, &expected, bound);
                let mut largest = logits.to_vec();
                largest.sort_by(|a, b| b.total_cmp(a));
                table.close(format!("{place} largest logits"), &found, &largest[..found.len()], bound);
            }
        }
        golden.same_bits_alone_and_in_batches(table, "logits and scores", |cases| {
            let words = |filled: &minilm::Filled| filled.masks.iter().flat_map(|mask| mask.words.clone()).collect::<Vec<_>>();
            let values = |filled| words(filled).iter().flat_map(|word| [word.id.into(), word.logit.into(), word.score]).collect();
            filler.fill(inputs(cases)).unwrap().iter().map(values).collect()
        });
    });
}
