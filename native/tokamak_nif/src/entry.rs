// SPDX-License-Identifier: Apache-2.0
//! The entry of NIFs that are called for every event or timer.
//!
//! `#[rustler::nif]` collects the arguments of each call in a vector of its own; here they stay on the
//! stack.

use rustler::codegen_runtime::{c_int, handle_nif_result};
use rustler::sys::{ErlNifEnv, ErlNifTerm};
use rustler::{Env, Term};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Makes NIFs of functions, `name: arity`, that take an environment and an array of terms.
macro_rules! nifs {
    ($($name:ident: $arity:literal),* $(,)?) => {
        $(const _: () = {
            unsafe extern "C" fn entry(
                env: *mut rustler::sys::ErlNifEnv,
                argc: rustler::codegen_runtime::c_int,
                argv: *const rustler::sys::ErlNifTerm,
            ) -> rustler::sys::ErlNifTerm {
                // SAFETY: the VM calls a NIF with its environment and as many arguments as it has.
                unsafe { $crate::entry::call::<$arity>(env, argc, argv, $name) }
            }
            rustler::codegen_runtime::inventory::submit!(rustler::Nif {
                name: concat!(stringify!($name), "\0").as_ptr().cast(),
                arity: $arity,
                flags: rustler::SchedulerFlags::Normal as rustler::codegen_runtime::c_uint,
                raw_func: entry,
            });
        };)*
    };
}
pub(crate) use nifs;

/// Calls a NIF's function. A panic ends in the Erlang exception that rustler makes of it.
///
/// # Safety
/// `env` is the environment of the running NIF call and `argv` points to its `argc` arguments.
pub unsafe fn call<const N: usize>(
    env: *mut ErlNifEnv,
    argc: c_int,
    argv: *const ErlNifTerm,
    function: for<'a> fn(Env<'a>, [Term<'a>; N]) -> Term<'a>,
) -> ErlNifTerm {
    debug_assert_eq!(usize::try_from(argc), Ok(N));
    let lifetime = ();
    // SAFETY: the caller says so; the environment and its terms do not outlive this call.
    let (env, terms) = unsafe {
        let env = Env::new(&lifetime, env);
        (env, std::array::from_fn(|i| Term::new(env, *argv.add(i))))
    };
    match catch_unwind(AssertUnwindSafe(|| function(env, terms))) {
        Ok(term) => term.as_c_arg(),
        // SAFETY: the environment is the one of this call.
        Err(panic) => unsafe { handle_nif_result::<()>(Err(panic), env).apply(env) },
    }
}
