// SPDX-License-Identifier: Apache-2.0
//! The spawner as a process of this one, and what a spawner that was killed leaves behind.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

use super::error::{FinishError, StartError};
use super::wait_until_ready;
use crate::lineage::Lineage;
use crate::processes::{ProcessList, ProcessState};

/// How long a killed process may take to end before nobody waits for it any more.
const KILL_TIME: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct SpawnerProcess {
    pid: Pid,
    /// Waits and signals by this descriptor cannot meet another process with a reused id.
    descriptor: OwnedFd,
}

impl SpawnerProcess {
    /// Starts the program with the socket as its stdin: the one descriptor `Command` passes on
    /// without code of ours between fork and exec, so that it takes the `posix_spawn` path.
    pub(super) fn start(program: &Path, socket: OwnedFd) -> Result<Self, StartError> {
        let child = Command::new(program)
            .stdin(Stdio::from(socket))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(Errno::SRCH)?;
        Ok(Self {
            pid,
            descriptor: pidfd_open(pid, PidfdFlags::empty())?,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Ends a program that turned out to be no spawner.
    pub(super) fn kill(&self) {
        // It fails only where the process has ended already.
        let _ = pidfd_send_signal(&self.descriptor, Signal::KILL);
        wait_until_ready(
            self.descriptor.as_fd(),
            PollFlags::IN,
            Instant::now() + KILL_TIME,
        );
        self.reap();
    }

    /// Waits for the process to end and removes its zombie, if there is one.
    pub(super) fn collect(&self, deadline: Instant) -> Result<(), FinishError> {
        if !wait_until_ready(self.descriptor.as_fd(), PollFlags::IN, deadline) {
            return Err(FinishError::TimedOut);
        }
        self.reap();
        Ok(())
    }

    fn reap(&self) {
        // ECHILD where SIGCHLD is ignored: the kernel has done it.
        let _ = waitid(
            WaitId::PidFd(self.descriptor.as_fd()),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        );
    }
}

/// Kills every process that carries a mark of `family`, until none is left.
pub(super) fn kill_family(family: u32, deadline: Instant) -> Result<usize, FinishError> {
    let mut processes = ProcessList::open()?;
    let mut killed = 0;
    loop {
        let members: Vec<_> = processes
            .pids()?
            .into_iter()
            .filter_map(|pid| Some((pid, Lineage::of(pid)?)))
            .filter(|(pid, lineage)| lineage.family == family && is_alive(*pid))
            .collect();
        if members.is_empty() {
            return Ok(killed);
        }
        for (pid, lineage) in members {
            killed += usize::from(kill_member(pid, lineage, deadline)?);
        }
    }
}

/// Kills one process and waits for its end; false when it had ended by itself.
fn kill_member(pid: Pid, lineage: Lineage, deadline: Instant) -> Result<bool, FinishError> {
    let descriptor = match lineage.open(pid) {
        Err(Errno::SRCH) => return Ok(false),
        result => result?,
    };
    match pidfd_send_signal(&descriptor, Signal::KILL) {
        Err(Errno::SRCH) => return Ok(false),
        result => result?,
    }
    if wait_until_ready(descriptor.as_fd(), PollFlags::IN, deadline) {
        Ok(true)
    } else {
        Err(FinishError::TimedOut)
    }
}

fn is_alive(pid: Pid) -> bool {
    ProcessState::of(pid).is_some_and(|state| !state.zombie)
}
