// SPDX-License-Identifier: Apache-2.0
//! What can go wrong between the VM and its spawner.

use rustix::io::Errno;

use crate::protocol::{Malformed, VERSION};

/// Why a spawner did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The program could not be run.
    #[error("cannot run the spawner: {0}")]
    Run(#[from] Errno),
    /// The program is from another build.
    #[error("the spawner speaks version {0} of the protocol, expected {VERSION}")]
    Version(u32),
    /// The program ended at once or said something else.
    #[error("the program is not a working spawner")]
    NotASpawner,
    /// The program said nothing in time.
    #[error("the spawner did not answer in time")]
    Silent,
}

/// Why a request was not sent. Nothing of it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The socket has no room now.
    #[error("the spawner's socket is full")]
    Full,
    /// The spawner is gone.
    #[error("the spawner is gone")]
    Closed,
    /// The request is longer than `MAX_REQUEST` (`E2BIG`).
    #[error("the request is too long")]
    TooLong,
    /// The system refused, for want of descriptors or memory as a rule.
    #[error("cannot send to the spawner: {0}")]
    Socket(Errno),
}

/// Why nothing more can be received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// The spawner sent what is not a reply.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The spawner sent a reply that has no place here.
    #[error("the spawner sent a message out of place")]
    OutOfPlace,
    /// The system refused.
    #[error("cannot receive from the spawner: {0}")]
    Socket(Errno),
}

/// Why it is not certain that everything ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FinishError {
    /// The spawner, or what it left behind, still runs.
    #[error("the spawner and its children did not end in time")]
    TimedOut,
    /// The processes could not be listed or signalled.
    #[error("cannot end what the spawner left: {0}")]
    System(#[from] Errno),
}

impl From<Errno> for SendError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::AGAIN => Self::Full,
            Errno::PIPE | Errno::CONNRESET => Self::Closed,
            Errno::TOOBIG => Self::TooLong,
            other => Self::Socket(other),
        }
    }
}
