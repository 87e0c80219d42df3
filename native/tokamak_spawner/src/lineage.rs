// SPDX-License-Identifier: Apache-2.0
//! Which child a process descends from, even after `setsid` and a double fork.
//!
//! Process groups and sessions can be left, parents die, and environments are rewritten. So every
//! child gets a mark that the kernel hands down by itself: the soft value of the resource limit
//! RLIMIT_LOCKS. Linux inherits it through fork and exec, shows it to processes of the same user, and
//! has enforced nothing with it since 2.4.25. The value is unique to the child: a random family, one a
//! spawner, above a sequence number, one a child. The hard limit stays unlimited; where it is not,
//! children go unmarked, and only their process groups are known.
//!
//! A process escapes by setting this limit itself or by changing its user. While the spawner lives it
//! is still the one who adopts such a process, and ends it when the connection closes.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use rustix::rand::{GetRandomFlags, getrandom};

const UNLIMITED: u64 = u64::MAX;

/// The mark that a child and all its descendants carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lineage {
    /// The spawner, as a random number from 1 to 2^31 - 1.
    pub family: u32,
    /// The child, as its number in that spawner.
    pub sequence: u32,
}

/// The kernel's `struct rlimit64`, the same on every architecture.
#[repr(C)]
struct Limit {
    soft: u64,
    hard: u64,
}

/// A new random family.
///
/// # Errors
/// What `getrandom` gives.
pub fn new_family() -> Result<u32, Errno> {
    let mut random = [0; 4];
    getrandom(&mut random, GetRandomFlags::empty())?;
    Ok((u32::from_le_bytes(random) >> 1).max(1))
}

/// Whether children of this process can be marked.
pub fn available() -> bool {
    limit_of(0).is_some_and(|limit| limit.hard == UNLIMITED)
}

impl Lineage {
    fn value(self) -> u64 {
        u64::from(self.family) << 32 | u64::from(self.sequence)
    }

    /// The mark of a process; `None` when it has none, is gone, or is another user's.
    pub fn of(pid: Pid) -> Option<Self> {
        let value = limit_of(pid.as_raw_nonzero().get())?.soft;
        let family = u32::try_from(value >> 32)
            .ok()
            .filter(|family| (1..1 << 31).contains(family))?;
        Some(Self {
            family,
            sequence: value as u32,
        })
    }

    /// Marks the calling process. Async-signal-safe. Without permission it stays unmarked.
    pub fn mark_self(self) {
        let new = Limit {
            soft: self.value(),
            hard: UNLIMITED,
        };
        // SAFETY: the kernel reads one `rlimit64` from `new` and writes nothing.
        unsafe {
            libc::syscall(
                libc::SYS_prlimit64,
                0,
                libc::RLIMIT_LOCKS,
                &raw const new,
                std::ptr::null_mut::<Limit>(),
            );
        }
    }

    /// A descriptor (pidfd) of `pid`, which still carries this mark.
    ///
    /// # Errors
    /// `SRCH` when the process is gone or another one, and what `pidfd_open` gives.
    pub fn open(self, pid: Pid) -> Result<OwnedFd, Errno> {
        // Opened before the mark is looked at, the descriptor cannot come to mean another process.
        let descriptor = pidfd_open(pid, PidfdFlags::empty())?;
        if Self::of(pid) == Some(self) {
            Ok(descriptor)
        } else {
            Err(Errno::SRCH)
        }
    }

    /// Sends a signal to `pid`, which still carries this mark.
    ///
    /// # Errors
    /// `SRCH` when the process is gone or another one, `PERM` when it is another user's.
    pub fn signal(self, pid: Pid, signal: Signal) -> Result<(), Errno> {
        match self.open(pid) {
            Ok(descriptor) => pidfd_send_signal(descriptor, signal),
            // No descriptor to be had: the moment between this look and the signal is short enough.
            Err(Errno::MFILE | Errno::NFILE | Errno::NOSYS) if Self::of(pid) == Some(self) => {
                kill_process(pid, signal)
            }
            Err(error) => Err(error),
        }
    }
}

fn limit_of(pid: i32) -> Option<Limit> {
    let mut limit = Limit { soft: 0, hard: 0 };
    // SAFETY: the kernel writes one `rlimit64` to `limit` and reads nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid,
            libc::RLIMIT_LOCKS,
            std::ptr::null::<Limit>(),
            &raw mut limit,
        )
    };
    (result == 0).then_some(limit)
}
