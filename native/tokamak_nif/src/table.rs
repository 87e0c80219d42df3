// SPDX-License-Identifier: Apache-2.0
//! The C table that this library hands out, see `tokamak::table` and `include/tokamak.h`.

use crate::event_loop::EventLoop;
use crate::loop_nifs;
use crate::payload::{Event, Payload};
use crate::submissions::{Tie, end_type};
use rustler::sys::{ErlNifEnv, ErlNifTerm};
use rustler::{Encoder, Env, Resource, ResourceArc, Term};
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;
use tokamak::environment::{SavedTerms, Sender};
use tokamak::submit::{LoopPort, NoPlace};
use tokamak::table::{
    CEvent, CPayload, CPayloadKind, CResult, Ended, Status, TABLE_VERSION, Table, TableRequest,
    TakeEvents,
};
use tokamak_core::event::EventType;
use tokamak_core::event_id::{CALLBACK_IDS, MAX_ID};
use tokamak_core::queue::Refused;

static TABLE: Table = Table {
    version: TABLE_VERSION,
    size: size_of::<Table>() as u32,
    id_reserve,
    loop_retain,
    loop_release,
    loop_push,
    loop_reserve,
    loop_unreserve,
    loop_tie,
    loop_untie,
    loop_push_results,
    progress_report: crate::progress::report_from_table,
    loop_poll,
};

/// The resource whose dynamic call gives the table.
struct TableResource;

#[rustler::resource_impl(name = "tokamak_table")]
impl Resource for TableResource {
    const IMPLEMENTS_DYNCALL: bool = true;

    unsafe fn dyncall<'a>(&'a self, _env: Env<'a>, call_data: *mut rustler::sys::c_void) {
        // SAFETY: whoever calls a resource of this name passes a TableRequest.
        if let Some(request) = unsafe { call_data.cast::<TableRequest>().as_mut() }
            && request.version == TABLE_VERSION
        {
            request.table = &TABLE;
        }
    }
}

/// The term that other libraries fetch the table through.
#[rustler::nif]
fn table(env: Env) -> Term {
    ResourceArc::new(TableResource).encode(env)
}

unsafe extern "C" fn id_reserve(count: u64) -> u64 {
    if count == 0 {
        return 0;
    }
    CALLBACK_IDS.reserve(count).unwrap_or(0)
}

unsafe extern "C" fn loop_retain(env: *mut ErlNifEnv, term: ErlNifTerm) -> *mut c_void {
    let lifetime = ();
    let retain = || {
        // SAFETY: the caller passes the environment of its running NIF call, and a term of it.
        let term = unsafe { Term::new(Env::new(&lifetime, env), term) };
        loop_nifs::HANDLES.get(term).cloned()
    };
    match catch_unwind(AssertUnwindSafe(retain)) {
        Ok(Some(event_loop)) => Arc::into_raw(event_loop).cast_mut().cast(),
        _ => std::ptr::null_mut(),
    }
}

unsafe extern "C" fn loop_release(event_loop: *mut c_void) {
    if !event_loop.is_null() {
        // SAFETY: the caller gives back, once, what loop_retain made by Arc::into_raw.
        let event_loop = unsafe { Arc::from_raw(event_loop.cast::<EventLoop>().cast_const()) };
        let _ = catch_unwind(AssertUnwindSafe(|| drop(event_loop)));
    }
}

unsafe extern "C" fn loop_push(
    event_loop: *mut c_void,
    callback_id: u64,
    event_type: u32,
    payload: *const CPayload,
    timeout_milliseconds: u64,
) -> i32 {
    // SAFETY: the caller holds a reference from loop_retain, and its payload outlives the call.
    let (event_loop, payload) = unsafe {
        (
            event_loop.cast::<EventLoop>().as_ref(),
            payload.as_ref().and_then(|payload| to_payload(payload)),
        )
    };
    let kind = u8::try_from(event_type).ok().and_then(EventType::from_code);
    let (Some(event_loop), Some(payload), Some(kind), 1..=MAX_ID) =
        (event_loop, payload, kind, callback_id)
    else {
        return Status::BadArgument as i32;
    };
    let event = Event {
        callback_id,
        kind,
        payload,
    };
    let push = AssertUnwindSafe(|| push(event_loop, event, timeout_milliseconds));
    catch_unwind(push).unwrap_or(Status::Failed) as i32
}

fn push(event_loop: &EventLoop, event: Event, timeout_milliseconds: u64) -> Status {
    let result = if timeout_milliseconds == 0 {
        event_loop.post(Sender::Thread, event)
    } else {
        event_loop.post_timeout(event, Duration::from_millis(timeout_milliseconds))
    };
    match result {
        Ok(()) => Status::Ok,
        Err(Refused::Overloaded(_)) => Status::Overloaded,
        Err(Refused::Closed(_)) => Status::Closed,
    }
}

unsafe extern "C" fn loop_reserve(event_loop: *mut c_void, count: u64) -> i32 {
    // SAFETY: the caller holds a reference from loop_retain.
    let Some(event_loop) = (unsafe { event_loop.cast::<EventLoop>().as_ref() }) else {
        return Status::BadArgument as i32;
    };
    let Ok(count) = usize::try_from(count) else {
        return Status::Overloaded as i32;
    };
    let status = match event_loop.reserve(count) {
        Ok(()) => Status::Ok,
        Err(NoPlace::Overloaded) => Status::Overloaded,
        Err(NoPlace::Closed) => Status::Closed,
    };
    status as i32
}

unsafe extern "C" fn loop_unreserve(event_loop: *mut c_void, count: u64) {
    // SAFETY: the caller holds a reference from loop_retain.
    if let Some(event_loop) = unsafe { event_loop.cast::<EventLoop>().as_ref() } {
        event_loop.unreserve(usize::try_from(count).unwrap_or(0));
    }
}

/// A function of another library that is called when a loop ends.
pub struct ForeignTie {
    ended: Ended,
    context: *mut c_void,
}

// SAFETY: the other library says that its function may be called from any thread with its context.
unsafe impl Send for ForeignTie {}

impl ForeignTie {
    /// The loop has ended.
    pub fn call(self) {
        // SAFETY: called once; the context is still the other library's, as it did not untie it.
        unsafe { (self.ended)(self.context) }
    }
}

unsafe extern "C" fn loop_tie(event_loop: *mut c_void, ended: Ended, context: *mut c_void) -> u64 {
    let tie = ForeignTie { ended, context };
    // SAFETY: the caller holds a reference from loop_retain.
    let Some(event_loop) = (unsafe { event_loop.cast::<EventLoop>().as_ref() }) else {
        tie.call();
        return 0;
    };
    let key = event_loop.ties.insert(Tie::Foreign(tie));
    event_loop.end_ties_if_closed();
    key
}

unsafe extern "C" fn loop_untie(event_loop: *mut c_void, tie: u64) -> *mut c_void {
    // SAFETY: the caller holds a reference from loop_retain.
    let event_loop = unsafe { event_loop.cast::<EventLoop>().as_ref() };
    match event_loop.and_then(|event_loop| event_loop.ties.remove(tie)) {
        Some(Tie::Foreign(tie)) => tie.context,
        _ => std::ptr::null_mut(),
    }
}

unsafe extern "C" fn loop_push_results(
    event_loop: *mut c_void,
    env: *mut ErlNifEnv,
    results: *const CResult,
    count: usize,
) {
    let results = match count {
        0 => &[],
        // SAFETY: the caller says that there are so many results to read.
        _ => unsafe { std::slice::from_raw_parts(results, count) },
    };
    let terms = results.iter().map(|result| result.term).collect();
    // SAFETY: the caller gives the environment away.
    let terms = Arc::new(unsafe { SavedTerms::from_raw(env, terms) });
    // SAFETY: the caller holds a reference from loop_retain.
    let Some(event_loop) = (unsafe { event_loop.cast::<EventLoop>().as_ref() }) else {
        return;
    };
    let event = |(index, result): (usize, &CResult)| Event {
        callback_id: result.callback_id,
        kind: end_type(result.is_error != 0),
        payload: Payload::TermOf(Arc::clone(&terms), index),
    };
    let events = results.iter().enumerate().map(event);
    let _ = catch_unwind(AssertUnwindSafe(|| event_loop.push_reserved(events)));
}

unsafe extern "C" fn loop_poll(
    event_loop: *mut c_void,
    timeout_milliseconds: u64,
    take: TakeEvents,
    context: *mut c_void,
) -> i32 {
    // SAFETY: the caller holds a reference from loop_retain.
    let Some(event_loop) = (unsafe { event_loop.cast::<EventLoop>().as_ref() }) else {
        return Status::BadArgument as i32;
    };
    let take = |env: Env, events: &[CEvent]| {
        // SAFETY: the caller's function, with the caller's context; events and environment outlive it.
        unsafe { take(context, env.as_c_arg(), events.as_ptr(), events.len()) }
    };
    let timeout = Duration::from_millis(timeout_milliseconds);
    let poll = AssertUnwindSafe(|| event_loop.poll_from_thread(timeout, take));
    catch_unwind(poll).unwrap_or(Status::Failed) as i32
}

/// Copies the data of an event.
///
/// # Safety
/// The bytes of a binary have to be readable.
unsafe fn to_payload(payload: &CPayload) -> Option<Payload> {
    const UNDEFINED: u32 = CPayloadKind::Undefined as u32;
    const INTEGER: u32 = CPayloadKind::Integer as u32;
    const BYTES: u32 = CPayloadKind::Bytes as u32;
    match payload.kind {
        UNDEFINED => Some(Payload::Atom(crate::atoms::undefined())),
        INTEGER => Some(Payload::Integer(payload.integer)),
        BYTES if payload.length == 0 => Some(Payload::Bytes(Box::default())),
        BYTES if payload.bytes.is_null() => None,
        BYTES => {
            // SAFETY: the caller says that these bytes can be read.
            let bytes = unsafe { std::slice::from_raw_parts(payload.bytes, payload.length) };
            Some(Payload::Bytes(bytes.into()))
        }
        _ => None,
    }
}
