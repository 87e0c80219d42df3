// SPDX-License-Identifier: Apache-2.0
//! This end of a child's pipe: read and written without waiting, watched by tokio once there was a reason
//! to wait.

use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustler::OwnedBinary;
use std::io::IoSlice;
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;

/// The most bytes of one message. So a credit of N messages is one of N times as many bytes.
pub const MAX_CHUNK: usize = 256 * 1024;
/// A child that moves as much at once gets a larger pipe.
const LARGE_TRANSFER: usize = 64 * 1024;
/// What a pipe is made to hold once its child has shown that it writes or reads a lot.
const LARGE_PIPE: usize = 1024 * 1024;

/// One end of a pipe.
pub struct Pipe {
    file: File,
    interest: Interest,
    grown: bool,
}

enum File {
    /// Nobody had to wait yet: most children end without it.
    Unwatched(OwnedFd),
    Watched(AsyncFd<OwnedFd>),
    /// It could not be watched.
    Lost,
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
            File::Lost => Err(Errno::BADF),
        };
        match read {
            Err(Errno::AGAIN) => Poll::Pending,
            chunk => Poll::Ready(self.grown_for(chunk)),
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
        self.file = match std::mem::replace(&mut self.file, File::Lost) {
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
                Err(Errno::AGAIN) => self.watch(runtime)?,
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

    fn watch(&mut self, runtime: &Handle) -> Result<(), Errno> {
        if let File::Unwatched(file) = std::mem::replace(&mut self.file, File::Lost) {
            let _context = runtime.enter();
            // SAFETY: an OwnedFd is the same open file all its life, and no reference to it is handed out
            // that could replace it.
            let watched = unsafe { AsyncFd::register_with_interest(file, self.interest) }
                .map_err(|error| Errno::from_io_error(&error.into()).unwrap_or(Errno::CANCELED))?;
            self.file = File::Watched(watched);
        }
        Ok(())
    }

    /// Fewer switches between the child and us. It fails where the user's share of pipe memory is used up.
    fn grow(&mut self) {
        if !std::mem::replace(&mut self.grown, true) {
            let _ = match &self.file {
                File::Unwatched(file) => rustix::pipe::fcntl_setpipe_size(file, LARGE_PIPE),
                File::Watched(file) => rustix::pipe::fcntl_setpipe_size(file.get_ref(), LARGE_PIPE),
                File::Lost => Ok(0),
            };
        }
    }
}

/// Asks first how much there is: a binary of just that size is read into without a copy.
fn read_chunk(file: &OwnedFd) -> Result<Option<OwnedBinary>, Errno> {
    let waiting = rustix::io::ioctl_fionread(file).unwrap_or(0);
    if waiting == 0 {
        return read_little(file);
    }
    let length = usize::try_from(waiting).map_or(MAX_CHUNK, |waiting| waiting.min(MAX_CHUNK));
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
