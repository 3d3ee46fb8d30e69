//! What the runtime promises around the numbers: what moves, what stays, threads, futures, shared devices, refusals.

mod common;

use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use common::compare::{Bound, Table};
use common::fixture;
use common::golden::Golden;
use common::gpu::{gpu, read};
use futures::FutureExt;
use minilm::{Embedder, Error, Gpu, GpuOptions, Input, Pooling, Sequence, wgpu};

const FOLDER: &str = "tiny-minilm-bert-l3-h96";

fn embedder() -> Embedder {
    Embedder::builder().gpu(gpu()).from_dir(fixture(FOLDER)).unwrap()
}

/// Bytes that a batch may upload: two values a token, two a text and two at the end, and the uniform of four.
fn upload(tokens: u64, texts: u64) -> u64 {
    4 * (2 * tokens + 2 * (texts + 1) + 4)
}

#[test]
fn weights_are_uploaded_once_and_a_request_uploads_only_its_tokens() {
    let embedder = embedder();
    let loaded = embedder.model().stats();
    // Every value of the encoder, and nothing twice: hidden 96 and intermediate 384 need no padding.
    let (hidden, intermediate) = (96, 384);
    let config = embedder.model().config();
    let tables = (config.vocabulary + config.position_rows + config.token_types) * hidden;
    let layer = 4 * (hidden + 1) * hidden + 2 * hidden * intermediate + intermediate + hidden + 4 * hidden;
    let part_uniform = 16;
    assert_eq!(loaded.weight_bytes_uploaded, 4 * (tables + 2 * hidden + config.layers * layer) as u64 + part_uniform);
    // Each tensor begins where a binding may.
    let tensors = 5 + 12 * config.layers as u64;
    assert!((0..256 * tensors).contains(&(loaded.weight_bytes - loaded.weight_bytes_uploaded)), "{loaded:?}");
    assert_eq!(loaded.total, minilm::Counters::default());

    let texts = ["one text", "and a second, longer one", ""];
    let embeddings = embedder.embed(texts).unwrap();
    let tokens: u64 = embeddings.lengths().iter().map(|length| length.used as u64).sum();
    let stats = embedder.model().stats();
    assert_eq!((stats.last.batches, stats.last.submits, stats.last.texts, stats.last.tokens), (1, 1, 3, tokens));
    assert_eq!(stats.last.bytes_uploaded, upload(tokens, 3));
    assert_eq!(stats.last.bytes_read, 3 * 96 * 4);
    // Embedding, seven kernels a layer, pooling.
    assert_eq!(stats.last.dispatches, 1 + 7 * 3 + 1);
    assert_eq!(embedder.model().kernels().len() as u64, stats.last.dispatches);

    embedder.embed(["again"]).unwrap();
    let stats = embedder.model().stats();
    assert_eq!((stats.total.submits, stats.total.texts), (2, 4));
    assert_eq!(stats.weight_bytes_uploaded, loaded.weight_bytes_uploaded);
    assert_eq!((stats.weight_bytes, stats.activation_bytes), (loaded.weight_bytes, loaded.activation_bytes));
}

#[test]
fn a_large_call_is_split_by_the_token_budget() {
    let embedder = Embedder::builder().gpu(gpu()).token_budget(64).from_dir(fixture(FOLDER)).unwrap();
    let texts: Vec<String> = (0..40).map(|i| "word ".repeat(1 + i % 13)).collect();
    let embeddings = embedder.embed(&texts).unwrap();
    let tokens: u64 = embeddings.lengths().iter().map(|length| length.used as u64).sum();
    let last = embedder.model().stats().last;
    assert!(last.batches >= tokens.div_ceil(64) && last.batches == last.submits, "{last:?}");
    assert_eq!(last.bytes_uploaded, upload(tokens, 40) + (last.batches - 1) * upload(0, 0));
    assert!(embedder.model().stats().activation_bytes < 1 << 20);
}

#[test]
fn truncation_is_visible() {
    let embedder = Embedder::builder().gpu(gpu()).max_length(16).from_dir(fixture(FOLDER)).unwrap();
    let long = "word ".repeat(100_000);
    let embeddings = embedder.embed(["short", &long]).unwrap();
    let [short, long] = embeddings.lengths() else { panic!() };
    assert!(!short.truncated() && short.used == short.total);
    assert!(long.truncated() && long.used == 16 && long.total >= 100_002, "{long:?}");
}

#[test]
fn an_empty_text_embeds_its_special_tokens() {
    let embeddings = embedder().embed([""]).unwrap();
    assert_eq!(embeddings.lengths()[0].used, 2);
    assert!(embeddings.as_slice().iter().all(|value| value.is_finite()));
}

#[test]
fn threads_share_one_embedder() {
    let embedder = embedder();
    let golden = Golden::fixture(FOLDER);
    let inputs: Vec<Input> = golden.cases.iter().map(|case| Input { text: &case.text, pair: case.text_pair.as_deref() }).collect();
    let expected = embedder.embed(inputs.iter().copied()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..32 {
            let (embedder, inputs, expected) = (&embedder, &inputs, &expected);
            scope.spawn(move || {
                for round in 0..2 {
                    let first = (thread * 5 + round * 3) % inputs.len();
                    let rows = embedder.embed(inputs[first..].iter().copied()).unwrap();
                    assert_eq!(rows.as_slice(), &expected.as_slice()[first * 96..], "thread {thread}, round {round}");
                }
            });
        }
    });
}

#[test]
fn futures_give_the_same_rows_and_need_no_polling_by_the_caller() {
    let embedder = embedder();
    let texts = ["first", "second text", "a third and last text"];
    let expected = embedder.embed(texts).unwrap();
    let together = pollster::block_on(async {
        let one = embedder.embed_async([texts[0]]);
        let two = embedder.embed_async([texts[1]]);
        let three = embedder.embed_async([texts[2]]);
        futures::join!(one, two, three)
    });
    let rows = [together.0.unwrap(), together.1.unwrap(), together.2.unwrap()].map(|rows| rows.into_vec()).concat();
    assert_eq!(rows, expected.as_slice());
}

#[test]
fn futures_may_move_between_threads() {
    fn send<T: Send>(value: T) -> T {
        value
    }
    let embedder = embedder();
    let future = send(embedder.embed_async(["text"]));
    std::thread::scope(|scope| {
        scope.spawn(move || pollster::block_on(future).unwrap());
    });
}

#[test]
fn a_dropped_future_frees_its_place() {
    struct Nothing;
    impl Wake for Nothing {
        fn wake(self: Arc<Self>) {}
    }
    let embedder = Embedder::builder().gpu(gpu()).token_budget(64).from_dir(fixture(FOLDER)).unwrap();
    let texts = vec!["some words of a text"; 600];
    let waker = Waker::from(Arc::new(Nothing));
    let mut pending = 0;
    for _ in 0..10 {
        // Polled once: batches are in flight, nothing is read. On a busy machine the GPU may be done before the future looks.
        let mut future = Box::pin(embedder.embed_async(&texts));
        pending += usize::from(future.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
    }
    assert!(pending > 0);
    assert_eq!(embedder.embed(&texts).unwrap().len(), 600);
}

#[test]
fn rows_stay_on_the_gpu_in_the_callers_order() {
    let gpu = gpu();
    let embedder = Embedder::builder().gpu(gpu.clone()).token_budget(64).from_dir(fixture(FOLDER)).unwrap();
    let texts: Vec<String> = (0..30).map(|i| "word ".repeat(1 + i * 7 % 13)).collect();
    let expected = embedder.embed(&texts).unwrap();
    let kept = embedder.embed_to_buffer(&texts).unwrap();
    assert_eq!((kept.columns, kept.lengths.as_slice()), (96, expected.lengths()));
    assert_eq!(embedder.model().stats().last.bytes_read, 0);
    assert_eq!(read(&gpu, &kept.buffer.into()), expected.as_slice());

    // Batches are as small as those of other calls while it is not known how slow the adapter is.
    let whole = || Embedder::builder().gpu(gpu.clone()).from_dir(fixture(FOLDER)).unwrap();
    let [embedder, other] = [whole(), whole()];
    let texts = vec!["word ".repeat(50); 60];
    other.embed(&texts).unwrap();
    assert_eq!(read(&gpu, &embedder.embed_to_buffer(&texts).unwrap().buffer.into()), other.embed(&texts).unwrap().as_slice());
    let batches = |embedder: &Embedder| embedder.model().stats().last.batches;
    assert!(batches(&embedder) > 1 && embedder.model().token_budget() > 60 * 52, "{}", batches(&embedder));
}

#[test]
fn an_app_shares_its_device() {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapter = pollster::block_on(instance.request_adapter(&Default::default())).unwrap();
    // Default limits and no features: what an app that knows nothing of this crate asks for.
    let (device, queue) = pollster::block_on(adapter.request_device(&Default::default())).unwrap();
    let shared = Gpu::from_device(device, queue);
    let own = embedder().embed(["a text"]).unwrap();
    let embedder = Embedder::builder().gpu(shared.clone()).from_dir(fixture(FOLDER)).unwrap();
    let rows = embedder.embed(["a text"]).unwrap();
    // Without subgroups another form of the matmul runs: the same sums in the same order, but maybe contracted otherwise.
    let mut table = Table::new("shared device");
    table.close("rows", rows.as_slice(), own.as_slice(), Bound::absolute(2e-5));
    table.finish();
    // A second model on the same device shares its pipelines: none is compiled again.
    let (compiling, checking) = (shared.pipeline_seconds(), shared.check_seconds());
    assert!(checking > 0.0);
    let second = Embedder::builder().gpu(shared.clone()).from_dir(fixture(FOLDER)).unwrap();
    assert_eq!(second.embed(["a text"]).unwrap(), rows);
    assert_eq!((shared.pipeline_seconds(), shared.check_seconds()), (compiling, checking), "nor checked");
    drop(embedder);
    assert_eq!(second.embed(["a text"]).unwrap(), rows, "the first has gone, and its buffers with it");
    Embedder::builder().gpu(shared.clone()).pooling(Pooling::Cls).from_dir(fixture(FOLDER)).unwrap();
    assert!(shared.pipeline_seconds() > compiling && shared.check_seconds() > checking, "another kernel is");
}

#[test]
fn prompts_go_before_every_text() {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture(FOLDER)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let prompts = r#"{"prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt_name": "passage"}"#;
    std::fs::write(folder.path().join("config_sentence_transformers.json"), prompts).unwrap();
    let plain = embedder();
    let load = |name: Option<&str>| {
        let builder = Embedder::builder().gpu(gpu());
        name.map_or(builder.clone(), |name| builder.prompt(name)).from_dir(folder.path())
    };
    assert_eq!(load(Some("query")).unwrap().embed(["x"]).unwrap(), plain.embed(["query: x"]).unwrap());
    assert_eq!(load(None).unwrap().embed(["x"]).unwrap(), plain.embed(["passage: x"]).unwrap());
    let message = load(Some("title")).err().unwrap().to_string();
    assert!(message.contains("no prompt `title`") && message.contains("`passage`, `query`"), "{message}");
}

#[test]
fn bad_calls_are_refused_by_name() {
    let embedder = embedder();
    let config = embedder.model().config().clone();
    let mut table = Table::new("refusals");
    let mut expect = |case: &str, result: Result<String, Error>, words: &[&str]| {
        let message = result.expect_err(case).to_string();
        table.check(case, words.iter().all(|word| message.contains(word)), &message);
    };
    let none: [&str; 0] = [];
    let done = |_| String::new();
    expect("no texts", embedder.embed(none).map(done), &["no texts"]);
    expect("no texts to a buffer", embedder.embed_to_buffer(none).map(|_| String::new()), &["no texts"]);
    let vocabulary = config.vocabulary as u32;
    let id = Sequence { ids: &[1, vocabulary], ..Default::default() };
    expect("id", embedder.embed_tokens(&[id]).map(done), &["text 0", &format!("id {vocabulary}"), "vocabulary"]);
    let long = vec![1; config.max_tokens() + 1];
    let length = Sequence { ids: &long, ..Default::default() };
    expect("length", embedder.embed_tokens(&[length]).map(done), &["text 0", "tokens", "at most"]);
    let empty = Sequence::default();
    expect("no tokens", embedder.embed_tokens(&[Sequence { ids: &[1], ..Default::default() }, empty]).map(done), &["text 1", "no tokens"]);

    let builder = || Embedder::builder().gpu(gpu());
    let load = |builder: minilm::Builder<Embedder>| builder.from_dir(fixture(FOLDER)).map(|_| String::new());
    expect("maximum length", load(builder().max_length(100_000)), &["maximum length 100000", "positions"]);
    expect("maximum length 0", load(builder().max_length(0)), &["maximum length 0"]);
    expect("budget", load(builder().token_budget(3)), &["token budget 3"]);
    expect("budget beyond the adapter", load(builder().token_budget(usize::MAX)), &["token budget", "this adapter can hold"]);
    let named = GpuOptions { adapter_name: Some("no such adapter".into()), ..GpuOptions::default() };
    expect("adapter", Gpu::new(named).map(|_| String::new()), &["no adapter's name contains `no such adapter`", "choose one of"]);
    let nowhere = GpuOptions { backends: Some(wgpu::Backends::empty()), ..GpuOptions::default() };
    expect("no backend", Gpu::new(nowhere).map(|_| String::new()), &["no GPU adapter", "install"]);
    table.finish();
}
