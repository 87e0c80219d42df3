// SPDX-License-Identifier: Apache-2.0
//! Pipes, and a native thread that writes one byte into each of them, round by round.

use crate::atoms::{error, failed, ok};
use crate::gate::{Gate, Order};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::pipe::{PipeFlags, pipe_with};
use rustler::{Encoder, Env, Resource, ResourceArc, Term};
use std::sync::{Arc, Mutex, PoisonError};

/// Pipes: the ends to be read until somebody took them, and the ends to be written.
pub struct Pipes {
    readers: Mutex<Vec<OwnedFd>>,
    writers: Arc<Vec<OwnedFd>>,
}

#[rustler::resource_impl]
impl Resource for Pipes {}

impl Pipes {
    pub fn take_readers(&self) -> Vec<OwnedFd> {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *readers)
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

/// The numbers of the ends to be read.
#[rustler::nif]
fn pipes_readers(pipes: ResourceArc<Pipes>) -> Vec<i32> {
    let readers = pipes.readers.lock().unwrap_or_else(PoisonError::into_inner);
    readers.iter().map(AsRawFd::as_raw_fd).collect()
}

/// Closes the ends to be read: somebody has opened them anew.
#[rustler::nif(schedule = "DirtyIo")]
fn pipes_close_readers(pipes: ResourceArc<Pipes>) -> rustler::Atom {
    drop(pipes.take_readers());
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
    std::thread::spawn(move || {
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
