// SPDX-License-Identifier: Apache-2.0
//! Children that started, but whose pipes found no room in this process. They were reported as failed,
//! so they are stopped and nothing more is told about them.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::packet;
use crate::protocol::Request;

/// The ids of such children, and whether the spawner was asked to stop each.
#[derive(Debug, Default)]
pub(super) struct Disowned {
    children: Mutex<HashMap<u64, bool>>,
    /// Whether any is still to be stopped, so that the usual case takes no lock.
    pending: AtomicBool,
}

impl Disowned {
    pub(super) fn add(&self, id: u64) {
        self.lock().insert(id, false);
        self.pending.store(true, Ordering::Release);
    }

    /// Asks for each to be stopped. Where the socket is full, the next call goes on: waiting here
    /// would stop the receiving thread, and with it the spawner.
    pub(super) fn stop_all(&self, socket: BorrowedFd<'_>) {
        if !self.pending.load(Ordering::Acquire) {
            return;
        }
        let mut children = self.lock();
        for (&id, asked) in children.iter_mut().filter(|(_, asked)| !**asked) {
            let stop = Request::Stop {
                id,
                kill_timeout: 0,
            };
            if packet::send(socket, &stop.encode(), &[]).is_err() {
                return;
            }
            *asked = true;
        }
        self.pending.store(false, Ordering::Release);
    }

    /// Whether an end is that of a disowned child, which is forgotten with its last event.
    pub(super) fn ends(&self, id: u64, last: bool) -> bool {
        let mut children = self.lock();
        if last {
            children.remove(&id).is_some()
        } else {
            children.contains_key(&id)
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, bool>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
