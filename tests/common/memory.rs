//! How much memory something takes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fs, thread};

/// Bytes of a process: what is its own, and what can be read again from files whenever it is needed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    pub own: u64,
    pub of_files: u64,
}

impl Memory {
    /// Of this process now; `None` where there is no `/proc`.
    pub fn now() -> Option<Self> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let bytes = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(1024 * line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?)
        };
        Some(Self { own: bytes("RssAnon:")? + bytes("RssShmem:")?, of_files: bytes("RssFile:")? })
    }
}

/// What `work` gives, and the most that each part of this process's memory grows meanwhile; looks every few milliseconds.
pub fn growth<T>(work: impl FnOnce() -> T) -> (T, Option<Memory>) {
    let Some(before) = Memory::now() else { return (work(), None) };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = || {
            let mut most = before;
            while !done.load(Ordering::Relaxed) {
                let now = Memory::now().unwrap_or_default();
                most = Memory { own: most.own.max(now.own), of_files: most.of_files.max(now.of_files) };
                thread::sleep(Duration::from_millis(3));
            }
            Memory { own: most.own - before.own, of_files: most.of_files - before.of_files }
        };
        let watcher = scope.spawn(watch);
        let result = work();
        done.store(true, Ordering::Relaxed);
        (result, watcher.join().ok())
    })
}
