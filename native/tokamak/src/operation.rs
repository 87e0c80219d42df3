// SPDX-License-Identifier: Apache-2.0
//! Operations: what `#[tokamak::op]` makes of a function, and the table of them.

use crate::atoms;
use crate::context::LazyCtx;
use crate::discovery::PollDiscovery;
use crate::list::{self, List};
use crate::reply::Reply;
use crate::stream::{InputPort, Outbox, OutputPort};
use futures_core::Stream;
use rustler::sys::ErlNifTerm;
use rustler::{Atom, Decoder, Encoder, Env, NifResult, Term};
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::hash::BuildHasherDefault;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use tokamak_core::word_hasher::WordHasher;
use tokio::sync::Semaphore;

/// A future that ends with an operation's reply.
pub type ReplyFuture = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// A stream of items; an error is its last item.
pub type ReplyStream = Pin<Box<dyn Stream<Item = Reply> + Send>>;

/// How an operation runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// In the runtime.
    Async,
    /// Polled once on the calling scheduler; in the runtime if it is pending then.
    Eager,
    /// On a thread that may block.
    Blocking,
    /// Gives items on credit.
    Stream,
    /// Takes and gives items on credit.
    Duplex,
}

impl Kind {
    /// The atom of the kind.
    pub fn atom(self) -> Atom {
        match self {
            Self::Async => atoms::async_(),
            Self::Eager => atoms::eager(),
            Self::Blocking => atoms::blocking(),
            Self::Stream => atoms::stream(),
            Self::Duplex => atoms::duplex(),
        }
    }
}

/// An operation that has its arguments.
pub enum Started {
    /// Of an async or eager operation.
    Future(ReplyFuture),
    /// Of a blocking one.
    Blocking(Box<dyn FnOnce() -> Reply + Send>),
    /// Of a stream.
    Stream(ReplyStream),
    /// Of a duplex operation: the future ends it.
    Duplex(ReplyFuture, Arc<dyn InputPort>),
}

/// What an eager operation's first poll gave.
pub enum Eager<'a> {
    /// `{ok, Value}` or `{error, Reason}`.
    Ready(Term<'a>),
    /// The same future, to go on in the runtime.
    Pending(ReplyFuture),
}

/// What is wrong with an argument.
#[derive(Clone, Debug)]
pub struct BadArgument {
    /// Its number, from 1; 0 when the arguments are not a list, or not as many as they should be.
    pub index: usize,
    /// What was expected.
    pub expected: &'static str,
}

impl Encoder for BadArgument {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        (atoms::badarg(), self.index, self.expected).encode(env)
    }
}

/// The arguments of a call, and what it may know of itself.
pub struct Call<'a, 'c> {
    /// The environment of the caller.
    pub env: Env<'a>,
    /// The arguments.
    pub args: &'c [Term<'a>],
    /// The context of the call.
    pub ctx: &'c LazyCtx<'c>,
    /// Where the items of a duplex operation go.
    pub output: Option<&'c OutputPort>,
    /// How many items the inbox of a duplex operation holds.
    pub inbox: usize,
}

impl<'a> Call<'a, '_> {
    /// Decodes the argument at `index` (from 0).
    ///
    /// # Errors
    /// [`BadArgument`], when it is missing or of another type.
    pub fn arg<T: Decoder<'a>>(
        &self,
        index: usize,
        expected: &'static str,
    ) -> Result<T, BadArgument> {
        let wrong = || BadArgument {
            index: index + 1,
            expected,
        };
        let term = self.args.get(index).ok_or_else(wrong)?;
        list::decode_within(*term).map_err(|_| wrong())
    }

    /// Decodes the argument at `index` (from 0), which is a list.
    ///
    /// # Errors
    /// [`BadArgument`], when it is missing, no proper list, or one of its items is of another type.
    pub fn list<T: Decoder<'a>>(
        &self,
        index: usize,
        expected: &'static str,
    ) -> Result<Vec<T>, BadArgument> {
        let List(items) = self.arg(index, expected)?;
        Ok(items)
    }

    /// Decodes the argument at `index` (from 0), a small integer. Used by the macros.
    ///
    /// # Errors
    /// [`BadArgument`], when it is missing, no integer, or out of range.
    #[doc(hidden)]
    pub fn narrow<T: TryFrom<i64> + 'a>(
        &self,
        index: usize,
        expected: &'static str,
    ) -> Result<T, BadArgument> {
        let Narrow(integer) = self.arg(index, expected)?;
        Ok(integer)
    }

    /// Decodes the argument at `index` (from 0), a list of small integers. Used by the macros.
    ///
    /// # Errors
    /// [`BadArgument`], when it is missing, no proper list, or an item is no integer or out of range.
    #[doc(hidden)]
    pub fn narrow_list<T: TryFrom<i64> + 'a>(
        &self,
        index: usize,
        expected: &'static str,
    ) -> Result<Vec<T>, BadArgument> {
        let items: Vec<Narrow<T>> = self.list(index, expected)?;
        Ok(items.into_iter().map(|Narrow(integer)| integer).collect())
    }

    /// Decodes the argument at `index` (from 0), a small integer or `nil`. Used by the macros.
    ///
    /// # Errors
    /// [`BadArgument`], when it is missing, neither `nil` nor an integer, or out of range.
    #[doc(hidden)]
    pub fn narrow_option<T: TryFrom<i64> + 'a>(
        &self,
        index: usize,
        expected: &'static str,
    ) -> Result<Option<T>, BadArgument> {
        let integer: Option<Narrow<T>> = self.arg(index, expected)?;
        Ok(integer.map(|Narrow(integer)| integer))
    }

    /// The outbox of a duplex operation.
    ///
    /// # Errors
    /// When the operation was not opened as one.
    pub fn outbox<T: Encoder + Send + 'static>(&self) -> Result<Outbox<T>, BadArgument> {
        let not_opened = BadArgument {
            index: 0,
            expected: "a duplex operation that is opened",
        };
        self.output.map(OutputPort::outbox).ok_or(not_opened)
    }
}

/// A small integer. rustler's own decoders of these types cut off what does not fit.
struct Narrow<T>(T);

impl<'a, T: TryFrom<i64> + 'a> Decoder<'a> for Narrow<T> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let integer: i64 = term.decode()?;
        let narrow = T::try_from(integer).map_err(|_| rustler::Error::BadArg)?;
        Ok(Self(narrow))
    }
}

/// Gives an eager operation its arguments and polls it once.
pub type PollEagerly = for<'a> fn(&Call<'a, '_>) -> Result<Eager<'a>, BadArgument>;

/// An operation, as the macro registers it.
pub struct Operation {
    /// Its name: the function's.
    pub name: &'static str,
    /// How many arguments it takes from Erlang.
    pub arity: usize,
    /// How it runs.
    pub kind: Kind,
    /// How many may run at once; 0: as many as there are.
    pub limit: usize,
    /// Gives it its arguments.
    pub start: fn(&Call) -> Result<Started, BadArgument>,
    /// Gives an eager one its arguments and polls it.
    pub eager: Option<PollEagerly>,
    /// The same for a pool, of an operation that could be its handler.
    pub discover: Option<PollDiscovery>,
}

inventory::collect!(Operation);

/// Polls an eager operation's future once: what is ready is encoded at once, without a box. Used by the
/// macros.
#[doc(hidden)]
pub fn poll_once<'a, F>(
    env: Env<'a>,
    future: F,
    encode: fn(Env<'a>, F::Output) -> Term<'a>,
    reply: fn(F::Output) -> Reply,
) -> Eager<'a>
where
    F: Future + Send + 'static,
    F::Output: 'static,
{
    poll_first(future, reply)
        .map_or_else(Eager::Pending, |output| Eager::Ready(encode(env, output)))
}

/// What a future gives at its first poll, or the same future, to go on in the runtime.
pub(crate) fn poll_first<F>(
    future: F,
    reply: fn(F::Output) -> Reply,
) -> Result<F::Output, ReplyFuture>
where
    F: Future + Send + 'static,
    F::Output: 'static,
{
    let mut future = Box::pin(future);
    // Spawning polls again, with a waker that counts.
    let mut context = Context::from_waker(Waker::noop());
    match future.as_mut().poll(&mut context) {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => Err(Box::pin(async move { reply(future.await) })),
    }
}

/// Makes replies of a stream's items. Used by the macros.
#[doc(hidden)]
pub fn map_items<S: Stream>(stream: S, reply: fn(S::Item) -> Reply) -> impl Stream<Item = Reply> {
    futures_util::StreamExt::map(stream, reply)
}

/// An operation with what it needs at run time.
pub struct Entry {
    /// The operation.
    pub operation: &'static Operation,
    /// Its bound on concurrency.
    pub limit: Option<Arc<Semaphore>>,
}

type ByName = HashMap<ErlNifTerm, Entry, BuildHasherDefault<WordHasher>>;

struct Table {
    by_name: ByName,
    engine: &'static str,
}

static TABLE: OnceLock<Table> = OnceLock::new();

/// Makes the table of this library's operations; to be called from `load`. `false`: the library is not to be
/// loaded; of a name that two operations have, one would be lost without a word.
pub(crate) fn register(env: Env, engine: &'static str) -> bool {
    if let Some(name) = name_of_two() {
        // The VM only says that the load failed.
        eprintln!(
            "tokamak: two operations of {engine} are named {name}; `name = \"...\"' of the attribute renames one"
        );
        return false;
    }
    let entry = |operation: &'static Operation| {
        let limit = match operation.limit {
            0 => None,
            limit => Some(Arc::new(Semaphore::new(limit))),
        };
        let name = Atom::from_str(env, operation.name).ok()?;
        Some((name.as_c_arg(), Entry { operation, limit }))
    };
    let by_name: Option<ByName> = inventory::iter::<Operation>().map(entry).collect();
    match by_name {
        Some(by_name) => TABLE.set(Table { by_name, engine }).is_ok() || TABLE.get().is_some(),
        None => false,
    }
}

/// A name that two operations of this library have.
#[doc(hidden)]
pub fn name_of_two() -> Option<&'static str> {
    let mut seen = HashSet::new();
    let mut names = inventory::iter::<Operation>().map(|operation| operation.name);
    names.find(|name| !seen.insert(*name))
}

/// The operation of a name.
pub fn find(name: Atom) -> Option<&'static Entry> {
    TABLE.get()?.by_name.get(&name.as_c_arg())
}

/// All operations of this library.
pub fn all() -> impl Iterator<Item = &'static Entry> {
    TABLE
        .get()
        .into_iter()
        .flat_map(|table| table.by_name.values())
}

/// The module of this library.
pub fn engine() -> &'static str {
    TABLE.get().map_or("", |table| table.engine)
}
