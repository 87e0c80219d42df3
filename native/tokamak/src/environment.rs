// SPDX-License-Identifier: Apache-2.0
//! Terms outside of a NIF call: environments of our own, and sends from any thread.
//!
//! The one file that owns raw environments. On a scheduler thread a send needs the environment of
//! the calling process, on any other thread it must not have one: [`Sender`] says which.

use crossbeam_queue::ArrayQueue;
use rustler::sys::{
    ErlNifEnv, ErlNifHash, ErlNifTerm, enif_alloc_env, enif_clear_env, enif_free_env, enif_hash,
    enif_is_identical, enif_make_copy, enif_make_list_from_array, enif_make_pid, enif_send,
    enif_thread_type,
};
use rustler::{Env, LocalPid, Term};
use std::borrow::Borrow;
use std::cell::{Cell, OnceCell};
use std::hash::{Hash, Hasher};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

/// An environment that belongs to no process.
struct OwnEnvironment(*mut ErlNifEnv);

impl OwnEnvironment {
    fn new() -> Self {
        let environment = match SPARE.pop() {
            Some(Spare(environment)) => environment,
            // SAFETY: allowed on any thread.
            None => unsafe { enif_alloc_env() },
        };
        Self(environment)
    }
}

impl Drop for OwnEnvironment {
    fn drop(&mut self) {
        // SAFETY: nobody else uses, clears or frees it.
        unsafe { enif_clear_env(self.0) };
        if let Err(Spare(environment)) = SPARE.push(Spare(self.0)) {
            // SAFETY: as above; it is not among the spare ones.
            unsafe { enif_free_env(environment) }
        }
    }
}

/// An environment that is cleared.
struct Spare(*mut ErlNifEnv);

// SAFETY: an environment may be used on any thread, by one at a time.
unsafe impl Send for Spare {}

/// So many environments, of about 1 KiB each, are kept for the next ones. An environment that is freed on
/// another thread than the one that made it, as most are, costs more than all that is done with it.
const MAX_SPARE: usize = 1024;

static SPARE: LazyLock<ArrayQueue<Spare>> = LazyLock::new(|| ArrayQueue::new(MAX_SPARE));

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

    /// Copies the term into another environment.
    pub fn load<'a>(&self, env: Env<'a>) -> Term<'a> {
        debug_assert!(!self.environment.0.is_null());
        // SAFETY: our term lives as long as our environment, which lives as long as `self`.
        unsafe { Term::new(env, enif_make_copy(env.as_c_arg(), self.term)) }
    }
}

/// An environment that a message is made in, with the reference that it is sent under.
///
/// It is made in the NIF call that starts something. So the memory of the message is the scheduler's, which
/// gets it back from the receiver; and nothing is copied.
pub struct Envelope(SavedTerm);

impl Envelope {
    /// An envelope for a message under a reference.
    pub fn new(reference: Term) -> Self {
        Self(SavedTerm::save(reference))
    }

    /// Copies the reference into another environment.
    pub fn reference<'a>(&self, env: Env<'a>) -> Term<'a> {
        self.0.load(env)
    }

    /// Sends what `build` makes of the reference; `false` when the receiver does not live any more. From
    /// a thread of ours.
    pub fn send(
        self,
        to: &LocalPid,
        build: impl for<'a> FnOnce(Env<'a>, Term<'a>) -> Term<'a>,
    ) -> bool {
        let Self(SavedTerm { environment, term }) = self;
        send_in(&environment, to, |env| {
            // SAFETY: the reference lives in this environment.
            let reference = unsafe { Term::new(env, term) };
            build(env, reference)
        })
    }
}

/// Terms that are kept together, in one environment.
pub struct SavedTerms {
    environment: OwnEnvironment,
    terms: Vec<ErlNifTerm>,
}

// SAFETY: as for SavedTerm.
unsafe impl Send for SavedTerms {}
// SAFETY: as above.
unsafe impl Sync for SavedTerms {}

impl SavedTerms {
    /// Builds terms in an environment of their own.
    pub fn build(build: impl for<'a> FnOnce(&mut TermList<'a>)) -> Self {
        let environment = OwnEnvironment::new();
        let lifetime = ();
        // SAFETY: the environment was just made, and its Env cannot leave this function.
        let env = unsafe { Env::new(&lifetime, environment.0) };
        let mut list = TermList::with_capacity(env, 0);
        build(&mut list);
        let terms = list.terms;
        Self { environment, terms }
    }

    /// Gives the environment away, with the terms that live in it.
    pub fn into_raw(self) -> (*mut ErlNifEnv, Vec<ErlNifTerm>) {
        let env = self.environment.0;
        std::mem::forget(self.environment);
        (env, self.terms)
    }

    /// Takes over an environment with terms that live in it.
    ///
    /// # Safety
    /// The environment is a process-independent one that nobody else uses or frees, and the terms live
    /// in it.
    pub unsafe fn from_raw(env: *mut ErlNifEnv, terms: Vec<ErlNifTerm>) -> Self {
        Self {
            environment: OwnEnvironment(env),
            terms,
        }
    }

    /// Copies a term, counted from 0, into another environment.
    ///
    /// # Panics
    /// When there are not so many terms.
    pub fn load<'a>(&self, index: usize, env: Env<'a>) -> Term<'a> {
        debug_assert!(!self.environment.0.is_null());
        // SAFETY: our terms live as long as our environment, which lives as long as `self`.
        unsafe { Term::new(env, enif_make_copy(env.as_c_arg(), self.terms[index])) }
    }
}

/// A term as a key in a map: equal when the terms are (`=:=`).
pub struct TermView {
    term: ErlNifTerm,
    hash: u64,
}

impl TermView {
    /// Calls `with` with the key of a term. It cannot outlive the call, as the term might not.
    pub fn with<R>(term: Term, with: impl FnOnce(&Self) -> R) -> R {
        with(&Self::of(term))
    }

    /// Copies the term into another environment.
    pub fn load<'a>(&self, env: Env<'a>) -> Term<'a> {
        // SAFETY: a view lives no longer than its term, see `with` and `TermKey`.
        unsafe { Term::new(env, enif_make_copy(env.as_c_arg(), self.term)) }
    }

    fn of(term: Term) -> Self {
        let (term, kind) = (term.as_c_arg(), ErlNifHash::ERL_NIF_INTERNAL_HASH);
        // SAFETY: the term lives in the environment of the caller's `Term`.
        let hash = unsafe { enif_hash(kind, term, 0) };
        Self { term, hash }
    }
}

impl PartialEq for TermView {
    fn eq(&self, other: &Self) -> bool {
        // SAFETY: a view lives no longer than its term, see `with` and `TermKey`.
        self.hash == other.hash && unsafe { enif_is_identical(self.term, other.term) == 1 }
    }
}

impl Eq for TermView {}

impl Hash for TermView {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl ToOwned for TermView {
    type Owned = TermKey;

    fn to_owned(&self) -> TermKey {
        let environment = OwnEnvironment::new();
        // SAFETY: the environment was just made; the view's term lives.
        let term = unsafe { enif_make_copy(environment.0, self.term) };
        let hash = self.hash;
        TermKey(Arc::new(SavedKey {
            view: Self { term, hash },
            _saved: SavedTerm { environment, term },
        }))
    }
}

/// A term that is kept as a key in a map: equal when the terms are (`=:=`). Clones share it.
#[derive(Clone)]
pub struct TermKey(Arc<SavedKey>);

struct SavedKey {
    view: TermView,
    /// Keeps the term of the view.
    _saved: SavedTerm,
}

impl TermKey {
    /// Copies a term into an environment of its own.
    pub fn save(term: Term) -> Self {
        TermView::of(term).to_owned()
    }

    /// Copies the term into another environment.
    pub fn load<'a>(&self, env: Env<'a>) -> Term<'a> {
        self.0.view.load(env)
    }

    /// The term as a key to look up.
    pub fn view(&self) -> &TermView {
        &self.0.view
    }
}

impl PartialEq for TermKey {
    fn eq(&self, other: &Self) -> bool {
        self.view() == other.view()
    }
}

impl Eq for TermKey {}

impl Hash for TermKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.view().hash(state);
    }
}

impl Borrow<TermView> for TermKey {
    fn borrow(&self) -> &TermView {
        self.view()
    }
}

/// Terms on their way into a list. A `Vec<Term>` takes twice the memory, and another copy.
pub struct TermList<'a> {
    env: Env<'a>,
    terms: Vec<ErlNifTerm>,
}

impl<'a> TermList<'a> {
    /// An empty list that has room for so many terms.
    pub fn with_capacity(env: Env<'a>, capacity: usize) -> Self {
        Self {
            env,
            terms: Vec::with_capacity(capacity),
        }
    }

    /// The environment of its terms.
    pub fn env(&self) -> Env<'a> {
        self.env
    }

    /// Appends a term.
    pub fn push(&mut self, term: Term<'a>) {
        self.terms.push(term.as_c_arg());
    }

    /// The terms.
    pub fn iter(&self) -> impl Iterator<Item = Term<'a>> {
        // SAFETY: as in `to_term`.
        self.terms
            .iter()
            .map(|term| unsafe { Term::new(self.env, *term) })
    }

    /// How many terms there are.
    pub fn len(&self) -> usize {
        self.terms.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The list of them.
    pub fn to_term(&self) -> Term<'a> {
        let (terms, length) = (self.terms.as_ptr(), self.terms.len() as u32);
        // SAFETY: every term was pushed with the lifetime of this environment, so it lives in it.
        unsafe {
            let list = enif_make_list_from_array(self.env.as_c_arg(), terms, length);
            Term::new(self.env, list)
        }
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

/// Whether the VM halts.
static ENDED: AtomicBool = AtomicBool::new(false);

/// From now on threads of ours send nothing: the VM halts.
pub(crate) fn end_sends() {
    ENDED.store(true, Ordering::Relaxed);
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
    /// Sends what `build` makes; `false` when the receiver, or the VM, does not live any more.
    pub fn send(self, to: &LocalPid, build: impl FnOnce(Env) -> Term) -> bool {
        match self {
            Self::Process(env) => send_from_process(env, to, build),
            Self::Thread => !ENDED.load(Ordering::Relaxed) && send_from_thread(to, build),
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

/// Where a thread of ours takes terms apart.
struct Scratch {
    environment: OwnEnvironment,
    /// Uses since it was cleared.
    uses: u32,
}

/// So many uses may share the memory of a scratch environment that they hardly need: what clearing gives
/// back, threads of ours fetch again from an allocator that they share.
const USES: u32 = 16;

thread_local! {
    /// Taken out while it is used.
    static SCRATCH: Cell<Option<Scratch>> = const { Cell::new(None) };
}

/// Calls `with` with an environment of this thread that is cleared afterwards: for terms on the way
/// between an operation and what is kept of its result.
pub fn with_scratch<R>(with: impl for<'a> FnOnce(Env<'a>) -> R) -> R {
    with_scratch_unless(|_| false, with)
}

/// [`with_scratch`], where some uses may leave their terms to be cleared with those of the next ones: those
/// whose result says that they are small.
pub fn with_scratch_unless<R>(
    is_small: impl FnOnce(&R) -> bool,
    with: impl for<'a> FnOnce(Env<'a>) -> R,
) -> R {
    // A nested call finds none, and makes one.
    let mut scratch = SCRATCH
        .try_with(Cell::take)
        .ok()
        .flatten()
        .unwrap_or_else(|| Scratch {
            environment: OwnEnvironment::new(),
            uses: 0,
        });
    let lifetime = ();
    // SAFETY: this call alone has the environment; no Env or Term of it can leave `with`, as R does
    // not know their lifetime. After a panic it is given up.
    let result = unsafe { with(Env::new(&lifetime, scratch.environment.0)) };
    scratch.uses += 1;
    if scratch.uses == USES || !is_small(&result) {
        scratch.uses = 0;
        // SAFETY: as above.
        unsafe { enif_clear_env(scratch.environment.0) };
    }
    // At the end of a thread it is freed.
    let _ = SCRATCH.try_with(move |place| place.set(Some(scratch)));
    result
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

fn send_in(
    environment: &OwnEnvironment,
    to: &LocalPid,
    build: impl for<'a> FnOnce(Env<'a>) -> Term<'a>,
) -> bool {
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
