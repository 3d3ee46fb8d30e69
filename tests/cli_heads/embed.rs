//! What `minilm embed` can be asked for: long texts, fewer bits, fewer numbers, several poolings, a language.

use minilm::{Pooling, Precision, Ranges, quantize_embeddings, reference};
use serde_json::{Value, json};

use crate::common::compare::{Bound, Table};
use crate::common::files::{copy, write};
use crate::common::program::floats;
use crate::{BOUND, as_texts, family, json_lines, keys, lines_of, numbers, run_with, some_words, texts, words};

/// Tokens of a text, and as many of them as are no specials.
const MAX_LENGTH: usize = 20;
const ROOM: usize = 18;

fn rows(lines: &[Value]) -> Vec<Vec<f64>> {
    lines.iter().map(|line| numbers(&line["embedding"])).collect()
}

#[test]
fn rows_are_those_of_the_goldens() {
    let (name, golden) = ("sentence-modules", texts("sentence-modules"));
    let mut table = Table::new("minilm embed");
    let inputs: Vec<String> = golden.iter().map(words).collect();
    let lines = lines_of(&family(name), &["embed", "--format", "jsonl"], &as_texts(&inputs));
    let expected: Vec<Vec<f64>> = golden.iter().map(|golden| numbers(&golden["embedding"])).collect();
    table.close("rows", &rows(&lines).concat(), &expected.concat(), BOUND);
    for dimensions in [1, 7, 20] {
        let lines = lines_of(&family(name), &["embed", "--format", "jsonl", "--dimensions", &dimensions.to_string()], &as_texts(&inputs));
        let expected = reference::normalize(&expected.concat(), 20, dimensions);
        table.close(format!("{dimensions} dimensions"), &rows(&lines).concat(), &expected, BOUND);
    }
    table.finish();
}

#[test]
fn long_texts_are_cut_or_read_in_windows_or_refused() {
    const STRIDE: usize = 4;
    let folder = family("sentence-modules");
    let (short, long) = (some_words(0, 3), some_words(1, 40));
    let all: Vec<&str> = long.split(' ').collect();
    let parts: Vec<String> = [0..18, 14..32, 28..40].map(|range| all[range].join(" ")).into();
    let max_length = MAX_LENGTH.to_string();
    let arguments = ["embed", "--format", "jsonl", "--max-length", &max_length];
    let embed = |more: &[&str], texts: &[String]| lines_of(&folder, &[&arguments[..], more].concat(), &as_texts(texts));
    // Each window is what its words are as a text of their own, bit by bit.
    let (of_short, of_parts) = (rows(&embed(&[], std::slice::from_ref(&short))).remove(0), rows(&embed(&[], &parts)));

    let mut table = Table::new("overflow");
    let both = [short, long];
    let fields = |line: &Value| ["index", "window", "tokens", "truncated"].map(|key| line[key].clone());
    let cut = embed(&["--overflow", "truncate"], &both);
    table.equal(
        "cut",
        &cut.iter().map(fields).collect::<Vec<_>>(),
        &[[json!(0), Value::Null, json!(5), json!(false)], [json!(1), Value::Null, json!(20), json!(true)]],
    );
    table.equal("cut", &rows(&cut), &[of_short.clone(), of_parts[0].clone()]);

    let stride = STRIDE.to_string();
    let chunks = embed(&["--overflow", "chunk", "--stride", &stride], &both);
    table.equal(
        "windows",
        &chunks.iter().map(fields).collect::<Vec<_>>(),
        &[
            [json!(0), Value::Null, json!(5), json!(false)],
            [json!(1), json!(0), json!(ROOM + 2), json!(false)],
            [json!(1), json!(1), json!(ROOM + 2), json!(false)],
            [json!(1), json!(2), json!(12 + 2), json!(false)],
        ],
    );
    table.equal("windows", &keys(&chunks[0]), &["embedding", "index", "tokens", "truncated"]);
    table.equal("windows", &rows(&chunks), &[std::slice::from_ref(&of_short), &of_parts[..]].concat());
    // By default neighbours share an eighth of 20 tokens.
    table.equal("stride", &embed(&["--overflow", "chunk"], &both), &embed(&["--overflow", "chunk", "--stride", "2"], &both));

    let mean = embed(&["--overflow", "mean", "--stride", &stride], &both);
    table.equal(
        "mean",
        &mean.iter().map(fields).collect::<Vec<_>>(),
        &[[json!(0), Value::Null, json!(5), json!(false)], [json!(1), Value::Null, json!(20 + 20 + 14), json!(false)]],
    );
    let sum: Vec<f64> = (0..20).map(|i| of_parts.iter().zip([20.0, 20.0, 14.0]).map(|(row, tokens)| row[i] * tokens).sum()).collect();
    table.close("mean", &rows(&mean)[1], &reference::normalize(&sum, 20, 20), Bound::absolute(1e-6));
    table.close("mean of one", &rows(&mean)[0], &of_short, Bound::absolute(1e-6));
    // Without an L2 norm it is the mean itself.
    let plain = ["--no-normalize", "--stride", &stride, "--overflow"];
    let parts = rows(&embed(&[&plain[..], &["chunk"]].concat(), &both[1..]));
    let expected: Vec<f64> =
        (0..20).map(|i| parts.iter().zip([20.0, 20.0, 14.0]).map(|(row, tokens)| row[i] * tokens / 54.0).sum()).collect();
    table.close("mean as it is", &rows(&embed(&[&plain[..], &["mean"]].concat(), &both[1..]))[0], &expected, Bound::absolute(1e-6));

    let refuse = [&arguments[..], &["--input-format", "jsonl", "--overflow", "error"]].concat();
    let run = run_with(&folder, &refuse, json_lines(&as_texts(&both)));
    table.equal("refused", &rows(&run.json_lines()[..1]), &[of_short]);
    let problem = run.json_lines()[1]["error"].to_string();
    table.check("refused", problem.contains("it has 42 tokens, more than the maximum length of 20"), &problem);
    table.check("refused", run.refused().contains("1 of 2 lines could not be taken"), &run.stderr);
    table.finish();
}

/// `do_lower_case` of sentence-transformers holds for windows too.
#[test]
fn windows_are_lowercased_where_texts_are() {
    let folder = copy(&family("bert-base"), &["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]);
    write(
        folder.path(),
        "modules.json",
        json!([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]).to_string(),
    );
    write(folder.path(), "sentence_bert_config.json", json!({"max_seq_length": 12, "do_lower_case": true}).to_string());
    let lower = some_words(0, 30);
    let embed = |text: &str| run_with(folder.path(), &["embed", "--overflow", "chunk", text], "").succeeded().text().to_owned();
    assert_eq!(embed(&lower).lines().count(), 4);
    assert_eq!(embed(&lower.to_uppercase()), embed(&lower));
    assert_ne!(embed(&lower.replace('w', "v")), embed(&lower));
}

#[test]
fn rows_in_fewer_bits() {
    let (folder, inputs) = (family("sentence-modules"), as_texts(&(0..9).map(|i| some_words(i * 3, i + 30)).collect::<Vec<_>>()));
    let embed = |more: &[&str]| {
        let arguments = [&["embed", "--overflow", "chunk", "--stride", "0", "--input-format", "jsonl"], more].concat();
        run_with(&folder, &arguments, json_lines(&inputs)).succeeded()
    };
    let full: Vec<Vec<f32>> = floats(&embed(&["--format", "f32"]).stdout).chunks(20).map(<[f32]>::to_vec).collect();
    let ranges = Ranges::of(&full).unwrap();
    let mut table = Table::new("precision");
    for (name, precision) in
        [("int8", Precision::Int8), ("uint8", Precision::Uint8), ("binary", Precision::Binary), ("ubinary", Precision::Ubinary)]
    {
        let expected = quantize_embeddings(&full, precision, Some(&ranges)).unwrap();
        let run = embed(&["--precision", name, "--format", "f32"]);
        table.equal(name, &run.stdout, expected.as_bytes());
        let signed = |byte: &u8| match precision {
            Precision::Int8 | Precision::Binary => i64::from(*byte as i8),
            Precision::Uint8 | Precision::Ubinary => i64::from(*byte),
        };
        let expected: Vec<Vec<i64>> = expected.rows().map(|row| row.iter().map(signed).collect()).collect();
        let lines = embed(&["--precision", name, "--format", "jsonl"]).json_lines();
        let found: Vec<Vec<i64>> =
            lines.iter().map(|line| line["embedding"].as_array().unwrap().iter().map(|value| value.as_i64().unwrap()).collect()).collect();
        table.equal(name, &found, &expected);
        let run = embed(&["--precision", name]);
        let found: Vec<Vec<i64>> = run.text().lines().map(|line| line.split(' ').map(|value| value.parse().unwrap()).collect()).collect();
        table.equal(name, &found, &expected);
    }
    // What is wrong with texts is told, also where there is no row to make a scale of.
    let arguments = ["embed", "--precision", "int8", "--format", "jsonl", "--input-format", "jsonl"];
    let run = run_with(&folder, &arguments, "1\n2\n");
    table.equal("no rows", &run.json_lines().iter().flat_map(keys).collect::<Vec<_>>(), &["error", "index", "error", "index"]);
    table.check("no rows", run.refused().contains("2 of 2 lines"), &run.stderr);
    table.finish();
}

#[test]
fn poolings_lie_next_to_one_another() {
    let (name, golden) = ("mpnet-base", texts("mpnet-base"));
    let inputs = as_texts(&golden.iter().map(words).collect::<Vec<_>>());
    let kinds = [
        ("cls", Pooling::Cls),
        ("max", Pooling::Max),
        ("mean", Pooling::Mean),
        ("mean-sqrt-len", Pooling::MeanSqrtLen),
        ("weightedmean", Pooling::WeightedMean),
        ("lasttoken", Pooling::LastToken),
    ];
    let pooled = |golden: &Value, pooling| {
        let hidden = numbers(&golden["hidden"]);
        reference::pooling(&hidden, &[hidden.len() / 24], pooling)
    };
    let mut table = Table::new("pooling");
    for names in ["mean", "lasttoken,cls", "cls,max,mean,mean-sqrt-len,weightedmean,lasttoken"] {
        let lines = lines_of(&family(name), &["embed", "--format", "jsonl", "--pooling", names], &inputs);
        for (i, (line, golden)) in lines.iter().zip(&golden).enumerate() {
            let poolings = names.split(',').map(|name| kinds.iter().find(|kind| kind.0 == name).unwrap().1);
            let expected: Vec<f64> = poolings.flat_map(|pooling| pooled(golden, pooling)).collect();
            // A sum of 162 tokens, over their root, is larger than a state by 13.
            table.close(format!("{names} {i}"), &numbers(&line["embedding"]), &expected, Bound::new(4e-5, 4e-5));
        }
    }
    table.finish();
}

#[test]
fn a_language_is_added() {
    let (name, golden) = ("xlm-languages", texts("xlm-languages"));
    let inputs = as_texts(&golden.iter().map(words).collect::<Vec<_>>());
    let mut table = Table::new("language");
    for (language, field) in
        [(&[][..], "hidden"), (&["--language", "de"], "hidden_of_language_0"), (&["--language", "fr"], "hidden_of_language_2")]
    {
        let lines = lines_of(&family(name), &[&["embed", "--format", "jsonl", "--pooling", "cls"], language].concat(), &inputs);
        let expected: Vec<f64> = golden.iter().flat_map(|golden| numbers(&golden[field])[..24].to_vec()).collect();
        table.close(field, &rows(&lines).concat(), &expected, BOUND);
        let tokens = lines_of(&family(name), &[&["tokens", "--format", "jsonl"], language].concat(), &inputs[..1]);
        let row = if field == "hidden" { 3 } else { field.ends_with('2') as u64 * 2 };
        table.equal(field, &[&tokens[0]["type_ids"]], &[&json!([row, row, row])]);
    }
    table.finish();
}
