//! The program as a user runs it: results on standard output, everything else on standard error, and no input that makes it panic.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Command;

use common::compare::{Bound, Table};
use common::files::copy;
use common::fixture;
use common::golden::{Golden, read_tensors};
use common::program::{Run, finish, floats, minilm, minilm_of, run, spawn};

const FOLDER: &str = "tiny-minilm-bert-l3-h96";

/// A command with the small model.
fn command(arguments: &[&str]) -> Command {
    minilm_of(&fixture(FOLDER), arguments)
}

fn minilm_with(arguments: &[&str], input: impl AsRef<[u8]> + Send) -> Run {
    run(&mut command(arguments), input)
}

#[test]
fn embeddings_are_those_of_the_goldens_in_every_format() {
    let golden = Golden::fixture(FOLDER);
    let lines: Vec<String> =
        golden.cases.iter().map(|case| serde_json::json!({"text": case.text, "text_pair": case.text_pair}).to_string() + "\n").collect();
    let embed = |format: &str| {
        let max_length = golden.max_length.to_string();
        let arguments = ["embed", "--input-format", "jsonl", "--pooling", "mean", "--format", format, "--max-length", &max_length];
        minilm_with(&arguments, lines.concat()).succeeded()
    };
    let expected = &golden.tensor("mean").values;
    let mut table = Table::new("minilm embed");
    let raw = floats(&embed("f32").stdout);
    table.close("f32", &raw, expected, Bound::absolute(golden.atol("mean")));
    let text: Vec<f32> = embed("text").text().split_whitespace().map(|number| number.parse().unwrap()).collect();
    table.equal("text", &text, &raw);
    let run = embed("jsonl");
    for (i, (line, case)) in run.json_lines().iter().zip(&golden.cases).enumerate() {
        table.equal(&case.id, &[line["index"].as_u64(), line["tokens"].as_u64()], &[Some(i as u64), Some(case.n_tokens as u64)]);
        table.equal(&case.id, &[line["truncated"].as_bool()], &[Some(case.truncated)]);
        let row: Vec<f32> = line["embedding"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect();
        table.equal(&case.id, &row, &raw[i * 96..][..96]);
        assert_eq!(line.as_object().unwrap().len(), 4, "{line}");
    }
    let cut = golden.cases.iter().filter(|case| case.truncated).count();
    let warning = format!("minilm: warning: {cut} of {} texts were cut to {} tokens\n", golden.cases.len(), golden.max_length);
    table.check("warning", run.stderr.contains(&warning), &run.stderr);
    table.finish();
}

#[test]
fn texts_come_from_arguments_a_file_or_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("texts.txt");
    fs::write(&file, "\u{feff}first text\r\n\nthird text").unwrap();
    let by_arguments = minilm_with(&["embed", "first text", "", "third text"], "not read").succeeded();
    assert_eq!(by_arguments.text().lines().count(), 3);
    let by_file = minilm_with(&["embed", "--input", file.to_str().unwrap()], "").succeeded();
    assert_eq!(by_file.text(), by_arguments.text());
    let by_stdin = minilm_with(&["embed"], "first text\n\nthird text\n").succeeded();
    assert_eq!(by_stdin.text(), by_arguments.text());
    let normalised = minilm_with(&["embed", "--format", "f32", "x"], "").succeeded();
    let norm = |run: &Run| floats(&run.stdout).iter().map(|value| value * value).sum::<f32>().sqrt();
    assert!((norm(&normalised) - 1.0).abs() > 1e-3, "this folder does not say that rows are normalised");
}

#[test]
fn the_default_model_is_found_and_normalises() {
    let rows = |more: &[&str]| {
        let arguments = [&["embed", "--format", "f32", "--prompt", "query", "Where is the station?"], more].concat();
        floats(&run(minilm().args(arguments).env_remove("MINILM_MODEL"), "").succeeded().stdout)
    };
    let norm = |row: &[f32]| row.iter().map(|value| value * value).sum::<f32>().sqrt();
    let row = rows(&[]);
    assert_eq!(row.len(), 384);
    assert!((norm(&row) - 1.0).abs() < 1e-5);
    assert!((norm(&rows(&["--no-normalize"])) - 1.0).abs() > 1e-2);
}

#[test]
fn features_hold_every_hidden_state() {
    let (golden, folder) = (Golden::fixture(FOLDER), tempfile::tempdir().unwrap());
    let cases: Vec<_> = golden.single_texts().filter(|(_, case)| !case.text.contains(['\n', '\r'])).map(|(_, case)| case).collect();
    let file = folder.path().join("features.safetensors");
    let input: String = cases.iter().map(|case| format!("{}\n", case.text)).collect();
    let max_length = golden.max_length.to_string();
    minilm_with(&["features", "--output", file.to_str().unwrap(), "--max-length", &max_length], input).succeeded();
    let (tensors, mut table) = (read_tensors(&file), Table::new("minilm features"));
    table.equal("tensors", &[tensors.len()], &[cases.len()]);
    for (i, case) in cases.iter().enumerate() {
        let found = &tensors[&format!("last_hidden_state.{i}")];
        table.equal(&case.id, &found.shape, &[case.n_tokens, 96]);
        if let Some(expected) = golden.hidden(case) {
            table.close(&case.id, &found.values, &expected.values, Bound::absolute(golden.atol("last_hidden_state")));
        }
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "an unfinished file is left");
    table.finish();
}

#[test]
fn similar_texts_are_found() {
    let alike = |first: &str, second: &str| {
        let run = run(minilm().args(["similarity", "--prompt", "query", first, second]).env_remove("MINILM_MODEL"), "").succeeded();
        run.text().trim().parse::<f64>().unwrap()
    };
    assert_eq!(alike("the same", "the same"), 1.0);
    assert!(alike("The train is late.", "Der Zug hat Verspätung.") > alike("The train is late.", "Ich mag Erdbeeren.") + 0.05);

    let lines = "Ich mag Erdbeeren.\nDer Zug hat Verspätung.\nLe chat dort.\n";
    let search = |more: &[&str]| {
        let arguments = [&["search", "The train is late.", "--top", "2"], more].concat();
        run(minilm().args(arguments).env_remove("MINILM_MODEL"), lines).succeeded()
    };
    let hits = search(&["--format", "jsonl"]).json_lines();
    assert_eq!(hits.len(), 2);
    assert_eq!((&hits[0]["rank"], &hits[0]["line"], &hits[0]["text"]), (&1.into(), &2.into(), &"Der Zug hat Verspätung.".into()));
    assert!(hits[0]["score"].as_f64() > hits[1]["score"].as_f64());
    let text = search(&[]);
    assert!(
        text.text().starts_with("1  0.") && text.text().lines().next().unwrap().ends_with("2  Der Zug hat Verspätung."),
        "{}",
        text.text()
    );
}

#[test]
fn tokens_are_those_of_the_goldens() {
    let golden = Golden::fixture(FOLDER);
    let cases: Vec<_> = golden.single_texts().filter(|(_, case)| !case.truncated).map(|(_, case)| case).collect();
    let input: String = cases.iter().map(|case| serde_json::json!({"text": case.text}).to_string() + "\n").collect();
    let lines = minilm_with(&["tokens", "--format", "jsonl", "--input-format", "jsonl"], input).succeeded().json_lines();
    let mut table = Table::new("minilm tokens");
    for (line, case) in lines.iter().zip(&cases) {
        let ids: Vec<u32> = line["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        table.equal(&case.id, &ids, &case.input_ids);
        table.equal(&case.id, &[line["pieces"].as_array().unwrap().len()], &[case.n_tokens]);
    }
    table.finish();
    let text = minilm_with(&["tokens", "--max-length", "3", "the end"], "").succeeded();
    assert!(text.text().starts_with("2:[CLS] ") && text.text().ends_with(":[SEP]\n"), "{}", text.text());
    assert!(text.stderr.ends_with("minilm: warning: the text was cut to 3 tokens\n"), "{}", text.stderr);
}

#[test]
fn info_tells_adapters_and_model() {
    let model = fixture(FOLDER);
    let info = minilm_with(&["info", "--json", "--model", model.to_str().unwrap()], "").succeeded().json_lines().remove(0);
    let adapters = info["adapters"].as_array().unwrap();
    assert_eq!(adapters.iter().filter(|adapter| adapter["selected"] == true).count(), 1);
    for adapter in adapters {
        assert!(adapter["name"].is_string() && adapter["driver"].is_string() && adapter["backend"].is_string(), "{adapter}");
        assert!(adapter["limits"]["max_storage_buffer_binding_size"].as_u64() >= Some(128 << 20), "{adapter}");
    }
    assert_eq!((&info["model"]["layers"], &info["model"]["hidden"], &info["model"]["pooling"]), (&3.into(), &96.into(), &["mean"].into()));
    assert!(info["model"]["weight_bytes"].as_u64() > Some(1_000_000), "{info}");
    let text = minilm_with(&["info"], "").succeeded();
    assert!(text.text().contains("<- would run") && text.text().contains("storage binding"), "{}", text.text());
}

#[test]
fn a_quantized_copy_is_used_like_any_model() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("int8");
    let (input, output) = (fixture(FOLDER), output.to_str().unwrap());
    let report = minilm_with(&["quantize", input.to_str().unwrap(), output], "").succeeded();
    assert!(report.text().contains("matrices quantized    19\n"), "{}", report.text());
    let row = |model: &str| floats(&minilm_with(&["embed", "--format", "f32", "--model", model, "a text"], "").succeeded().stdout);
    assert!(minilm::cosine(&row(input.to_str().unwrap()), &row(output)) > 0.999);
    assert!(
        minilm_with(&["quantize", input.to_str().unwrap(), output], "").refused().contains("expected the name of a new or an empty folder")
    );
}

#[test]
fn wrong_input_is_refused_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none");
    let missing = missing.to_str().unwrap();
    let model = fixture(FOLDER);
    let model = model.to_str().unwrap();
    type Case<'a> = (&'a [&'a str], &'a [u8], &'a [&'a str]);
    let cases: [Case; 18] = [
        (&["embed"], b"", &["no texts were given", "standard input is empty"]),
        (&["embed"], b"good\nbad \xff\n", &["standard input, line 2", "expected UTF-8", "0xff as byte 5"]),
        (
            &["embed", "--input-format", "jsonl"],
            b"{\"text\": \"a\"}\n{\"txt\": 1}\n",
            &["standard input, line 2", "expected a JSON object"],
        ),
        (&["embed", "--input", missing], b"", &[missing, "cannot be read"]),
        (&["embed", "--model", missing, "x"], b"", &[missing, "the model folder cannot be read"]),
        (&["embed", "--prompt", "title", "x"], b"", &["no prompt `title`"]),
        (&["embed", "--max-length", "1", "x"], b"", &["the command line, text 1", "no room for the 2 special tokens"]),
        (&["embed", "--max-length", "100000", "x"], b"", &["maximum length 100000", "positions"]),
        (&["embed", "--token-budget", "1", "x"], b"", &["token budget 1"]),
        (&["embed", "--max-gpu-memory", "1", "x"], b"", &["bytes of GPU memory", "at most 1000000 are allowed", "f16 or int8"]),
        (&["embed", "--tuning", missing, "x"], b"", &["the tuning table cannot be read"]),
        (&["embed", "--tuning", "Cargo.toml", "x"], b"", &["Cargo.toml: expected a tuning table of `minilm tune`", "write it again"]),
        (&["doctor", "--model", missing], b"", &["the model folder cannot be read"]),
        (&["tune", "--output", "no/such/folder/table.json"], b"", &["the tuning table cannot be written"]),
        (&["embed", "--adapter", "no such adapter", "x"], b"", &["no adapter's name contains `no such adapter`", "choose one of"]),
        (&["features", "--output", missing, "--model", missing, "x"], b"", &["the model folder cannot be read"]),
        (&["quantize", missing, missing], b"", &["the model folder cannot be read"]),
        (&["search", "query"], b"", &["no texts were given"]),
    ];
    let mut table = Table::new("refusals");
    for (arguments, input, words) in cases {
        let run = minilm_with(arguments, input);
        let message = run.refused();
        table.check(arguments.join(" "), words.iter().all(|word| message.contains(word)), message);
    }
    let no_driver = run(command(&["embed", "--model", model, "x"]).env("VK_DRIVER_FILES", missing).env("WGPU_BACKEND", "vulkan"), "");
    if cfg!(target_os = "linux") {
        let message = no_driver.refused();
        let words = ["no GPU adapter", "(backends: vulkan)", "apt-get install mesa-vulkan-drivers"];
        table.check("no driver", words.iter().all(|word| message.contains(word)), message);
    }
    for (variable, value, expected) in [
        ("WGPU_BACKEND", "vulkan,opencl", "WGPU_BACKEND names `opencl`: expected some of vulkan, metal, dx12, gl"),
        ("WGPU_POWER_PREF", "most", "WGPU_POWER_PREF is `most`: expected low or high"),
    ] {
        let run = run(command(&["embed", "x"]).env(variable, value), "");
        table.check(variable, run.refused().contains(expected), run.refused());
    }
    table.finish();
}

/// Whatever chunk of the input the line is in.
#[test]
fn a_result_that_is_no_number_is_an_error_that_names_the_line() {
    let folder = copy(&fixture(FOLDER), &["config.json", "tokenizer.json"]);
    let mut weights = fs::read(fixture(FOLDER).join("model.safetensors")).unwrap();
    let of_word = {
        let tensors = safetensors::SafeTensors::deserialize(&weights).unwrap();
        let table = tensors.tensor("embeddings.word_embeddings.weight").unwrap();
        let id = 58; // `q`
        table.data().as_ptr() as usize - weights.as_ptr() as usize + id * 96 * 4
    };
    weights[of_word..of_word + 96 * 4].as_chunks_mut::<4>().0.fill(3e38f32.to_le_bytes());
    fs::write(folder.path().join("model.safetensors"), weights).unwrap();
    let input: String = (1..=400).map(|line| if line == 300 { "q\n" } else { "some words\n" }).collect();
    for arguments in [&["embed"][..], &["embed", "--overflow", "chunk"], &["search", "words"]] {
        let run = run(&mut minilm_of(folder.path(), arguments), &input);
        assert!(run.refused().starts_with("minilm: standard input, line 300: value 0 of its result is NaN"), "{}", run.refused());
    }
}

#[test]
fn what_comes_before_a_bad_line_is_not_lost() {
    let run = minilm_with(&["embed"], b"one\ntwo\n\xff\nthree\n");
    assert_eq!(run.text().lines().count(), 2);
    assert!(run.refused().contains("line 3"));
}

#[test]
fn a_line_that_does_not_end_is_refused_before_it_fills_the_memory() {
    let long = "x".repeat((16 << 20) + 1);
    let run = minilm_with(&["embed", "--format", "jsonl"], format!("one\n{long}{long}\ntwo\n"));
    let lines = run.json_lines();
    assert_eq!(lines.iter().map(|line| line.get("error").is_some()).collect::<Vec<_>>(), [false, true, false]);
    assert!(lines[1]["error"].as_str().unwrap().starts_with("standard input, line 2: the line has more than 16 MiB"), "{}", lines[1]);
}

/// Lines of JSON have a place for what is wrong, so that one bad line costs no other.
#[test]
fn a_bad_line_among_lines_of_json_is_reported_in_its_place() {
    let input = b"{\"text\": \"one\"}\n\n{\"text\": 3}\n{\"text\": \"two\", \"text_pair\": \"x\"}\n";
    let run = minilm_with(&["embed", "--format", "jsonl", "--input-format", "jsonl"], input);
    let lines = run.json_lines();
    assert_eq!(lines.iter().map(|line| line["index"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(lines.iter().map(|line| line.get("error").is_some()).collect::<Vec<_>>(), [false, true, true, false]);
    assert!(lines[2]["error"].as_str().unwrap().starts_with("standard input, line 3: expected a JSON object"), "{}", lines[2]);
    assert!(run.refused().contains("2 of 4 lines could not be taken"));
}

#[test]
fn a_text_of_a_hundred_thousand_words_is_cut() {
    let run = minilm_with(&["embed", "--format", "jsonl"], "word ".repeat(100_000)).succeeded();
    let line = &run.json_lines()[0];
    assert_eq!((&line["truncated"], &line["tokens"]), (&true.into(), &Golden::fixture(FOLDER).max_length.into()));
}

/// Several at once, so that a program may end while its own threads have yet to.
#[test]
fn a_reader_that_has_seen_enough_ends_it_quietly() {
    let children: Vec<_> = (0..6).map(|_| spawn(&mut command(&["embed"]))).collect();
    for mut child in children {
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || while stdin.write_all("some words of a text\n".repeat(100).as_bytes()).is_ok() {});
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.split(' ').count(), 96);
        let run = finish(child).succeeded();
        assert!(run.messages().is_empty(), "{}", run.stderr);
        writer.join().unwrap();
    }
}

#[cfg(unix)]
#[test]
fn an_interrupt_keeps_what_was_written() {
    let mut child = spawn(&mut command(&["embed", "--format", "jsonl"]));
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all("some words of a text\n".repeat(64).as_bytes()).unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut written = String::new();
    stdout.read_line(&mut written).unwrap();
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
    stdout.read_to_string(&mut written).unwrap();
    assert!(written.ends_with('\n'));
    for line in written.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    let run = finish(child);
    assert_eq!(run.code, Some(130), "{}", run.stderr);
    assert!(run.stderr.ends_with("minilm: interrupted\n"), "{}", run.stderr);
    drop(stdin);
}

/// By a link, so that a mistake costs only the link.
#[cfg(unix)]
#[test]
fn a_device_is_not_replaced_by_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("null");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    for arguments in [&["features", "x", "--output"][..], &["tune", "--output"]] {
        let run = minilm_with(&[arguments, &[link.to_str().unwrap()]].concat(), "");
        assert!(run.refused().contains("the output is a folder or a device: name a file"), "{}", run.refused());
    }
    assert!(link.is_symlink() && fs::read_dir(folder.path()).unwrap().count() == 1);
}

#[test]
fn help_is_there_for_every_command() {
    let help = minilm_with(&["--help"], "").succeeded();
    let embeddings = ["embed", "features", "similarity", "search", "tokens", "info", "quantize"];
    for command in [&embeddings[..], &["classify", "rerank", "zero-shot", "tag", "answer", "fill-mask"]].concat() {
        assert!(help.text().contains(command));
        let of_command = minilm_with(&[command, "--help"], "").succeeded();
        assert!(of_command.text().contains("Usage: minilm"), "{}", of_command.text());
    }
    assert_eq!(minilm_with(&["embed", "--no-such-option"], "").code, Some(2));
}

#[test]
fn bench_measures_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let (report, model) = (folder.path().join("report.json"), fixture(FOLDER));
    let bench = |more: &[&str]| {
        let arguments = [&["bench", "--model", model.to_str().unwrap(), "--workloads", "W1,L16,l32,W4,W5", "--runs", "2"], more].concat();
        minilm_with(&arguments, "")
    };
    let json = bench(&["--json"]).succeeded();
    assert!(json.stderr.contains("left out W4 (16 texts of 512 tokens): the model takes texts of up to 64 tokens"), "{}", json.stderr);
    let found = &json.json_lines()[0];
    assert!(found["adapter"]["name"].is_string() && found["date"].is_string(), "{found}");
    let workload = &found["models"][0]["workloads"][0];
    assert_eq!((&workload["name"], &workload["tokens"], &workload["runs"]), (&"W1".into(), &12.into(), &2.into()));
    let times = ["seconds", "tokenize_seconds", "tokenize_all_cores_seconds", "pack_seconds", "record_seconds", "submit_seconds"];
    for number in times.into_iter().chain(["texts_per_second", "operations_per_second"]) {
        assert!(workload[number].as_f64() > Some(0.0), "{number}: {workload}");
    }
    let [dispatches, seconds] = [&found["models"][0]["dispatches"], &found["models"][0]["workloads"][2]["fastest"]];
    assert_eq!(workload["barriers"].as_u64(), dispatches.as_u64().map(|dispatches| dispatches - 1));
    let ratio = seconds.as_f64().unwrap() / found["models"][0]["workloads"][1]["fastest"].as_f64().unwrap();
    // What is read from JSON may differ in the last digit from what was written.
    assert!((found["models"][0]["ratios"][0]["ratio"].as_f64().unwrap() / ratio - 1.0).abs() < 1e-12, "{found}");
    let kernels = found["models"][0]["kernels"].as_array().unwrap();
    let dispatches: u64 = kernels.iter().map(|kernel| kernel["dispatches"].as_u64().unwrap()).sum();
    if !kernels.is_empty() {
        assert_eq!(Some(dispatches), found["models"][0]["dispatches"].as_u64());
        let products = found["models"][0]["products"].as_array().unwrap();
        let shapes: Vec<_> =
            products.iter().map(|product| (product["inner"].as_u64().unwrap(), product["outer"].as_u64().unwrap())).collect();
        assert_eq!(shapes, [(96, 288), (96, 384), (384, 96)]);
        assert!(products.iter().all(|product| product["seconds"].as_f64() > Some(0.0)));
    }
    // A report of an earlier version lacks what was added since.
    let mut earlier = found.clone();
    earlier["models"][0].as_object_mut().unwrap().remove("products");
    fs::write(&report, earlier.to_string()).unwrap();
    let compared = bench(&["--compare", report.to_str().unwrap()]).succeeded();
    assert!(
        compared.text().contains("W1   one sentence of 12 tokens") && compared.stderr.contains("times the speed of"),
        "{}",
        compared.stderr
    );
    earlier["models"][0]["name"] = "another".into();
    fs::write(&report, earlier.to_string()).unwrap();
    assert!(bench(&["--compare", report.to_str().unwrap()]).succeeded().stderr.contains("there is nothing to compare"));
    fs::write(&report, "{").unwrap();
    assert!(bench(&["--compare", report.to_str().unwrap()]).refused().contains("expected a report"));
    assert!(minilm_with(&["bench", "--runs", "0"], "").refused().contains("`--runs`: expected 1 or more, found 0: raise it"));
    assert!(minilm_with(&["bench", "--workloads", "W9"], "").refused().contains("no workload `W9`: choose from W1, W2, W3, W3u, W4, W6"));
}

#[test]
fn doctor_tries_everything_and_tune_keeps_what_is_fastest() {
    let run = minilm_with(&["doctor"], "").succeeded();
    let report = run.text();
    for kernel in ["embedding", "matmul", "attention", "layer_norm", "pooling", "normalize", "gather", "vocabulary", "digest", "top_k"] {
        assert!(report.lines().any(|line| line.starts_with(kernel) && line.contains("right, ")), "{kernel}: {report}");
    }
    assert!(report.contains("whole model beside f64: right") && report.contains("all of it right"), "{report}");

    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("table.json");
    let table = table.to_str().unwrap();
    let run = minilm_with(&["tune", "--output", table, "--json"], "").succeeded();
    assert_eq!(run.json_lines()[0]["version"], env!("CARGO_PKG_VERSION"));
    let embed = |more: &[&str]| minilm_with(&[&["embed", "--format", "f32", "a text"], more].concat(), "").succeeded();
    // On a busy machine another form may win, with other last bits.
    let (tuned, off) = (embed(&["--tuning", table]), embed(&["--tuning", "off"]));
    assert!(minilm::cosine(&floats(&tuned.stdout), &floats(&off.stdout)) > 0.999_999_9);
    // A table of another driver is ignored, and says so.
    let text = std::fs::read_to_string(table).unwrap().replace("\"driver\": \"", "\"driver\": \"not ");
    std::fs::write(table, text).unwrap();
    let foreign = embed(&["--tuning", table]);
    assert_eq!(foreign.stdout, off.stdout);
    assert!(
        foreign.stderr.contains("minilm: warning: the tuning table is of") && foreign.stderr.contains("it is ignored"),
        "{}",
        foreign.stderr
    );
    // Fewer bytes of weights, nearly the same numbers.
    let (whole, half) = (floats(&tuned.stdout), floats(&embed(&["--weights", "f16"]).stdout));
    assert!(minilm::cosine(&whole, &half) > 0.9999);
    let in_bytes = floats(&embed(&["--arithmetic", "int8"]).stdout);
    assert!(minilm::cosine(&whole, &in_bytes) > 0.999 && in_bytes != whole);
    let run = minilm_with(&["embed", "--arithmetic", "int8", "--weights", "f16", "a text"], "");
    let expected = "arithmetic in int8 takes weights in int8, but they were asked for in f16: leave one of the two out";
    assert!(run.refused().contains(expected), "{}", run.stderr);
}
