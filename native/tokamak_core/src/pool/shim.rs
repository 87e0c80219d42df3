// SPDX-License-Identifier: Apache-2.0
//! The queue and the semaphore of the pool, and small ones of the same behaviour for loom, which
//! cannot see inside those.

#[cfg(not(loom))]
pub(crate) use crossbeam_queue::SegQueue as Queue;
#[cfg(loom)]
pub(crate) use modelled::{Queue, Semaphore};

/// A semaphore that, once closed, keeps nobody waiting.
#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct Semaphore(tokio::sync::Semaphore);

#[cfg(not(loom))]
impl Semaphore {
    pub(crate) fn new(permits: usize) -> Self {
        Self(tokio::sync::Semaphore::new(permits))
    }

    /// Waits for a permit and consumes it, or for the close.
    pub(crate) async fn take(&self) {
        if let Ok(permit) = self.0.acquire().await {
            permit.forget();
        }
    }

    pub(crate) fn release_one(&self) {
        self.0.add_permits(1);
    }

    pub(crate) fn close(&self) {
        self.0.close();
    }
}

#[cfg(loom)]
mod modelled {
    use loom::sync::Mutex;
    use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::collections::VecDeque;
    use std::future::poll_fn;
    use std::task::{Poll, Waker};

    #[derive(Debug)]
    pub(crate) struct Queue<T> {
        items: Mutex<VecDeque<T>>,
        /// Read without the lock and without order: whoever relies on `is_empty` needs fences.
        len: AtomicUsize,
    }

    impl<T> Queue<T> {
        pub(crate) fn new() -> Self {
            Self {
                items: Mutex::new(VecDeque::new()),
                len: AtomicUsize::new(0),
            }
        }

        pub(crate) fn push(&self, item: T) {
            let mut items = self.items.lock().unwrap();
            items.push_back(item);
            self.len.store(items.len(), Relaxed);
        }

        pub(crate) fn pop(&self) -> Option<T> {
            let mut items = self.items.lock().unwrap();
            let item = items.pop_front();
            self.len.store(items.len(), Relaxed);
            item
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.len.load(Relaxed) == 0
        }
    }

    #[derive(Debug, Default)]
    struct State {
        permits: usize,
        closed: bool,
        waiting: Vec<Waker>,
    }

    #[derive(Debug)]
    pub(crate) struct Semaphore(Mutex<State>);

    impl Semaphore {
        pub(crate) fn new(permits: usize) -> Self {
            Self(Mutex::new(State {
                permits,
                ..State::default()
            }))
        }

        pub(crate) async fn take(&self) {
            poll_fn(|context| {
                let mut state = self.0.lock().unwrap();
                if state.closed {
                    return Poll::Ready(());
                }
                if state.permits > 0 {
                    state.permits -= 1;
                    return Poll::Ready(());
                }
                state.waiting.push(context.waker().clone());
                Poll::Pending
            })
            .await;
        }

        pub(crate) fn release_one(&self) {
            self.change(|state| state.permits += 1);
        }

        pub(crate) fn close(&self) {
            self.change(|state| state.closed = true);
        }

        /// Wakes all who wait, outside the lock; those that get nothing wait again.
        fn change(&self, change: impl FnOnce(&mut State)) {
            let mut state = self.0.lock().unwrap();
            change(&mut state);
            let waiting = std::mem::take(&mut state.waiting);
            drop(state);
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}
