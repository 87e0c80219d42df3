// SPDX-License-Identifier: Apache-2.0
//! The resource type of descriptors, and enif_select.
//!
//! rustler has no `stop` callback, so this file opens the resource type itself. The rules it keeps:
//! one resource a descriptor, one selecting process; once a descriptor was selected it is closed only
//! in the stop callback; nothing is armed after STOP (both look at [`Selection`] under its lock); no
//! lock is held across STOP, whose callback may run inline.

use crate::fd::Fd;
use crate::watch::Direction;
use parking_lot::Mutex;
use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustler::sys::{
    ERL_NIF_SELECT_READ, ERL_NIF_SELECT_READ_CANCELLED, ERL_NIF_SELECT_STOP, ERL_NIF_SELECT_WRITE,
    ERL_NIF_SELECT_WRITE_CANCELLED, ErlNifEnv, ErlNifEvent, ErlNifResourceDtor,
    ErlNifResourceFlags, ErlNifResourceStop, ErlNifResourceType, ErlNifResourceTypeInit,
    ErlNifSelectFlags, c_int, c_void, enif_alloc_resource, enif_get_resource,
    enif_init_resource_type, enif_make_resource, enif_release_resource, enif_select,
};
use rustler::{Encoder, Env, LocalPid, Term};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

/// ERL_NIF_SELECT_CANCEL (NIF 2.15); rustler does not name it.
const ERL_NIF_SELECT_CANCEL: ErlNifSelectFlags = 1 << 3;

static RESOURCE_TYPE: AtomicPtr<ErlNifResourceType> = AtomicPtr::new(ptr::null_mut());

/// What the VM's poll set knows of a descriptor.
pub struct Selection {
    state: Mutex<State>,
}

struct State {
    /// The resource object; null before it is made and after its destructor.
    object: *mut c_void,
    /// It was selected and not yet stopped: the VM holds a reference to the object.
    selected: bool,
    stopped: bool,
    /// For each direction: a select is under way, its message has not been seen.
    armed: [bool; 2],
    /// For each direction: messages of cancelled selects that may still come.
    stale: [u32; 2],
    /// Kept open until the stop callback.
    closing: Option<Arc<OwnedFd>>,
}

// SAFETY: the pointer is only handed to enif_select, which any thread may call with the object of a
// live resource; `selected` says that it lives.
unsafe impl Send for State {}

impl Selection {
    pub fn new() -> Self {
        Self {
            state: Mutex::new(State {
                object: ptr::null_mut(),
                selected: false,
                stopped: false,
                armed: [false; 2],
                stale: [0; 2],
                closing: None,
            }),
        }
    }

    /// Asks the VM to send `to` one `{select, Fd, undefined, ready_input | ready_output}`. Idempotent
    /// while armed. `false`: the descriptor is closed, or the VM refused.
    pub fn arm(&self, env: Env, file: &OwnedFd, direction: Direction, to: &LocalPid) -> bool {
        let mut state = self.state.lock();
        if state.stopped || state.object.is_null() {
            return false;
        }
        let undefined = crate::atoms::undefined().encode(env).as_c_arg();
        // SAFETY: the object lives: the caller holds a handle of it, or the VM does while it is
        // selected. The descriptor is open, as `stopped` is false under the lock.
        let result = unsafe {
            enif_select(
                env.as_c_arg(),
                file.as_raw_fd(),
                select_mode(direction),
                state.object,
                to.as_c_arg(),
                undefined,
            )
        };
        // Results are bits, errors are negative with bits set.
        if result < 0 {
            return false;
        }
        state.selected = true;
        state.armed[direction.index()] = true;
        true
    }

    /// A message of the VM came. `false`: it belongs to a select that was cancelled.
    pub fn message_came(&self, direction: Direction) -> bool {
        let mut state = self.state.lock();
        let index = direction.index();
        if state.stale[index] > 0 {
            state.stale[index] -= 1;
            return false;
        }
        std::mem::replace(&mut state.armed[index], false)
    }

    /// Ends a select that is under way.
    pub fn cancel(&self, env: Env, file: &OwnedFd, direction: Direction) {
        let mut state = self.state.lock();
        let index = direction.index();
        if state.stopped || !std::mem::replace(&mut state.armed[index], false) {
            return;
        }
        // SAFETY: as in `arm`; it was armed, so the VM holds the object.
        let result = unsafe {
            enif_select(
                env.as_c_arg(),
                file.as_raw_fd(),
                ERL_NIF_SELECT_CANCEL | select_mode(direction),
                state.object,
                ptr::null(),
                crate::atoms::undefined().encode(env).as_c_arg(),
            )
        };
        let cancelled = match direction {
            Direction::Read => ERL_NIF_SELECT_READ_CANCELLED,
            Direction::Write => ERL_NIF_SELECT_WRITE_CANCELLED,
        };
        if result < 0 || result & cancelled == 0 {
            state.stale[index] += 1;
        }
    }

    /// Whether closing has to go through [`Selection::stop`] on a scheduler thread.
    pub fn is_selected(&self) -> bool {
        self.state.lock().selected
    }

    /// Closes a descriptor: at once if it was never selected, else in the stop callback.
    pub fn stop(&self, env: Env, file: Arc<OwnedFd>) {
        let mut state = self.state.lock();
        state.stopped = true;
        if !std::mem::replace(&mut state.selected, false) {
            return;
        }
        let (object, event) = (state.object, file.as_raw_fd());
        state.closing = Some(file);
        drop(state);
        // SAFETY: it was selected until now, so the VM holds the object until its stop callback has
        // run; `closing` keeps the descriptor open until then.
        unsafe {
            enif_select(
                env.as_c_arg(),
                event,
                ERL_NIF_SELECT_STOP,
                object,
                ptr::null(),
                crate::atoms::undefined().encode(env).as_c_arg(),
            );
        }
    }

    /// Marks a descriptor that was never selected as closed.
    pub fn stop_unselected(&self) {
        self.state.lock().stopped = true;
    }
}

fn select_mode(direction: Direction) -> ErlNifSelectFlags {
    match direction {
        Direction::Read => ERL_NIF_SELECT_READ,
        Direction::Write => ERL_NIF_SELECT_WRITE,
    }
}

/// Opens the resource type; to be called from `load`.
pub fn open_resource_type(env: Env) -> bool {
    let init = ErlNifResourceTypeInit {
        dtor: destructor as *const ErlNifResourceDtor,
        stop: stopped as *const ErlNifResourceStop,
        down: ptr::null(),
        members: 2,
        dyncall: ptr::null(),
    };
    let mut tried = MaybeUninit::uninit();
    // SAFETY: `env` is load's; the name ends with NUL; the callbacks have the types they stand for.
    let resource_type = unsafe {
        enif_init_resource_type(
            env.as_c_arg(),
            c"tokamak_fd".as_ptr(),
            &init,
            ErlNifResourceFlags::ERL_NIF_RT_CREATE,
            tried.as_mut_ptr(),
        )
    };
    RESOURCE_TYPE.store(resource_type.cast_mut(), Ordering::Release);
    !resource_type.is_null()
}

/// Makes the handle of a descriptor: the one resource object that stands for it.
pub fn make_handle<'a>(env: Env<'a>, fd: Arc<Fd>) -> Term<'a> {
    // SAFETY: the type was opened by load. The object is written before anyone can see it; the VM
    // aligns it for any C type, so for a pointer. Releasing leaves the reference that the term holds.
    unsafe {
        let object =
            enif_alloc_resource(RESOURCE_TYPE.load(Ordering::Acquire), size_of::<Arc<Fd>>());
        fd.selection.state.lock().object = object;
        ptr::write(object.cast::<Arc<Fd>>(), fd);
        let term = Term::new(env, enif_make_resource(env.as_c_arg(), object));
        enif_release_resource(object);
        term
    }
}

/// The descriptor that a handle stands for.
pub fn decode_handle(term: Term) -> Option<Arc<Fd>> {
    let mut object = MaybeUninit::<*const c_void>::uninit();
    // SAFETY: on success the object is one that `make_handle` wrote, and the term keeps it alive.
    unsafe {
        let found = enif_get_resource(
            term.get_env().as_c_arg(),
            term.as_c_arg(),
            RESOURCE_TYPE.load(Ordering::Acquire),
            object.as_mut_ptr(),
        );
        (found != 0).then(|| Arc::clone(&*object.assume_init().cast::<Arc<Fd>>()))
    }
}

unsafe extern "C" fn destructor(_env: *mut ErlNifEnv, object: *mut c_void) {
    // SAFETY: the VM calls this once, last, with an object that `make_handle` wrote.
    let fd = unsafe { ptr::read(object.cast::<Arc<Fd>>()) };
    fd.selection.state.lock().object = ptr::null_mut();
    let forget = std::panic::AssertUnwindSafe(|| fd.forgotten());
    let _ = std::panic::catch_unwind(forget);
}

unsafe extern "C" fn stopped(
    _env: *mut ErlNifEnv,
    object: *mut c_void,
    _event: ErlNifEvent,
    _is_direct_call: c_int,
) {
    // SAFETY: the VM holds the object until this returns.
    let fd = unsafe { &*object.cast::<Arc<Fd>>() };
    let file = fd.selection.state.lock().closing.take();
    drop(file);
}

/// A duplicate above the standard descriptors that programs started from here do not inherit.
pub fn duplicate(number: RawFd) -> Result<OwnedFd, Errno> {
    if number < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: only lent to fcntl(2), which answers EBADF for a number that is not open.
    let original = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_dupfd_cloexec(original, 3)
}
