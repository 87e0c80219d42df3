// SPDX-License-Identifier: Apache-2.0
//! This end of a child's pipe: read and written without waiting, watched by tokio once there was a reason
//! to wait. Where the system watches as much as it may (ENOSPC, ENOMEM), it is tried again after a while instead.

use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustler::OwnedBinary;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep};

/// The most bytes of one message. So a credit of N messages is one of N times as many bytes.
pub const MAX_CHUNK: usize = 256 * 1024;
/// A child that moves as much at once gets a larger pipe.
const LARGE_TRANSFER: usize = 64 * 1024;
/// What a pipe is made to hold once its child has shown that it writes or reads a lot.
const LARGE_PIPE: usize = 1024 * 1024;
/// How often a pipe is tried that nobody watches: cheap, and soon enough for a system that is out of resources.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// One end of a pipe.
pub struct Pipe {
    file: File,
    interest: Interest,
    grown: bool,
    /// When it is tried again, as it could not be watched.
    retry: Option<Pin<Box<Sleep>>>,
}

enum File {
    /// Nobody had to wait yet (most children end without it), or it cannot be watched for now.
    Unwatched(OwnedFd),
    Watched(AsyncFd<OwnedFd>),
    /// While it changes from one to the other.
    Changing,
}

impl Pipe {
    pub fn reader(file: OwnedFd) -> Self {
        Self::new(file, Interest::READABLE)
    }

    pub fn writer(file: OwnedFd) -> Self {
        Self::new(file, Interest::WRITABLE)
    }

    fn new(file: OwnedFd, interest: Interest) -> Self {
        Self {
            file: File::Unwatched(file),
            interest,
            grown: false,
            retry: None,
        }
    }

    /// Reads up to [`MAX_CHUNK`] bytes; `None` at the end.
    pub fn poll_read(
        &mut self,
        cx: &mut Context,
        runtime: &Handle,
    ) -> Poll<Result<Option<OwnedBinary>, Errno>> {
        let chunk = ready!(self.poll_transfer(cx, runtime, read_chunk));
        Poll::Ready(self.grown_for(chunk))
    }

    /// As [`poll_read`](Self::poll_read), but asks the pipe itself, and nobody is woken for what comes later.
    pub fn read_now(&mut self) -> Poll<Result<Option<OwnedBinary>, Errno>> {
        let read = match &self.file {
            File::Unwatched(file) => retry(|| read_chunk(file)),
            File::Watched(file) => retry(|| read_chunk(file.get_ref())),
            File::Changing => Err(Errno::BADF),
        };
        match read {
            Err(Errno::AGAIN) => Poll::Pending,
            chunk => Poll::Ready(self.grown_for(chunk)),
        }
    }

    /// How many bytes it holds.
    pub fn waiting(&self) -> usize {
        match &self.file {
            File::Unwatched(file) => waiting(file),
            File::Watched(file) => waiting(file.get_ref()),
            File::Changing => 0,
        }
    }

    /// A large chunk makes a large pipe.
    fn grown_for<E>(
        &mut self,
        chunk: Result<Option<OwnedBinary>, E>,
    ) -> Result<Option<OwnedBinary>, E> {
        if let Ok(Some(bytes)) = &chunk
            && bytes.len() >= LARGE_TRANSFER
        {
            self.grow();
        }
        chunk
    }

    /// The runtime watches it no more, until there is a reason to wait again.
    pub fn unwatch(&mut self) {
        self.file = match std::mem::replace(&mut self.file, File::Changing) {
            File::Watched(file) => File::Unwatched(file.into_inner()),
            other => other,
        };
    }

    /// Writes what fits.
    pub fn poll_write(
        &mut self,
        cx: &mut Context,
        runtime: &Handle,
        buffers: &[IoSlice],
    ) -> Poll<Result<usize, Errno>> {
        let total: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        if total >= LARGE_TRANSFER {
            self.grow();
        }
        self.poll_transfer(cx, runtime, |file| rustix::io::writev(file, buffers))
    }

    fn poll_transfer<T>(
        &mut self,
        cx: &mut Context,
        runtime: &Handle,
        mut transfer: impl FnMut(&OwnedFd) -> Result<T, Errno>,
    ) -> Poll<Result<T, Errno>> {
        if let File::Unwatched(file) = &self.file {
            match retry(|| transfer(file)) {
                Err(Errno::AGAIN) if self.watch(runtime)? => {}
                Err(Errno::AGAIN) => {
                    self.retry_later(cx, runtime);
                    return Poll::Pending;
                }
                result => return Poll::Ready(result),
            }
        }
        let File::Watched(file) = &self.file else {
            return Poll::Ready(Err(Errno::BADF));
        };
        loop {
            let readiness = if self.interest.is_readable() {
                file.poll_read_ready(cx)
            } else {
                file.poll_write_ready(cx)
            };
            // It fails only when the runtime stops.
            let mut guard = ready!(readiness).map_err(|_| Errno::CANCELED)?;
            match retry(|| transfer(file.get_ref())) {
                Err(Errno::AGAIN) => guard.clear_ready(),
                result => return Poll::Ready(result),
            }
        }
    }

    /// Has the runtime watch it. `false`: the system cannot, for now.
    fn watch(&mut self, runtime: &Handle) -> Result<bool, Errno> {
        let file = match std::mem::replace(&mut self.file, File::Changing) {
            File::Unwatched(file) => file,
            other => {
                self.file = other;
                return Ok(true);
            }
        };
        let _context = runtime.enter();
        // SAFETY: an OwnedFd is the same open file all its life, and no reference to it is handed out
        // that could replace it.
        match unsafe { AsyncFd::register_with_interest(file, self.interest) } {
            Ok(watched) => {
                self.file = File::Watched(watched);
                self.retry = None;
                Ok(true)
            }
            Err(error) => {
                let (file, error) = error.into_parts();
                self.file = File::Unwatched(file);
                // Without a number it is the runtime's own: it stops.
                error.raw_os_error().map(|_| false).ok_or(Errno::CANCELED)
            }
        }
    }

    /// Has `cx` woken after a while. Not here and now: its waker may need a lock that the caller has.
    fn retry_later(&mut self, cx: &mut Context, runtime: &Handle) {
        let _context = runtime.enter();
        let mut sleep = Box::pin(tokio::time::sleep(RETRY_INTERVAL));
        while sleep.as_mut().poll(cx).is_ready() {
            sleep.as_mut().reset(Instant::now() + RETRY_INTERVAL);
        }
        self.retry = Some(sleep);
    }

    /// Fewer switches between the child and us. It fails where the user's share of pipe memory is used up.
    fn grow(&mut self) {
        if !std::mem::replace(&mut self.grown, true) {
            let _ = match &self.file {
                File::Unwatched(file) => rustix::pipe::fcntl_setpipe_size(file, LARGE_PIPE),
                File::Watched(file) => rustix::pipe::fcntl_setpipe_size(file.get_ref(), LARGE_PIPE),
                File::Changing => Ok(0),
            };
        }
    }
}

/// Asks first how much there is: a binary of just that size is read into without a copy.
fn read_chunk(file: &OwnedFd) -> Result<Option<OwnedBinary>, Errno> {
    let length = waiting(file).min(MAX_CHUNK);
    if length == 0 {
        return read_little(file);
    }
    let mut chunk = OwnedBinary::new(length);
    let count = rustix::io::read(file.as_fd(), chunk.as_mut_slice())?;
    if count == 0 {
        return Ok(None);
    }
    if count < length {
        chunk.realloc_or_copy(count);
    }
    Ok(Some(chunk))
}

fn waiting(file: &OwnedFd) -> usize {
    let waiting = rustix::io::ioctl_fionread(file).unwrap_or(0);
    usize::try_from(waiting).unwrap_or(usize::MAX)
}

/// The end, nothing, or what came since it was asked.
fn read_little(file: &OwnedFd) -> Result<Option<OwnedBinary>, Errno> {
    let mut buffer = [0; 512];
    match rustix::io::read(file.as_fd(), &mut buffer)? {
        0 => Ok(None),
        count => {
            let mut chunk = OwnedBinary::new(count);
            chunk.as_mut_slice().copy_from_slice(&buffer[..count]);
            Ok(Some(chunk))
        }
    }
}

fn retry<T>(mut transfer: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match transfer() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}
