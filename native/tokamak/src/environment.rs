// SPDX-License-Identifier: Apache-2.0
//! Terms outside of a NIF call: environments of our own, and sends from any thread.
//!
//! The one file that owns raw environments. On a scheduler thread a send needs the environment of
//! the calling process, on any other thread it must not have one: [`Sender`] says which.

use rustler::sys::{
    ErlNifEnv, ErlNifTerm, enif_alloc_env, enif_clear_env, enif_free_env, enif_make_copy,
    enif_make_pid, enif_send, enif_thread_type,
};
use rustler::{Env, LocalPid, Term};
use std::cell::OnceCell;
use std::ptr;

/// An environment that belongs to no process.
struct OwnEnvironment(*mut ErlNifEnv);

impl OwnEnvironment {
    fn new() -> Self {
        // SAFETY: allowed on any thread; freed once, by Drop.
        Self(unsafe { enif_alloc_env() })
    }
}

impl Drop for OwnEnvironment {
    fn drop(&mut self) {
        // SAFETY: allocated by `new`, and nobody else frees it.
        unsafe { enif_free_env(self.0) }
    }
}

/// A term that is kept beyond the NIF call it came from.
pub struct SavedTerm {
    environment: OwnEnvironment,
    term: ErlNifTerm,
}

// SAFETY: the environment is written once, in `save`, before anyone can share the value; afterwards
// terms are only copied out of it, which changes nothing but atomic reference counts.
unsafe impl Send for SavedTerm {}
// SAFETY: as above.
unsafe impl Sync for SavedTerm {}

impl SavedTerm {
    /// Copies a term into an environment of its own.
    pub fn save(term: Term) -> Self {
        let environment = OwnEnvironment::new();
        // SAFETY: the environment was just made, and no other thread knows it.
        let term = unsafe { enif_make_copy(environment.0, term.as_c_arg()) };
        Self { environment, term }
    }

    /// Builds a term in an environment of its own.
    pub fn build(build: impl FnOnce(Env) -> Term) -> Self {
        let environment = OwnEnvironment::new();
        let lifetime = ();
        // SAFETY: the environment was just made, and its Env cannot leave this function.
        let term = unsafe { build(Env::new(&lifetime, environment.0)).as_c_arg() };
        Self { environment, term }
    }

    /// Gives the environment away, with the term that lives in it.
    pub fn into_raw(self) -> (*mut ErlNifEnv, ErlNifTerm) {
        let raw = (self.environment.0, self.term);
        std::mem::forget(self.environment);
        raw
    }

    /// Takes over an environment with a term that lives in it.
    ///
    /// # Safety
    /// The environment is a process-independent one that nobody else uses or frees, and the term lives
    /// in it.
    pub unsafe fn from_raw(env: *mut ErlNifEnv, term: ErlNifTerm) -> Self {
        Self {
            environment: OwnEnvironment(env),
            term,
        }
    }

    /// Copies the term into another environment.
    pub fn load<'a>(&self, env: Env<'a>) -> Term<'a> {
        debug_assert!(!self.environment.0.is_null());
        // SAFETY: our term lives as long as our environment, which lives as long as `self`.
        unsafe { Term::new(env, enif_make_copy(env.as_c_arg(), self.term)) }
    }
}

/// Stands for a local process where pids are compared and hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PidKey(ErlNifTerm);

/// The key of a process: a local pid is an immediate term, the same word wherever it is written.
pub fn pid_key(pid: &LocalPid) -> PidKey {
    // SAFETY: reads the term out of the pid; the environment is not used.
    PidKey(unsafe { enif_make_pid(ptr::null_mut(), *pid.as_c_arg()) })
}

/// Whether this is a thread of the VM's that runs processes.
pub fn on_scheduler() -> bool {
    // SAFETY: reads a thread-local of the VM.
    unsafe { enif_thread_type() != 0 }
}

/// Who sends: a process within a NIF call, or a thread that the VM does not know.
#[derive(Clone, Copy)]
pub enum Sender<'a> {
    /// The process whose NIF call this is.
    Process(Env<'a>),
    /// A thread of our own. Never to be used on a scheduler thread.
    Thread,
}

impl Sender<'_> {
    /// Sends what `build` makes; `false` when the receiver does not live any more.
    pub fn send(self, to: &LocalPid, build: impl FnOnce(Env) -> Term) -> bool {
        match self {
            Self::Process(env) => send_from_process(env, to, build),
            Self::Thread => send_from_thread(to, build),
        }
    }
}

/// Sends from wherever this is: on a scheduler thread, where only a NIF call's own environment would
/// do, the janitor sends.
pub fn send_anywhere(to: LocalPid, build: impl FnOnce(Env) -> Term + Send + 'static) {
    if on_scheduler() {
        crate::owners::on_janitor(move || {
            Sender::Thread.send(&to, build);
        });
    } else {
        Sender::Thread.send(&to, build);
    }
}

fn send_from_process(env: Env, to: &LocalPid, build: impl FnOnce(Env) -> Term) -> bool {
    let message = build(env).as_c_arg();
    // SAFETY: `env` is the environment of the calling process, and the message lives in it.
    unsafe { enif_send(env.as_c_arg(), to.as_c_arg(), ptr::null_mut(), message) == 1 }
}

thread_local! {
    /// One message environment a thread: a new one for each message costs up to 75 % more.
    static MESSAGE_ENVIRONMENT: OnceCell<OwnEnvironment> = const { OnceCell::new() };
}

fn send_from_thread(to: &LocalPid, build: impl FnOnce(Env) -> Term) -> bool {
    let mut build = Some(build);
    let mut send = |environment: &OwnEnvironment| match build.take() {
        Some(build) => send_in(environment, to, build),
        None => false,
    };
    // At the end of a thread its environment may be gone already.
    MESSAGE_ENVIRONMENT
        .try_with(|environment| send(environment.get_or_init(OwnEnvironment::new)))
        .unwrap_or_else(|_| send(&OwnEnvironment::new()))
}

fn send_in(environment: &OwnEnvironment, to: &LocalPid, build: impl FnOnce(Env) -> Term) -> bool {
    let lifetime = ();
    // SAFETY: this thread alone uses the environment, and every term that `build` makes in it is
    // gone when it is cleared: neither the Env nor a Term of it can leave this function.
    unsafe {
        let env = Env::new(&lifetime, environment.0);
        let message = build(env).as_c_arg();
        let sent = enif_send(ptr::null_mut(), to.as_c_arg(), environment.0, message) == 1;
        enif_clear_env(environment.0);
        sent
    }
}
