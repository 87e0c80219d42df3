// SPDX-License-Identifier: Apache-2.0
//! Descriptors by number, as foreign code would have them.

use parking_lot::Mutex;
use rustix::fd::{AsRawFd, OwnedFd};
use rustler::{Atom, Binary, Encoder, Env, Term};
use std::collections::HashMap;
use std::time::Duration;

rustler::atoms! { ok, error }

/// Descriptors that the tests hold.
static HELD: Mutex<Option<HashMap<i32, OwnedFd>>> = Mutex::new(None);

fn with_held<R>(run: impl FnOnce(&mut HashMap<i32, OwnedFd>) -> R) -> R {
    run(HELD.lock().get_or_insert_default())
}

fn hold(file: OwnedFd) -> i32 {
    let number = file.as_raw_fd();
    with_held(|held| held.insert(number, file));
    number
}

/// A pipe whose ends block: `{ReadEnd, WriteEnd}`.
#[rustler::nif]
fn pipe<'a>(env: Env<'a>) -> Term<'a> {
    match rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC) {
        Ok((read_end, write_end)) => (hold(read_end), hold(write_end)).encode(env),
        Err(_) => error().encode(env),
    }
}

/// Two ends of a pair of datagram sockets.
#[rustler::nif]
fn datagrams<'a>(env: Env<'a>) -> Term<'a> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let flags = SocketFlags::CLOEXEC;
    match socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None) {
        Ok((left, right)) => (hold(left), hold(right)).encode(env),
        Err(_) => error().encode(env),
    }
}

/// The status flags of a held descriptor, as fcntl(2) gives them; -1 if it is not held.
#[rustler::nif]
fn flags(number: i32) -> i64 {
    with_held(|held| {
        let file = held.get(&number)?;
        let flags = rustix::fs::fcntl_getfl(file).ok()?;
        Some(i64::from(flags.bits()))
    })
    .unwrap_or(-1)
}

/// Writes to a held descriptor, waiting as long as it takes: how many bytes, or -1.
#[rustler::nif(schedule = "DirtyIo")]
fn write(number: i32, data: Binary) -> i64 {
    let written = with_held(|held| {
        let file = held.get(&number)?;
        rustix::io::write(file, data.as_slice()).ok()
    });
    written
        .and_then(|count| i64::try_from(count).ok())
        .unwrap_or(-1)
}

/// Closes a held descriptor.
#[rustler::nif]
fn close(number: i32) -> Atom {
    match with_held(|held| held.remove(&number)) {
        Some(_) => ok(),
        None => error(),
    }
}

/// Starts a thread that writes what it reads, `delay` microseconds later, until the end of it. Both held
/// descriptors are the thread's from here on.
#[rustler::nif]
fn start_echo(from: i32, to: i32, delay: u64) -> Atom {
    let Some((from, to)) = with_held(|held| held.remove(&from).zip(held.remove(&to))) else {
        return error();
    };
    let delay = Duration::from_micros(delay);
    let thread = std::thread::Builder::new().name("echo".to_owned());
    match thread.spawn(move || echo(&from, &to, delay)) {
        Ok(_) => ok(),
        Err(_) => error(),
    }
}

fn echo(from: &OwnedFd, to: &OwnedFd, delay: Duration) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = rustix::io::read(from, &mut buffer) {
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        if rustix::io::write(to, &buffer[..count]) != Ok(count) {
            return;
        }
    }
}
