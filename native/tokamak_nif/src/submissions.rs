// SPDX-License-Identifier: Apache-2.0
//! Loops as submitted calls see them.

use crate::event_loop::EventLoop;
use crate::loop_nifs;
use crate::payload::{Event, Payload};
use parking_lot::Mutex;
use rustler::Term;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use tokamak::environment::Sender;
use tokamak::owners;
use tokamak::reply::Reply;
use tokamak::submit::{LoopPort, NoPlace};
use tokamak::table::Data;
use tokamak::task::Task;
use tokamak::watcher;
use tokamak_core::event::EventType;
use tokamak_core::queue::Refused;

/// More would hold the scheduler of the process that closes the loop.
const TOLD_AT_ONCE: usize = 256;

/// What is tied to a loop: it is told when the loop ends.
#[derive(Default)]
pub struct Ties {
    by_key: Mutex<HashMap<u64, Tie>>,
    next: AtomicU64,
}

/// Something that is told.
pub enum Tie {
    /// A call of this library.
    Task(Weak<Task>),
    /// A function of another library, through the C table.
    Foreign(crate::table::ForeignTie),
    /// A subprocess that tells the loop.
    #[cfg(target_os = "linux")]
    Subprocess(Weak<crate::subprocess::Subprocess>),
}

impl Ties {
    /// Ties something to the loop.
    pub fn insert(&self, tie: Tie) -> u64 {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        self.by_key.lock().insert(key, tie);
        key
    }

    /// Unties it, if it was not told yet.
    pub fn remove(&self, key: u64) -> Option<Tie> {
        self.by_key.lock().remove(&key)
    }

    /// The loop has ended.
    pub fn end(&self) {
        let ties = std::mem::take(&mut *self.by_key.lock());
        if ties.len() <= TOLD_AT_ONCE {
            ties.into_values().for_each(Tie::tell);
        } else {
            owners::on_janitor(move || ties.into_values().for_each(Tie::tell));
        }
    }
}

impl Tie {
    fn tell(self) {
        match self {
            Self::Task(task) => {
                if let Some(task) = task.upgrade() {
                    task.cancel();
                }
            }
            Self::Foreign(tie) => tie.call(),
            #[cfg(target_os = "linux")]
            Self::Subprocess(subprocess) => {
                if let Some(subprocess) = subprocess.upgrade() {
                    subprocess.abandon();
                }
            }
        }
    }
}

/// Finds this library's loops for `tokamak::submit`.
pub fn find_loop(term: Term) -> Option<Arc<dyn LoopPort>> {
    let event_loop = Arc::clone(loop_nifs::HANDLES.get(term)?);
    Some(event_loop)
}

/// The type of the event that the end of a call is.
pub fn end_type(is_error: bool) -> EventType {
    match is_error {
        false => EventType::AsyncResult,
        true => EventType::AsyncError,
    }
}

impl LoopPort for EventLoop {
    fn reserve(&self, count: usize) -> Result<(), NoPlace> {
        self.queue.reserve(count).map_err(|refused| match refused {
            Refused::Overloaded(()) => {
                watcher::events_refused(count);
                NoPlace::Overloaded
            }
            Refused::Closed(()) => NoPlace::Closed,
        })
    }

    fn unreserve(&self, count: usize) {
        self.queue.release(count);
    }

    fn tie(&self, task: Weak<Task>) -> u64 {
        let key = self.ties.insert(Tie::Task(task));
        self.end_ties_if_closed();
        key
    }

    fn untie(&self, tie: u64) {
        self.ties.remove(tie);
    }

    fn push_replies(&self, replies: Vec<(u64, Reply)>) {
        self.push_reserved(replies.into_iter().map(|(callback_id, reply)| Event {
            callback_id,
            kind: end_type(reply.is_err()),
            payload: Payload::Reply(Box::new(reply)),
        }));
    }

    fn push_event(&self, callback_id: u64, data: Data) -> bool {
        let payload = match data {
            Data::Undefined => Payload::Atom(crate::atoms::undefined()),
            Data::Integer(integer) => Payload::Integer(integer),
            Data::Bytes(bytes) => Payload::Bytes(bytes.into()),
        };
        let event = Event {
            callback_id,
            kind: EventType::User,
            payload,
        };
        self.post(Sender::Thread, event).is_ok()
    }
}

impl EventLoop {
    /// Pushes results into their reserved places. Called on a thread of ours.
    pub fn push_reserved(&self, events: impl ExactSizeIterator<Item = Event>) {
        if let Ok(wake) = self.queue.push_many_reserved(events) {
            self.after_push(Sender::Thread, wake);
        }
    }

    /// Something was tied that the close may have missed.
    pub fn end_ties_if_closed(&self) {
        if self.is_closed() {
            self.ties.end();
        }
    }
}
