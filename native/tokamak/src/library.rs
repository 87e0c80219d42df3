// SPDX-License-Identifier: Apache-2.0
//! What a library does when the VM loads it, and when the VM halts.

use crate::{bytes, environment, operation, runtime};
use rustler::Env;
use rustler::sys::ErlNifEnv;
use std::ffi::{c_int, c_uint, c_void};
use std::mem::MaybeUninit;
use std::panic::catch_unwind;
use std::time::Duration;

/// What operations get to end when the VM halts.
const HALT_TIME: Duration = Duration::from_millis(100);

/// `ERL_NIF_OPT_ON_HALT` of erl_nif.h.
const ON_HALT: c_uint = 2;

type OnHalt = unsafe extern "C" fn(private: *mut c_void);
type SetOption = unsafe extern "C" fn(env: *mut ErlNifEnv, option: c_uint, ...) -> c_int;

/// Makes a loaded library an engine; to be called from `load`.
pub fn load(env: Env, engine: &'static str) -> bool {
    pin();
    set_on_halt(env);
    bytes::loaded();
    operation::register(env, engine)
}

/// Keeps this library in memory for good. The VM unloads it when its module is purged, but its threads go on,
/// and resources of it live on in other processes.
fn pin() {
    let mut info = MaybeUninit::<libc::Dl_info>::uninit();
    let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
    // SAFETY: the address is one of this library; what dladdr fills in on success is valid as long as the
    // library is loaded, and this is its code that runs. The handle is kept for ever.
    unsafe {
        if libc::dladdr(pin as *const c_void, info.as_mut_ptr()) != 0 {
            libc::dlopen(info.assume_init().dli_fname, flags);
        }
    }
}

/// Has the VM call [`on_halt`], where it can: OTP 26 and later. The function is looked up, so that a library
/// serves OTP 25, too.
fn set_on_halt(env: Env) {
    let callback: OnHalt = on_halt;
    // SAFETY: `enif_set_option' has this type wherever it exists; `env` is load's, and the callback stays in
    // memory, see `pin`. A refusal changes nothing.
    unsafe {
        let found = libc::dlsym(libc::RTLD_DEFAULT, c"enif_set_option".as_ptr());
        if !found.is_null() {
            let set_option: SetOption = std::mem::transmute(found);
            set_option(env.as_c_arg(), ON_HALT, callback);
        }
    }
}

/// The VM halts, whoever runs: nothing is sent to it any more, and operations that run are dropped, so that
/// their destructors run.
unsafe extern "C" fn on_halt(_private: *mut c_void) {
    environment::end_sends();
    // A panic here has nobody to tell.
    let _ = catch_unwind(|| runtime::halt(HALT_TIME));
}
