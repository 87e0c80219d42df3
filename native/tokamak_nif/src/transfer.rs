// SPDX-License-Identifier: Apache-2.0
//! Reads and writes that never block a scheduler, also on descriptors whose flags are not ours.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{Errno, ReadWriteFlags};
use std::io::{IoSlice, IoSliceMut};

/// The most one call moves: a copy of this size stays well under a millisecond.
pub const MAX_TRANSFER: usize = 256 * 1024;

/// How a descriptor is kept from blocking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// O_NONBLOCK is set: we opened it.
    Nonblocking,
    /// Its flags belong to somebody else (O_NONBLOCK would show in the original too): each call asks
    /// the kernel not to wait.
    PerCall,
    /// A regular file: it never would block, but the disk may take its time.
    Regular,
}

/// The outcome of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    Bytes(usize),
    Again,
    EndOfFile,
}

/// Reads at most `buffer.len()` bytes.
pub fn read(file: &OwnedFd, mode: Mode, buffer: &mut [u8]) -> Result<Read, Errno> {
    let wanted = buffer.len();
    let result = retry(|| match mode {
        Mode::PerCall => read_without_waiting(file, buffer),
        Mode::Nonblocking | Mode::Regular => rustix::io::read(file, &mut *buffer),
    });
    match result {
        Ok(0) if wanted > 0 => Ok(Read::EndOfFile),
        Ok(count) => Ok(Read::Bytes(count)),
        Err(Errno::AGAIN) => Ok(Read::Again),
        Err(error) => Err(error),
    }
}

/// Writes what fits; `None`: nothing does.
pub fn write(file: &OwnedFd, mode: Mode, buffers: &[IoSlice]) -> Result<Option<usize>, Errno> {
    let result = retry(|| match mode {
        Mode::PerCall => write_without_waiting(file, buffers),
        Mode::Nonblocking | Mode::Regular => rustix::io::writev(file, buffers),
    });
    match result {
        Ok(count) => Ok(Some(count)),
        Err(Errno::AGAIN) => Ok(None),
        Err(error) => Err(error),
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

#[cfg(target_os = "linux")]
fn read_without_waiting(file: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    let slice = &mut [IoSliceMut::new(buffer)];
    // Offset -1: the descriptor's own position.
    match rustix::io::preadv2(file, slice, u64::MAX, ReadWriteFlags::NOWAIT) {
        Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => read_if_ready(file, buffer),
        result => result,
    }
}

#[cfg(target_os = "linux")]
fn write_without_waiting(file: &OwnedFd, buffers: &[IoSlice]) -> Result<usize, Errno> {
    match rustix::io::pwritev2(file, buffers, u64::MAX, ReadWriteFlags::NOWAIT) {
        Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => write_if_ready(file, buffers),
        result => result,
    }
}

#[cfg(not(target_os = "linux"))]
fn read_without_waiting(file: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    read_if_ready(file, buffer)
}

#[cfg(not(target_os = "linux"))]
fn write_without_waiting(file: &OwnedFd, buffers: &[IoSlice]) -> Result<usize, Errno> {
    write_if_ready(file, buffers)
}

fn read_if_ready(file: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    if !is_ready(file.as_fd(), PollFlags::IN)? {
        return Err(Errno::AGAIN);
    }
    rustix::io::read(file, buffer)
}

/// A blocking pipe that polls as writable has room for PIPE_BUF bytes and may wait for more.
fn write_if_ready(file: &OwnedFd, buffers: &[IoSlice]) -> Result<usize, Errno> {
    const PIPE_BUF: usize = 4096;
    if !is_ready(file.as_fd(), PollFlags::OUT)? {
        return Err(Errno::AGAIN);
    }
    match buffers.iter().find(|buffer| !buffer.is_empty()) {
        Some(first) => rustix::io::write(file, &first[..first.len().min(PIPE_BUF)]),
        None => Ok(0),
    }
}

/// Whether a read or write would make progress (or show an error) now.
pub fn is_ready(file: BorrowedFd, flags: PollFlags) -> Result<bool, Errno> {
    let mut fds = [PollFd::from_borrowed_fd(file, flags)];
    poll_now(&mut fds)?;
    Ok(!fds[0].revents().is_empty())
}

/// Polls many descriptors at once without waiting.
pub fn poll_now(fds: &mut [PollFd]) -> Result<(), Errno> {
    retry(|| poll(fds, Some(&Timespec::default()))).map(drop)
}
