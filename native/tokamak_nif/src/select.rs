// SPDX-License-Identifier: Apache-2.0
//! enif_select, and the handles of descriptors that it holds.
//!
//! The rules this file keeps:
//! one resource a descriptor, one selecting process; once a descriptor was selected it is closed only
//! in the stop callback; nothing is armed after STOP (both look at [`Selection`] under its lock); no
//! lock is held across STOP, whose callback may run inline.

use crate::fd::Fd;
use crate::handle::{HandleType, Handled};
use crate::watch::Direction;
use parking_lot::Mutex;
use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustler::sys::{
    ERL_NIF_SELECT_READ, ERL_NIF_SELECT_READ_CANCELLED, ERL_NIF_SELECT_STOP, ERL_NIF_SELECT_WRITE,
    ERL_NIF_SELECT_WRITE_CANCELLED, ErlNifSelectFlags, c_void, enif_select,
};
use rustler::{Encoder, Env, LocalPid, Term};
use std::ptr;
use std::sync::Arc;

/// ERL_NIF_SELECT_CANCEL (NIF 2.15); rustler does not name it.
const ERL_NIF_SELECT_CANCEL: ErlNifSelectFlags = 1 << 3;

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
    /// For each direction: a select was cancelled too late once. Its message may still come, or never:
    /// the process that it goes to may have ended.
    doubtful: [bool; 2],
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
                doubtful: [false; 2],
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

    /// A message of the VM came. `false`: it may belong to a select that was cancelled.
    pub fn message_came(&self, direction: Direction) -> bool {
        let mut state = self.state.lock();
        let index = direction.index();
        let armed = std::mem::replace(&mut state.armed[index], false);
        state.doubtful[index] |= !armed;
        !state.doubtful[index]
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
            state.doubtful[index] = true;
        }
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

    /// Keeps a descriptor that was never selected from being so. `false`: it was, and closing it has to go through
    /// [`Selection::stop`] on a scheduler thread.
    pub fn stop_unless_selected(&self) -> bool {
        let mut state = self.state.lock();
        state.stopped |= !state.selected;
        !state.selected
    }
}

fn select_mode(direction: Direction) -> ErlNifSelectFlags {
    match direction {
        Direction::Read => ERL_NIF_SELECT_READ,
        Direction::Write => ERL_NIF_SELECT_WRITE,
    }
}

/// The type of the handles of descriptors.
pub static HANDLES: HandleType<Fd> = HandleType::new();

/// The descriptor that a handle stands for.
pub fn decode_handle<'a>(term: Term<'a>) -> Option<&'a Arc<Fd>> {
    HANDLES.get(term)
}

impl Handled for Fd {
    const IS_SELECTED: bool = true;

    fn has_object(&self, object: *mut c_void) {
        self.selection.state.lock().object = object;
    }

    fn is_forgotten(&self) {
        self.selection.state.lock().object = ptr::null_mut();
        self.forgotten();
    }

    fn is_stopped(&self) {
        let file = self.selection.state.lock().closing.take();
        drop(file);
    }
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
