// SPDX-License-Identifier: Apache-2.0
//! Replies on their way to the VM. They wait here while its socket is full; as the loop takes no
//! requests meanwhile, there are at most a few for each running child.

use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;

use tokamak_spawner::packet;
use tokamak_spawner::protocol::Reply;

use super::stdio::borrowed;

#[derive(Default)]
pub(super) struct Outbox {
    waiting: VecDeque<(Reply, Vec<OwnedFd>)>,
}

/// Why the outbox could not be emptied.
pub(super) enum Stuck {
    /// The socket is full.
    Full,
    /// This child's pipes cannot be sent.
    Undeliverable(u64, Errno),
    /// The VM is gone.
    Closed,
}

impl Outbox {
    pub(super) fn push(&mut self, reply: Reply, descriptors: Vec<OwnedFd>) {
        self.waiting.push_back((reply, descriptors));
    }

    /// Replaces all that waits about a child by this failure of its start.
    pub(super) fn fail_start(&mut self, id: u64, error: Errno) {
        self.waiting.retain(|(reply, _)| reply.id() != Some(id));
        let errno = error.raw_os_error();
        self.waiting
            .push_front((Reply::StartFailed { id, errno }, Vec::new()));
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Sends in order what the socket takes, and closes the descriptors that were sent.
    pub(super) fn flush(&mut self, socket: BorrowedFd<'_>) -> Result<(), Stuck> {
        while let Some((reply, descriptors)) = self.waiting.front() {
            match packet::send(socket, &reply.encode(), &borrowed(descriptors)) {
                Ok(()) => {}
                Err(Errno::AGAIN) => return Err(Stuck::Full),
                Err(error) => match *reply {
                    // Too many descriptors are under way (ETOOMANYREFS), or no memory.
                    Reply::Started { id, .. } if error != Errno::PIPE => {
                        return Err(Stuck::Undeliverable(id, error));
                    }
                    _ => return Err(Stuck::Closed),
                },
            }
            self.waiting.pop_front();
        }
        Ok(())
    }
}
