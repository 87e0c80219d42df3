// SPDX-License-Identifier: Apache-2.0
//! The three standard streams of a child: pipes, files, or `/dev/null`.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open};
use rustix::io::{Errno, Result};
use rustix::pipe::{PipeFlags, pipe_with};

use tokamak_spawner::protocol::{Input, Output, StartRequest, Streams};

/// What a child gets as descriptors 0 to 2, and what its owner gets of the pipes.
pub(super) struct Stdio {
    stdin: Option<OwnedFd>,
    stdout: Side,
    stderr: Side,
    /// The other ends, in the order stdin, stdout, stderr.
    owner: [Option<OwnedFd>; 3],
}

enum Side {
    Null,
    Own(OwnedFd),
    Merged,
}

impl Stdio {
    /// Makes the pipes and opens the files. On an error everything made so far is closed.
    pub(super) fn new(start: &StartRequest) -> Result<Self> {
        if start.stdout == Output::Merge && start.stderr == Output::Merge {
            return Err(Errno::INVAL);
        }
        let (stdin, owner_stdin) = match start.stdin {
            Input::Null => (None, None),
            Input::Pipe => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
                (Some(read), Some(non_blocking(write)?))
            }
        };
        let directory = start.directory.as_deref();
        let (stdout, owner_stdout) = output(&start.stdout, directory)?;
        let (stderr, owner_stderr) = output(&start.stderr, directory)?;
        Ok(Self {
            stdin,
            stdout,
            stderr,
            owner: [owner_stdin, owner_stdout, owner_stderr],
        })
    }

    /// The descriptors to be copied to 0, 1 and 2; -1 where `/dev/null` is there already.
    pub(super) fn child(&self) -> [RawFd; 3] {
        let stdin = self.stdin.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let (stdout, stderr) = (self.stdout.own(), self.stderr.own());
        [
            stdin,
            if matches!(self.stdout, Side::Merged) {
                stderr
            } else {
                stdout
            },
            if matches!(self.stderr, Side::Merged) {
                stdout
            } else {
                stderr
            },
        ]
    }

    /// Closes the child's ends and keeps the owner's.
    pub(super) fn into_owner(self) -> OwnerEnds {
        OwnerEnds(self.owner)
    }
}

impl Side {
    fn own(&self) -> RawFd {
        match self {
            Self::Own(descriptor) => descriptor.as_raw_fd(),
            Self::Null | Self::Merged => -1,
        }
    }
}

/// The ends of a child's pipes that travel to its owner.
pub(super) struct OwnerEnds([Option<OwnedFd>; 3]);

impl OwnerEnds {
    pub(super) fn streams(&self) -> Streams {
        let [stdin, stdout, stderr] = &self.0;
        Streams {
            stdin: stdin.is_some(),
            stdout: stdout.is_some(),
            stderr: stderr.is_some(),
        }
    }

    pub(super) fn into_descriptors(self) -> Vec<OwnedFd> {
        self.0.into_iter().flatten().collect()
    }
}

fn output(output: &Output, directory: Option<&[u8]>) -> Result<(Side, Option<OwnedFd>)> {
    Ok(match output {
        Output::Null => (Side::Null, None),
        Output::Merge => (Side::Merged, None),
        Output::Stream => {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            (Side::Own(write), Some(non_blocking(read)?))
        }
        Output::File(path) => (Side::Own(open_file(path, directory)?), None),
    })
}

/// Only this end: the other one has flags of its own.
fn non_blocking(end: OwnedFd) -> Result<OwnedFd> {
    fcntl_setfl(&end, OFlags::NONBLOCK)?;
    Ok(end)
}

/// Opens a file for a child's output. Non-blocking while it opens, as a FIFO without a reader would
/// stop the spawner (it is `ENXIO` now), and without taking a terminal for its own.
fn open_file(path: &[u8], directory: Option<&[u8]>) -> Result<OwnedFd> {
    let path = match directory {
        Some(directory) => Path::new(OsStr::from_bytes(directory)).join(OsStr::from_bytes(path)),
        None => Path::new(OsStr::from_bytes(path)).to_path_buf(),
    };
    let path = CString::new(path.into_os_string().as_bytes()).map_err(|_| Errno::INVAL)?;
    let flags = OFlags::WRONLY
        | OFlags::CREATE
        | OFlags::TRUNC
        | OFlags::CLOEXEC
        | OFlags::NOCTTY
        | OFlags::NONBLOCK;
    let file = open(path, flags, Mode::from_raw_mode(0o666))?;
    block(&file)?;
    Ok(file)
}

fn block(file: &OwnedFd) -> Result<()> {
    let flags = fcntl_getfl(file)?;
    fcntl_setfl(file, flags - OFlags::NONBLOCK)
}

/// The descriptors as `sendmsg` wants them.
pub(super) fn borrowed(descriptors: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    use std::os::fd::AsFd;

    descriptors.iter().map(AsFd::as_fd).collect()
}
