// SPDX-License-Identifier: Apache-2.0
//! The one loop of the spawner.

use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::{Errno, Result};
use rustix::process::{WaitOptions, WaitStatus, wait};

use tokamak_spawner::lineage::{self, Lineage};
use tokamak_spawner::packet::{self, MAX_PACKET, Packet};
use tokamak_spawner::protocol::{ExitStatus, Reply, Request, StartRequest, VERSION};

use super::children::{Child, Children, Sequence};
use super::ending::Ending;
use super::launch::Launcher;
use super::outbox::{Outbox, Stuck};
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
    outbox: Outbox,
    launcher: Launcher,
    children: Children,
    /// No process is our child, so none descends from us.
    childless: bool,
    ending: Ending,
    family: u32,
    marks: bool,
}

/// The VM is gone, or sends what no client of ours sends.
struct Disconnected;

impl EventLoop {
    /// # Errors
    /// What the system refuses; then there is nothing to clean up.
    pub(super) fn new(socket: OwnedFd) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let child_signals = setup::child_signals()?;
        let watch = |fd: &OwnedFd, data| {
            epoll::add(
                &epoll,
                fd,
                epoll::EventData::new_u64(data),
                epoll::EventFlags::IN,
            )
        };
        watch(&socket, SOCKET)?;
        watch(&child_signals, CHILD_SIGNAL)?;
        let family = lineage::new_family()?;
        let mut outbox = Outbox::default();
        outbox.push(
            Reply::Hello {
                version: VERSION,
                family,
            },
            Vec::new(),
        );
        Ok(Self {
            socket: Some(socket),
            epoll,
            child_signals,
            exits: false,
            watches_room: false,
            outbox,
            launcher: Launcher::new(),
            children: Children::default(),
            childless: true,
            ending: Ending::new(family)?,
            family,
            marks: lineage::available(),
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
                self.close();
            }
            if self.socket.is_none() && (self.childless || self.ending.gives_up()) {
                return Ok(());
            }
            self.watch_socket()?;
            self.wait()?;
        }
    }

    /// Does all there is to do, up to the next wait.
    fn serve(&mut self, buffer: &mut [u8]) -> std::result::Result<(), Disconnected> {
        if mem::take(&mut self.exits) {
            self.reap();
        }
        for gone in self.ending.run(&mut self.children) {
            self.forget(gone);
        }
        self.flush()?;
        for _ in 0..REQUESTS_AT_ONCE {
            let Some(socket) = self.socket.as_ref().filter(|_| self.outbox.is_empty()) else {
                break;
            };
            match packet::receive(socket, buffer) {
                Ok(packet) if packet.bytes.is_empty() => return Err(Disconnected),
                Ok(packet) => self.handle(packet)?,
                Err(Errno::AGAIN) => break,
                Err(_) => return Err(Disconnected),
            }
            self.flush()?;
        }
        Ok(())
    }

    fn handle(&mut self, packet: Packet<'_>) -> std::result::Result<(), Disconnected> {
        let request = match packet::id_of_request_in_file(packet.bytes) {
            None => Request::decode(packet.bytes),
            Some(id) => {
                let file = packet.descriptors.into_iter().next().ok_or(Errno::MFILE);
                match file.and_then(packet::read_request_file) {
                    Ok(request) => Request::decode(&request),
                    Err(error) => {
                        self.fail_start(id, error);
                        return Ok(());
                    }
                }
            }
        };
        match request.map_err(|_| Disconnected)? {
            Request::Start(start) => return self.start(&start),
            Request::Signal { id, signal, group } => self.signal(id, signal, group),
            Request::Stop { id, kill_timeout } => {
                if let Some(child) = self.children.find(id) {
                    self.ending
                        .stop(&mut self.children, child, milliseconds(kill_timeout));
                }
            }
            Request::Release { id } => self.release(id),
        }
        Ok(())
    }

    fn start(&mut self, start: &StartRequest) -> std::result::Result<(), Disconnected> {
        let id = start.id;
        if self.children.find(id).is_some() {
            return Err(Disconnected);
        }
        let sequence = self.children.next_sequence();
        let lineage = Lineage {
            family: self.family,
            sequence,
        };
        match self.launcher.launch(start, self.marks.then_some(lineage)) {
            Ok((pid, pipes)) => {
                self.childless = false;
                self.children
                    .insert(sequence, id, pid, milliseconds(start.kill_timeout));
                let pid = pid.as_raw_nonzero().get().unsigned_abs();
                let started = Reply::Started {
                    id,
                    pid,
                    streams: pipes.streams(),
                };
                self.outbox.push(started, pipes.into_descriptors());
            }
            Err(error) => self.fail_start(id, error),
        }
        Ok(())
    }

    fn fail_start(&mut self, id: u64, error: Errno) {
        let errno = error.raw_os_error();
        self.outbox
            .push(Reply::StartFailed { id, errno }, Vec::new());
    }

    fn signal(&self, id: u64, signal: i32, group: bool) {
        let child = self
            .children
            .find(id)
            .and_then(|sequence| self.children.get(sequence));
        let Some(child) = child.filter(|child| !child.exited) else {
            return;
        };
        let pid = child.pid.as_raw_nonzero().get();
        // SAFETY: no memory is involved. The child is not reaped yet, so the number is still its own.
        unsafe { libc::kill(if group { -pid } else { pid }, signal) };
    }

    /// Whoever was being ended still is.
    fn release(&mut self, id: u64) {
        let Some(sequence) = self.children.release(id) else {
            return;
        };
        let ended = |child: &Child| child.exited && child.end.is_none();
        if self.children.get(sequence).is_some_and(ended) {
            self.children.remove(sequence);
        }
    }

    /// Collects every process that ended, and reports those that are children.
    fn reap(&mut self) {
        let mut exits = Vec::new();
        self.childless = loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some(exit)) => exits.push(exit),
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        let any = !exits.is_empty();
        for (pid, status) in exits {
            if let Some(child) = self.children.exit(pid) {
                self.report_exit(child, status);
            }
        }
        if any && !self.children.exited().is_empty() {
            if self.childless {
                let all: Vec<_> = self.children.exited().iter().copied().collect();
                all.into_iter().for_each(|child| self.forget(child));
            } else {
                self.ending.look_after_exit();
            }
        }
    }

    fn report_exit(&mut self, sequence: Sequence, status: WaitStatus) {
        let Some(child) = self.children.get(sequence) else {
            return;
        };
        // Unmarked descendants cannot be told from others, so nobody waits for them.
        let all_gone = self.childless || !self.marks;
        if let Some(id) = child.id {
            let status = exit_status(status);
            self.outbox.push(
                Reply::Exited {
                    id,
                    status,
                    all_gone,
                },
                Vec::new(),
            );
        }
        if all_gone || (child.id.is_none() && child.end.is_none()) {
            self.children.remove(sequence);
        }
    }

    /// An exited child without descendants.
    fn forget(&mut self, sequence: Sequence) {
        if let Some(id) = self.children.remove(sequence).and_then(|child| child.id) {
            self.outbox.push(Reply::Gone { id }, Vec::new());
        }
    }

    /// Sends what the socket takes.
    fn flush(&mut self) -> std::result::Result<(), Disconnected> {
        let Some(socket) = &self.socket else {
            self.outbox.clear();
            return Ok(());
        };
        loop {
            match self.outbox.flush(socket.as_fd()) {
                Ok(()) | Err(Stuck::Full) => return Ok(()),
                Err(Stuck::Closed) => return Err(Disconnected),
                Err(Stuck::Undeliverable(id, error)) => {
                    self.outbox.fail_start(id, error);
                    if let Some(child) = self.children.release(id) {
                        self.ending.stop(&mut self.children, child, Duration::ZERO);
                    }
                }
            }
        }
    }

    /// Ends all children, as nobody is there any more to own them.
    fn close(&mut self) {
        if self.socket.take().is_some() {
            self.outbox.clear();
            self.ending.stop_all(&mut self.children);
            self.reap();
        }
    }

    /// Requests are taken while there is nothing to send; else room is waited for.
    fn watch_socket(&mut self) -> Result<()> {
        let wants_room = !self.outbox.is_empty();
        if let Some(socket) = self
            .socket
            .as_ref()
            .filter(|_| wants_room != self.watches_room)
        {
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
        let timeout = self.ending.next_time(&self.children).map(until);
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

fn exit_status(status: WaitStatus) -> ExitStatus {
    match status.terminating_signal() {
        Some(signal) => ExitStatus::Signal(signal as u8),
        None => ExitStatus::Code(status.exit_status().unwrap_or_default() as u8),
    }
}

fn milliseconds(number: u32) -> Duration {
    Duration::from_millis(number.into())
}
