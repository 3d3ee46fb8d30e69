//! Wrong input: one sentence on standard error, or an `error` in the place of the line that could not be taken.

use crate::common::compare::Table;
use crate::common::files::with_labels;
use crate::common::program::Run;
use crate::{family, keys, run_with, some_words};

#[test]
fn what_ends_the_program() {
    let long = some_words(0, 40);
    type Case<'a> = (&'a str, &'a [&'a str], &'a [&'a str]);
    let cases: [Case; 30] = [
        ("bert-masked", &["classify", "w1"], &["families/bert-masked", "no classifier; it can do: embed, features, fill-mask"]),
        ("bert-token", &["rerank", "w1"], &["no classifier; it can do: embed, features, tag"]),
        ("bert-sequence", &["rerank", "w1"], &["a reranker gives one score, but this classifier has 3 labels"]),
        (
            "bert-sequence",
            &["zero-shot", "--labels", "a,b", "w1"],
            &["a label `entailment`", "this folder can do: embed, features, classify"],
        ),
        ("bert-sequence", &["tag", "w1"], &["no token classifier; it can do: embed, features, classify"]),
        ("mpnet-base", &["answer", "w1", "w2"], &["no head that finds answers; it can do: embed, features"]),
        ("electra-span", &["fill-mask", "w1 <mask>"], &["no head that fills masks; it can do: embed, features, answer"]),
        ("xlm-languages", &["features", "--pooler", "--output", "never", "w1"], &["no pooler"]),
        ("bert-sequence", &["zero-shot", "--labels", "a,b,a", "w1"], &["the label `a` was given twice: give each label once"]),
        ("bert-sequence", &["zero-shot", "--labels", "a, a", "w1"], &["the label `a` was given twice"]),
        ("bert-sequence", &["zero-shot", "--labels", "a,,b", "w1"], &["one of the 3 labels is empty: leave it out"]),
        ("bert-sequence", &["zero-shot", "--labels", "", "w1"], &["one of the 1 labels is empty"]),
        ("bert-sequence", &["zero-shot", "--labels", "a", "--template", "It is.", "w1"], &["`It is.` has no `{}`", "put one in"]),
        ("bert-span", &["answer", "--n-best", "0", "w1", "w2"], &["`--n-best`: expected 1 or more, found 0"]),
        ("bert-span", &["answer", "--max-answer-length", "0", "w1", "w2"], &["`--max-answer-length`: expected 1 or more, found 0"]),
        ("bert-masked", &["fill-mask", "--top", "49", "w1 <mask>"], &["49 words for each mask were asked for: ask for 1 to 48"]),
        ("bert-base", &["embed", "--overflow", "chunk", "--stride", "22", &long], &["a stride of 22 tokens", "lower the stride"]),
        ("bert-base", &["embed", "--overflow", "mean", "--stride", "99", &long], &["a stride of 99 tokens", "lower the stride"]),
        ("bert-base", &["embed", "--stride", "2", &long], &["`--stride` is for texts that are read in windows", "or leave it out"]),
        ("bert-base", &["embed", "--overflow", "error", "--stride", "2", "w1"], &["`--stride`", "add --overflow chunk"]),
        ("bert-token", &["tag", "--stride", "2", &long], &["`--stride`", "add --overflow chunk, or leave it out"]),
        ("bert-base", &["embed", "--overflow", "error", &long], &["the command line, text 1", "42 tokens", "choose another --overflow"]),
        ("bert-base", &["embed", "--dimensions", "25", "w1"], &["25 dimensions", "have 24: ask for 1 to 24"]),
        ("bert-base", &["embed", "--dimensions", "0", "w1"], &["0 dimensions", "ask for 1 to 24"]),
        ("sentence-modules", &["embed", "--pooling", "mean", "w1"], &["1 poolings", "the 6 that the modules", "choose as many"]),
        ("bert-base", &["embed", "--precision", "int8", "w1"], &["one row", "give more rows"]),
        ("xlm-languages", &["embed", "--language", "it", "w1"], &["there is no language `it`", "has de, en, fr"]),
        ("xlm-languages", &["tokens", "--language", "it", "w1"], &["there is no language `it`", "has de, en, fr"]),
        ("bert-token", &["tag", "--language", "de", "w1"], &["the language `de`", "has no languages: leave it out"]),
        ("bert-token", &["tag", "--max-length", "1", "--token-budget", "0", "w1"], &["the token budget 0 is not between"]),
    ];
    let mut table = Table::new("refusals");
    for (name, arguments, words) in cases {
        // The passages of `rerank`; the others do not read.
        let run = run_with(&family(name), arguments, "w1\n");
        let message = run.refused();
        table.check(arguments.join(" "), words.iter().all(|word| message.contains(word)) && run.stdout.is_empty(), message);
    }
    for arguments in [
        &["answer", "a question without a context"][..],
        &["answer", "w1", "w2", "--input", "-"],
        &["zero-shot", "w1"],
        &["rerank"],
        &["fill-mask", "--top", "0", "w1"],
        &["classify", "--score", "linear", "w1"],
        // A prompt is for sentence embeddings; where it would do nothing, there is none.
        &["tag", "--prompt", "query", "w1"],
    ] {
        let run = run_with(&family("bert-base"), arguments, "");
        table.check(arguments.join(" "), run.code == Some(2) && run.stderr.contains("error:"), &run.stderr);
    }
    table.finish();
}

/// Three lines of which the second cannot be taken: the others are what they are without it.
#[test]
fn what_costs_only_its_line() {
    let texts = |second: &str| format!("{{\"text\": \"w1 <mask>\"}}\n{second}\n{{\"text\": \"w2 <mask> w3\"}}\n");
    let questions = |second: &str| {
        format!("{{\"question\": \"w1\", \"context\": \"w2 w3\"}}\n{second}\n{{\"question\": \"w4\", \"context\": \"w5 w6 w7\"}}\n")
    };
    let (pair, null_text) = ("{\"text\": \"w1\", \"text_pair\": \"w2\"}", "{\"text\": null}");
    let cut = format!("{{\"text\": \"{} <mask>\"}}", some_words(0, 40));
    let long_question = format!("{{\"question\": \"{}\", \"context\": \"w1\"}}", some_words(0, 40));
    let long_context = format!("{{\"question\": \"w1\", \"context\": \"{}\"}}", some_words(0, 40));
    let zero_shot = with_labels(&family("bert-sequence"), ["contradiction", "entailment", "neutral"]);

    type Case<'a> = (std::path::PathBuf, &'a [&'a str], String, &'a str);
    let classifier = family("distilbert-sequence");
    let cases: [Case; 19] = [
        (classifier.clone(), &["classify"], texts("{\"text\": \"w1\""), "expected a JSON object such as"),
        (classifier.clone(), &["classify"], texts(""), "expected a JSON object such as"),
        (classifier.clone(), &["classify"], texts("[1]"), "expected a JSON object such as"),
        (classifier.clone(), &["classify"], texts("{\"texts\": \"w1\"}"), "missing field `text`"),
        (classifier, &["classify"], texts(null_text), "expected a string"),
        (family("roberta-sequence"), &["rerank", "w1"], texts(pair), "this task takes one text, found `text_pair` too: leave it out"),
        (family("roberta-sequence"), &["rerank", "w1"], texts("w1"), "expected a JSON object such as"),
        (zero_shot.path().into(), &["zero-shot", "--labels", "w1,w2"], texts(pair), "this task takes one text"),
        (family("bert-token"), &["tag"], texts(pair), "this task takes one text"),
        (family("bert-token"), &["tag", "--logits"], texts(null_text), "expected a string"),
        (family("bert-masked"), &["fill-mask"], texts("{\"text\": \"w1\"}"), "it has no mask: write <mask> where a word is missing"),
        (
            family("bert-masked"),
            &["fill-mask"],
            texts(&cut),
            "no mask in its first 24 tokens, to which it was cut: put <mask> further ahead",
        ),
        (family("bert-span"), &["answer"], questions("{\"question\": \"\", \"context\": \"w1\"}"), "the question is empty: ask something"),
        (family("bert-span"), &["answer"], questions("{\"question\": \" \\n\", \"context\": \"w1\"}"), "the question is empty"),
        (family("bert-span"), &["answer"], questions("{\"question\": \"w1\"}"), "missing field `context`"),
        (family("bert-span"), &["answer"], questions("{\"text\": \"w1\"}"), "such as {\"question\": \"...\", \"context\": \"...\"}"),
        (family("bert-span"), &["answer"], questions(&long_question), "no room for a text beside 3 special tokens and 40 tokens"),
        (family("bert-span"), &["answer", "--stride", "20"], questions(&long_context), "a stride of 20 tokens is not less than the 20"),
        (family("sentence-modules"), &["embed", "--format", "jsonl", "--precision", "int8"], texts(null_text), "expected a string"),
    ];
    let mut table = Table::new("lines that cannot be taken");
    for (folder, arguments, input, words) in cases {
        let case = format!("{} {}", arguments.join(" "), input.lines().nth(1).unwrap());
        let of = |input: &str| -> Run {
            let jsonl: &[&str] = if arguments[0] == "answer" { &[] } else { &["--input-format", "jsonl"] };
            run_with(&folder, &[arguments, jsonl].concat(), input)
        };
        let run = of(&input);
        table.check(&case, run.refused().contains("1 of 3 lines could not be taken: see `error` in their place"), &run.stderr);
        let mut lines = run.json_lines();
        table.equal(&case, &[lines.len()], &[3]);
        // Lines are in the order of the input, but for ranked ones, which what could not be ranked follows.
        let at = if arguments[0] == "rerank" { 2 } else { 1 };
        let fault = lines.remove(at);
        table.equal(&case, &keys(&fault), &["error", "index"]);
        let message = fault["error"].as_str().unwrap_or_default();
        table.check(&case, fault["index"] == 1 && message.contains(words) && message.starts_with("standard input, line 2: "), message);
        let good = input.lines().enumerate().filter(|(i, _)| *i != 1).map(|(_, line)| format!("{line}\n")).collect::<String>();
        let mut expected = of(&good).succeeded().json_lines();
        for line in &mut expected {
            line["index"] = (line["index"].as_u64().unwrap() * 2).into();
        }
        table.equal(&case, &lines, &expected);
    }
    table.finish();
}
