// SPDX-License-Identifier: Apache-2.0
//! The VM's side: starts a spawner, sends it requests, receives its events.
//!
//! Tied to no runtime. The socket does not block; [`Connection::try_send`] and
//! [`Connection::try_recv`] work from any thread, and the descriptor of [`AsFd`] tells a poll or an
//! async runtime when to call them again. Dropping the connection ends all children.
//!
//! The VM never waits for its spawner to learn whether it lives: [`Event::Closed`] says so. As a rule
//! the BEAM ignores SIGCHLD, so the kernel removes a spawner that died; where user code has set another
//! disposition it stays a zombie until [`Connection::finish`] collects it. Nothing here touches SIGCHLD.

mod disowned;
mod error;
mod event;
mod process;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};

use crate::packet::{self, MAX_REPLY, Packet};
use crate::protocol::{Reply, Request, VERSION};

use disowned::Disowned;
pub use error::{FinishError, ReceiveError, SendError, StartError};
pub use event::{Event, Pipes};
use process::SpawnerProcess;

/// A running spawner.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    process: SpawnerProcess,
    family: u32,
    disowned: Disowned,
}

impl Connection {
    /// Starts the spawner program and waits for its first message. Blocks for some milliseconds as a
    /// rule, for `timeout` at most.
    ///
    /// The spawner keeps the environment and the working directory this process has now.
    ///
    /// # Errors
    /// [`StartError`], when the program cannot be run, is another version, or says nothing in time.
    pub fn start(program: &Path, timeout: Duration) -> Result<Self, StartError> {
        let (socket, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .map_err(StartError::Run)?;
        let process = SpawnerProcess::start(program, theirs)?;
        match receive_hello(socket.as_fd(), timeout) {
            Ok(family) => Ok(Self {
                socket,
                process,
                family,
                disowned: Disowned::default(),
            }),
            Err(error) => {
                process.kill();
                Err(error)
            }
        }
    }

    /// Sends a request. A request too long for a packet is copied into an anonymous file.
    ///
    /// # Errors
    /// [`SendError`]. After `Full`, try again when the descriptor is writable.
    pub fn try_send(&self, request: &Request) -> Result<(), SendError> {
        self.disowned.stop_all(self.socket.as_fd());
        packet::send_request(&self.socket, &request.encode()).map_err(SendError::from)
    }

    /// Sends a request, waiting for room in the socket.
    ///
    /// Some other thread must be receiving: the spawner takes no requests while its events are not
    /// taken.
    ///
    /// # Errors
    /// [`SendError`]; `Full` when there was no room within `timeout`.
    pub fn send(&self, request: &Request, timeout: Duration) -> Result<(), SendError> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.try_send(request) {
                Err(SendError::Full) if self.wait(PollFlags::OUT, deadline) => {}
                result => return result,
            }
        }
    }

    /// The next event, if one is there.
    ///
    /// # Errors
    /// [`ReceiveError`], after which the connection is closed.
    pub fn try_recv(&self) -> Result<Option<Event>, ReceiveError> {
        self.disowned.stop_all(self.socket.as_fd());
        loop {
            let mut buffer = [0; MAX_REPLY];
            let packet = match packet::receive(&self.socket, &mut buffer) {
                Ok(packet) if packet.bytes.is_empty() => return Ok(Some(Event::Closed)),
                Ok(packet) => packet,
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::CONNRESET) => return Ok(Some(Event::Closed)),
                Err(errno) => return Err(self.give_up(ReceiveError::Socket(errno))),
            };
            match self.event(packet) {
                Ok(None) => {}
                Ok(event) => return Ok(event),
                Err(error) => return Err(self.give_up(error)),
            }
        }
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    pub fn recv(&self, timeout: Duration) -> Result<Option<Event>, ReceiveError> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.try_recv()? {
                None if self.wait(PollFlags::IN, deadline) => {}
                event => return Ok(event),
            }
        }
    }

    /// Closes the connection: the spawner ends all children and then itself. Whoever receives gets
    /// [`Event::Closed`]. Safe to call from any thread, at any time.
    pub fn close(&self) {
        // It fails only where the other side has closed already.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }

    /// After [`Event::Closed`] or an error: waits for the spawner to exit, then kills whatever of its
    /// children's descendants it left behind. It leaves nothing unless it was itself killed. Returns
    /// how many processes that were.
    ///
    /// Blocks up to `timeout`: after `close` up to the children's kill timeout, after a crash for the
    /// time of a look at every process of the system. Not for a scheduler thread.
    ///
    /// # Errors
    /// [`FinishError`] when the time was too short or the processes cannot be listed.
    pub fn finish(&self, timeout: Duration) -> Result<usize, FinishError> {
        self.close();
        let deadline = Instant::now() + timeout;
        self.process.collect(deadline)?;
        process::kill_family(self.family, deadline)
    }

    /// The spawner's process id.
    pub fn spawner_pid(&self) -> u32 {
        self.process.pid()
    }

    /// The family of the marks that all descendants carry; see [`lineage`](crate::lineage).
    pub fn family(&self) -> u32 {
        self.family
    }

    /// What a packet says, or nothing when it is about a disowned child.
    fn event(&self, packet: Packet<'_>) -> Result<Option<Event>, ReceiveError> {
        Ok(Some(match Reply::decode(packet.bytes)? {
            Reply::Started { id, pid, streams } => {
                match Pipes::from_descriptors(streams, packet.descriptors) {
                    Some(pipes) => Event::Started { id, pid, pipes },
                    None => {
                        self.disowned.add(id);
                        self.disowned.stop_all(self.socket.as_fd());
                        Event::StartFailed {
                            id,
                            errno: Errno::MFILE.raw_os_error(),
                        }
                    }
                }
            }
            Reply::StartFailed { id, errno } => Event::StartFailed { id, errno },
            Reply::Exited { id, all_gone, .. } if self.disowned.ends(id, all_gone) => {
                return Ok(None);
            }
            Reply::Gone { id } if self.disowned.ends(id, true) => return Ok(None),
            Reply::Exited {
                id,
                status,
                all_gone,
            } => Event::Exited {
                id,
                status,
                all_gone,
            },
            Reply::Gone { id } => Event::Gone { id },
            Reply::Hello { .. } => return Err(ReceiveError::OutOfPlace),
        }))
    }

    fn give_up(&self, error: ReceiveError) -> ReceiveError {
        self.close();
        error
    }

    /// Waits until the socket is ready; false when the deadline came first.
    fn wait(&self, flags: PollFlags, deadline: Instant) -> bool {
        wait_until_ready(self.socket.as_fd(), flags, deadline)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Waits until a descriptor is ready, has failed or was hung up; false when the deadline came first.
fn wait_until_ready(descriptor: BorrowedFd<'_>, flags: PollFlags, deadline: Instant) -> bool {
    loop {
        let rest = deadline.saturating_duration_since(Instant::now());
        let Ok(timeout) = Timespec::try_from(rest) else {
            return false;
        };
        match poll(
            &mut [PollFd::from_borrowed_fd(descriptor, flags)],
            Some(&timeout),
        ) {
            Ok(0) => return false,
            Err(Errno::INTR) => {}
            // What is wrong shows when the descriptor is used.
            Ok(_) | Err(_) => return true,
        }
    }
}

fn receive_hello(socket: BorrowedFd<'_>, timeout: Duration) -> Result<u32, StartError> {
    let deadline = Instant::now() + timeout;
    let mut buffer = [0; MAX_REPLY];
    let packet = loop {
        match packet::receive(socket, &mut buffer) {
            Err(Errno::AGAIN) if wait_until_ready(socket, PollFlags::IN, deadline) => {}
            Err(Errno::AGAIN) => return Err(StartError::Silent),
            Err(_) => return Err(StartError::NotASpawner),
            Ok(packet) => break packet,
        }
    };
    match Reply::decode(packet.bytes) {
        Ok(Reply::Hello {
            version: VERSION,
            family,
        }) => Ok(family),
        Ok(Reply::Hello { version, .. }) => Err(StartError::Version(version)),
        _ => Err(StartError::NotASpawner),
    }
}
