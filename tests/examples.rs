//! The examples, run as they are.

mod common;

use std::process::Command;

use common::program::run;

/// An example, which `cargo test` builds beside the tests.
fn example(name: &str) -> Command {
    let built = std::env::current_exe().ok().and_then(|test| {
        let folder = test.parent()?.parent()?.join("examples");
        let path = folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
        path.exists().then_some(path)
    });
    Command::new(built.unwrap_or_else(|| name.into()))
}

/// Runs an example to its end; returns what it prints.
fn printed(name: &str, arguments: &[&str]) -> String {
    let run = run(example(name).args(arguments).env_remove("MINILM_MODEL"), "").succeeded();
    run.text().to_owned()
}

#[test]
fn embed_compares_with_the_first_sentence() {
    let lines = printed("embed", &[]);
    let scores: Vec<f64> = lines.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(scores.len(), 4);
    assert!(scores[0] == 1.0 && scores[1].min(scores[2]) > scores[3], "{lines}");
    assert_eq!(printed("embed", &["one", "two"]).lines().count(), 2);
}

#[test]
fn search_finds_the_sentence_in_any_language() {
    let lines = printed("search", &["When can I visit the museum?", "my computer does not start"]);
    let lines: Vec<_> = lines.lines().collect();
    assert!(lines[1].contains("museum") || lines[1].contains("Museum"), "{lines:?}");
    assert!(lines[5].contains("ノートパソコン"), "{lines:?}");
}

#[test]
fn info_names_an_adapter_and_the_model() {
    let lines = printed("info", &[]);
    assert!(lines.starts_with("* ") && lines.contains("12 layers of 384, 12 heads"), "{lines}");
}

#[test]
fn async_embed_answers_every_request() {
    let lines = printed("async_embed", &[]);
    assert_eq!(lines.lines().count(), 5, "{lines}");
    assert!(lines.ends_with("4 batches for 8 texts\n"), "{lines}");
}

#[test]
fn own_device_reads_nothing_back_through_the_embedder() {
    let lines = printed("own_device", &[]);
    let rows: Vec<Vec<f64>> =
        lines.lines().take(4).map(|line| line.split("  ").map_while(|number| number.parse().ok()).collect()).collect();
    for (i, row) in rows.iter().enumerate() {
        assert!(row.len() == 4 && (row[i] - 1.0).abs() < 1e-3, "{lines}");
        assert!((0..4).all(|j| row[j] == rows[j][i]), "{lines}");
    }
    assert!(rows[0][1] > rows[0][3] && lines.ends_with("0 bytes were read from the GPU by the embedder\n"), "{lines}");
}
