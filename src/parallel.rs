//! Work on all cores. With threads of its own: a pool that the caller's own work fills might never get to it.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread;

/// Threads that can run at once.
pub fn cores() -> usize {
    static CORES: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(1, Into::into));
    *CORES
}

/// `work` on each item, on the calling thread and as many more as make `threads`; results in the order of the items.
pub fn map<T: Sync, R: Send>(items: &[T], threads: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = threads.min(items.len());
    if threads < 2 {
        return items.iter().map(work).collect();
    }
    let mut results: Vec<Option<R>> = items.iter().map(|_| None).collect();
    // Each takes the next item when it has finished one, since items differ in size.
    let open = Mutex::new(items.iter().zip(&mut results));
    let next = || open.lock().unwrap_or_else(PoisonError::into_inner).next();
    let run = || {
        while let Some((item, result)) = next() {
            *result = Some(work(item));
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // What a thread that the system refuses would have done, the others do.
            _ = thread::Builder::new().name("minilm".into()).spawn_scoped(scope, run);
        }
        run();
    });
    results.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn results_keep_their_order_and_every_thread_works() {
        let items: Vec<usize> = (0..1000).collect();
        for threads in [0, 1, 2, 7, 2000] {
            assert_eq!(map(&items, threads, |i| i * i), items.iter().map(|i| i * i).collect::<Vec<_>>());
        }
        assert!(map(&[(); 0], 4, |_| ()).is_empty());
        // Two items that wait for each other need two threads.
        let barrier = std::sync::Barrier::new(2);
        let ids = map(&[(); 2], 2, |_| (barrier.wait(), thread::current().id()).1);
        assert_eq!(ids.into_iter().collect::<HashSet<_>>().len(), 2);
    }
}
