// SPDX-License-Identifier: Apache-2.0
//! The reactor: one thread that waits for the descriptors of all event loops.
//!
//! Every loop has an epoll set of its own, which its consumer reads directly while it is awake. The
//! reactor only watches those sets (an epoll descriptor is itself pollable), one-shot, for loops
//! whose consumer went to sleep: a busy loop costs the reactor nothing.

use parking_lot::Mutex;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// The token of the descriptor that ends the thread.
const STOP: u64 = 0;

/// A loop that sleeps until one of its descriptors is ready. Called on the reactor's thread.
pub trait ReactorSink: Send + Sync {
    /// Something in the loop's epoll set is ready.
    fn descriptors_ready(&self);
}

/// Watches the epoll sets of sleeping loops.
pub struct Reactor {
    epoll: OwnedFd,
    stop: OwnedFd,
    sinks: Mutex<HashMap<u64, Weak<dyn ReactorSink>>>,
    next_token: AtomicU64,
}

impl Reactor {
    /// Starts the reactor's thread.
    ///
    /// # Errors
    /// The operating system's, when it has no descriptor or no thread left.
    pub fn start(name: &str) -> io::Result<Arc<Self>> {
        let this = Arc::new(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            stop: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            sinks: Mutex::new(HashMap::new()),
            next_token: AtomicU64::new(STOP + 1),
        });
        let data = EventData::new_u64(STOP);
        epoll::add(&this.epoll, &this.stop, data, EventFlags::IN)?;
        let thread = Arc::clone(&this);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || thread.run())?;
        Ok(this)
    }

    /// Ends the thread.
    pub fn stop(&self) {
        // Cannot fail: an eventfd takes 2^64 - 2 of these.
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
    }

    /// Takes on a loop's epoll set, disarmed, and returns its token.
    ///
    /// # Errors
    /// The operating system's.
    pub fn register(&self, set: impl AsFd, sink: Weak<dyn ReactorSink>) -> io::Result<u64> {
        let token = self.next_token.fetch_add(1, Ordering::Relaxed);
        self.sinks.lock().insert(token, sink);
        let data = EventData::new_u64(token);
        epoll::add(&self.epoll, set, data, EventFlags::ONESHOT).inspect_err(|_| {
            self.sinks.lock().remove(&token);
        })?;
        Ok(token)
    }

    /// Asks for one call of the sink when something in the set is ready; at once if it is already.
    ///
    /// # Errors
    /// The operating system's.
    pub fn arm(&self, token: u64, set: impl AsFd) -> io::Result<()> {
        let data = EventData::new_u64(token);
        epoll::modify(&self.epoll, set, data, EventFlags::IN | EventFlags::ONESHOT)?;
        Ok(())
    }

    /// Gives a set up. A call of its sink that is under way may still end.
    pub fn deregister(&self, token: u64, set: impl AsFd) {
        self.sinks.lock().remove(&token);
        // Fails only where the set was never registered.
        let _ = epoll::delete(&self.epoll, set);
    }

    fn run(&self) {
        let mut events = Vec::with_capacity(256);
        loop {
            events.clear();
            let buffer = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, buffer, None) {
                Ok(_) | Err(Errno::INTR) => {}
                // Nothing else can come for a set that this thread owns.
                Err(_) => return,
            }
            for event in &events {
                match event.data.u64() {
                    STOP => return,
                    token => self.call(token),
                }
            }
        }
    }

    fn call(&self, token: u64) {
        let sink = self.sinks.lock().get(&token).and_then(Weak::upgrade);
        if let Some(sink) = sink {
            sink.descriptors_ready();
        }
    }
}
