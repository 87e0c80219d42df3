// SPDX-License-Identifier: Apache-2.0
//! A descriptor that an event loop watches: its two directions, over either backend.

use crate::event_loop::EventLoop;
use crate::fd::Fd;
use crate::payload::{Event, Payload};
use crate::transfer;
use parking_lot::Mutex;
use rustix::event::PollFlags;
use rustix::fd::AsFd;
use std::sync::{Arc, Weak};
use tokamak::environment::Sender;
use tokamak_core::event::EventType;
use tokamak_core::readiness::{ComeBack, Consumer, Edge, Readiness, Transfer};

/// What a descriptor is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    Read,
    Write,
}

impl Direction {
    pub const BOTH: [Self; 2] = [Self::Read, Self::Write];

    pub fn index(self) -> usize {
        self as usize
    }

    pub fn event_type(self) -> EventType {
        match self {
            Self::Read => EventType::Read,
            Self::Write => EventType::Write,
        }
    }

    pub fn poll_flags(self) -> PollFlags {
        match self {
            Self::Read => PollFlags::IN,
            Self::Write => PollFlags::OUT,
        }
    }
}

/// A watched descriptor.
pub struct Watch {
    /// Names the watch within its loop.
    pub token: u64,
    pub fd: Weak<Fd>,
    pub event_loop: Weak<EventLoop>,
    directions: Mutex<[Readiness; 2]>,
}

impl Watch {
    pub fn new(token: u64, fd: Weak<Fd>, event_loop: Weak<EventLoop>) -> Arc<Self> {
        Arc::new(Self {
            token,
            fd,
            event_loop,
            directions: Mutex::new([Readiness::new(); 2]),
        })
    }

    /// Changes or asks the state of one direction.
    pub fn with<R>(&self, direction: Direction, change: impl FnOnce(&mut Readiness) -> R) -> R {
        change(&mut self.directions.lock()[direction.index()])
    }

    /// The directions that are watched.
    pub fn interest(&self) -> [bool; 2] {
        self.directions
            .lock()
            .map(|direction| direction.is_watched())
    }

    /// Whether an event of it waits to be taken.
    pub fn has_event(&self) -> bool {
        let directions = self.directions.lock();
        directions.iter().any(Readiness::has_event)
    }

    /// Ends both directions: the callback ids of their last watches.
    pub fn end(&self) -> [u64; 2] {
        let mut directions = self.directions.lock();
        directions.each_mut().map(|direction| {
            direction.unwatch();
            direction.callback_id()
        })
    }

    /// The source says that a direction is ready: the event to queue, if one is due.
    pub fn edge(self: &Arc<Self>, direction: Direction) -> Option<Event> {
        let edge = self.with(direction, Readiness::edge);
        match edge {
            Edge::Report => Some(self.event(direction)),
            Edge::Coalesced => {
                if let Some(event_loop) = self.event_loop.upgrade() {
                    event_loop.count_coalesced();
                }
                None
            }
            Edge::Ignored => None,
        }
    }

    /// The event of a direction whose state is queued.
    pub fn event(self: &Arc<Self>, direction: Direction) -> Event {
        let (callback_id, generation) =
            self.with(direction, |state| (state.callback_id(), state.generation()));
        Event {
            callback_id,
            kind: direction.event_type(),
            payload: Payload::Readiness {
                watch: Arc::clone(self),
                direction,
                generation,
            },
        }
    }

    /// A consumer takes a queued event; see [`Readiness::take`].
    pub fn take(&self, direction: Direction, generation: u32, consumer: Consumer) -> Option<u64> {
        self.with(direction, |state| state.take(generation, consumer))
    }

    /// The same, by a consumer that is listed to come back: whether it has to be put into the list, too.
    pub fn take_listed(
        &self,
        direction: Direction,
        generation: u32,
        consumer: Consumer,
    ) -> Option<(u64, bool)> {
        self.with(direction, |state| {
            let callback_id = state.take(generation, consumer)?;
            Some((callback_id, state.list()))
        })
    }

    /// After a read or write: a consumer that shows by it that it comes back is served.
    pub fn after_transfer(
        self: &Arc<Self>,
        sender: Sender,
        direction: Direction,
        transfer: Transfer,
        drained: bool,
    ) {
        if self.with(direction, |state| state.after_transfer(transfer, drained)) {
            self.come_back(sender, direction);
        }
    }

    /// The consumer comes back: what is still ready is queued again, the rest is armed.
    pub fn come_back(self: &Arc<Self>, sender: Sender, direction: Direction) {
        let came_back = self.with(direction, Readiness::come_back);
        self.serve(sender, direction, came_back);
    }

    /// The same, if it was told to this consumer.
    pub fn come_back_of(self: &Arc<Self>, sender: Sender, direction: Direction, told: Consumer) {
        let came_back = self.with(direction, |state| state.come_back_of(told));
        self.serve(sender, direction, came_back);
    }

    fn serve(self: &Arc<Self>, sender: Sender, direction: Direction, came_back: ComeBack) {
        match came_back {
            ComeBack::Nothing => {}
            ComeBack::Arm => self.arm(sender, direction),
            ComeBack::Check => {
                let ready = self.is_ready(direction);
                self.checked(sender, direction, ready);
            }
        }
    }

    /// What the descriptor said after [`ComeBack::Check`].
    pub fn checked(self: &Arc<Self>, sender: Sender, direction: Direction, ready: bool) {
        if self.with(direction, |state| state.checked(ready)) {
            self.queue(sender, direction);
        } else {
            self.arm(sender, direction);
        }
    }

    /// Takes the event that is pending, if any, and arms the source again: the callback id, or
    /// `None` when nobody watches the direction.
    pub fn reselect(self: &Arc<Self>, sender: Sender, direction: Direction) -> Option<u64> {
        if !self.with(direction, Readiness::reselect) {
            return None;
        }
        let event_loop = self.event_loop.upgrade()?;
        if event_loop.is_edge_triggered() {
            // The edge is past: only the descriptor knows whether something is left.
            if self.is_ready(direction)
                && let Some(event) = self.edge(direction)
            {
                event_loop.push_readiness(sender, event);
            }
        } else {
            self.arm(sender, direction);
        }
        Some(self.with(direction, |state| state.callback_id()))
    }

    /// The VM says that a direction is ready. When it is not `certain` that it means the select that is under way,
    /// the descriptor is asked, and selected again where it is not ready.
    pub fn selected(self: &Arc<Self>, sender: Sender, direction: Direction, certain: bool) {
        if !certain && !self.is_ready(direction) {
            if self.with(direction, |state| state.is_armed()) {
                self.arm(sender, direction);
            }
        } else if let Some(event) = self.edge(direction)
            && let Some(event_loop) = self.event_loop.upgrade()
        {
            event_loop.push_readiness(sender, event);
        }
    }

    fn queue(self: &Arc<Self>, sender: Sender, direction: Direction) {
        if let Some(event_loop) = self.event_loop.upgrade() {
            event_loop.push_readiness(sender, self.event(direction));
        }
    }

    /// Arms the source of a direction; an edge-triggered one always is.
    pub fn arm(&self, sender: Sender, direction: Direction) {
        let (Some(event_loop), Some(fd), Sender::Process(env)) =
            (self.event_loop.upgrade(), self.fd.upgrade(), sender)
        else {
            return;
        };
        let (Some(process), Some(file)) = (event_loop.selecting_process(), fd.file()) else {
            return;
        };
        // Held while it is armed: a watch that has ended must not take the select from the next one.
        let place = fd.watch.lock();
        let is_current = place
            .as_ref()
            .is_some_and(|of_fd| std::ptr::eq(&**of_fd, self));
        if is_current && self.with(direction, |state| state.is_watched()) {
            fd.selection.arm(env, &file, direction, &process);
        }
    }

    fn is_ready(&self, direction: Direction) -> bool {
        let file = self.fd.upgrade().and_then(|fd| fd.file());
        file.is_some_and(|file| {
            transfer::is_ready(file.as_fd(), direction.poll_flags()).unwrap_or(true)
        })
    }
}
