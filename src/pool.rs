//! A fixed number of things that callers borrow, first come, first served, blocking or not.
//!
//! What comes back goes straight to who has waited longest, so that a long call that gives and takes cannot starve a short one.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, PoisonError};
#[cfg(not(test))]
use std::sync::{Mutex, MutexGuard};

use futures::channel::oneshot;
// Tests decide at each lock which thread goes on.
#[cfg(test)]
use shuttle::sync::{Mutex, MutexGuard};

pub struct Pool<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    free: Vec<T>,
    waiting: VecDeque<oneshot::Sender<Lease<T>>>,
}

/// A borrowed thing; dropping it gives it back.
pub struct Lease<T> {
    pool: Arc<Pool<T>>,
    thing: Option<T>,
}

impl<T> Pool<T> {
    pub fn new(things: Vec<T>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { free: things, waiting: VecDeque::new() }) })
    }

    /// One at once, if there is one that nobody waits for.
    pub fn try_take(self: &Arc<Self>) -> Option<Lease<T>> {
        self.lock().free.pop().map(|thing| self.lease(thing))
    }

    /// One when it is this caller's turn.
    pub async fn take(self: &Arc<Self>) -> Lease<T> {
        loop {
            let turn = {
                let mut state = self.lock();
                match state.free.pop() {
                    Some(thing) => return self.lease(thing),
                    None => {
                        let (sender, receiver) = oneshot::channel();
                        state.waiting.push_back(sender);
                        receiver
                    }
                }
            };
            if let Ok(lease) = turn.await {
                return lease;
            }
        }
    }

    fn lease(self: &Arc<Self>, thing: T) -> Lease<T> {
        Lease { pool: self.clone(), thing: Some(thing) }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Deref for Lease<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // Only `drop` takes the thing out.
        self.thing.as_ref().expect("a lease holds its thing until it is dropped")
    }
}

impl<T> DerefMut for Lease<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.thing.as_mut().expect("a lease holds its thing until it is dropped")
    }
}

impl<T> Drop for Lease<T> {
    fn drop(&mut self) {
        let Some(thing) = self.thing.take() else { return };
        let next = {
            let mut state = self.pool.lock();
            // A caller that has stopped waiting is passed over.
            loop {
                match state.waiting.pop_front() {
                    Some(waiter) if waiter.is_canceled() => continue,
                    Some(waiter) => break waiter,
                    None => return state.free.push(thing),
                }
            }
        };
        // A lease that cannot be delivered any more comes back here by its own drop, outside of the lock.
        drop(next.send(self.pool.lease(thing)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use shuttle::future::block_on;
    use shuttle::thread;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Runs a test in a thousand orders of its threads by chance, and in as many that differ by a few switches at the worst places. A
    /// deadlock is a panic.
    fn in_many_orders(test: impl Fn() + Send + Sync + Clone + 'static) {
        shuttle::check_random(test.clone(), 1000);
        shuttle::check_pct(test, 1000, 4);
    }

    #[test]
    fn hands_over_in_the_order_of_asking() {
        let test = || {
            let pool = Pool::new(vec![7]);
            let held = pool.try_take().unwrap();
            assert!(pool.try_take().is_none());
            let mut first = Box::pin(pool.take());
            let mut second = Box::pin(pool.take());
            assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
            drop(held);
            assert!(pool.try_take().is_none(), "the first in the queue has it");
            assert!(second.as_mut().now_or_never().is_none());
            let lease = first.now_or_never().unwrap();
            drop(lease);
            assert_eq!(*second.now_or_never().unwrap(), 7);
        };
        shuttle::check_random(test, 1); // one thread has one order
    }

    /// Whether it waits when the thing is given back, has been handed it but not yet picked it up, or comes too late.
    #[test]
    fn a_dropped_waiter_loses_nothing() {
        in_many_orders(|| {
            let pool = Pool::new(vec![7]);
            let held = pool.try_take().unwrap();
            let mut gone = Box::pin(pool.take());
            assert!(gone.as_mut().now_or_never().is_none());
            let back = thread::spawn(|| drop(held));
            drop(gone);
            let served = block_on(pool.take());
            back.join().unwrap();
            assert!(pool.try_take().is_none());
            drop(served);
            assert_eq!(*pool.try_take().unwrap(), 7);
        });
    }

    /// Things held now and at most.
    #[derive(Default)]
    struct Held {
        now: AtomicUsize,
        most: AtomicUsize,
    }

    /// A lease that is counted.
    struct Counted {
        _lease: Lease<()>,
        held: Arc<Held>,
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.held.now.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Batches as `Runner::run` has them under way: several at a time, and never waiting for a place while holding one.
    async fn run(pool: &Arc<Pool<()>>, held: &Arc<Held>, batches: usize) {
        let mut flying = VecDeque::new();
        for _ in 0..batches {
            let lease = loop {
                if let Some(lease) = pool.try_take() {
                    break lease;
                }
                match flying.pop_front() {
                    Some(oldest) => drop::<Counted>(oldest),
                    None => break pool.take().await,
                }
            };
            held.most.fetch_max(held.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            flying.push_back(Counted { _lease: lease, held: held.clone() });
            shuttle::future::yield_now().await;
        }
    }

    #[test]
    fn many_threads_share_few_things_without_a_deadlock() {
        in_many_orders(|| {
            let (pool, held) = (Pool::new(vec![(); 3]), Arc::new(Held::default()));
            let start = |i: usize| {
                let (pool, held) = (pool.clone(), held.clone());
                thread::spawn(move || match i % 4 {
                    // A future that is dropped while it waits, or while batches are under way.
                    3 => {
                        let mut run = Box::pin(run(&pool, &held, 3));
                        for _ in 0..i / 8 {
                            if run.as_mut().now_or_never().is_some() {
                                return;
                            }
                            thread::yield_now();
                        }
                    }
                    _ => block_on(run(&pool, &held, 1 + i % 3)),
                })
            };
            let threads: Vec<_> = (0..32).map(start).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert!(held.most.load(Ordering::SeqCst) <= 3);
            assert_eq!(held.now.load(Ordering::SeqCst), 0);
            assert_eq!(pool.lock().free.len(), 3, "a place was lost");
        });
    }
}
