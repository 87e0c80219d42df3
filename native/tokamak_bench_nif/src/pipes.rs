// SPDX-License-Identifier: Apache-2.0
//! Pipes, and a native thread that writes one byte into each of them, round by round.

use crate::atoms::{error, failed, ok};
use crate::gate::{self, Gate, Order};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::pipe::{PipeFlags, pipe_with};
use rustler::{Encoder, Env, Resource, ResourceArc, Term};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Pipes: the ends to be read until somebody took them, and the ends to be written.
pub struct Pipes {
    readers: Mutex<VecDeque<OwnedFd>>,
    writers: Arc<Vec<OwnedFd>>,
}

#[rustler::resource_impl]
impl Resource for Pipes {}

impl Pipes {
    pub fn take_readers(&self) -> VecDeque<OwnedFd> {
        std::mem::take(&mut *self.readers())
    }

    fn readers(&self) -> MutexGuard<'_, VecDeque<OwnedFd>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes `count` pipes that do not block.
#[rustler::nif(schedule = "DirtyIo")]
fn pipes_open<'a>(env: Env<'a>, count: usize) -> Term<'a> {
    let made: Result<Vec<_>, _> = (0..count)
        .map(|_| pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK))
        .collect();
    match made {
        Ok(pairs) => {
            let (readers, writers) = pairs.into_iter().unzip();
            let pipes = ResourceArc::new(Pipes {
                readers: Mutex::new(readers),
                writers: Arc::new(writers),
            });
            (ok(), pipes).encode(env)
        }
        Err(errno) => (error(), errno.raw_os_error()).encode(env),
    }
}

/// The number of the first end to be read that is left, if any.
#[rustler::nif]
fn pipes_reader(pipes: ResourceArc<Pipes>) -> Option<i32> {
    pipes.readers().front().map(AsRawFd::as_raw_fd)
}

/// Closes it: somebody has opened it anew.
#[rustler::nif]
fn pipes_close_reader(pipes: ResourceArc<Pipes>) -> rustler::Atom {
    drop(pipes.readers().pop_front());
    ok()
}

/// Writes `count` bytes into each pipe.
#[rustler::nif(schedule = "DirtyIo")]
fn pipes_fill(pipes: ResourceArc<Pipes>, count: usize) -> rustler::Atom {
    let bytes = vec![1; count];
    let filled = pipes
        .writers
        .iter()
        .all(|pipe| rustix::io::write(pipe, &bytes) == Ok(count));
    if filled { ok() } else { failed() }
}

/// A thread that writes.
struct Writer {
    gate: Arc<Gate>,
}

#[rustler::resource_impl]
impl Resource for Writer {}

impl Drop for Writer {
    fn drop(&mut self) {
        self.gate.end();
    }
}

#[rustler::nif]
fn writer_start(pipes: ResourceArc<Pipes>) -> ResourceArc<Writer> {
    let gate = Arc::new(Gate::default());
    let (waiting, writers) = (Arc::clone(&gate), Arc::clone(&pipes.writers));
    // Without its thread nothing comes, and the bench fails.
    let _ = gate::start("writer", move || {
        for round in 1.. {
            if waiting.wait(round) == Order::End {
                return;
            }
            for pipe in writers.iter() {
                // A byte that is missing is seen by the consumer, which counts.
                let _ = rustix::io::write(pipe, &[1]);
            }
        }
    });
    ResourceArc::new(Writer { gate })
}

/// Has one byte written into each pipe.
#[rustler::nif]
fn writer_round(writer: ResourceArc<Writer>) -> rustler::Atom {
    writer.gate.open();
    ok()
}
