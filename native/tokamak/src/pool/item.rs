// SPDX-License-Identifier: Apache-2.0
//! Items of a pool and what makes two of them the same.

use crate::environment::TermKey;
use rustler::{Atom, Binary, Encoder, Env, NewBinary, Term};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Binaries up to this size are kept as bytes; larger ones are shared with the VM.
const BYTES: usize = 4096;

/// A term that outlives the call it came in. Integers, atoms and small binaries need no environment.
/// Equal when the terms are (`=:=`); one that has a key of its own, when the keys are.
#[derive(Clone)]
pub enum Item {
    Integer(i64),
    Atom(Atom),
    Bytes(Arc<[u8]>),
    Term(TermKey),
    Keyed(Arc<Keyed>),
}

/// An item whose key is another term.
pub struct Keyed {
    key: Item,
    item: Item,
}

impl Item {
    pub fn save(term: Term) -> Self {
        if let Ok(integer) = term.decode() {
            Self::Integer(integer)
        } else if let Ok(atom) = term.decode() {
            Self::Atom(atom)
        } else {
            Binary::from_term(term)
                .ok()
                .and_then(|binary| Self::of_bytes(&binary))
                .unwrap_or_else(|| Self::Term(TermKey::save(term)))
        }
    }

    /// A binary, unless it is large.
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= BYTES).then(|| Self::Bytes(bytes.into()))
    }

    /// An item from `{Key, Item}`.
    pub fn save_keyed(term: Term) -> Option<Self> {
        let (key, item): (Term, Term) = term.decode().ok()?;
        let (key, item) = (Self::save(key), Self::save(item));
        Some(Self::Keyed(Arc::new(Keyed { key, item })))
    }

    /// Whether its term takes little memory.
    pub fn is_small(&self) -> bool {
        match self {
            Self::Integer(_) | Self::Atom(_) => true,
            Self::Bytes(bytes) => bytes.len() <= 64,
            Self::Term(_) | Self::Keyed(_) => false,
        }
    }

    /// What makes it the same as another.
    pub fn key(&self) -> Self {
        match self {
            Self::Keyed(keyed) => keyed.key.clone(),
            _ => self.clone(),
        }
    }
}

impl Encoder for Item {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        match self {
            Self::Integer(integer) => integer.encode(env),
            Self::Atom(atom) => atom.encode(env),
            Self::Bytes(bytes) => NewBinary::from_slice(env, bytes).into(),
            Self::Term(term) => term.load(env),
            Self::Keyed(keyed) => keyed.item.encode(env),
        }
    }
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Integer(one), Self::Integer(other)) => one == other,
            (Self::Atom(one), Self::Atom(other)) => one == other,
            (Self::Bytes(one), Self::Bytes(other)) => one == other,
            (Self::Term(one), Self::Term(other)) => one == other,
            (Self::Keyed(one), Self::Keyed(other)) => one.key == other.key,
            _ => false,
        }
    }
}

impl Eq for Item {}

impl Hash for Item {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Integer(integer) => state.write_i64(*integer),
            Self::Atom(atom) => atom.hash(state),
            Self::Bytes(bytes) => state.write(bytes),
            Self::Term(term) => term.hash(state),
            Self::Keyed(keyed) => keyed.key.hash(state),
        }
    }
}
