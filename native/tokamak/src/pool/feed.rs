// SPDX-License-Identifier: Apache-2.0
//! Feeds Erlang worker processes with the items of a pool.
//!
//! A worker process takes an item by a NIF call, and gives back what became of it with the call that
//! takes the next one. It is sent a message only when it found none. What a worker that died had in
//! hand fails with the reason of its death.

use super::Discovery;
use super::item::Item;
use crate::atoms;
use crate::environment::{SavedTerm, send_anywhere};
use crate::reply::Reason;
use parking_lot::Mutex;
use rustler::{Encoder, LocalPid};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::oneshot;

/// An item on its way to a worker.
struct Job {
    item: Item,
    end: oneshot::Sender<Discovery>,
}

/// The item that a worker has in hand, and what it discovered so far.
struct Held {
    end: oneshot::Sender<Discovery>,
    children: Vec<Item>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    held: HashMap<u64, Held>,
    waiting: Vec<(u64, LocalPid)>,
    closed: bool,
}

/// Between a pool's tasks and its worker processes.
pub struct Feed {
    manager: LocalPid,
    /// What messages to the workers and their manager carry.
    reference: Arc<SavedTerm>,
    state: Mutex<State>,
}

/// What a worker finds.
pub enum Next {
    Item(Item),
    /// Nothing yet: a message will tell.
    Waiting,
    /// The run has ended.
    Over,
}

impl Feed {
    pub fn new(manager: LocalPid, reference: SavedTerm) -> Self {
        Self {
            manager,
            reference: Arc::new(reference),
            state: Mutex::new(State::default()),
        }
    }

    /// Has a worker run an item.
    pub async fn run(&self, item: &Item) -> Discovery {
        let (end, ended) = oneshot::channel();
        let item = item.clone();
        let worker = self.state.lock().push(Job { item, end });
        self.wake(worker);
        // A feed that is closed drops the job.
        ended
            .await
            .unwrap_or_else(|_| Err(Reason::Cancelled.into()))
    }

    /// A worker gives back what became of its item, if it had one, and takes the next.
    pub fn step(&self, worker: u64, pid: LocalPid, end: Option<Discovery>) -> Next {
        let mut state = self.state.lock();
        let held = state.held.remove(&worker);
        let next = state.next(worker, pid);
        drop(state);
        if let (Some(held), Some(end)) = (held, end) {
            held.finish(end);
        }
        next
    }

    /// A worker's item discovered more, before its end.
    pub fn discover(&self, worker: u64, children: Vec<Item>) {
        if let Some(held) = self.state.lock().held.get_mut(&worker) {
            held.children.extend(children);
        }
    }

    /// A worker died.
    pub fn lost(&self, worker: u64, reason: Reason) {
        let mut state = self.state.lock();
        let held = state.held.remove(&worker);
        state.waiting.retain(|(waiting, _)| *waiting != worker);
        // The message that was for the dead one has to go to another.
        let other = match state.jobs.is_empty() {
            true => None,
            false => state.waiting.pop(),
        };
        drop(state);
        self.wake(other);
        if let Some(held) = held {
            held.finish(Err(reason.into()));
        }
    }

    /// The run has ended: workers and manager are told.
    pub fn close(&self) {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.closed, true) {
            return;
        }
        let dropped = std::mem::take(&mut *state);
        state.closed = true;
        drop(state);
        for (_, pid) in &dropped.waiting {
            self.tell(*pid, atoms::over());
        }
        self.tell(self.manager, atoms::over());
    }

    fn wake(&self, worker: Option<(u64, LocalPid)>) {
        if let Some((_, pid)) = worker {
            self.tell(pid, atoms::ready());
        }
    }

    fn tell(&self, pid: LocalPid, what: rustler::Atom) {
        let reference = Arc::clone(&self.reference);
        send_anywhere(pid, move |env| {
            (atoms::tokamak(), reference.load(env), what).encode(env)
        });
    }
}

impl State {
    /// Queues a job; gives the worker to wake for it.
    fn push(&mut self, job: Job) -> Option<(u64, LocalPid)> {
        if self.closed {
            return None;
        }
        self.jobs.push_back(job);
        self.waiting.pop()
    }

    fn next(&mut self, worker: u64, pid: LocalPid) -> Next {
        if self.closed {
            return Next::Over;
        }
        while let Some(Job { item, end }) = self.jobs.pop_front() {
            // Of a run that was stopped nobody waits for the end.
            if !end.is_closed() {
                let children = Vec::new();
                self.held.insert(worker, Held { end, children });
                return Next::Item(item);
            }
        }
        self.waiting.push((worker, pid));
        Next::Waiting
    }
}

impl Held {
    fn finish(self, end: Discovery) {
        let Self {
            end: sender,
            mut children,
        } = self;
        let end = end.map(|(output, last)| {
            children.extend(last);
            (output, children)
        });
        // Nobody waits for it when the run was stopped.
        let _ = sender.send(end);
    }
}
