// SPDX-License-Identifier: Apache-2.0
//! Feeds Erlang worker processes with the items of a pool.
//!
//! Each has a hand of the pool: by one NIF call it gives back what became of its item and takes the next one, on its
//! own scheduler. It is sent a message only when it found none. What a worker that died had in hand fails with
//! the reason of its death, and the process that replaces it goes on with its hand.

use super::{Discovery, Item, Job};
use crate::atoms;
use crate::environment::{SavedTerm, Sender, send_anywhere};
use crate::reply::Reason;
use parking_lot::Mutex;
use rustler::{Encoder, Env, LocalPid};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use tokamak_core::pool::Hand;

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
    workers: OnceLock<Vec<Worker>>,
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

/// Processes, each with the reference of its run.
type Woken = Vec<(LocalPid, Arc<SavedTerm>)>;

thread_local! {
    /// In a worker's call: whom it woke. They are told by its own process, after the call let go of its hand.
    static WOKEN: RefCell<Option<Woken>> = const { RefCell::new(None) };
}

impl Feed {
    pub fn new(manager: LocalPid, reference: SavedTerm) -> Self {
        Self {
            manager,
            reference: Arc::new(reference),
            workers: OnceLock::new(),
            closed: AtomicBool::new(false),
        }
    }

    /// The hands of its run, before that starts.
    pub fn set_hands(&self, hands: Vec<Hand<Job>>) {
        let worker = |hand| {
            let bell = Arc::new(Bell {
                waiting: Mutex::new(None),
                reference: Arc::clone(&self.reference),
            });
            Worker {
                hand: Mutex::new(Some(hand)),
                waker: Waker::from(Arc::clone(&bell)),
                bell,
            }
        };
        let _ = self.workers.set(hands.into_iter().map(worker).collect());
    }

    /// Workers are numbered from 1.
    fn worker(&self, number: u64) -> Option<&Worker> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        self.workers.get()?.get(index)
    }

    /// A worker gives back what became of its item, if it had one, and takes the next.
    pub fn step(&self, env: Env, number: u64, end: Option<Discovery>) -> Next {
        let Some(worker) = self.worker(number) else {
            return Next::Over;
        };
        let before = WOKEN.replace(Some(Vec::new()));
        let next = worker.step(env.pid(), end);
        let woken = WOKEN.replace(before);
        for (pid, reference) in woken.into_iter().flatten() {
            Sender::Process(env).send(&pid, |env| ready(env, &reference));
        }
        next
    }

    /// A worker's item discovered more, before its end.
    pub fn discover(&self, number: u64, children: Vec<Item>) {
        self.with_hand(number, |hand| hand.discover(children));
    }

    /// A worker died. Its successor takes what was on its way to it.
    pub fn lost(&self, number: u64, reason: Reason) {
        self.with_hand(number, |hand| hand.finish(Err(reason.into())));
    }

    fn with_hand(&self, number: u64, run: impl FnOnce(&mut Hand<Job>)) {
        if let Some(worker) = self.worker(number)
            && let Some(hand) = &mut *worker.hand.lock()
        {
            run(hand);
        }
    }

    /// The run has ended: workers and manager are told.
    pub fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        for worker in self.workers.get().into_iter().flatten() {
            let hand = worker.hand.lock().take();
            let waiting = worker.bell.waiting.lock().take();
            drop(hand);
            if let Some(pid) = waiting {
                self.tell_over(pid);
            }
        }
        self.tell_over(self.manager);
    }

    fn tell_over(&self, pid: LocalPid) {
        let reference = Arc::clone(&self.reference);
        send_anywhere(pid, move |env| {
            (atoms::tokamak(), reference.load(env), atoms::over()).encode(env)
        });
    }
}

impl Worker {
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
        let Some(pid) = self.waiting.lock().take() else {
            return;
        };
        let reference = Arc::clone(&self.reference);
        WOKEN.with_borrow_mut(|woken| match woken {
            Some(woken) => woken.push((pid, reference)),
            None => send_anywhere(pid, move |env| ready(env, &reference)),
        });
    }
}

fn ready<'a>(env: Env<'a>, reference: &SavedTerm) -> rustler::Term<'a> {
    (atoms::tokamak(), reference.load(env), atoms::ready()).encode(env)
}
