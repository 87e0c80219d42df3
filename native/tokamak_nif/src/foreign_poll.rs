// SPDX-License-Identifier: Apache-2.0
//! Polls a loop from a thread that the VM does not know, for the C table.

use crate::atoms;
use crate::drain::Polled;
use crate::event_loop::{Backend, EventLoop, Waiter};
use rustler::{Atom, Env, Term};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use tokamak::environment::{SavedTerms, Sender, TermList};
use tokamak::table::{CEvent, Status};

/// A thread that waits for events.
pub struct WaitingThread {
    thread: Thread,
    woken: AtomicBool,
}

impl WaitingThread {
    fn current() -> Arc<Self> {
        Arc::new(Self {
            thread: thread::current(),
            woken: AtomicBool::new(false),
        })
    }

    /// There are events, or the loop has ended.
    pub fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }

    fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }

    /// `false`: the time is over.
    fn wait(&self, deadline: Option<Instant>) -> bool {
        while !self.is_woken() {
            match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return false,
                Some(left) => thread::park_timeout(left),
                None => thread::park(),
            }
        }
        true
    }
}

impl EventLoop {
    /// Waits up to `timeout` for events and has `take` called with them. Only for supervised loops with the
    /// native backend: others are drained, or told by the VM, in a process.
    pub fn poll_from_thread(
        &self,
        timeout: Duration,
        mut take: impl FnMut(Env, &[CEvent]),
    ) -> Status {
        if self.is_raw() || self.options.backend == Backend::Select {
            return Status::NotSupported;
        }
        let deadline = Instant::now().checked_add(timeout);
        loop {
            if self.is_closed() {
                return Status::Closed;
            }
            let waiting = WaitingThread::current();
            match self.poll_once(&waiting, &mut take) {
                Found::Events => return Status::Ok,
                Found::Busy => return Status::Busy,
                Found::Again => {}
                Found::Nothing if waiting.wait(deadline) => {}
                Found::Nothing if self.stop_waiting_thread(&waiting) => return Status::TimedOut,
                // It was woken after all.
                Found::Nothing => {}
            }
        }
    }

    fn poll_once(
        &self,
        waiting: &Arc<WaitingThread>,
        take: &mut impl FnMut(Env, &[CEvent]),
    ) -> Found {
        let mut found = Found::Again;
        SavedTerms::build(|terms| {
            let env = terms.env();
            let waiter = Waiter::Thread(Arc::clone(waiting));
            found = match self.poll(env, Sender::Thread, Some(waiter)) {
                Polled::Events(events) => {
                    take(env, &to_c(&events));
                    Found::Events
                }
                Polled::More => Found::Again,
                Polled::Busy => Found::Busy,
                Polled::Waiting => Found::Nothing,
            };
        });
        found
    }

    /// `false`: somebody took the waiter to wake it.
    fn stop_waiting_thread(&self, thread: &Arc<WaitingThread>) -> bool {
        let mut waiter = self.waiter.lock();
        let is_there =
            matches!(&*waiter, Some(Waiter::Thread(waiting)) if Arc::ptr_eq(waiting, thread));
        if is_there {
            *waiter = None;
        }
        is_there
    }
}

enum Found {
    Events,
    Again,
    Busy,
    Nothing,
}

/// `{CallbackId, Type, Data}` each.
fn to_c(events: &TermList) -> Vec<CEvent> {
    let event = |term: Term| {
        let (callback_id, kind, data) = term.decode::<(u64, Atom, Term)>().ok()?;
        Some(CEvent {
            callback_id,
            event_type: u32::from(atoms::to_event_type(kind)?.code()),
            data: data.as_c_arg(),
        })
    };
    events.iter().filter_map(event).collect()
}
