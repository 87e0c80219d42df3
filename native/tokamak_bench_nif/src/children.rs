// SPDX-License-Identifier: Apache-2.0
//! Children without anything around them: the least that a start and an exit take on a machine.

use crate::atoms;
use rustler::{Encoder, Env, Term};
use std::io;
use std::process::Command;

/// Runs a program `count` times, one after the other: `posix_spawn` and `waitpid` on one thread.
///
/// # Errors
/// `{error, failed}` when it does not start.
#[rustler::nif(schedule = "DirtyIo")]
fn posix_spawn<'a>(env: Env<'a>, program: &str, count: usize) -> Term<'a> {
    match (0..count).try_for_each(|_| start_and_wait(program)) {
        Ok(()) => atoms::ok().encode(env),
        Err(_) => (atoms::error(), atoms::failed()).encode(env),
    }
}

/// The VM ignores SIGCHLD, so the kernel reaps: waitpid waits for the exit as ever, but has no status to give.
fn start_and_wait(program: &str) -> io::Result<()> {
    match Command::new(program).spawn()?.wait() {
        Err(error) if error.raw_os_error() != Some(libc::ECHILD) => Err(error),
        _ => Ok(()),
    }
}
