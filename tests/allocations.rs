//! What a request allocates on the host once earlier ones have warmed up: nothing by this crate.
//!
//! wgpu itself allocates for every pass that it records and every submit, so a bare count would say little. The allocator here keeps the
//! stack of each allocation of the measured thread instead, and an allocation belongs to whoever stands nearest to it on its stack:
//! wgpu (the crate, wgpu-core, wgpu-hal), or this crate, also where a closure of ours runs within wgpu. The standard library is nobody:
//! what a `Vec` allocates is charged to who grew it. An allocation that belongs to neither is counted as ours.
//!
//! One test in a program of its own: the allocator is the whole program's.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};

use common::fixture;
use common::gpu::noop;
use minilm::{Embedder, Sequence, wgpu};

#[global_allocator]
static WATCHED: Watched = Watched;

struct Watched;

thread_local! {
    static WATCHING: Cell<bool> = const { Cell::new(false) };
    static STACKS: RefCell<Vec<Backtrace>> = const { RefCell::new(Vec::new()) };
}

/// Keeps the stack of an allocation, except of those that keeping it makes.
fn keep() {
    if WATCHING.try_with(|watching| watching.replace(false)).unwrap_or(false) {
        STACKS.with_borrow_mut(|stacks| stacks.push(Backtrace::force_capture()));
        WATCHING.set(true);
    }
}

// SAFETY: every call is the system allocator's, with the caller's own arguments.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        keep();
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        keep();
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        keep();
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// The stacks of wgpu's allocations during `work`, and of all others.
fn allocations(work: impl FnOnce()) -> (Vec<String>, Vec<String>) {
    WATCHING.set(true);
    work();
    WATCHING.set(false);
    STACKS.take().iter().map(Backtrace::to_string).partition(|stack| of_wgpu(stack))
}

/// Whether wgpu stands nearer to an allocation than this crate, by the files of the functions, innermost first: names of inlined ones lack
/// their crate.
fn of_wgpu(stack: &str) -> bool {
    let files = stack.lines().filter_map(|line| line.trim_start().strip_prefix("at ")).map(|file| file.replace('\\', "/"));
    let owner = |file: String| match file {
        file if file.split('/').any(|folder| folder.starts_with("wgpu-")) => Some(true),
        file if file.starts_with("./src/") => Some(false),
        _ => None,
    };
    files.filter_map(owner).next().unwrap_or(false)
}

#[test]
fn a_request_allocates_nothing_of_its_own() {
    let embedder =
        Embedder::builder().gpu(noop(wgpu::Limits::default()).1).token_budget(512).from_dir(fixture("tiny-minilm-bert-l3-h96")).unwrap();
    let ids: Vec<u32> = (0..60).collect();
    let many: Vec<Sequence> = (0..700).map(|i| Sequence { ids: &ids[..1 + i * 7 % 60], type_ids: &[], selected: &[] }).collect();
    let mut rows = vec![0.0; many.len() * embedder.dimension()];
    for _ in 0..3 {
        embedder.embed_tokens_into(&many, &mut rows).unwrap();
    }
    assert!(embedder.model().stats().last.batches > 3, "more batches than can be in flight");

    for texts in [&many[..], &many[..1], &many[650..]] {
        let rows = &mut rows[..texts.len() * embedder.dimension()];
        let (of_wgpu, own) = allocations(|| embedder.embed_tokens_into(texts, rows).unwrap());
        assert!(of_wgpu.len() > 10, "stacks without files?\n{}", own.join("\n"));
        assert!(own.is_empty(), "{} texts: {} allocations, such as\n{}", texts.len(), own.len(), own[0]);
    }

    // The measurement itself: the rows and lengths that this call returns are seen.
    let (_, own) = allocations(|| drop(embedder.embed_tokens(&many[..1])));
    assert_eq!(own.len(), 2, "{}", own.join("\n"));
}
