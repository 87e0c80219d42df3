// SPDX-License-Identifier: Apache-2.0
//! What the VM learns of its children.

use std::os::fd::OwnedFd;

use crate::protocol::{ExitStatus, Streams};

/// What happened to a child. The order for one id is as in [`protocol`](crate::protocol).
#[derive(Debug)]
pub enum Event {
    /// The child runs.
    Started {
        /// The id given to `Start`.
        id: u64,
        /// Its process id, which is also that of its process group.
        pid: u32,
        /// This end of its pipes: close-on-exec and non-blocking.
        pipes: Pipes,
    },
    /// There is no child, or no such environment. The last event of the id.
    StartFailed {
        /// The id given to `Start`.
        id: u64,
        /// The number of the error; [`errno::name`](crate::errno::name) gives its name.
        errno: i32,
    },
    /// The child exited; its output may still have to be read.
    Exited {
        /// The id given to `Start`.
        id: u64,
        /// How it ended.
        status: ExitStatus,
        /// No descendant is left: the last event of the id. Otherwise `Gone` follows.
        all_gone: bool,
    },
    /// After `Exited`: no descendant is left. The last event of the id.
    Gone {
        /// The id given to `Start`.
        id: u64,
    },
    /// The spawner is gone or going. Nothing follows; call
    /// [`Connection::finish`](super::Connection::finish).
    Closed,
}

/// The pipes of a child, as asked for in its start.
#[derive(Debug, Default)]
pub struct Pipes {
    /// To write to its stdin.
    pub stdin: Option<OwnedFd>,
    /// To read its stdout.
    pub stdout: Option<OwnedFd>,
    /// To read its stderr.
    pub stderr: Option<OwnedFd>,
}

impl Pipes {
    /// `None` unless there are as many descriptors as streams.
    pub(super) fn from_descriptors(streams: Streams, descriptors: Vec<OwnedFd>) -> Option<Self> {
        if descriptors.len() != streams.count() {
            return None;
        }
        let mut descriptors = descriptors.into_iter();
        let mut next = |present: bool| if present { descriptors.next() } else { None };
        Some(Self {
            stdin: next(streams.stdin),
            stdout: next(streams.stdout),
            stderr: next(streams.stderr),
        })
    }
}
