//! A fixed number of things that callers borrow, first come, first served, blocking or not.
//!
//! What comes back goes straight to who has waited longest, so that a long call that gives and takes cannot starve a short one.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::channel::oneshot;

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
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn hands_over_in_the_order_of_asking() {
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
    }

    #[test]
    fn a_dropped_waiter_loses_nothing() {
        let pool = Pool::new(vec![7]);
        let held = pool.try_take().unwrap();
        let mut gone = Box::pin(pool.take());
        assert!(gone.as_mut().now_or_never().is_none());
        drop(gone);
        let mut served = Box::pin(pool.take());
        assert!(served.as_mut().now_or_never().is_none());
        drop(held);
        drop(served); // it was handed over, but never picked up
        assert_eq!(*pool.try_take().unwrap(), 7);
    }

    #[test]
    fn many_threads_never_hold_more_than_there_are() {
        let pool = Pool::new(vec![(); 3]);
        let (held, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let lease = pollster::block_on(pool.take());
                        most.fetch_max(held.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        held.fetch_sub(1, Ordering::SeqCst);
                        drop(lease);
                    }
                });
            }
        });
        assert!(most.into_inner() <= 3);
        assert_eq!(pool.lock().free.len(), 3);
    }
}
