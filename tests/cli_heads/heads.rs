//! Every head: the fields of a line, the order of lines, and values.

use serde_json::{Value, json};

use crate::common::compare::{Bound, Table};
use crate::common::files::with_labels;
use crate::common::golden::read_tensors;
use crate::{BOUND, Plain, as_texts, family, keys, largest, lines_of, numbers, run_with, sigmoid, softmax, some_words, texts, words};

#[test]
fn classify() {
    let mut table = Table::new("minilm classify");
    for name in ["distilbert-sequence", "mpnet-sequence", "xlm-sequence", "roberta-sequence"] {
        let golden = texts(name);
        let labels: &[&str] = if name.starts_with("roberta") { &["LABEL_0"] } else { &["O", "B-PER", "I-PER"] };
        let lines = lines_of(&family(name), &["classify", "--logits"], &as_texts(&golden.iter().map(words).collect::<Vec<_>>()));
        table.equal(name, &[lines.len()], &[golden.len()]);
        for (i, (line, golden)) in lines.iter().zip(&golden).enumerate() {
            let case = format!("{name} {i}");
            table.equal(&case, &keys(line), &["index", "label", "logits", "score", "scores", "tokens", "truncated"]);
            table.equal(&case, &[&line["index"], &line["tokens"]], &[&json!(i), &json!(numbers(&golden["ids"]).len())]);
            table.equal(&case, &[&line["truncated"]], &[&json!(false)]);
            let logits = numbers(&golden["logits"]);
            let scores = if logits.len() == 1 { vec![sigmoid(logits[0])] } else { softmax(&logits) };
            let best = largest(&logits);
            table.close(&case, &numbers(&line["logits"]), &logits, BOUND);
            table.equal(&case, &[line["scores"].as_object().unwrap().len()], &[labels.len()]);
            let by_label: Vec<f64> = labels.iter().map(|label| line["scores"][label].as_f64().unwrap_or(f64::NAN)).collect();
            table.close(&case, &by_label, &scores, BOUND);
            table.equal(&case, &[&line["label"], &line["score"]], &[&json!(labels[best]), &line["scores"][labels[best]]]);
        }
    }
    // A pair is one input, whose second text has a type of its own.
    let (folder, pair) = (family("bert-sequence"), json!({"text": "w3 w4", "text_pair": "w20"}));
    let logits = Plain::open(&folder).logits("w3 w4", "w20");
    for (function, expected) in
        [("softmax", softmax(&logits)), ("sigmoid", logits.iter().map(|&logit| sigmoid(logit)).collect()), ("raw", logits.clone())]
    {
        let line = lines_of(&folder, &["classify", "--score", function], std::slice::from_ref(&pair)).remove(0);
        table.equal(function, &keys(&line), &["index", "label", "score", "scores", "tokens", "truncated"]);
        let scores: Vec<f64> = ["O", "B-PER", "I-PER"].iter().map(|label| line["scores"][label].as_f64().unwrap()).collect();
        table.close(function, &scores, &expected, BOUND);
    }
    table.finish();
}

#[test]
fn rerank() {
    let (folder, query) = (family("roberta-sequence"), "w5 w6");
    let plain = Plain::open(&folder);
    let passages: Vec<String> = (0..9).map(|i| some_words(i * 5, i * 2)).collect();
    let logits: Vec<f64> = passages.iter().map(|passage| plain.logits(query, passage)[0]).collect();
    let mut order: Vec<usize> = (0..passages.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));

    let mut table = Table::new("minilm rerank");
    let input: String = passages.iter().map(|passage| format!("{passage}\n")).collect();
    let lines = run_with(&folder, &["rerank", query, "--logits"], &input).succeeded().json_lines();
    table.equal("lines", &[lines.len()], &[passages.len()]);
    for (rank, (line, &index)) in (1..).zip(lines.iter().zip(&order)) {
        table.equal(rank, &keys(line), &["index", "logits", "rank", "score", "text", "tokens", "truncated"]);
        table.equal(rank, &[&line["index"], &line["rank"], &line["text"]], &[&json!(index), &json!(rank), &json!(passages[index])]);
        table.equal(rank, &[line["tokens"].as_u64()], &[Some(plain.encode(query, &passages[index]).ids.len() as u64)]);
        table.close(rank, &numbers(&line["logits"]), &logits[index..=index], BOUND);
        table.close(rank, &numbers(&line["score"]), &[sigmoid(logits[index])], BOUND);
    }
    let first = lines_of(&folder, &["rerank", query, "--top", "2", "--score", "raw"], &as_texts(&passages));
    table.equal("--top", &first.iter().map(|line| &line["index"]).collect::<Vec<_>>(), &[&json!(order[0]), &json!(order[1])]);
    table.equal("without --logits", &keys(&first[0]), &["index", "rank", "score", "text", "tokens", "truncated"]);
    table.close("raw", &numbers(&first[0]["score"]), &[logits[order[0]]], BOUND);
    table.finish();
}

#[test]
fn zero_shot() {
    let folder = with_labels(&family("bert-sequence"), ["CONTRADICTION", "entailment", "neutral"]);
    let plain = Plain::open(folder.path());
    let (labels, texts) = (["w7", "w1 w2", "w30"], [some_words(0, 3), some_words(4, 9)]);

    let mut table = Table::new("minilm zero-shot");
    // Blanks around commas are not part of a label.
    let arguments = ["zero-shot", "--labels", "w7, w1 w2 ,w30", "--template", "w8 {} w9"];
    for multi_label in [false, true] {
        let arguments = if multi_label { [&arguments[..], &["--multi-label"]].concat() } else { arguments.to_vec() };
        let run = run_with(folder.path(), &arguments, texts.join("\n")).succeeded();
        let lines = run.json_lines();
        table.equal("lines", &[lines.len()], &[2]);
        for (i, (line, text)) in lines.iter().zip(&texts).enumerate() {
            let case = format!("text {i}, several right: {multi_label}");
            let logits = labels.map(|label| plain.logits(text, &format!("w8 {label} w9")));
            let scores = match multi_label {
                true => logits.map(|logits| softmax(&[logits[0], logits[1]])[1]).to_vec(),
                false => softmax(&logits.map(|logits| logits[1])),
            };
            table.equal(&case, &keys(line), &["index", "label", "score", "scores", "truncated"]);
            table.equal(&case, &[&line["index"], &line["truncated"]], &[&json!(i), &json!(false)]);
            let by_label: Vec<f64> = labels.iter().map(|label| line["scores"][label].as_f64().unwrap_or(f64::NAN)).collect();
            table.close(&case, &by_label, &scores, BOUND);
            table.equal(&case, &[&line["label"]], &[&json!(labels[largest(&scores)])]);
            table.close(&case, &numbers(&line["score"]), &[scores[largest(&scores)]], BOUND);
            // The order of `scores` is in the line, not in what a parser makes of it.
            let (scores_text, mut order) = (run.text().lines().nth(i).unwrap().split("\"scores\":").nth(1).unwrap(), vec![0, 1, 2]);
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            let places: Vec<_> = order.iter().map(|&label| scores_text.find(&format!("\"{}\"", labels[label]))).collect();
            table.check(&case, places.is_sorted() && places[0].is_some(), scores_text);
        }
    }
    // Of a text that is too long beside the hypothesis, what is left is the text's beginning and all of the hypothesis.
    let label = some_words(13, 13);
    let arguments = ["zero-shot", "--multi-label", "--labels", &label, "--template", "w8 {} w9"];
    let run = run_with(folder.path(), &arguments, format!("{}\n{}", some_words(0, 30), some_words(0, 6)));
    let lines = run.succeeded().json_lines();
    table.equal(
        "only the text is cut",
        &[&lines[0]["scores"][&label], &lines[0]["truncated"]],
        &[&lines[1]["scores"][&label], &json!(true)],
    );
    table.finish();
}

#[test]
fn tag() {
    let mut table = Table::new("minilm tag");
    let names = ["O", "B-PER", "I-PER"];
    for name in ["distilbert-token", "camembert-token", "roberta-token"] {
        let golden = texts(name);
        let inputs: Vec<String> = golden.iter().map(words).collect();
        let lines = lines_of(&family(name), &["tag", "--logits"], &as_texts(&inputs));
        table.equal(name, &[lines.len()], &[golden.len()]);
        for (i, (line, golden)) in lines.iter().zip(&golden).enumerate() {
            let case = format!("{name} {i}");
            table.equal(&case, &keys(line), &["entities", "index", "logits", "tokens", "truncated"]);
            table.equal(&case, &[&line["index"], &line["truncated"]], &[&json!(i), &json!(false)]);
            let rows = golden["logits"].as_array().unwrap();
            table.equal(
                &case,
                &[line["tokens"].as_u64(), line["logits"].as_array().map(|rows| rows.len() as u64)],
                &[Some(rows.len() as u64); 2],
            );
            table.close(&case, &numbers(&line["logits"]), &numbers(&golden["logits"]), BOUND);
            // Each word is a token; those of label O are left out.
            let mut entities = line["entities"].as_array().unwrap().iter();
            let (mut start, words) = (0, inputs[i].split(' '));
            for (word, row) in words.zip(&rows[1..]) {
                let (row, end) = (numbers(row), start + word.len());
                if largest(&row) != 0 {
                    let Some(entity) = entities.next() else { return table.fail(&case, format!("{word} is missing")) };
                    table.equal(&case, &keys(entity), &["end", "end_byte", "label", "score", "start", "start_byte", "text"]);
                    table.equal(&case, &[&entity["label"], &entity["text"]], &[&json!(names[largest(&row)]), &json!(word)]);
                    let places = ["start", "end", "start_byte", "end_byte"].map(|key| entity[key].as_u64().unwrap_or(u64::MAX) as usize);
                    table.equal(&case, &places, &[start, end, start, end]);
                    table.close(&case, &numbers(&entity["score"]), &[softmax(&row)[largest(&row)]], BOUND);
                }
                start = end + 1;
            }
            table.check(&case, entities.next().is_none(), "there are more entities than words");
        }
    }
    table.finish();
}

#[test]
fn fill_mask() {
    let mut table = Table::new("minilm fill-mask");
    for name in ["distilbert-masked", "roberta-masked", "xlm-roberta-masked", "xlm-masked", "mpnet-masked"] {
        let golden = &texts(name)[0];
        let fill = |more: &[&str]| lines_of(&family(name), &[&["fill-mask"], more].concat(), &as_texts(&[words(golden)])).remove(0);
        let line = fill(&["--top", "48", "--logits"]);
        table.equal(name, &keys(&line), &["index", "masks", "tokens", "truncated"]);
        table.equal(name, &[&line["index"], &line["tokens"], &line["truncated"]], &[&json!(0), &json!(7), &json!(false)]);
        let (masks, expected) = (line["masks"].as_array().unwrap(), golden["mask_logits"].as_array().unwrap());
        table.equal(name, &[masks.len()], &[expected.len()]);
        for (mask, expected) in masks.iter().zip(expected) {
            let (expected, mut by_id) = (numbers(expected), vec![[f64::NAN; 2]; 48]);
            for word in mask.as_array().unwrap() {
                let id = word["id"].as_u64().unwrap() as usize;
                table.equal(name, &keys(word), &["id", "logit", "score", "token"]);
                let special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"].get(id);
                table.equal(name, &[&word["token"]], &[&json!(special.map_or(format!("w{}", id as i64 - 5), |token| token.to_string()))]);
                by_id[id] = ["logit", "score"].map(|key| word[key].as_f64().unwrap());
            }
            table.close(name, &by_id.iter().map(|row| row[0]).collect::<Vec<_>>(), &expected, BOUND);
            table.close(name, &by_id.iter().map(|row| row[1]).collect::<Vec<_>>(), &softmax(&expected), BOUND);
            let scores: Vec<f64> = mask.as_array().unwrap().iter().map(|word| word["score"].as_f64().unwrap()).collect();
            table.check(name, scores.is_sorted_by(|a, b| a >= b), "the words are not sorted");
        }
        for (mask, all) in fill(&[])["masks"].as_array().unwrap().iter().zip(masks) {
            let ids = |mask: &Value, count| mask.as_array().unwrap()[..count].iter().map(|word| word["id"].as_u64()).collect::<Vec<_>>();
            table.equal(name, &[mask.as_array().unwrap().len()], &[5]);
            table.equal(name, &ids(mask, 5), &ids(all, 5));
            table.equal(name, &keys(&mask[0]), &["id", "score", "token"]);
        }
    }
    table.finish();
}

#[test]
fn features() {
    let (name, folder) = ("mpnet-base", tempfile::tempdir().unwrap());
    let (golden, file) = (&texts(name)[..3], folder.path().join("features.safetensors"));
    let input: String = golden.iter().map(|golden| words(golden) + "\n").collect();
    let mut table = Table::new("minilm features");
    for (more, kinds) in [
        (&[][..], &["last_hidden_state"][..]),
        (&["--pooler"], &["last_hidden_state", "pooler_output"]),
        (&["--all-layers"], &["hidden_states", "last_hidden_state"]),
        (&["--all-layers", "--pooler"], &["hidden_states", "last_hidden_state", "pooler_output"]),
    ] {
        run_with(&family(name), &[&["features", "--output", file.to_str().unwrap()], more].concat(), &input).succeeded();
        let tensors = read_tensors(&file);
        table.equal(more.concat(), &[tensors.len()], &[kinds.len() * golden.len()]);
        for (i, golden) in golden.iter().enumerate() {
            let tokens = numbers(&golden["ids"]).len();
            for kind in kinds {
                let tensor = &tensors[&format!("{kind}.{i}")];
                let (shape, expected) = match *kind {
                    "pooler_output" => (vec![24], numbers(&golden["pooler"])),
                    "last_hidden_state" => (vec![tokens, 24], numbers(&golden["hidden"])),
                    // The embeddings and the first layer of two.
                    _ => (vec![2, tokens, 24], numbers(&golden["states"])[..2 * tokens * 24].to_vec()),
                };
                table.equal(format!("{kind} {i}"), &tensor.shape, &shape);
                table.close(format!("{kind} {i}"), &tensor.values, &expected, Bound::absolute(4e-5));
            }
        }
    }
    table.finish();
}
