// SPDX-License-Identifier: Apache-2.0
//! Values that cross between Erlang and an operation without being taken apart.

use crate::environment::SavedTerm;
use crate::list::List;
use rustler::{
    Atom, Binary, Decoder, Encoder, Env, NewBinary, NifResult, Resource, ResourceArc, Term,
};
use std::sync::atomic::{AtomicBool, Ordering};

/// Binaries of this size and less are copied: that is cheaper than a reference.
const SMALL: usize = 256;

struct Shared(Vec<u8>);

#[rustler::resource_impl]
impl Resource for Shared {}

/// Whether there is an object of the type that lives for ever.
static IS_ANCHORED: AtomicBool = AtomicBool::new(false);

/// The library was loaded, and the type opened anew.
pub(crate) fn loaded() {
    IS_ANCHORED.store(false, Ordering::Relaxed);
}

/// Keeps the type, of which operations make objects on threads of ours: a type without objects is freed when
/// the module is purged, while operations run on. Not from `load`, which must not make objects.
pub(crate) fn anchor() {
    if !IS_ANCHORED.swap(true, Ordering::Relaxed) {
        std::mem::forget(ResourceArc::new(Shared(Vec::new())));
    }
}

/// Bytes that become a binary without a copy, whatever their size. As an argument they are a copy.
///
/// ```no_run
/// use tokamak::{Bytes, Path};
///
/// #[tokamak::op(blocking)]
/// fn read(path: Path) -> std::io::Result<Bytes> {
///     Ok(std::fs::read(path.0)?.into())
/// }
/// ```
#[derive(Clone)]
pub struct Bytes(ResourceArc<Shared>);

impl Bytes {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.0.0
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        if !IS_ANCHORED.load(Ordering::Relaxed) {
            anchor();
        }
        Self(ResourceArc::new(Shared(bytes)))
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl Encoder for Bytes {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        if self.len() <= SMALL {
            return NewBinary::from_slice(env, self).into();
        }
        self.0.make_binary(env, |shared| &shared.0).to_term(env)
    }
}

impl<'a> Decoder<'a> for Bytes {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let binary: Binary = term.decode()?;
        Ok(Self::from(binary.as_slice().to_vec()))
    }
}

/// Any term, as an argument or a result. Integers and atoms are kept as they are, everything else in an
/// environment of its own, where large binaries are shared, not copied.
///
/// ```no_run
/// use futures_util::FutureExt;
/// use tokamak::Value;
///
/// #[tokamak::op(eager)]
/// async fn second(_first: Value, second: Value) -> Value {
///     second
/// }
///
/// let value = second(Value::Integer(1), Value::Integer(2)).now_or_never();
/// assert!(matches!(value, Some(Value::Integer(2))));
/// ```
pub enum Value {
    /// A small integer.
    Integer(i64),
    /// An atom.
    Atom(Atom),
    /// Any other term.
    Term(SavedTerm),
}

impl<'a> Decoder<'a> for Value {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        if let Ok(integer) = term.decode() {
            Ok(Self::Integer(integer))
        } else if let Ok(atom) = term.decode() {
            Ok(Self::Atom(atom))
        } else {
            Ok(Self::Term(SavedTerm::save(term)))
        }
    }
}

impl Encoder for Value {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        match self {
            Self::Integer(integer) => integer.encode(env),
            Self::Atom(atom) => atom.encode(env),
            Self::Term(term) => term.load(env),
        }
    }
}

/// A path: a binary or a list of characters, of any bytes; not empty, and without NUL.
///
/// ```no_run
/// use tokamak::Path;
///
/// #[tokamak::op(blocking)]
/// fn exists(path: Path) -> bool {
///     path.0.exists()
/// }
///
/// assert!(exists(Path("/".into())));
/// ```
pub struct Path(pub std::path::PathBuf);

impl<'a> Decoder<'a> for Path {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        use std::os::unix::ffi::OsStringExt;
        let bytes = match Binary::from_term(term) {
            Ok(binary) => binary.as_slice().to_vec(),
            Err(_) => characters(term)?,
        };
        if bytes.is_empty() || bytes.contains(&0) {
            return Err(rustler::Error::BadArg);
        }
        Ok(Self(std::ffi::OsString::from_vec(bytes).into()))
    }
}

fn characters(term: Term) -> NifResult<Vec<u8>> {
    let List(characters): List<u32> = term.decode()?;
    let text: Option<String> = characters.into_iter().map(char::from_u32).collect();
    text.map(String::into_bytes).ok_or(rustler::Error::BadArg)
}

/// A path as a binary of its bytes.
impl Encoder for Path {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        use std::os::unix::ffi::OsStrExt;
        NewBinary::from_slice(env, self.0.as_os_str().as_bytes()).into()
    }
}
