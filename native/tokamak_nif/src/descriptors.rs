// SPDX-License-Identifier: Apache-2.0
//! How an event loop learns of its descriptors: its own epoll set, or enif_select.

use crate::atoms;
use crate::event_loop::{Backend, EventLoop};
use crate::library::Services;
use crate::watch::Watch;
use parking_lot::Mutex;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustler::{Atom, LocalPid};
use std::sync::{Arc, Weak};

/// The source of a loop's readiness.
pub enum Descriptors {
    #[cfg(target_os = "linux")]
    Native(native::EpollSet),
    /// The process that the VM tells.
    Select(Mutex<Option<LocalPid>>),
}

/// Why a descriptor cannot be watched.
pub fn reason(errno: Errno) -> Atom {
    match errno {
        // What epoll says of files that have no events.
        Errno::PERM => atoms::not_pollable(),
        errno => atoms::errno(errno),
    }
}

impl Descriptors {
    /// The source of a new loop.
    pub fn open(
        services: &Services,
        backend: Backend,
        event_loop: Weak<EventLoop>,
    ) -> std::io::Result<Self> {
        match backend {
            #[cfg(target_os = "linux")]
            Backend::Native => native::EpollSet::open(services, event_loop).map(Self::Native),
            #[cfg(not(target_os = "linux"))]
            Backend::Native => Err(std::io::ErrorKind::Unsupported.into()),
            Backend::Select => Ok(Self::none()),
        }
    }

    /// A source of nothing.
    pub fn none() -> Self {
        Self::Select(Mutex::new(None))
    }

    /// Names the process that enif_select tells.
    pub fn set_selecting_process(&self, pid: LocalPid) {
        if let Self::Select(process) = self {
            *process.lock() = Some(pid);
        }
    }

    pub fn selecting_process(&self) -> Option<LocalPid> {
        match self {
            Self::Select(process) => *process.lock(),
            #[cfg(target_os = "linux")]
            Self::Native(_) => None,
        }
    }

    /// The directions of a watch changed from `before`.
    pub fn change(&self, file: &OwnedFd, watch: &Watch, before: [bool; 2]) -> Result<(), Errno> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Native(set) => set.change(file, watch, before),
            Self::Select(_) => Ok(()),
        }
    }

    /// A descriptor is being closed.
    pub fn remove(&self, file: &OwnedFd) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Native(set) => set.remove(file),
            Self::Select(_) => {}
        }
    }

    /// Queues the events of descriptors that became ready.
    pub fn collect(&self, event_loop: &EventLoop) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Native(set) => set.collect(event_loop),
            Self::Select(_) => {}
        }
    }

    /// Whether a consumer that looks again and again may find anything.
    pub fn can_be_looked_at(&self) -> bool {
        match self {
            #[cfg(target_os = "linux")]
            Self::Native(set) => set.is_any(),
            // The VM is told to look.
            Self::Select(_) => false,
        }
    }

    /// The consumer goes to sleep: the loop has to be woken when a descriptor gets ready.
    pub fn sleep(&self) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Native(set) => set.sleep(),
            Self::Select(_) => {}
        }
    }

    pub fn close(&self) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Native(set) => set.close(),
            Self::Select(process) => *process.lock() = None,
        }
    }
}

#[cfg(target_os = "linux")]
mod native {
    use super::{Arc, Errno, EventLoop, OwnedFd, Services, Watch, Weak};
    use crate::watch::Direction;
    use parking_lot::Mutex;
    use rustix::event::Timespec;
    use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use tokamak::environment::Sender;
    use tokamak_core::reactor::{Reactor, ReactorSink};

    /// How many descriptors one look takes from the kernel.
    const BATCH: usize = 256;

    /// A loop's epoll set, read by its consumer; the reactor watches it while the consumer sleeps.
    pub struct EpollSet {
        /// `None` once closed: a handle that lives longer holds no descriptor, the reactor's neither.
        open: Mutex<Option<Arc<Open>>>,
        token: u64,
        watched: AtomicUsize,
        /// The reactor will call when something is ready.
        armed: AtomicBool,
    }

    struct Open {
        epoll: OwnedFd,
        reactor: Arc<Reactor>,
    }

    impl EpollSet {
        pub fn open(services: &Services, event_loop: Weak<EventLoop>) -> std::io::Result<Self> {
            let epoll = epoll::create(CreateFlags::CLOEXEC)?;
            let token = services.reactor.register(&epoll, event_loop)?;
            Ok(Self {
                open: Mutex::new(Some(Arc::new(Open {
                    epoll,
                    reactor: Arc::clone(&services.reactor),
                }))),
                token,
                watched: AtomicUsize::new(0),
                armed: AtomicBool::new(false),
            })
        }

        fn get(&self) -> Option<Arc<Open>> {
            self.open.lock().clone()
        }

        pub fn change(
            &self,
            file: &OwnedFd,
            watch: &Watch,
            before: [bool; 2],
        ) -> Result<(), Errno> {
            let Some(open) = self.get() else {
                return Ok(());
            };
            let epoll = &open.epoll;
            let interest = watch.interest();
            let data = EventData::new_u64(watch.token);
            match (before, interest) {
                ([false, false], [false, false]) => Ok(()),
                (_, [false, false]) => {
                    self.watched.fetch_sub(1, Ordering::Relaxed);
                    epoll::delete(epoll, file)
                }
                ([false, false], _) => {
                    epoll::add(epoll, file, data, flags(interest))?;
                    if self.watched.fetch_add(1, Ordering::Relaxed) == 0 {
                        // A consumer that went to sleep with nothing to watch did not arm.
                        self.sleep();
                    }
                    Ok(())
                }
                // Modifying tells again what is ready.
                _ => epoll::modify(epoll, file, data, flags(interest)),
            }
        }

        pub fn remove(&self, file: &OwnedFd) {
            if let Some(open) = self.get()
                && epoll::delete(&open.epoll, file).is_ok()
            {
                self.watched.fetch_sub(1, Ordering::Relaxed);
            }
        }

        pub fn collect(&self, event_loop: &EventLoop) {
            if !self.is_any() {
                return;
            }
            let Some(open) = self.get() else {
                return;
            };
            let mut events: Vec<Event> = Vec::with_capacity(BATCH);
            let buffer = rustix::buffer::spare_capacity(&mut events);
            if epoll::wait(&open.epoll, buffer, Some(&Timespec::default())).is_err() {
                return;
            }
            let watches = event_loop.watches.lock();
            for event in &events {
                let Some(watch) = watches.get(event.data.u64()) else {
                    continue;
                };
                // An error or a hang-up shows itself by the next read or write.
                // The kernel's struct is packed: no references into it.
                let flags = event.flags;
                let both = flags.intersects(EventFlags::ERR | EventFlags::HUP);
                for (direction, flag) in [
                    (Direction::Read, EventFlags::IN | EventFlags::RDHUP),
                    (Direction::Write, EventFlags::OUT),
                ] {
                    if both || flags.contains(EventFlags::RDHUP) {
                        watch.with(direction, |state| state.hang_up());
                    }
                    if (both || flags.intersects(flag))
                        && let Some(event) = watch.edge(direction)
                    {
                        // The consumer is at work, this is its call: it needs no wake.
                        let _ = event_loop.queue.push_admitted(event);
                    }
                }
            }
        }

        /// Whether any descriptor is watched.
        pub fn is_any(&self) -> bool {
            self.watched.load(Ordering::Relaxed) > 0
        }

        pub fn sleep(&self) {
            if !self.is_any() || self.armed.swap(true, Ordering::AcqRel) {
                return;
            }
            if let Some(open) = self.get() {
                // Fails only where the set was given up meanwhile.
                let _ = open.reactor.arm(self.token, &open.epoll);
            }
        }

        pub fn close(&self) {
            let open = self.open.lock().take();
            if let Some(open) = open {
                open.reactor.deregister(self.token, &open.epoll);
            }
        }

        fn disarmed(&self) {
            self.armed.store(false, Ordering::Release);
        }
    }

    fn flags([read, write]: [bool; 2]) -> EventFlags {
        let mut flags = EventFlags::ET;
        flags.set(EventFlags::IN | EventFlags::RDHUP, read);
        flags.set(EventFlags::OUT, write);
        flags
    }

    impl ReactorSink for EventLoop {
        fn descriptors_ready(&self) {
            if let super::Descriptors::Native(set) = &self.descriptors {
                set.disarmed();
            }
            self.after_push(Sender::Thread, self.queue.notify());
        }
    }
}
