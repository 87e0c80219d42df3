// SPDX-License-Identifier: Apache-2.0
//! What an operation gives back: a value that is encoded late, or the reason why there is none.

use crate::atoms;
use crate::environment::SavedTerm;
use crate::operation::{self, BadArgument, Kind};
use rustler::{Atom, Encoder, Env, Term};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// The end of an operation, or an item of a stream.
pub type Reply = Result<Box<dyn Encode>, Reason>;

/// A value that can be encoded on whichever thread its receiver wants it.
pub trait Encode: Send {
    /// Encodes the value.
    fn encode_value<'a>(&self, env: Env<'a>) -> Term<'a>;
}

impl<T: Encoder + Send> Encode for T {
    fn encode_value<'a>(&self, env: Env<'a>) -> Term<'a> {
        self.encode(env)
    }
}

/// Why there is no value: the `Reason` of `{error, Reason}`.
#[derive(Clone)]
pub enum Reason {
    /// `{Kind, Text}`: an operation's error type with variants. The kind is the code's own, never
    /// input.
    Kind(&'static str, String),
    /// A text alone.
    Text(String),
    /// `{panic, Text}`.
    Panic(String),
    /// `{encode, Text}`: the value could not be turned into a term.
    Encode(String),
    /// `{Index, Reason}`: a part of a gather failed.
    At(usize, Box<Reason>),
    /// `{unknown_operation, Op}`.
    UnknownOperation(Atom),
    /// `{wrong_kind, Kind}`: a stream cannot be called, nor a call be opened as a stream.
    WrongKind(Kind),
    /// The runtime stops.
    Shutdown,
    /// It was cancelled.
    Cancelled,
    /// It took longer than it was given.
    Timeout,
    /// `{badarg, Text}`: an operation that a pool cannot run, or an item that its operation does not take.
    BadArgument(BadArgument),
    /// Any other term.
    Term(Arc<SavedTerm>),
}

impl Reason {
    /// Any term, kept.
    pub fn of_term(term: Term) -> Self {
        Self::Term(Arc::new(SavedTerm::save(term)))
    }

    /// The reason of a panic.
    pub fn of_panic(panic: &(dyn Any + Send)) -> Self {
        Self::Panic(panic_text(panic))
    }
}

/// What a panic says.
fn panic_text(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a text".to_owned()
    }
}

impl Encoder for Reason {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        match self {
            Self::Kind(kind, text) => match Atom::from_str(env, kind) {
                Ok(kind) => (kind, text).encode(env),
                Err(_) => text.encode(env),
            },
            Self::Text(text) => text.encode(env),
            Self::Panic(text) => (atoms::panic(), text).encode(env),
            Self::Encode(text) => (atoms::encode(), text).encode(env),
            Self::At(index, reason) => (*index, reason.as_ref()).encode(env),
            Self::UnknownOperation(name) => {
                (atoms::unknown_operation(), encode_op(env, *name)).encode(env)
            }
            Self::WrongKind(kind) => (atoms::wrong_kind(), kind.atom()).encode(env),
            Self::Shutdown => atoms::shutdown().encode(env),
            Self::Cancelled => atoms::cancelled().encode(env),
            Self::Timeout => atoms::timeout().encode(env),
            Self::BadArgument(wrong) => (atoms::badarg(), characters(&explain(wrong))).encode(env),
            Self::Term(term) => term.load(env),
        }
    }
}

/// What is wrong with an operation of one argument, or with the argument.
fn explain(BadArgument { index, expected }: &BadArgument) -> String {
    match index {
        0 => format!("not {expected}"),
        _ => format!("the item is not a {expected}"),
    }
}

/// A string, as the other explanations of wrong arguments are.
fn characters(text: &str) -> Vec<u32> {
    text.chars().map(u32::from).collect()
}

/// An operation as its caller named it: `Name`, or `{Engine, Name}`.
fn encode_op(env: Env, name: Atom) -> Term {
    match operation::engine() {
        "tokamak_nif" => name.encode(env),
        engine => match Atom::from_str(env, engine) {
            Ok(engine) => (engine, name).encode(env),
            Err(_) => name.encode(env),
        },
    }
}

/// An error of an operation. `#[derive(tokamak::OperationError)]` makes it of an enum: the kind is the
/// variant's name in snake case, the text what `Display` says. Strings and boxed errors are texts, the kind of
/// `std::io::Error` is its POSIX name.
///
/// ```no_run
/// use tokamak::OperationError;
/// use tokamak::reply::Reason;
///
/// #[derive(Debug, thiserror::Error, OperationError)]
/// enum CacheError {
///     #[error("nothing is cached for {0}")]
///     NotCached(String),
/// }
///
/// let reason = CacheError::NotCached("this".to_owned()).reason();
/// assert!(matches!(reason, Reason::Kind("not_cached", text) if text == "nothing is cached for this"));
///
/// let error = std::fs::read("/no/such/file").unwrap_err();
/// assert!(matches!(error.reason(), Reason::Kind("enoent", _)));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an error of an operation",
    label = "does not implement `OperationError`",
    note = "`#[derive(tokamak::OperationError)]` makes one of an enum; \
            `.map_err(|error| error.to_string())` makes a text of any error"
)]
pub trait OperationError {
    /// The reason that the caller gets.
    fn reason(&self) -> Reason;
}

impl OperationError for Reason {
    fn reason(&self) -> Reason {
        self.clone()
    }
}

impl OperationError for String {
    fn reason(&self) -> Reason {
        Reason::Text(self.clone())
    }
}

impl OperationError for &str {
    fn reason(&self) -> Reason {
        Reason::Text((*self).to_owned())
    }
}

impl OperationError for std::convert::Infallible {
    fn reason(&self) -> Reason {
        match *self {}
    }
}

impl OperationError for Box<dyn std::error::Error + Send + Sync> {
    fn reason(&self) -> Reason {
        Reason::Text(self.to_string())
    }
}

impl OperationError for std::io::Error {
    fn reason(&self) -> Reason {
        let kind = self.raw_os_error().map_or("io", posix_name);
        Reason::Kind(kind, self.to_string())
    }
}

/// The POSIX name of an error number, as Erlang's `file` has it.
fn posix_name(code: i32) -> &'static str {
    use rustix::io::Errno;
    match Errno::from_raw_os_error(code) {
        Errno::ACCESS => "eacces",
        Errno::AGAIN => "eagain",
        Errno::BUSY => "ebusy",
        Errno::CONNREFUSED => "econnrefused",
        Errno::CONNRESET => "econnreset",
        Errno::EXIST => "eexist",
        Errno::INVAL => "einval",
        Errno::ISDIR => "eisdir",
        Errno::LOOP => "eloop",
        Errno::MFILE => "emfile",
        Errno::NAMETOOLONG => "enametoolong",
        Errno::NOENT => "enoent",
        Errno::NOMEM => "enomem",
        Errno::NOSPC => "enospc",
        Errno::NOTDIR => "enotdir",
        Errno::NOTEMPTY => "enotempty",
        Errno::PERM => "eperm",
        Errno::PIPE => "epipe",
        Errno::ROFS => "erofs",
        Errno::TIMEDOUT => "etimedout",
        Errno::XDEV => "exdev",
        _ => "io",
    }
}

/// The reply of an operation that cannot fail. Used by the macros.
#[doc(hidden)]
pub fn of_value<T: Encoder + Send + 'static>(value: T) -> Reply {
    Ok(Box::new(value))
}

/// The reply of an operation that returns nothing: the atom `ok`. Used by the macros.
#[doc(hidden)]
pub fn of_unit((): ()) -> Reply {
    of_value(atoms::ok())
}

/// The reply of an operation that can. Used by the macros.
#[doc(hidden)]
pub fn of_result<T: Encoder + Send + 'static, E: OperationError>(result: Result<T, E>) -> Reply {
    match result {
        Ok(value) => of_value(value),
        Err(error) => Err(error.reason()),
    }
}

/// The reply of an operation that can fail and returns nothing: the atom `ok`. Used by the macros.
#[doc(hidden)]
pub fn of_unit_result<E: OperationError>(result: Result<(), E>) -> Reply {
    of_result(result.map(|()| atoms::ok()))
}

/// What an operation that cannot fail gives, as a term. Used by the macros.
#[doc(hidden)]
pub fn encode_ok<'a, T: Encoder>(env: Env<'a>, value: T) -> Term<'a> {
    match catch_unwind(AssertUnwindSafe(|| value.encode(env))) {
        Ok(term) => (atoms::ok(), term).encode(env),
        Err(panic) => encode_error(env, &Reason::Encode(panic_text(panic.as_ref()))),
    }
}

/// What an operation that returns nothing gives, as a term. Used by the macros.
#[doc(hidden)]
pub fn encode_unit<'a>(env: Env<'a>, (): ()) -> Term<'a> {
    encode_ok(env, atoms::ok())
}

/// What an operation that can fail and returns nothing gives, as a term. Used by the macros.
#[doc(hidden)]
pub fn encode_unit_result<E: OperationError>(env: Env, result: Result<(), E>) -> Term {
    encode_result(env, result.map(|()| atoms::ok()))
}

/// What an operation that can fail gives, as a term. Used by the macros.
#[doc(hidden)]
pub fn encode_result<'a, T: Encoder, E: OperationError>(
    env: Env<'a>,
    result: Result<T, E>,
) -> Term<'a> {
    match result {
        Ok(value) => encode_ok(env, value),
        Err(error) => encode_error(env, &error.reason()),
    }
}

/// `{ok, Value}` or `{error, Reason}`; a value that cannot be encoded is an error, too.
pub fn encode_reply<'a>(env: Env<'a>, reply: &Reply) -> Term<'a> {
    let reason = match reply {
        Ok(value) => match encode_value(env, value.as_ref()) {
            Ok(term) => return (atoms::ok(), term).encode(env),
            Err(reason) => reason,
        },
        Err(reason) => reason.clone(),
    };
    encode_error(env, &reason)
}

/// The value alone, or the reason alone: the data of an event that says itself which it is.
pub fn encode_payload<'a>(env: Env<'a>, reply: &Reply) -> Term<'a> {
    match reply {
        Ok(value) => encode_value(env, value.as_ref()).unwrap_or_else(|reason| reason.encode(env)),
        Err(reason) => reason.encode(env),
    }
}

/// `{error, Reason}`.
pub fn encode_error<'a>(env: Env<'a>, reason: &Reason) -> Term<'a> {
    (atoms::error(), reason).encode(env)
}

/// Encodes a value; a panic on the way is the error.
///
/// # Errors
/// [`Reason::Encode`].
pub fn encode_value<'a>(env: Env<'a>, value: &dyn Encode) -> Result<Term<'a>, Reason> {
    catch_unwind(AssertUnwindSafe(|| value.encode_value(env)))
        .map_err(|panic| Reason::Encode(panic_text(panic.as_ref())))
}
