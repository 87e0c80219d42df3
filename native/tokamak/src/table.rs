// SPDX-License-Identifier: Apache-2.0
//! The C table: how another library in the same VM reaches the base library.
//!
//! No Rust type crosses a library; this table of C functions does. `include/tokamak.h` is the same in C,
//! with each function's contract. The base library hands the table out by
//! `enif_dynamic_resource_call`; it is valid for as long as the VM lives, because the base library is
//! never unloaded.

use crate::environment::SavedTerms;
use crate::reply::{Reply, encode_payload};
use crate::submit::{LoopPort, NoPlace};
use crate::task::Task;
use rustler::sys::{ErlNifEnv, ErlNifTerm};
use rustler::{Atom, Env, Term};
use std::ffi::c_void;
use std::sync::Weak;
use std::time::Duration;

/// The version of the table. It is raised when a function changes; functions that are only added are
/// seen by the table's size.
pub const TABLE_VERSION: u32 = 2;

/// What a function of the table returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// The loop's bound is reached.
    Overloaded = 1,
    /// The loop is closed.
    Closed = 2,
    /// An argument is wrong.
    BadArgument = 3,
    /// The library failed; nothing was done.
    Failed = 4,
    /// Somebody else polls the loop.
    Busy = 5,
    /// Nothing came in time.
    TimedOut = 6,
    /// The loop is of a kind that cannot do this.
    NotSupported = 7,
}

/// The kinds of [`CPayload`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CPayloadKind {
    /// The atom `undefined`.
    Undefined = 0,
    /// `integer`.
    Integer = 1,
    /// A binary of the bytes.
    Bytes = 2,
}

/// The data of an event.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CPayload {
    /// One of [`CPayloadKind`].
    pub kind: u32,
    /// The value of an integer.
    pub integer: i64,
    /// The bytes of a binary; they are copied.
    pub bytes: *const u8,
    /// How many bytes.
    pub length: usize,
}

/// An event that was polled.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CEvent {
    /// Whose event it is.
    pub callback_id: u64,
    /// The code of its type.
    pub event_type: u32,
    /// A term of the environment that comes with it.
    pub data: ErlNifTerm,
}

/// What is called with events that were polled.
pub type TakeEvents = unsafe extern "C" fn(
    context: *mut c_void,
    env: *mut ErlNifEnv,
    events: *const CEvent,
    count: usize,
);

/// The result of a submitted call.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CResult {
    /// Whose result it is.
    pub callback_id: u64,
    /// A term of the environment that is pushed.
    pub term: ErlNifTerm,
    /// Not 0: the call failed, and the term is the reason.
    pub is_error: i32,
}

/// The table. The functions' contracts are in `include/tokamak.h`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Table {
    /// [`TABLE_VERSION`] of the base library.
    pub version: u32,
    /// The size of the base library's table in bytes.
    pub size: u32,
    /// Reserves callback ids.
    pub id_reserve: unsafe extern "C" fn(count: u64) -> u64,
    /// Takes a reference to a loop.
    pub loop_retain: unsafe extern "C" fn(env: *mut ErlNifEnv, term: ErlNifTerm) -> *mut c_void,
    /// Gives a reference back.
    pub loop_release: unsafe extern "C" fn(event_loop: *mut c_void),
    /// Pushes an event into a loop.
    pub loop_push: unsafe extern "C" fn(
        event_loop: *mut c_void,
        callback_id: u64,
        event_type: u32,
        payload: *const CPayload,
        timeout_milliseconds: u64,
    ) -> i32,
    /// Reserves places for results of submitted calls.
    pub loop_reserve: unsafe extern "C" fn(event_loop: *mut c_void, count: u64) -> i32,
    /// Gives reserved places back.
    pub loop_unreserve: unsafe extern "C" fn(event_loop: *mut c_void, count: u64),
    /// Has a function called when the loop ends.
    pub loop_tie:
        unsafe extern "C" fn(event_loop: *mut c_void, ended: Ended, context: *mut c_void) -> u64,
    /// Unties: the context comes back, or null when the function was called.
    pub loop_untie: unsafe extern "C" fn(event_loop: *mut c_void, tie: u64) -> *mut c_void,
    /// Pushes results of submitted calls into their reserved places; takes the environment over.
    pub loop_push_results: unsafe extern "C" fn(
        event_loop: *mut c_void,
        env: *mut ErlNifEnv,
        results: *const CResult,
        count: usize,
    ),
    /// Reports the progress of a key, a term of the environment.
    pub progress_report:
        unsafe extern "C" fn(env: *mut ErlNifEnv, key: ErlNifTerm, done: u64, total: u64),
    /// Waits for events of a loop.
    pub loop_poll: unsafe extern "C" fn(
        event_loop: *mut c_void,
        timeout_milliseconds: u64,
        take: TakeEvents,
        context: *mut c_void,
    ) -> i32,
}

/// What is called when a loop ends that something was tied to.
pub type Ended = unsafe extern "C" fn(context: *mut c_void);

/// What the base library fills when it is asked for its table.
#[derive(Debug)]
#[repr(C)]
pub struct TableRequest {
    /// The version that the caller was built for.
    pub version: u32,
    /// The table, or null when the versions differ.
    pub table: *const Table,
}

impl Table {
    /// Fetches the table of the base library through the term that `tokamak_nif:table/0` returns.
    /// `None`: the term is another one, or the base library has another version.
    pub fn fetch<'a>(env: Env<'a>, term: Term<'a>) -> Option<&'static Self> {
        let module = Atom::from_str(env, "tokamak_nif").ok()?;
        let name = Atom::from_str(env, "tokamak_table").ok()?;
        let mut request = TableRequest {
            version: TABLE_VERSION,
            table: std::ptr::null(),
        };
        let call_data = (&raw mut request).cast();
        // SAFETY: the resource type of this module and name takes a TableRequest, which outlives the
        // call; the table it gives is a static of a library that is never unloaded.
        unsafe {
            env.dynamic_resource_call(module, name, term, call_data)
                .ok()?;
            request.table.as_ref()
        }
    }

    /// Reserves `count` callback ids: the first one.
    pub fn reserve_ids(&self, count: u64) -> Option<u64> {
        // SAFETY: takes no pointer.
        let first = unsafe { (self.id_reserve)(count) };
        (first > 0).then_some(first)
    }

    /// Reports the progress of a key. Never to be called on a scheduler.
    pub fn report_progress(&self, key: Term, done: u64, total: u64) {
        if (self.size as usize) < size_of::<Self>() {
            // A base library that is older than this function.
            return;
        }
        let env = key.get_env().as_c_arg();
        // SAFETY: the environment and its term are those of the caller.
        unsafe { (self.progress_report)(env, key.as_c_arg(), done, total) }
    }
}

/// A reference to an event loop of the base library. It keeps the loop's memory, not the loop, alive.
#[derive(Debug)]
pub struct LoopReference {
    table: &'static Table,
    event_loop: *mut c_void,
}

// SAFETY: the functions of the table may be called from any thread that is not a scheduler.
unsafe impl Send for LoopReference {}
// SAFETY: as above, also at the same time.
unsafe impl Sync for LoopReference {}

/// The data of an event that is pushed.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// The atom `undefined`.
    Undefined,
    /// An integer.
    Integer(i64),
    /// A binary.
    Bytes(&'a [u8]),
}

impl LoopReference {
    /// The loop that a handle stands for; `None` for another term.
    pub fn retain(table: &'static Table, handle: Term) -> Option<Self> {
        let env = handle.get_env().as_c_arg();
        // SAFETY: the environment and its term are those of the running call.
        let event_loop = unsafe { (table.loop_retain)(env, handle.as_c_arg()) };
        (!event_loop.is_null()).then_some(Self { table, event_loop })
    }

    /// Pushes an event, waiting up to `timeout` (whole milliseconds) for room. Blocks its thread: never to be called
    /// on a scheduler.
    pub fn push(&self, callback_id: u64, event_type: u8, data: Data, timeout: Duration) -> Status {
        let payload = CPayload::from(data);
        let milliseconds = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        // SAFETY: the reference was taken by `retain`; the payload outlives the call.
        let status = unsafe {
            (self.table.loop_push)(
                self.event_loop,
                callback_id,
                u32::from(event_type),
                &payload,
                milliseconds,
            )
        };
        match status {
            0 => Status::Ok,
            1 => Status::Overloaded,
            2 => Status::Closed,
            3 => Status::BadArgument,
            _ => Status::Failed,
        }
    }
}

/// Loops of the base library as submitted calls of another library see them.
pub struct TablePort(pub LoopReference);

impl LoopPort for TablePort {
    fn reserve(&self, count: usize) -> Result<(), NoPlace> {
        let LoopReference { table, event_loop } = &self.0;
        // SAFETY: the reference was taken by `retain`.
        match unsafe { (table.loop_reserve)(*event_loop, count as u64) } {
            0 => Ok(()),
            1 => Err(NoPlace::Overloaded),
            _ => Err(NoPlace::Closed),
        }
    }

    fn unreserve(&self, count: usize) {
        let LoopReference { table, event_loop } = &self.0;
        // SAFETY: as above.
        unsafe { (table.loop_unreserve)(*event_loop, count as u64) }
    }

    fn tie(&self, task: Weak<Task>) -> u64 {
        let LoopReference { table, event_loop } = &self.0;
        let context = Box::into_raw(Box::new(task)).cast();
        // SAFETY: as above; the context is freed by `cancel_tied` or by `untie`.
        unsafe { (table.loop_tie)(*event_loop, cancel_tied, context) }
    }

    fn untie(&self, tie: u64) {
        let LoopReference { table, event_loop } = &self.0;
        // SAFETY: as above; what comes back is the context of `tie`, and nobody else frees it.
        unsafe {
            let context = (table.loop_untie)(*event_loop, tie);
            if !context.is_null() {
                drop(Box::from_raw(context.cast::<Weak<Task>>()));
            }
        }
    }

    fn push_replies(&self, replies: Vec<(u64, Reply)>) {
        let LoopReference { table, event_loop } = &self.0;
        let saved = SavedTerms::build(|terms| {
            for (_, reply) in &replies {
                terms.push(encode_payload(terms.env(), reply));
            }
        });
        let (env, terms) = saved.into_raw();
        let result = |((callback_id, reply), term): (&(u64, Reply), &ErlNifTerm)| CResult {
            callback_id: *callback_id,
            term: *term,
            is_error: i32::from(reply.is_err()),
        };
        let results: Vec<CResult> = replies.iter().zip(&terms).map(result).collect();
        // SAFETY: as above; the environment is given away, the results are read during the call.
        unsafe { (table.loop_push_results)(*event_loop, env, results.as_ptr(), results.len()) }
    }

    fn push_event(&self, callback_id: u64, data: Data) -> bool {
        let user = tokamak_core::event::EventType::User.code();
        self.0.push(callback_id, user, data, Duration::ZERO) == Status::Ok
    }
}

/// The loop ended that a call was tied to.
unsafe extern "C" fn cancel_tied(context: *mut c_void) {
    // SAFETY: made by `tie`, and called once.
    let task = unsafe { Box::from_raw(context.cast::<Weak<Task>>()) };
    let cancel = std::panic::AssertUnwindSafe(|| {
        if let Some(task) = task.upgrade() {
            task.cancel();
        }
    });
    let _ = std::panic::catch_unwind(cancel);
}

impl Drop for LoopReference {
    fn drop(&mut self) {
        // SAFETY: taken by `retain`, given back once.
        unsafe { (self.table.loop_release)(self.event_loop) }
    }
}

impl From<Data<'_>> for CPayload {
    fn from(data: Data) -> Self {
        let payload = |kind: CPayloadKind, integer, bytes: &[u8]| Self {
            kind: kind as u32,
            integer,
            bytes: bytes.as_ptr(),
            length: bytes.len(),
        };
        match data {
            Data::Undefined => payload(CPayloadKind::Undefined, 0, &[]),
            Data::Integer(integer) => payload(CPayloadKind::Integer, integer, &[]),
            Data::Bytes(bytes) => payload(CPayloadKind::Bytes, 0, bytes),
        }
    }
}
