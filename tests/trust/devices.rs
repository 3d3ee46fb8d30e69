//! Devices that are lost, and no dispatch so long that a driver takes its device for lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures::FutureExt;
use minilm::gpu::GpuOptions;
use minilm::{Embedder, Embeddings, Error, Gpu};

use super::common::files::copy;
use super::common::fixture;
use super::common::golden::Golden;
use super::common::gpu::gpu;
use super::{FOLDER, place_of, texts};

#[test]
fn a_lost_device_is_opened_again_and_the_call_repeated() {
    let golden = Golden::fixture(FOLDER);
    let gpu = Gpu::new(GpuOptions::default()).unwrap();
    let embedder = Embedder::builder().gpu(gpu.clone()).from_dir(&golden.folder).unwrap();
    let other = Embedder::builder().gpu(gpu.clone()).from_dir(&golden.folder).unwrap();
    let expected = embedder.embed(&texts()).unwrap();

    gpu.device().destroy();
    let right = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                assert_eq!(embedder.embed(&texts()).unwrap().as_slice(), expected.as_slice());
                right.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(right.into_inner(), 8);
    let stats = embedder.model().stats();
    assert_eq!(stats.recoveries, 1, "one of the threads did it for all");
    assert!(stats.total.batches >= 9);
    // Another model of the same device goes where this one went.
    assert_eq!(other.embed(&texts()).unwrap().as_slice(), expected.as_slice());
    assert!(other.model().gpu().device() == embedder.model().gpu().device());

    // And once more, with a future.
    embedder.model().gpu().device().destroy();
    assert_eq!(pollster::block_on(embedder.embed_async(&texts())).unwrap().as_slice(), expected.as_slice());
    assert_eq!(embedder.model().stats().recoveries, 2);

    // In the middle of a call, with batches in flight.
    let many = vec!["some words of a text"; 600];
    let row = embedder.embed(&many[..1]).unwrap();
    let mut future = Box::pin(embedder.embed_async(&many));
    if future.as_mut().now_or_never().is_none() {
        embedder.model().gpu().device().destroy();
        assert!(pollster::block_on(future).unwrap().rows().all(|other| other == row.as_slice()));
        assert_eq!(embedder.model().stats().recoveries, 3);
    }
}

#[test]
fn a_lost_device_gets_the_same_model_again_or_none() {
    let folder = copy(&fixture(FOLDER), &["config.json", "model.safetensors", "tokenizer.json"]);
    let path = folder.path().join("model.safetensors");
    let embedder = Embedder::builder().gpu(Gpu::new(GpuOptions::default()).unwrap()).from_dir(folder.path()).unwrap();
    let expected = embedder.embed(&texts()).unwrap();
    let lose = || embedder.model().gpu().device().destroy();

    // Another number in the same file: the last bit of one weight.
    let right = std::fs::read(&path).unwrap();
    let mut wrong = right.clone();
    wrong[place_of("layer.1.intermediate.dense.weight", &right).start + 400] ^= 1;
    std::fs::write(&path, wrong).unwrap();
    lose();
    for _ in 0..2 {
        let error = embedder.embed(&texts()).err().unwrap();
        let message = error.to_string();
        assert!(matches!(error, Error::Checkpoint { .. }), "{error:?}");
        assert!(
            message.contains(folder.path().to_str().unwrap()) && message.contains("have changed since the model was loaded"),
            "{message}"
        );
    }
    std::fs::write(&path, &right[..right.len() / 2]).unwrap();
    let message = embedder.embed(&texts()).err().unwrap().to_string();
    assert!(message.contains("was cut since"), "{message}");
    std::fs::write(&path, right).unwrap();
    assert!(embedder.embed(&texts()).unwrap() == expected);

    // Another model in the place of this one: what is loaded is still this one. Moved away, since Wine keeps the name of an open file that is removed.
    let other = fixture("tiny-minilm-bert-odd-h80");
    for name in ["config.json", "model.safetensors"] {
        std::fs::rename(folder.path().join(name), folder.path().join(format!("former {name}"))).unwrap();
        std::fs::copy(other.join(name), folder.path().join(name)).unwrap();
    }
    lose();
    assert!(embedder.embed(&texts()).unwrap() == expected);
    assert_eq!(embedder.model().stats().recoveries, 2);
}

#[test]
fn who_does_not_want_that_or_handed_the_device_in_gets_an_error() {
    let gpu = Gpu::new(GpuOptions::default()).unwrap();
    let embedder = Embedder::builder().gpu(gpu.clone()).recover(false).from_dir(fixture(FOLDER)).unwrap();
    gpu.device().destroy();
    let error = embedder.embed(["x"]).unwrap_err();
    assert!(matches!(error, Error::DeviceLost { .. }) && error.to_string().contains("open a new `Gpu`"), "{error}");

    let own = Gpu::new(GpuOptions::default()).unwrap();
    let shared = Gpu::from_device(own.device().clone(), own.queue().clone());
    let embedder = Embedder::builder().gpu(shared).from_dir(fixture(FOLDER)).unwrap();
    own.device().destroy();
    let error = embedder.embed(["x"]).unwrap_err();
    assert!(matches!(error, Error::DeviceLost { .. }) && error.to_string().contains("Gpu::from_device"), "{error}");
}

/// What `work` gives, on a thread of its own; fails where it takes minutes, since a call that hangs would hang the test too.
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(std::time::Duration::from_secs(120)).expect("a call on a lost device hangs, or it panicked")
}

/// As for a device of the app's own: the batches that it holds never come back, and the call must not wait for them for ever.
#[test]
fn a_shared_device_that_is_lost_in_the_middle_of_a_call_is_an_error_and_never_a_hang() {
    let many = vec!["some words of a text"; 1000];
    let (mut lost, at_once) = ([0; 2], Arc::new(AtomicUsize::new(0)));
    for round in 0..4 {
        let own = Gpu::new(GpuOptions::default()).unwrap();
        let shared = Gpu::from_device(own.device().clone(), own.queue().clone());
        let embedder = Arc::new(Embedder::builder().gpu(shared).token_budget(256).from_dir(fixture(FOLDER)).unwrap());
        let row = embedder.embed(&many[..1]).unwrap();
        let begin = Instant::now();
        embedder.embed(&many).unwrap();
        let whole = begin.elapsed();
        let mut ended = |how: usize, outcome: Result<Embeddings, Error>| match outcome {
            // It was faster.
            Ok(rows) => assert!(rows.rows().len() == many.len() && rows.rows().all(|other| other == row.as_slice())),
            Err(error) => {
                assert!(matches!(error, Error::DeviceLost { .. }) && error.to_string().contains("Gpu::from_device"), "{error:?}");
                lost[how] += 1;
            }
        };
        let (device, texts, model, at_once) = (own.device().clone(), many.clone(), embedder.clone(), at_once.clone());
        if round % 2 == 0 {
            ended(
                0,
                in_time(move || {
                    let mut future = Box::pin(model.embed_async(&texts));
                    let first = future.as_mut().now_or_never();
                    at_once.fetch_add(usize::from(first.is_some()), Ordering::Relaxed);
                    device.destroy();
                    first.unwrap_or_else(|| pollster::block_on(future))
                }),
            );
        } else {
            ended(
                1,
                in_time(move || {
                    let calling = std::thread::spawn(move || model.embed(&texts));
                    std::thread::sleep(whole / 2);
                    device.destroy();
                    calling.join().unwrap()
                }),
            );
        }
        // Whoever asks again is told the same.
        let error = in_time(move || embedder.embed(["x"])).unwrap_err();
        assert!(matches!(error, Error::DeviceLost { .. }), "{error:?}");
    }
    // GL computes while the caller submits, so that a future is done when it was asked once.
    let at_once = at_once.load(Ordering::Relaxed);
    assert!(lost[0] + at_once > 0 && lost[1] > 0, "every call was over before its device was lost: {lost:?}, {at_once} at once");
}

/// By the GPU's own clock, with a limit that this adapter would miss by far: it stands for one that is as much slower.
#[cfg(feature = "bench")]
#[test]
fn no_dispatch_takes_longer_than_the_limit_once_the_adapter_is_known() {
    let embedder = Embedder::builder().gpu(gpu()).from_dir(fixture(FOLDER)).unwrap();
    let model = embedder.model();
    if !gpu().can_profile() {
        return println!("not tried on {}, which has no timestamps", gpu().info().name);
    }
    let ids: Vec<u32> = (5..5 + model.max_length() as u32).collect();
    let texts = vec![minilm::Sequence { ids: &ids, ..Default::default() }; model.token_budget() / ids.len()];
    let longest = || {
        embedder.embed_tokens(&texts).unwrap(); // as a warm-up
        let timed = model.profile(&texts, 5).unwrap();
        timed.into_iter().map(|step| (step.seconds, step.kernel)).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
    };
    model.set_longest_dispatch(f64::INFINITY);
    longest(); // The first batches are small, whatever the limit.
    let (unlimited, _) = longest();
    assert_eq!(model.stats().last.batches, 1);
    let limit = unlimited / 16.0;
    model.set_longest_dispatch(limit);
    // What else the machine does makes some longer.
    let (seconds, kernel) = (0..5).map(|_| longest()).min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    println!("{kernel}: {seconds:.6} s, limit {limit:.6} s, {} batches", model.stats().last.batches);
    // How much of a batch's time its longest dispatch takes is known by its share of the work alone, and some kernels do more in a second.
    assert!(seconds < 2.0 * limit, "{kernel} took {seconds} s, with a limit of {limit}");
    // Not by batches of a few tokens, of which a submit would take most of the time.
    assert!(model.stats().last.batches < 100, "{:?}", model.stats().last);
}
