// SPDX-License-Identifier: Apache-2.0
//! What operations discover as items of a pool, where it needs no terms: `(Result, Vec<Child>)` of integers, texts
//! and paths goes from the function to the pool as it is. Terms cost more than all else that is done with a
//! small item.

use crate::bytes::{Path, Value};
use crate::operation::{BadArgument, Call, Eager, poll_first};
use crate::pool::Item;
use crate::reply::Reply;
use rustler::{Env, Term};
use std::future::Future;

/// A result and children.
pub struct Plain {
    pub(crate) value: Value,
    pub(crate) children: Vec<Item>,
}

/// What the first poll of an eager operation gave a pool.
pub enum Polled<'a> {
    /// It is ready, and nothing of it needs a term.
    Plain(Plain),
    /// As in any other call.
    Eager(Eager<'a>),
}

/// Gives an eager operation its arguments and polls it once, for a pool.
pub type PollDiscovery = for<'a> fn(&Call<'a, '_>) -> Result<Polled<'a>, BadArgument>;

/// A result or a child that needs no term.
pub trait PlainTerm: Sized {
    /// The number or bytes; `None`: this one needs a term after all.
    fn item(&self) -> Option<Item>;
}

macro_rules! integers {
    ($($integer:ty)*) => {$(
        impl PlainTerm for $integer {
            fn item(&self) -> Option<Item> {
                i64::try_from(*self).ok().map(Item::Integer)
            }
        }
    )*};
}

integers!(u8 u16 u32 u64 usize i8 i16 i32 i64 isize);

impl PlainTerm for String {
    fn item(&self) -> Option<Item> {
        Item::of_bytes(self.as_bytes())
    }
}

impl PlainTerm for Path {
    fn item(&self) -> Option<Item> {
        Item::of_bytes(std::os::unix::ffi::OsStrExt::as_bytes(self.0.as_os_str()))
    }
}

/// What a function returned. Its method `plain` is the first of the two below whose types fit: inherent methods
/// come before those of traits.
pub struct Returned<'o, T>(pub &'o T);

impl<R: PlainTerm, C: PlainTerm> Returned<'_, (R, Vec<C>)> {
    /// The result and the children, if they need no terms.
    pub fn plain(&self) -> Option<Plain> {
        let (result, children) = self.0;
        Some(Plain {
            value: match result.item()? {
                Item::Integer(integer) => Value::Integer(integer),
                _ => return None,
            },
            children: children
                .iter()
                .map(PlainTerm::item)
                .collect::<Option<_>>()?,
        })
    }
}

impl<R: PlainTerm, C: PlainTerm, E> Returned<'_, Result<(R, Vec<C>), E>> {
    /// As above.
    pub fn plain(&self) -> Option<Plain> {
        Returned(self.0.as_ref().ok()?).plain()
    }
}

/// For all that is not [`PlainTerm`].
pub trait NeedsTerms {
    /// Never.
    fn plain(&self) -> Option<Plain>;
}

impl<T> NeedsTerms for Returned<'_, T> {
    fn plain(&self) -> Option<Plain> {
        None
    }
}

/// Polls an eager operation's future once, for a pool. Used by the macros.
pub fn poll_once<'a, F>(
    env: Env<'a>,
    future: F,
    plain: fn(&F::Output) -> Option<Plain>,
    encode: fn(Env<'a>, F::Output) -> Term<'a>,
    reply: fn(F::Output) -> Reply,
) -> Polled<'a>
where
    F: Future + Send + 'static,
    F::Output: 'static,
{
    match poll_first(future, reply) {
        Err(pending) => Polled::Eager(Eager::Pending(pending)),
        Ok(output) => match plain(&output) {
            Some(plain) => Polled::Plain(plain),
            None => Polled::Eager(Eager::Ready(encode(env, output))),
        },
    }
}
