// SPDX-License-Identifier: Apache-2.0
//! From a prepared child to a running program.
//!
//! The child is a `clone` that shares our memory and suspends us until it has called exec (as `vfork`
//! and glibc's `posix_spawn` do): nothing is copied, and its error number is simply there when we go
//! on. `posix_spawn` itself is as fast but cannot mark the child, tie its life to ours, or look up
//! the program in the child's PATH without running a shell for what is not executable.
//!
//! Until exec, the child must not touch anything but its plan: no allocation, no lock, no panic. All
//! signals are blocked and none has a handler, so nothing else runs in it either.

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::fd::RawFd;
use std::ptr;

use rustix::io::{Errno, Result, retry_on_intr};
use rustix::process::{Pid, WaitOptions, getpid, waitpid};

use tokamak_spawner::lineage::Lineage;

use super::setup::last_error;
use super::time_slice::TimeSlice;

/// More than enough for a few system calls.
const STACK_SIZE: usize = 64 * 1024;

/// All a child needs to become its program.
pub(super) struct Program<'a> {
    /// The paths to try, in order.
    pub candidates: Vec<CString>,
    /// The candidates are places where the program may be; its absence from one is no error.
    pub search: bool,
    pub arguments: Vec<CString>,
    /// `NAME=value`.
    pub environment: Cow<'a, [CString]>,
    pub directory: Option<CString>,
    /// The descriptors to be copied to 0, 1 and 2; above 2, or -1 to leave what is there.
    pub stdio: [RawFd; 3],
    /// `None` where marks are not to be had.
    pub lineage: Option<Lineage>,
    /// `None` where it is ours.
    pub time_slice: Option<TimeSlice>,
}

/// Where children run until exec; one at a time.
pub(super) struct Stack {
    memory: Box<[u128]>,
}

/// The program as the child sees it: arrays of pointers that end with a null pointer.
struct Plan<'a> {
    candidates: Vec<*const c_char>,
    search: bool,
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    directory: Option<&'a CStr>,
    stdio: [RawFd; 3],
    lineage: Option<Lineage>,
    time_slice: Option<TimeSlice>,
    spawner: Pid,
    /// What the child failed with; 0 when it reached exec.
    error: c_int,
}

impl Stack {
    pub(super) fn new() -> Self {
        Self {
            memory: vec![0; STACK_SIZE / size_of::<u128>()].into_boxed_slice(),
        }
    }

    fn top(&mut self) -> *mut c_void {
        self.memory.as_mut_ptr_range().end.cast()
    }
}

/// Runs the program as the leader of a process group of its own.
///
/// # Errors
/// That of clone, chdir, dup2 or exec. Then there is no child.
pub(super) fn run(program: &Program<'_>, stack: &mut Stack) -> Result<Pid> {
    let mut plan = Plan {
        candidates: pointers(&program.candidates),
        search: program.search,
        arguments: pointers(&program.arguments),
        environment: pointers(&program.environment),
        directory: program.directory.as_deref(),
        stdio: program.stdio,
        lineage: program.lineage,
        time_slice: program.time_slice,
        spawner: getpid(),
        error: 0,
    };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let argument: *mut Plan<'_> = &raw mut plan;
    // SAFETY: this process has one thread, and CLONE_VFORK suspends it until the child has called
    // exec or _exit. So the child alone uses the plan and the stack meanwhile, and both outlive it.
    // `child_main` keeps to async-signal-safe calls.
    let pid = unsafe { libc::clone(child_main, stack.top(), flags, argument.cast()) };
    let pid = Pid::from_raw(pid)
        .filter(|_| pid > 0)
        .ok_or_else(last_error)?;
    // SAFETY: `argument` points to the plan above. The child wrote through it, so it is read through
    // it, and not from a register.
    match unsafe { ptr::read_volatile(&raw const (*argument).error) } {
        0 => Ok(pid),
        error => {
            // It has called _exit already: this waits for moments, and must not leave a zombie.
            let _ = retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()));
            Err(Errno::from_raw_os_error(error))
        }
    }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([ptr::null()])
        .collect()
}

/// The child, until exec. Its result is its exit code, for nobody: the error tells.
extern "C" fn child_main(argument: *mut c_void) -> c_int {
    // SAFETY: `run` passes a plan that nobody else uses while this runs.
    let plan = unsafe { &mut *argument.cast::<Plan<'_>>() };
    // SAFETY: the strings and arrays of the plan live on in the suspended parent.
    plan.error = unsafe { become_program(plan) };
    127
}

/// Returns the error number of the step that failed; does not return when none does.
///
/// # Safety
/// To be called in a child of `run` only. The pointers of the plan must be valid.
unsafe fn become_program(plan: &Plan<'_>) -> c_int {
    // SAFETY: async-signal-safe calls on values, and on strings and arrays that the caller vouches for.
    unsafe {
        libc::setpgid(0, 0);
        // Should the spawner be killed, so are its children, by the kernel.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != plan.spawner.as_raw_nonzero().get() {
            return libc::ESRCH;
        }
        if let Some(lineage) = plan.lineage {
            lineage.mark_self();
        }
        for (descriptor, number) in plan.stdio.into_iter().zip(0..) {
            if descriptor >= 0 && libc::dup2(descriptor, number) < 0 {
                return errno();
            }
        }
        if let Some(directory) = plan.directory
            && libc::chdir(directory.as_ptr()) < 0
        {
            return errno();
        }
        if let Some(time_slice) = plan.time_slice {
            time_slice.apply();
        }
        unblock_signals();
        exec_first(plan)
    }
}

/// Tries the candidates as `execvp` does, but runs no shell for what has no executable format.
///
/// # Safety
/// As [`become_program`].
unsafe fn exec_first(plan: &Plan<'_>) -> c_int {
    let mut failure = libc::ENOENT;
    for &candidate in plan
        .candidates
        .iter()
        .take_while(|candidate| !candidate.is_null())
    {
        // SAFETY: the caller vouches for the pointers.
        unsafe {
            libc::execve(
                candidate,
                plan.arguments.as_ptr(),
                plan.environment.as_ptr(),
            );
        }
        match errno() {
            libc::EACCES => failure = libc::EACCES,
            libc::ENOENT | libc::ENOTDIR | libc::ENODEV | libc::ESTALE | libc::ETIMEDOUT
                if plan.search => {}
            error => return error,
        }
    }
    failure
}

/// # Safety
/// To be called in a child of `run` only.
unsafe fn unblock_signals() {
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initialises the set before it is used.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
}

fn errno() -> c_int {
    // SAFETY: this thread's errno, always valid. The suspended parent's is the same one.
    unsafe { *libc::__errno_location() }
}
