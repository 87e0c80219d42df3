// SPDX-License-Identifier: Apache-2.0
//! Who gets what a subprocess tells, and how much of it.

use super::SubprocessResource;
use super::child::Subprocess;
use super::output::{Item, encode_status};
use super::waiter::Waiter;
use crate::atoms;
use crate::event_loop::EventLoop;
use crate::payload::{Event, Payload};
use rustler::{Encoder, ResourceArc};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use tokamak::environment::{SavedTerm, Sender};

/// Events of one subprocess that may wait in its loop.
const LOOP_WINDOW: usize = 16;

/// Who gets the items.
pub enum Consumer {
    /// The owner, by `recv`: one that waits, if any.
    Passive(Option<Waiter>),
    /// The owner, by messages. The handle is what they carry; it lives as long as there is credit.
    Active {
        handle: ResourceArc<SubprocessResource>,
        credit: u64,
    },
    /// An event loop.
    Loop {
        event_loop: Weak<EventLoop>,
        callback_id: u64,
        pending: Arc<AtomicUsize>,
    },
}

impl Consumer {
    /// Whether an item could be delivered now.
    pub fn wants(&self) -> bool {
        match self {
            Self::Passive(waiter) => waiter.is_some(),
            Self::Active { credit, .. } => *credit > 0,
            Self::Loop { pending, .. } => pending.load(Ordering::SeqCst) < LOOP_WINDOW,
        }
    }

    /// Nothing follows: lets the handle go, which keeps the subprocess, and this with it.
    pub fn let_go(&mut self) {
        if matches!(self, Self::Active { .. }) {
            *self = Self::Passive(None);
        }
    }

    /// Delivers an item. `false`: its loop is closed.
    pub fn deliver(&mut self, subprocess: &Subprocess, item: Item, sender: Sender) -> bool {
        match self {
            Self::Passive(waiter) => {
                if let Some(waiter) = waiter.take() {
                    subprocess.busy_poll.is_woken();
                    waiter.send(sender, |env| item.encode_result(env));
                }
            }
            Self::Active { handle, credit } => {
                sender.send(&subprocess.owner, |env| {
                    let handle = handle.encode(env);
                    (atoms::tokamak(), handle, item.encode_message(env)).encode(env)
                });
                *credit -= 1;
                if *credit == 0 {
                    *self = Self::Passive(None);
                }
            }
            Self::Loop {
                event_loop,
                callback_id,
                pending,
            } => {
                let permit = Permit::new(subprocess, pending);
                return push(event_loop, *callback_id, item, permit, sender);
            }
        }
        true
    }
}

/// The bound is the window, not that of the queue.
fn push(
    event_loop: &Weak<EventLoop>,
    callback_id: u64,
    item: Item,
    permit: Permit,
    sender: Sender,
) -> bool {
    let Some(event_loop) = event_loop.upgrade() else {
        return false;
    };
    let event = Event {
        callback_id,
        kind: item.event_type(),
        payload: payload(item, permit),
    };
    match event_loop.queue.push_admitted(event) {
        Ok(wake) => {
            event_loop.after_push(sender, wake);
            true
        }
        Err(_) => false,
    }
}

fn payload(item: Item, permit: Permit) -> Payload {
    match item {
        Item::Output(_, chunk) => Payload::Output(Box::new((chunk, permit))),
        Item::Exit(status) => {
            Payload::Term(Box::new(SavedTerm::build(|env| encode_status(env, status))))
        }
        Item::Failed(_) => {
            Payload::Term(Box::new(SavedTerm::build(|env| item.encode_message(env))))
        }
    }
}

/// A place among the events of a subprocess that wait in its loop; given back when it is dropped.
pub struct Permit {
    subprocess: Weak<Subprocess>,
    pending: Arc<AtomicUsize>,
}

impl Permit {
    fn new(subprocess: &Subprocess, pending: &Arc<AtomicUsize>) -> Self {
        pending.fetch_add(1, Ordering::SeqCst);
        Self {
            subprocess: subprocess.this.clone(),
            pending: Arc::clone(pending),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let before = self.pending.fetch_sub(1, Ordering::SeqCst);
        if before == LOOP_WINDOW
            && let Some(subprocess) = self.subprocess.upgrade()
        {
            subprocess.go_on();
        }
    }
}
