// SPDX-License-Identifier: Apache-2.0
//! Every atom the library gives to Erlang: none is ever made from input.

use rustix::io::Errno;
use rustler::Atom;
use tokamak_core::event::EventType;

rustler::atoms! {
    again, badarg, busy, closed, empty, eof, error, event, false_ = "false", more, native, no_process,
    not_pollable, not_owner, not_supported, not_watched, ok, overloaded, read, ready, reap, select, shutdown,
    tokamak, undefined, waiting, write, true_ = "true",

    timer, call_result, call_error, async_result, async_error, subprocess_exit, subprocess_stdout,
    subprocess_stderr, socket_data, socket_closed, socket_error, user,

    e2big, eacces, eagain, ebadf, ebusy, econnrefused, econnreset, eexist, efault, efbig, einval, eio,
    eisdir, eloop, emfile, enametoolong, enfile, enodev, enoent, enomem, enospc, enosys, enotconn,
    enotdir, enotsup, enxio, eperm, epipe, erofs, espipe, etimedout, etxtbsy, posix_error,

    backend, busy_polls, busy_polls_in_vain, callback_ids, coalesced, drained, handlers, high_water_mark,
    kind, max_queue, max_timers, owner, pushed, queued, raw, readers, refused, regular, pollable, supervised,
    timers, wakes, watched, windowed, writers, loops, owners, fds,

    directory, done, evicted, file, link, other, held_back, keys, percent, progress, running, shown, status, subscribers, total,

    active, credit, exit, exited, full, merge, null, os_pid, passive, pipe, spawner_died, started, state, stderr, stdout, stdin, stopped, stream, subprocesses, taken, written, signal, clear,
    child_environment = "environment",
}

/// The atom of an event type.
pub fn event_type(kind: EventType) -> Atom {
    match kind {
        EventType::Read => read(),
        EventType::Write => write(),
        EventType::Timer => timer(),
        EventType::CallResult => call_result(),
        EventType::CallError => call_error(),
        EventType::AsyncResult => async_result(),
        EventType::AsyncError => async_error(),
        EventType::SubprocessExit => subprocess_exit(),
        EventType::SubprocessStdout => subprocess_stdout(),
        EventType::SubprocessStderr => subprocess_stderr(),
        EventType::SocketData => socket_data(),
        EventType::SocketClosed => socket_closed(),
        EventType::SocketError => socket_error(),
        EventType::User => user(),
    }
}

/// The event type of an atom.
pub fn to_event_type(atom: Atom) -> Option<EventType> {
    EventType::ALL
        .into_iter()
        .find(|kind| event_type(*kind) == atom)
}

/// The POSIX name of an error, as Erlang's `file` and `inet` name it.
pub fn errno(error: Errno) -> Atom {
    match error {
        Errno::TOOBIG => e2big(),
        Errno::ACCESS => eacces(),
        Errno::AGAIN => eagain(),
        Errno::BADF => ebadf(),
        Errno::BUSY => ebusy(),
        Errno::CONNREFUSED => econnrefused(),
        Errno::CONNRESET => econnreset(),
        Errno::EXIST => eexist(),
        Errno::FAULT => efault(),
        Errno::FBIG => efbig(),
        Errno::INVAL => einval(),
        Errno::IO => eio(),
        Errno::ISDIR => eisdir(),
        Errno::LOOP => eloop(),
        Errno::MFILE => emfile(),
        Errno::NAMETOOLONG => enametoolong(),
        Errno::NFILE => enfile(),
        Errno::NODEV => enodev(),
        Errno::NOENT => enoent(),
        Errno::NOMEM => enomem(),
        Errno::NOSPC => enospc(),
        Errno::NOSYS => enosys(),
        Errno::NOTCONN => enotconn(),
        Errno::NOTDIR => enotdir(),
        Errno::NOTSUP => enotsup(),
        Errno::NXIO => enxio(),
        Errno::PERM => eperm(),
        Errno::PIPE => epipe(),
        Errno::ROFS => erofs(),
        Errno::SPIPE => espipe(),
        Errno::TIMEDOUT => etimedout(),
        Errno::TXTBSY => etxtbsy(),
        _ => posix_error(),
    }
}
