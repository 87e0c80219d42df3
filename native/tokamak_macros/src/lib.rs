// SPDX-License-Identifier: Apache-2.0
//! The macros of the tokamak SDK; use them through the `tokamak` crate.

mod argument;
mod error;
mod op;

use proc_macro::TokenStream;
use syn::{DeriveInput, ItemFn, parse_macro_input};

/// Makes an operation of a function; it keeps its name and can still be called from Rust.
///
/// | attribute | function |
/// |---|---|
/// | `#[tokamak::op]` | `async fn`: runs in the runtime |
/// | `#[tokamak::op(eager)]` | `async fn` that is mostly ready at once: polled first on the calling scheduler, which it must not hold |
/// | `#[tokamak::op(blocking)]` | `fn` that blocks: runs on a thread for such |
/// | `#[tokamak::op(stream)]` | `fn` that returns an `impl Stream`: items on credit |
/// | `#[tokamak::op(duplex)]` | `async fn` with an `Inbox<T>` and an `Outbox<T>`: takes and gives items on credit |
///
/// `limit = N` bounds how many run at once; the rest wait in order. `name = "…"` gives it another name; two
/// operations of one name keep the library from being loaded.
/// The first argument may be a `Ctx`. The other arguments (at most eight) come from Erlang and are
/// decoded on the calling scheduler; a wrong one raises `badarg` there. A `Result` gives `{ok, Value}` or
/// `{error, Reason}`, anything else `{ok, Value}`; an alias is a `Result` if its last name is.
#[proc_macro_attribute]
pub fn op(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let options = parse_macro_input!(attribute as op::Options);
    let function = parse_macro_input!(item as ItemFn);
    op::expand(&options, &function)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Makes an error type of an enum: its callers get `{error, {Kind, Text}}`, with the variant's name in
/// snake case as the kind and what `Display` says as the text.
#[proc_macro_derive(OperationError)]
pub fn operation_error(item: TokenStream) -> TokenStream {
    let input = parse_macro_input!(item as DeriveInput);
    error::expand(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
