// SPDX-License-Identifier: Apache-2.0
//! The one loop of the spawner: requests, exits and timers, in turn.

use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::{Timespec, epoll};
use rustix::io::{Errno, Result};

use tokamak_spawner::packet::{self, MAX_PACKET};

use super::outbox::Stuck;
use super::service::{Disconnected, Service};
use super::setup;

const SOCKET: u64 = 0;
const CHILD_SIGNAL: u64 = 1;

/// How many requests are served before exits and timers are looked at again.
const REQUESTS_AT_ONCE: usize = 32;

pub(super) struct EventLoop {
    /// `None` once the connection has closed: then everything is being ended.
    socket: Option<OwnedFd>,
    epoll: OwnedFd,
    child_signals: OwnedFd,
    /// SIGCHLD has come since the last look for exits.
    exits: bool,
    /// Whether the socket is watched for room to write, rather than for requests.
    watches_room: bool,
    service: Service,
}

impl EventLoop {
    /// # Errors
    /// What the system refuses; then there is nothing to clean up.
    pub(super) fn new(socket: OwnedFd) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let child_signals = setup::child_signals()?;
        for (descriptor, token) in [(&socket, SOCKET), (&child_signals, CHILD_SIGNAL)] {
            let token = epoll::EventData::new_u64(token);
            epoll::add(&epoll, descriptor, token, epoll::EventFlags::IN)?;
        }
        Ok(Self {
            socket: Some(socket),
            epoll,
            child_signals,
            exits: false,
            watches_room: false,
            service: Service::new()?,
        })
    }

    /// Serves until the connection has closed and all descendants are gone.
    ///
    /// # Errors
    /// When waiting fails, which it does not by any input.
    pub(super) fn run(mut self) -> Result<()> {
        let mut buffer = vec![0; MAX_PACKET];
        loop {
            if self.serve(&mut buffer).is_err() {
                self.socket = None;
                self.service.close();
            }
            if self.socket.is_none() && (self.service.childless() || self.service.ending.gives_up())
            {
                return Ok(());
            }
            self.watch_socket()?;
            self.wait()?;
        }
    }

    /// Does all there is to do, up to the next wait.
    fn serve(&mut self, buffer: &mut [u8]) -> std::result::Result<(), Disconnected> {
        if mem::take(&mut self.exits) {
            self.service.reap();
        }
        self.service.on_time();
        self.flush()?;
        for _ in 0..REQUESTS_AT_ONCE {
            // What waits to be sent is bounded because no more is asked for meanwhile.
            let ready = self.service.outbox.is_empty();
            let Some(socket) = self.socket.as_ref().filter(|_| ready) else {
                break;
            };
            match packet::receive(socket, buffer) {
                Ok(packet) if packet.bytes.is_empty() => return Err(Disconnected),
                Ok(packet) => self.service.handle(packet)?,
                Err(Errno::AGAIN) => break,
                Err(_) => return Err(Disconnected),
            }
            self.flush()?;
        }
        Ok(())
    }

    /// Sends what the socket takes.
    fn flush(&mut self) -> std::result::Result<(), Disconnected> {
        let Some(socket) = &self.socket else {
            self.service.outbox.clear();
            return Ok(());
        };
        loop {
            match self.service.outbox.flush(socket.as_fd()) {
                Ok(()) | Err(Stuck::Full) => return Ok(()),
                Err(Stuck::Closed) => return Err(Disconnected),
                Err(Stuck::Undeliverable(id, error)) => self.service.take_back(id, error),
            }
        }
    }

    /// Requests are taken while there is nothing to send; else room is waited for.
    fn watch_socket(&mut self) -> Result<()> {
        let wants_room = !self.service.outbox.is_empty();
        let changed = wants_room != self.watches_room;
        if let Some(socket) = self.socket.as_ref().filter(|_| changed) {
            let flags = if wants_room {
                epoll::EventFlags::OUT
            } else {
                epoll::EventFlags::IN
            };
            epoll::modify(
                &self.epoll,
                socket,
                epoll::EventData::new_u64(SOCKET),
                flags,
            )?;
            self.watches_room = wants_room;
        }
        Ok(())
    }

    /// Sleeps until something happened or is due.
    fn wait(&mut self) -> Result<()> {
        let Service {
            ending, children, ..
        } = &self.service;
        let timeout = ending.next_time(children).map(until);
        let mut events = [MaybeUninit::uninit(); 4];
        match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
            Ok((events, _)) if events.iter().any(|event| event.data.u64() == CHILD_SIGNAL) => {
                clear(self.child_signals.as_fd());
                self.exits = true;
                Ok(())
            }
            // The spawner was stopped and continued.
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The time until then, in whole milliseconds and never too short: less would spin.
fn until(time: Instant) -> Timespec {
    let rest = time.saturating_duration_since(Instant::now());
    let milliseconds = rest
        .as_nanos()
        .div_ceil(1_000_000)
        .min(u128::from(u32::MAX));
    Timespec {
        tv_sec: (milliseconds / 1000) as i64,
        tv_nsec: (milliseconds % 1000 * 1_000_000) as _,
    }
}

/// Takes the pending SIGCHLD. It stands for any number of exits; `reap` looks for itself.
fn clear(signals: BorrowedFd<'_>) {
    let mut information = [0_u8; size_of::<libc::signalfd_siginfo>()];
    let _ = rustix::io::read(signals, &mut information);
}
