// SPDX-License-Identifier: Apache-2.0
//! The SDK of tokamak: async Rust functions as operations that Erlang and Elixir call.
//!
//! `docs/writing-operations.md` takes an author from `cargo new` to a call from Erlang.
//!
//! An operation is a function with an attribute, and can still be called from Rust:
//!
//! ```no_run
//! use futures_util::FutureExt;
//!
//! #[tokamak::op]
//! async fn divide(a: i64, b: i64) -> Result<i64, String> {
//!     a.checked_div(b).ok_or("division by zero".to_owned())
//! }
//!
//! assert_eq!(divide(84, 2).now_or_never(), Some(Ok(42)));
//! ```
//!
//! [`nif!`] makes a NIF library of the crate, an *engine*; [`op`] has the kinds of operations.
//! What an author uses is listed under re-exports and macros, with [`reply::Reason`] for errors and
//! [`table::Data`] for events. The rest is for the base library and for what the macros make, and may change.

#[doc(hidden)]
pub mod atoms;
mod batch;
pub mod bytes;
#[doc(hidden)]
pub mod calls;
pub mod context;
#[doc(hidden)]
pub mod discovery;
pub mod environment;
mod gather;
mod latency;
#[doc(hidden)]
pub mod library;
#[doc(hidden)]
pub mod list;
pub mod operation;
pub mod owners;
mod pool;
#[doc(hidden)]
pub mod pool_calls;
pub mod progress;
pub mod reply;
pub mod runtime;
#[doc(hidden)]
pub mod stats;
#[doc(hidden)]
pub mod stopwatch;
pub mod stream;
#[doc(hidden)]
pub mod stream_calls;
pub mod submit;
#[doc(hidden)]
pub mod submit_calls;
pub mod table;
pub mod task;
pub mod watcher;

#[doc(hidden)]
pub use inventory;
pub use rustler;
pub use tokamak_core::stream_hub;

pub use bytes::{Bytes, Path, Value};
pub use context::Ctx;
pub use reply::OperationError;
pub use stream::{Inbox, Outbox};
pub use stream_hub::StreamHub;
pub use tokamak_macros::OperationError;

/// Makes an operation of a function: `#[tokamak::op]`. One of each kind:
///
/// ```no_run
/// use futures_core::Stream;
/// use futures_util::{StreamExt, stream};
/// use tokamak::{Inbox, Outbox};
///
/// #[tokamak::op(limit = 100)]
/// async fn address(host: String) -> std::io::Result<Vec<String>> {
///     let found = tokio::net::lookup_host((host, 0)).await?;
///     Ok(found.map(|address| address.ip().to_string()).collect())
/// }
///
/// #[tokamak::op(eager)]
/// async fn length(text: String) -> usize {
///     text.len()
/// }
///
/// #[tokamak::op(blocking, limit = 4, name = "count_lines")]
/// fn lines(path: tokamak::Path) -> std::io::Result<usize> {
///     Ok(std::fs::read_to_string(path.0)?.lines().count())
/// }
///
/// #[tokamak::op(stream)]
/// fn countdown(from: u64) -> impl Stream<Item = u64> {
///     stream::iter((1..=from).rev())
/// }
///
/// #[tokamak::op(duplex)]
/// async fn shout(mut input: Inbox<String>, output: Outbox<String>) {
///     while let Some(text) = input.recv().await {
///         if output.send(text.to_uppercase()).await.is_err() {
///             break;
///         }
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// assert_eq!(length("four".to_owned()).await, 4);
/// assert_eq!(countdown(3).collect::<Vec<_>>().await, [3, 2, 1]);
/// # }
/// ```
pub use tokamak_macros::op;

/// Makes a NIF library of a crate: the NIFs that every engine has, for the Erlang module of this name,
/// which uses `tokamak_engine.hrl`. `load = function` names one more function to call at the load, which
/// returns whether that may go on.
///
/// ```no_run
/// #[tokamak::op]
/// async fn greet(name: String) -> String {
///     format!("Hello, {name}")
/// }
///
/// tokamak::nif!("my_engine");
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! nif {
    ($module:literal) => {
        $crate::nif!($module, load = |_env| true);
    };
    ($module:literal, load = $load:expr) => {
        mod tokamak_nifs {
            use $crate::rustler::{self, Atom, Env, Term};

            $crate::engine_nifs!();
        }

        use $crate::rustler;

        fn tokamak_load(env: $crate::rustler::Env, _info: $crate::rustler::Term) -> bool {
            let load: fn($crate::rustler::Env) -> bool = $load;
            $crate::library::load(env, $module) && load(env)
        }

        $crate::rustler::init!($module, load = tokamak_load);
    };
}

/// The NIFs that every engine has; for `nif!`.
#[doc(hidden)]
#[macro_export]
macro_rules! engine_nifs {
    () => {
        $crate::engine_nif!(calls::call as op_call(name: [Atom], args: [Term<'a>]));
        $crate::engine_nif!(calls::resume as op_resume(handle: [Term<'a>], reference: [Term<'a>]));
        $crate::engine_nif!(
            calls::call_with as op_call_with(name: [Atom], args: [Term<'a>], reference: [Term<'a>])
        );
        $crate::engine_nif!(calls::call_async as op_async(name: [Atom], args: [Term<'a>]));
        $crate::engine_nif!(calls::cast as op_cast(name: [Atom], args: [Term<'a>]));
        $crate::engine_nif!(calls::state as op_state(handle: [Term<'a>]));
        $crate::engine_nif!(
            calls::await_under as op_await(handle: [Term<'a>], reference: [Term<'a>])
        );
        $crate::engine_nif!(calls::cancel as op_cancel(handle: [Term<'a>]));
        $crate::engine_nif!(calls::check as op_check(name: [Atom], args: [Term<'a>]));
        $crate::engine_nif!(
            calls::gather as op_gather(
                calls: [Term<'a>], max_concurrency: [usize], mode: [Atom], reference: [Term<'a>]
            )
        );
        $crate::engine_nif!(
            dirty calls::gather as op_gather_many(
                calls: [Term<'a>], max_concurrency: [usize], mode: [Atom], reference: [Term<'a>]
            )
        );
        $crate::engine_nif!(
            stream_calls::open as op_open(
                kind: [Atom], name: [Atom], args: [Term<'a>], window: [usize], inbox: [usize]
            )
        );
        $crate::engine_nif!(
            stream_calls::next as op_next(handle: [Term<'a>], reference: [Term<'a>])
        );
        $crate::engine_nif!(
            stream_calls::push as op_push(
                handle: [Term<'a>], item: [Term<'a>], reference: [Term<'a>]
            )
        );
        $crate::engine_nif!(
            stream_calls::stop_waiting as op_stop_waiting(handle: [Term<'a>], what: [Atom])
        );
        $crate::engine_nif!(stream_calls::close as op_close(handle: [Term<'a>]));
        $crate::engine_nif!(
            submit_calls::submit as op_submit(event_loop: [Term<'a>], calls: [Term<'a>])
        );
        $crate::engine_nif!(
            dirty submit_calls::submit as op_submit_many(event_loop: [Term<'a>], calls: [Term<'a>])
        );
        $crate::engine_nif!(
            pool_calls::start as op_pool_start(
                handler: [Term<'a>], options: [Term<'a>], reference: [Term<'a>]
            )
        );
        $crate::engine_nif!(
            pool_calls::add as op_pool_add(handle: [Term<'a>], items: [Term<'a>])
        );
        $crate::engine_nif!(pool_calls::key as op_pool_key(handle: [Term<'a>]));
        $crate::engine_nif!(pool_calls::close as op_pool_close(handle: [Term<'a>]));
        $crate::engine_nif!(
            pool_calls::acknowledge as op_pool_ack(handle: [Term<'a>], batches: [usize])
        );
        $crate::engine_nif!(pool_calls::cancel as op_pool_cancel(handle: [Term<'a>]));
        $crate::engine_nif!(pool_calls::stats as op_pool_stats(handle: [Term<'a>]));
        $crate::engine_nif!(
            pool_calls::step as op_pool_step(handle: [Term<'a>], worker: [u64], end: [Term<'a>])
        );
        $crate::engine_nif!(
            pool_calls::discover as op_pool_discover(
                handle: [Term<'a>], worker: [u64], items: [Term<'a>]
            )
        );
        $crate::engine_nif!(
            pool_calls::lost as op_pool_lost(handle: [Term<'a>], worker: [u64], reason: [Term<'a>])
        );
        $crate::engine_nif!(calls::operations as op_list());
        $crate::engine_nif!(stats::stats as op_stats());
        $crate::engine_nif!(watcher::watch as op_watch());
        $crate::engine_nif!(watcher::look as op_look(reference: [Term<'a>]));
        $crate::engine_nif!(
            calls::start_runtime as op_start_runtime(
                workers: [usize], blocking: [usize], in_flight: [usize], table: [Term<'a>]
            )
        );
        $crate::engine_nif!(
            calls::stop_runtime as op_stop_runtime(
                drain_milliseconds: [u64], reference: [Term<'a>]
            )
        );
    };
}

/// One NIF of an engine; for `nif!`. The types are tokens, as `rustler::nif` reads them.
#[doc(hidden)]
#[macro_export]
macro_rules! engine_nif {
    (dirty $module:ident::$function:ident as $name:ident(
        $($argument:ident: [$($type:tt)*]),*
    )) => {
        #[$crate::rustler::nif(schedule = "DirtyCpu")]
        fn $name<'a>(env: Env<'a>, $($argument: $($type)*),*) -> Term<'a> {
            $crate::$module::$function(env, $($argument),*)
        }
    };
    ($module:ident::$function:ident as $name:ident($($argument:ident: [$($type:tt)*]),*)) => {
        #[$crate::rustler::nif]
        fn $name<'a>(env: Env<'a>, $($argument: $($type)*),*) -> Term<'a> {
            $crate::$module::$function(env, $($argument),*)
        }
    };
}
