// SPDX-License-Identifier: Apache-2.0
//! Feeds Erlang worker processes with the items of a pool.
//!
//! They are started when they are called: their manager is sent the number of each that is needed.
//!
//! Each has a hand of the pool: by one NIF call it gives back what became of its item and takes the next one, on its
//! own scheduler. It is sent a message only when it found none. What a worker that died had in hand fails with
//! the reason of its death, and the process that replaces it goes on with its hand.

use super::slots::Slots;
use super::{Discovery, Item, Job};
use crate::atoms;
use crate::environment::{SavedTerm, Sender, send_anywhere};
use crate::reply::Reason;
use parking_lot::Mutex;
use rustler::{Encoder, Env, LocalPid, Term};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use tokamak_core::pool::{Hand, Hands};

/// What a worker finds.
pub enum Next {
    Item(Item),
    /// Nothing yet: a message will tell.
    Waiting,
    /// The run has ended.
    Over,
}

/// Between a pool and its worker processes.
pub struct Feed {
    manager: LocalPid,
    /// What messages to the workers and their manager carry.
    reference: Arc<SavedTerm>,
    /// Of those that were called.
    workers: Slots<Worker>,
    /// Makes more; `None` before the start of the run and after its end.
    hands: Mutex<Option<Hands<Job>>>,
    closed: AtomicBool,
}

struct Worker {
    /// `None` after the end of the run.
    hand: Mutex<Option<Hand<Job>>>,
    bell: Arc<Bell>,
    waker: Waker,
}

/// Wakes a worker that waits.
struct Bell {
    waiting: Mutex<Option<LocalPid>>,
    reference: Arc<SavedTerm>,
}

/// What a process is told.
struct Notice {
    to: LocalPid,
    reference: Arc<SavedTerm>,
    payload: Payload,
}

enum Payload {
    /// It is worth to ask again.
    Ready,
    /// The run has ended.
    Over,
    /// Worker so many is needed.
    Start(usize),
}

thread_local! {
    /// In a call of a process: who is told what. It is sent by that process, after the call let go of all locks.
    static NOTICES: RefCell<Option<Vec<Notice>>> = const { RefCell::new(None) };
}

/// Until it is dropped, what this thread has to tell is collected.
struct Collected;

impl Collected {
    fn take(&self) -> Vec<Notice> {
        NOTICES.take().unwrap_or_default()
    }
}

impl Drop for Collected {
    /// After a panic some may be left.
    fn drop(&mut self) {
        self.take().into_iter().for_each(Notice::give);
    }
}

impl Feed {
    /// For so many workers at most.
    pub fn new(manager: LocalPid, reference: SavedTerm, workers: usize) -> Self {
        Self {
            manager,
            reference: Arc::new(reference),
            workers: Slots::new(workers),
            hands: Mutex::new(None),
            closed: AtomicBool::new(false),
        }
    }

    /// The hands of its run, before that starts.
    pub fn set_hands(&self, hands: Hands<Job>) {
        *self.hands.lock() = Some(hands);
    }

    /// Worker so many is needed.
    pub fn call(&self, number: usize) {
        Notice::new(self.manager, &self.reference, Payload::Start(number)).give();
    }

    /// Does what may call or wake workers, in a NIF call.
    pub fn telling<T>(env: Env, run: impl FnOnce() -> T) -> T {
        NOTICES.set(Some(Vec::new()));
        let collected = Collected;
        let result = run();
        for notice in collected.take() {
            Sender::Process(env).send(&notice.to, |env| notice.encode(env));
        }
        result
    }

    /// Workers are numbered from 1.
    fn worker(&self, number: u64) -> Option<&Worker> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        self.workers.get(index).or_else(|| self.begin(index))
    }

    /// A worker's first call. Under the lock: a run that ends either finds it, or has no hand for it.
    fn begin(&self, index: usize) -> Option<&Worker> {
        let hands = self.hands.lock();
        let hands = hands.as_ref()?;
        self.workers
            .get_or_fill(index, || Worker::new(hands.hand(), &self.reference))
    }

    /// A worker gives back what became of its item, if it had one, and takes the next.
    pub fn step(&self, env: Env, number: u64, end: Option<Discovery>) -> Next {
        match self.worker(number) {
            Some(worker) => Self::telling(env, || worker.step(env.pid(), end)),
            None => Next::Over,
        }
    }

    /// A worker's item discovered more, before its end.
    pub fn discover(&self, number: u64, children: Vec<Item>) {
        self.with_hand(number, |hand| hand.discover(children));
    }

    /// A worker died. Its successor takes what was on its way to it.
    pub fn lost(&self, env: Env, number: u64, reason: Reason) {
        Self::telling(env, || {
            self.with_hand(number, |hand| hand.finish(Err(reason.into())));
        });
    }

    fn with_hand(&self, number: u64, run: impl FnOnce(&mut Hand<Job>)) {
        if let Some(worker) = self.worker(number)
            && let Some(hand) = &mut *worker.hand.lock()
        {
            run(hand);
        }
    }

    /// The run has ended: its manager is told, and ends the workers. Takes its time where they are many.
    pub fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let hands = self.hands.lock().take();
        for worker in self.workers.iter() {
            let hand = worker.hand.lock().take();
            drop(hand);
        }
        drop(hands);
        Notice::new(self.manager, &self.reference, Payload::Over).give();
    }
}

impl Notice {
    fn new(to: LocalPid, reference: &Arc<SavedTerm>, payload: Payload) -> Self {
        Self {
            to,
            reference: Arc::clone(reference),
            payload,
        }
    }

    /// Sends it, or has the call that goes on do that.
    fn give(self) {
        NOTICES.with_borrow_mut(|notices| match notices {
            Some(notices) => notices.push(self),
            None => send_anywhere(self.to, move |env| self.encode(env)),
        });
    }

    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        let payload = match self.payload {
            Payload::Ready => atoms::ready().encode(env),
            Payload::Over => atoms::over().encode(env),
            Payload::Start(number) => (atoms::start(), number).encode(env),
        };
        (atoms::tokamak(), self.reference.load(env), payload).encode(env)
    }
}

impl Worker {
    fn new(hand: Hand<Job>, reference: &Arc<SavedTerm>) -> Self {
        let bell = Arc::new(Bell {
            waiting: Mutex::new(None),
            reference: Arc::clone(reference),
        });
        Self {
            hand: Mutex::new(Some(hand)),
            waker: Waker::from(Arc::clone(&bell)),
            bell,
        }
    }

    fn step(&self, pid: LocalPid, end: Option<Discovery>) -> Next {
        let mut place = self.hand.lock();
        let Some(hand) = &mut *place else {
            return Next::Over;
        };
        if let Some(end) = end {
            hand.finish(end);
        }
        // Before it is known whether there is an item: who wakes it meanwhile is heard.
        *self.bell.waiting.lock() = Some(pid);
        match hand.poll_next(&mut Context::from_waker(&self.waker)) {
            Poll::Ready(Some(item)) => {
                *self.bell.waiting.lock() = None;
                Next::Item(item.clone())
            }
            Poll::Ready(None) => Next::Over,
            Poll::Pending => Next::Waiting,
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        let waiting = self.waiting.lock().take();
        if let Some(to) = waiting {
            Notice::new(to, &self.reference, Payload::Ready).give();
        }
    }
}
