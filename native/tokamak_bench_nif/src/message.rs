// SPDX-License-Identifier: Apache-2.0
//! Messages from a native thread, by hand: one environment, cleared after each send.

use rustler::sys::{
    ErlNifEnv, ErlNifTerm, enif_alloc_env, enif_clear_env, enif_free_env, enif_make_int64,
    enif_make_list_from_array, enif_make_tuple_from_array, enif_make_uint64, enif_send,
};
use rustler::{Atom, LocalPid};
use std::ptr;

/// An environment for the messages of one thread that the VM does not know.
pub struct MessageEnvironment {
    env: *mut ErlNifEnv,
    user: ErlNifTerm,
}

impl MessageEnvironment {
    pub fn new(user: Atom) -> Self {
        Self {
            // SAFETY: allowed on any thread; freed once, by Drop.
            env: unsafe { enif_alloc_env() },
            user: user.as_c_arg(),
        }
    }

    /// Sends `{CallbackId, user, Integer}`, as an event of tokamak looks; `false`: nobody is there.
    pub fn send_event(&mut self, to: &LocalPid, callback_id: u64, integer: i64) -> bool {
        let event = self.event(callback_id, integer);
        self.send(to, event)
    }

    /// Sends a list of events with the integers of a range.
    pub fn send_list(
        &mut self,
        to: &LocalPid,
        callback_id: u64,
        integers: std::ops::Range<i64>,
    ) -> bool {
        let events: Vec<ErlNifTerm> = integers
            .map(|integer| self.event(callback_id, integer))
            .collect();
        // SAFETY: the terms are of this environment.
        let list =
            unsafe { enif_make_list_from_array(self.env, events.as_ptr(), events.len() as u32) };
        self.send(to, list)
    }

    fn event(&mut self, callback_id: u64, integer: i64) -> ErlNifTerm {
        // SAFETY: the environment is ours alone, and an atom belongs to every one.
        unsafe {
            let fields = [
                enif_make_uint64(self.env, callback_id),
                self.user,
                enif_make_int64(self.env, integer),
            ];
            enif_make_tuple_from_array(self.env, fields.as_ptr(), fields.len() as u32)
        }
    }

    fn send(&mut self, to: &LocalPid, message: ErlNifTerm) -> bool {
        // SAFETY: no scheduler thread comes here, so there is no calling process; the message is of
        // this environment, and no term of it is used again.
        unsafe {
            let sent = enif_send(ptr::null_mut(), to.as_c_arg(), self.env, message) == 1;
            enif_clear_env(self.env);
            sent
        }
    }
}

impl Drop for MessageEnvironment {
    fn drop(&mut self) {
        // SAFETY: allocated by `new`.
        unsafe { enif_free_env(self.env) }
    }
}
