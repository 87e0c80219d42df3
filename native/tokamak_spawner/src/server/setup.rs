// SPDX-License-Identifier: Apache-2.0
//! Frees the spawner from what it inherited, so that its children inherit nothing of it either.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, Result, fcntl_dupfd_cloexec};
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;
use rustix::process::{getpid, set_child_subreaper, setsid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stdin};

const LAST_SIGNAL: i32 = 64;
/// In bytes, as the kernel has it.
const SIGNAL_SET_SIZE: usize = 8;

/// The socket that was given as stdin, under another number.
pub(super) fn take_socket() -> Result<OwnedFd> {
    if socket_type(stdin())? != SocketType::SEQPACKET {
        return Err(Errno::PROTOTYPE);
    }
    fcntl_dupfd_cloexec(stdin(), 3)
}

/// Leaves the VM's terminal, signals and descriptors, and becomes the parent of all orphans below.
pub(super) fn isolate(socket: &OwnedFd) -> Result<()> {
    // Descriptors 0 to 2 are /dev/null from here on, and what a child gets for `null`.
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    drop(null);
    close_all_but(socket.as_raw_fd())?;
    reset_signals()?;
    // A ^C in the VM's terminal is for the VM. This fails only for a leader of a group already.
    let _ = setsid();
    set_child_subreaper(Some(getpid()))
}

/// Closes every descriptor above 2 but one.
fn close_all_but(keep: RawFd) -> Result<()> {
    let last_below = keep - 1;
    let below = last_below < 3 || close_range(3, last_below);
    if below && close_range(keep + 1, RawFd::MAX) {
        return Ok(());
    }
    // A kernel before 5.9, or a container that forbids the call.
    let entries = std::fs::read_dir("/proc/self/fd").map_err(|_| Errno::NOSYS)?;
    let open: Vec<RawFd> = entries
        .filter_map(|fd| fd.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for descriptor in open
        .into_iter()
        .filter(|&descriptor| descriptor > 2 && descriptor != keep)
    {
        // SAFETY: nothing in this process owns a descriptor but the one to be kept.
        unsafe { libc::close(descriptor) };
    }
    Ok(())
}

fn close_range(first: RawFd, last: RawFd) -> bool {
    // SAFETY: nothing in this process owns a descriptor in the range.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) == 0 }
}

/// Default dispositions, and all signals blocked.
///
/// Dispositions that a VM ignores (SIGCHLD, SIGPIPE) would be ignored by the children too. Blocked,
/// signals to the spawner wait for ever: a TERM to every process of a container or service must not
/// end it before the VM. SIGCHLD is read from a signalfd. KILL and STOP cannot be blocked.
fn reset_signals() -> Result<()> {
    // The kernel's struct sigaction, at most: all zero is the default disposition.
    let default = [0_u64; 8];
    for signal in 1..=LAST_SIGNAL {
        // The C library refuses to set the two signals it uses itself, which some parents ignore.
        // SAFETY: the kernel reads from `default` and writes nothing; the default runs no code. KILL
        // and STOP fail, harmlessly.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null_mut::<u64>(),
                SIGNAL_SET_SIZE,
            );
        }
    }
    // SAFETY: `sigfillset` initialises the set, which both calls only borrow.
    let result = unsafe {
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), ptr::null_mut())
    };
    if result == 0 {
        Ok(())
    } else {
        Err(last_error())
    }
}

/// A descriptor that is readable while SIGCHLD is pending.
pub(super) fn child_signals() -> Result<OwnedFd> {
    // SAFETY: the set is initialised before use; the descriptor is new and owned by nobody else.
    unsafe {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        match libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(last_error()),
            descriptor => Ok(OwnedFd::from_raw_fd(descriptor)),
        }
    }
}

/// The error of the libc call just made.
pub(super) fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
