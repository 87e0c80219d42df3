// SPDX-License-Identifier: Apache-2.0
//! The one-wake protocol: at most one wake is under way to a queue's consumer, and none is lost.
//!
//! States of the flag, and who changes them:
//!
//! ```text
//!              push, then notify(): "send the wake"
//!   quiet ---------------------------------------------> notified
//!     ^                                                     |  push, then notify(): nothing to do
//!     |    rearm(): queue still empty                       |
//!     +-----------------------------------------------------+
//!          rearm(): something came in between -> notified again, the consumer goes on by itself
//! ```
//!
//! The race it handles: a producer pushes after the consumer saw the queue empty and before the
//! consumer cleared the flag. Both sides use a read-modify-write of the same flag, so one of them
//! comes second in its modification order and sees what the other did before: either the producer
//! finds the flag cleared and wakes, or the consumer, which looks at the queue again after clearing,
//! finds the push. Counting pushes to decide who wakes does lose wakes; a flag does not.

use crate::sync::{AtomicBool, Ordering};

/// Says who has to wake a queue's consumer.
#[derive(Debug)]
pub struct WakeFlag {
    notified: AtomicBool,
}

impl WakeFlag {
    /// A flag in its quiet state: the first push wakes.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self {
            notified: AtomicBool::new(false),
        }
    }

    /// A flag in its quiet state: the first push wakes.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self {
            notified: AtomicBool::new(false),
        }
    }

    /// To be called after a push. `true`: the caller must send the wake.
    #[must_use]
    pub fn notify(&self) -> bool {
        !self.notified.swap(true, Ordering::AcqRel)
    }

    /// To be called by the consumer when it found nothing more. `true`: something came meanwhile
    /// and the consumer has to go on; `false`: the next push sends a wake.
    #[must_use]
    pub fn rearm(&self, has_more: impl FnOnce() -> bool) -> bool {
        self.notified.swap(false, Ordering::AcqRel);
        has_more() && self.notify()
    }

    /// Whether a wake is under way, or its consumer is at work.
    pub fn is_notified(&self) -> bool {
        self.notified.load(Ordering::Acquire)
    }
}

impl Default for WakeFlag {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::WakeFlag;
    use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;
    use std::collections::VecDeque;

    /// A queue small enough for loom to see inside it, with a mailbox that can hold wakes.
    struct Model {
        items: Mutex<VecDeque<u32>>,
        flag: WakeFlag,
        mailbox: Mutex<usize>,
        arrived: Condvar,
        closed: AtomicBool,
        largest_mailbox: AtomicUsize,
    }

    impl Model {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                items: Mutex::new(VecDeque::new()),
                flag: WakeFlag::new(),
                mailbox: Mutex::new(0),
                arrived: Condvar::new(),
                closed: AtomicBool::new(false),
                largest_mailbox: AtomicUsize::new(0),
            })
        }

        fn wake(&self) {
            let mut mailbox = self.mailbox.lock().unwrap();
            *mailbox += 1;
            self.largest_mailbox.fetch_max(*mailbox, Ordering::Relaxed);
            self.arrived.notify_one();
        }

        fn push(&self, item: u32) {
            self.items.lock().unwrap().push_back(item);
            if self.flag.notify() {
                self.wake();
            }
        }

        fn close(&self) {
            self.closed.store(true, Ordering::Release);
            if self.flag.notify() {
                self.wake();
            }
        }

        fn wait(&self) {
            let mut mailbox = self.mailbox.lock().unwrap();
            while *mailbox == 0 {
                mailbox = self.arrived.wait(mailbox).unwrap();
            }
            *mailbox -= 1;
        }

        fn has_more(&self) -> bool {
            !self.items.lock().unwrap().is_empty()
        }

        /// Takes all there is, as a drain does, until the flag is quiet again.
        fn drain(&self, taken: &mut Vec<u32>, stop: impl Fn(&[u32]) -> bool) {
            loop {
                while let Some(item) = {
                    let item = self.items.lock().unwrap().pop_front();
                    item
                } {
                    taken.push(item);
                }
                if stop(taken) || !self.flag.rearm(|| self.has_more()) {
                    return;
                }
            }
        }
    }

    #[test]
    fn loom_no_push_of_two_producers_is_missed_and_at_most_one_wake_waits() {
        let mut builder = loom::model::Builder::new();
        // Three involuntary switches show every known bug of such protocols, in seconds.
        builder.preemption_bound = Some(3);
        builder.check(|| {
            let model = Model::new();
            let producers: Vec<_> = [vec![1, 2], vec![11]]
                .into_iter()
                .map(|items| {
                    let model = Arc::clone(&model);
                    thread::spawn(move || items.into_iter().for_each(|item| model.push(item)))
                })
                .collect();
            let mut taken = Vec::new();
            while taken.len() < 3 {
                model.wait();
                model.drain(&mut taken, |taken| taken.len() == 3);
            }
            for producer in producers {
                producer.join().unwrap();
            }
            let of = |range: std::ops::Range<u32>| -> Vec<u32> {
                taken
                    .iter()
                    .copied()
                    .filter(|i| range.contains(i))
                    .collect()
            };
            assert_eq!(of(0..10), [1, 2]);
            assert_eq!(of(10..20), [11]);
            assert_eq!(model.largest_mailbox.load(Ordering::Relaxed), 1);
        });
    }

    #[test]
    fn loom_a_close_always_reaches_a_consumer_that_waits() {
        loom::model(|| {
            let model = Model::new();
            let producer = {
                let model = Arc::clone(&model);
                thread::spawn(move || model.push(1))
            };
            let closer = {
                let model = Arc::clone(&model);
                thread::spawn(move || model.close())
            };
            let mut taken = Vec::new();
            let closed = || model.closed.load(Ordering::Acquire);
            while !closed() {
                model.wait();
                model.drain(&mut taken, |_| closed());
            }
            producer.join().unwrap();
            closer.join().unwrap();
        });
    }
}
