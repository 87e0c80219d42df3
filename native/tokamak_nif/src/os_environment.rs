// SPDX-License-Identifier: Apache-2.0
//! The NIF of `tokamak_os_environment`: variables of the VM, byte by byte.

use crate::atoms;
use rustler::sys::enif_getenv;
use rustler::{Binary, Encoder, Env, NewBinary, Term};
use std::ffi::{CStr, CString};

/// What most values fit into.
const USUAL_SIZE: usize = 1024;

/// The value of a variable, `false` where there is none.
#[rustler::nif]
fn os_variable<'a>(env: Env<'a>, name: Term<'a>) -> Term<'a> {
    let name = Binary::from_term(name).ok();
    match name.and_then(|name| CString::new(name.as_slice()).ok()) {
        None => atoms::badarg().encode(env),
        Some(name) => match value_of(&name) {
            None => atoms::false_().encode(env),
            Some(value) => NewBinary::from_slice(env, &value).into(),
        },
    }
}

/// The VM's own environment is asked, which `os:putenv/2` changes; that of the C library is another one.
fn value_of(name: &CStr) -> Option<Vec<u8>> {
    let mut value = vec![0; USUAL_SIZE];
    loop {
        let mut size = value.len();
        // SAFETY: the name ends with a zero byte; the value has room for `size` bytes.
        let found = unsafe { enif_getenv(name.as_ptr(), value.as_mut_ptr().cast(), &mut size) };
        match found {
            0 => {
                value.truncate(size);
                return Some(value);
            }
            // It is longer; erts does not tell how long, whatever its manual says.
            found if found > 0 => value.resize(value.len() * 2, 0),
            _ => return None,
        }
    }
}
