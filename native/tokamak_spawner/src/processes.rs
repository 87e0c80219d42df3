// SPDX-License-Identifier: Apache-2.0
//! The processes of the system, as `/proc` shows them.

use std::fs;

use rustix::fs::{Dir, Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::Pid;

/// Lists processes. Keeps `/proc` open, so that it works without free descriptors.
#[derive(Debug)]
pub struct ProcessList {
    directory: Dir,
}

/// What `/proc/PID/stat` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessState {
    /// It has ended and was not collected yet.
    pub zombie: bool,
    /// The process id of its parent.
    pub parent: i32,
}

impl ProcessList {
    /// Opens `/proc`.
    ///
    /// # Errors
    /// When it is not mounted or not readable.
    pub fn open() -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            directory: Dir::new(open("/proc", flags, Mode::empty())?)?,
        })
    }

    /// The processes there are now. One that starts meanwhile may be missed.
    ///
    /// # Errors
    /// What reading `/proc` gives.
    pub fn pids(&mut self) -> Result<Vec<Pid>, Errno> {
        self.directory.rewind();
        let mut pids = Vec::new();
        while let Some(entry) = self.directory.read() {
            let entry = entry?;
            let number = entry
                .file_name()
                .to_str()
                .ok()
                .and_then(|name| name.parse().ok());
            pids.extend(number.and_then(Pid::from_raw));
        }
        Ok(pids)
    }
}

impl ProcessState {
    /// The state of a process; `None` when there is none.
    pub fn of(pid: Pid) -> Option<Self> {
        Self::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The line is `PID (NAME) STATE PARENT …`, where the name may hold anything.
    fn parse(line: &[u8]) -> Option<Self> {
        let end_of_name = line.iter().rposition(|&byte| byte == b')')?;
        let mut fields = str::from_utf8(&line[end_of_name + 1..])
            .ok()?
            .split_ascii_whitespace();
        let zombie = matches!(fields.next()?, "Z" | "X" | "x");
        Some(Self {
            zombie,
            parent: fields.next()?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_have_any_name() {
        let state = ProcessState::parse(b"7 (a) Z 1 (b\xff) S 42 7 7 0");
        assert_eq!(
            state,
            Some(ProcessState {
                zombie: false,
                parent: 42
            })
        );
    }

    #[test]
    fn a_zombie_is_told_from_a_living_process() {
        let state = ProcessState::parse(b"7 (true) Z 42 7 7 0");
        assert_eq!(
            state,
            Some(ProcessState {
                zombie: true,
                parent: 42
            })
        );
    }

    #[test]
    fn what_is_no_state_is_refused() {
        for line in [&b""[..], b"7 (true", b"7 (true) Z", b"7 (true) Z x"] {
            assert_eq!(ProcessState::parse(line), None);
        }
    }

    #[test]
    fn this_process_is_in_the_list_each_time() {
        let mut list = ProcessList::open().unwrap();
        let own = rustix::process::getpid();
        for _ in 0..2 {
            assert!(list.pids().unwrap().contains(&own));
        }
    }
}
