// SPDX-License-Identifier: Apache-2.0
//! What comes with an event: a Rust value until the consumer's drain encodes it.

use crate::atoms;
use crate::watch::{Direction, Watch};
use rustler::{Atom, Encoder, Env, LocalPid, NewBinary, Term};
use std::sync::Arc;
use tokamak::environment::{SavedTerm, SavedTerms, Sender, on_scheduler};
use tokamak::reply::{Reply, encode_payload};
use tokamak_core::event;
use tokamak_core::readiness::Consumer;

/// An event of an event loop.
pub type Event = event::Event<Payload>;

/// Each event crosses from one processor's cache to another's: what is large is boxed.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Event>() <= 40);

/// The data of an event.
pub enum Payload {
    /// A descriptor is ready: it counts only while the watch it belongs to stands.
    Readiness {
        watch: Arc<Watch>,
        direction: Direction,
        generation: u32,
    },
    /// The reference of a timer.
    Timer(u64),
    Integer(i64),
    Atom(Atom),
    Bytes(Box<[u8]>),
    /// What a subprocess wrote, and its place among the events that wait.
    #[cfg(target_os = "linux")]
    Output(Box<(rustler::OwnedBinary, crate::subprocess::Permit)>),
    /// A term, and a message to its sender when it is taken.
    Acknowledged(Box<Acknowledged>),
    /// The end of a submitted call.
    Reply(Box<Reply>),
    /// Any other term, in an environment of its own.
    Term(Box<SavedTerm>),
    /// One of the terms that share an environment.
    TermOf(Arc<SavedTerms>, usize),
}

/// A term whose sender is told that it was taken.
pub struct Acknowledged {
    term: SavedTerm,
    acknowledgement: Acknowledgement,
}

/// Who is told that a term was taken, and under which reference.
pub struct Acknowledgement {
    sender: LocalPid,
    reference: SavedTerm,
}

/// A place in the window of an event's source, which goes on when it is given back.
pub enum Place {
    #[cfg(target_os = "linux")]
    Output(crate::subprocess::Permit),
    Acknowledged(Acknowledgement),
}

impl Place {
    pub fn give_back(self, consumer: Sender) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Output(permit) => drop(permit),
            Self::Acknowledged(acknowledgement) => acknowledgement.send(consumer),
        }
    }
}

impl Acknowledgement {
    fn send(self, consumer: Sender) {
        consumer.send(&self.sender, |env| {
            (atoms::tokamak(), self.reference.load(env), atoms::taken()).encode(env)
        });
    }
}

impl Acknowledged {
    /// A term that is acknowledged to `sender` with `{tokamak, Reference, taken}`.
    pub fn new(term: Term, sender: LocalPid, reference: Term) -> Self {
        Self {
            term: SavedTerm::save(term),
            acknowledgement: Acknowledgement {
                sender,
                reference: SavedTerm::save(reference),
            },
        }
    }

    fn encode(self, env: Env) -> Term {
        // Events are encoded by their consumer: in its NIF call, or on a thread of its own.
        let consumer = match on_scheduler() {
            true => Sender::Process(env),
            false => Sender::Thread,
        };
        self.acknowledgement.send(consumer);
        self.term.load(env)
    }
}

impl Payload {
    /// A payload of a term that outlives the NIF call. Numbers and atoms need no environment.
    pub fn from_term(term: Term) -> Self {
        if let Ok(integer) = term.decode::<i64>() {
            Self::Integer(integer)
        } else if let Ok(atom) = term.decode::<Atom>() {
            Self::Atom(atom)
        } else {
            Self::Term(Box::new(SavedTerm::save(term)))
        }
    }

    /// The `Data` of the event. What a subprocess wrote is given away, not copied.
    pub fn into_term(self, env: Env) -> Term {
        match self {
            Self::Readiness { .. } => atoms::undefined().encode(env),
            Self::Timer(reference) => reference.encode(env),
            Self::Integer(integer) => integer.encode(env),
            Self::Atom(atom) => atom.encode(env),
            Self::Bytes(bytes) => NewBinary::from_slice(env, &bytes).into(),
            #[cfg(target_os = "linux")]
            Self::Output(output) => {
                let (chunk, _permit) = *output;
                crate::subprocess::encode_chunk(env, chunk)
            }
            Self::Acknowledged(acknowledged) => acknowledged.encode(env),
            Self::Reply(reply) => encode_payload(env, &reply),
            Self::Term(term) => term.load(env),
            Self::TermOf(terms, index) => terms.load(index, env),
        }
    }

    /// The same, but what gives the event's place back is left to the caller.
    pub fn into_term_and_place(self, env: Env) -> (Term, Option<Place>) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Output(output) => {
                let (chunk, permit) = *output;
                let data = crate::subprocess::encode_chunk(env, chunk);
                (data, Some(Place::Output(permit)))
            }
            Self::Acknowledged(acknowledged) => {
                let place = Place::Acknowledged(acknowledged.acknowledgement);
                (acknowledged.term.load(env), Some(place))
            }
            payload => (payload.into_term(env), None),
        }
    }
}

/// A consumer takes an event: its callback id, or `None` when it is a descriptor's whose watch has ended.
pub fn taken(event: &Event, consumer: Consumer) -> Option<u64> {
    match &event.payload {
        Payload::Readiness {
            watch,
            direction,
            generation,
        } => watch.take(*direction, *generation, consumer),
        _ => Some(event.callback_id),
    }
}

/// A reader that took an event is not to have it: it is to be queued again, unless the watch it
/// belonged to has ended.
pub fn put_back(event: &Event) -> bool {
    match &event.payload {
        Payload::Readiness {
            watch,
            direction,
            generation,
        } => watch.with(*direction, |state| state.put_back(*generation)),
        _ => false,
    }
}

/// The callback id an event has now: that of a descriptor's watch may have changed.
pub fn current_callback_id(event: &Event) -> u64 {
    match &event.payload {
        Payload::Readiness {
            watch, direction, ..
        } => watch.with(*direction, |state| state.callback_id()),
        _ => event.callback_id,
    }
}
