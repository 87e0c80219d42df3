// SPDX-License-Identifier: Apache-2.0
//! What a subprocess has to tell, in its order: output while there is any, then its end, once.

use super::pipe::Pipe;
use crate::atoms;
use rustix::io::Errno;
use rustler::{Atom, Encoder, Env, NewBinary, OwnedBinary, Term};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokamak_core::event::EventType;
use tokamak_spawner::protocol::ExitStatus;
use tokio::runtime::Handle;
use tokio::time::Sleep;

/// How long after its exit a child's output is waited for, while a descendant holds the pipe.
const GRACE: Duration = Duration::from_secs(5);
/// Output that takes some 0.02 ms to read, and more.
const LARGE: usize = 64 * 1024;
/// Binaries of this size and less are copied to the receiver's heap.
const SMALL: usize = 64;

/// Why a subprocess ended without a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The number of an error.
    Errno(i32),
    /// The spawner died.
    SpawnerDied,
    /// The application stops.
    Shutdown,
}

/// One of the output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout = 0,
    Stderr = 1,
}

/// One thing that a subprocess tells.
pub enum Item {
    Output(Stream, OwnedBinary),
    Exit(ExitStatus),
    Failed(Failure),
}

/// The output streams of a child and its exit.
#[derive(Default)]
pub struct Outputs {
    pipes: [Option<Pipe>; 2],
    /// The stream that is looked at first, so that one that floods does not hide the other.
    turn: usize,
    exit: Option<(ExitStatus, Instant)>,
    grace: Option<Pin<Box<Sleep>>>,
    /// After the grace: the bytes of each stream that are still told.
    rest: Option<[usize; 2]>,
}

impl Outputs {
    pub fn open(&mut self, stdout: Option<Pipe>, stderr: Option<Pipe>) {
        self.pipes = [stdout, stderr];
    }

    pub fn close(&mut self) {
        self.pipes = [None, None];
        self.grace = None;
    }

    pub fn exited(&mut self, status: ExitStatus) {
        self.exit = Some((status, Instant::now()));
    }

    pub fn has_exited(&self) -> bool {
        self.exit.is_some()
    }

    /// The next item; otherwise `cx` is woken when there may be one, except for an exit.
    pub fn poll_take(&mut self, cx: &mut Context, runtime: &Handle) -> Poll<Item> {
        self.limit_rest();
        if let Some(output) = self.output(|pipe| pipe.poll_read(cx, runtime)) {
            return Poll::Ready(output);
        }
        let Some((status, since)) = self.exit else {
            return Poll::Pending;
        };
        if self.pipes.iter().any(Option::is_some) && !self.grace_is_over(since, cx, runtime) {
            return Poll::Pending;
        }
        Poll::Ready(Item::Exit(status))
    }

    /// The next item that is there now; nobody is woken for a later one.
    pub fn take_now(&mut self) -> Option<Item> {
        self.limit_rest();
        self.output(Pipe::read_now).or_else(|| {
            let ended = self.pipes.iter().all(Option::is_none);
            let (status, _) = self.exit.filter(|_| ended)?;
            Some(Item::Exit(status))
        })
    }

    /// The runtime watches the pipes no more, until somebody waits again.
    pub fn unwatch(&mut self) {
        self.pipes.iter_mut().flatten().for_each(Pipe::unwatch);
    }

    /// A descendant may write for ever: what the pipes hold when the grace is over is the last that is told.
    fn limit_rest(&mut self) {
        let is_over = |(_, since): (ExitStatus, Instant)| since.elapsed() >= GRACE;
        if self.rest.is_none() && self.exit.is_some_and(is_over) {
            let waiting = |pipe: &Option<Pipe>| pipe.as_ref().map_or(0, Pipe::waiting);
            self.rest = Some(self.pipes.each_ref().map(waiting));
            self.close_told();
        }
    }

    /// Closes the streams of which all was told.
    fn close_told(&mut self) {
        let Some(rest) = self.rest else { return };
        for (pipe, rest) in self.pipes.iter_mut().zip(rest) {
            if rest == 0 {
                *pipe = None;
            }
        }
    }

    /// Some of the rest was told.
    fn told(&mut self, stream: Stream, length: usize) {
        if let Some(rest) = &mut self.rest {
            let rest = &mut rest[stream as usize];
            *rest = rest.saturating_sub(length);
            self.close_told();
        }
    }

    /// A stream that ended, or cannot be read, is closed.
    fn output(
        &mut self,
        mut read: impl FnMut(&mut Pipe) -> Poll<Result<Option<OwnedBinary>, Errno>>,
    ) -> Option<Item> {
        for stream in self.in_turn() {
            let place = &mut self.pipes[stream as usize];
            match place.as_mut().map(&mut read) {
                Some(Poll::Ready(Ok(Some(chunk)))) => {
                    self.turn = 1 - stream as usize;
                    self.told(stream, chunk.len());
                    return Some(Item::Output(stream, chunk));
                }
                Some(Poll::Ready(Ok(None) | Err(_))) => *place = None,
                Some(Poll::Pending) | None => {}
            }
        }
        None
    }

    fn in_turn(&self) -> [Stream; 2] {
        match self.turn {
            0 => [Stream::Stdout, Stream::Stderr],
            _ => [Stream::Stderr, Stream::Stdout],
        }
    }

    fn grace_is_over(&mut self, since: Instant, cx: &mut Context, runtime: &Handle) -> bool {
        let grace = self.grace.get_or_insert_with(|| {
            let _context = runtime.enter();
            Box::pin(tokio::time::sleep_until((since + GRACE).into()))
        });
        grace.as_mut().poll(cx).is_ready()
    }
}

impl Item {
    /// Whether it took a while to read.
    pub fn is_large(&self) -> bool {
        matches!(self, Self::Output(_, chunk) if chunk.len() >= LARGE)
    }

    /// Whether nothing follows.
    pub fn is_last(&self) -> bool {
        !matches!(self, Self::Output(..))
    }

    /// The type of its event.
    pub fn event_type(&self) -> EventType {
        match self {
            Self::Output(Stream::Stdout, _) => EventType::SubprocessStdout,
            Self::Output(Stream::Stderr, _) => EventType::SubprocessStderr,
            Self::Exit(_) | Self::Failed(_) => EventType::SubprocessExit,
        }
    }

    /// What `recv` returns: `{ok, {stdout, Bin}}`, `{exit, Status}`, `{error, Reason}`.
    pub fn encode_result(self, env: Env) -> Term {
        match self {
            Self::Output(..) => (atoms::ok(), self.encode_message(env)).encode(env),
            Self::Exit(_) | Self::Failed(_) => self.encode_message(env),
        }
    }

    /// What a message carries: `{stdout, Bin}`, `{exit, Status}`, `{error, Reason}`.
    pub fn encode_message(self, env: Env) -> Term {
        match self {
            Self::Output(stream, chunk) => (stream.atom(), encode_chunk(env, chunk)).encode(env),
            Self::Exit(status) => (atoms::exit(), encode_status(env, status)).encode(env),
            Self::Failed(failure) => (atoms::error(), failure.atom(env)).encode(env),
        }
    }
}

impl Stream {
    fn atom(self) -> Atom {
        match self {
            Self::Stdout => atoms::stdout(),
            Self::Stderr => atoms::stderr(),
        }
    }
}

impl Failure {
    /// Its reason. The names of errors are a fixed set.
    pub fn atom(self, env: Env) -> Atom {
        match self {
            Self::SpawnerDied => atoms::spawner_died(),
            Self::Shutdown => atoms::shutdown(),
            Self::Errno(number) => Atom::from_str(env, tokamak_spawner::errno::name(number))
                .unwrap_or_else(|_| atoms::posix_error()),
        }
    }
}

pub fn encode_chunk(env: Env, chunk: OwnedBinary) -> Term {
    if chunk.len() <= SMALL {
        NewBinary::from_slice(env, &chunk).into()
    } else {
        chunk.release(env).encode(env)
    }
}

/// `0..255 | {signal, N}`.
pub fn encode_status(env: Env, status: ExitStatus) -> Term {
    match status {
        ExitStatus::Code(code) => code.encode(env),
        ExitStatus::Signal(signal) => (atoms::signal(), signal).encode(env),
    }
}
