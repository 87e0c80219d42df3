// SPDX-License-Identifier: Apache-2.0
//! Events that wait for pollers, in order, and to be found by what they are of once handlers come for them.
//!
//! They are listed by callback id, and those of descriptors by their watch, too, whose id may change. This is done
//! when handlers come, a part for each, who looks through the rest: so one handler takes no longer than to look
//! through all of it, many list each event once, and who only parks and polls does nothing for it.

use crate::payload::{self, Event, Payload};
use crate::watch::{Direction, Watch};
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use tokamak_core::word_hasher::WordHasher;

type Numbers<K> = HashMap<K, Vec<u64>, BuildHasherDefault<WordHasher>>;

/// How many events are listed at once, and which part of them where there are more.
const AT_ONCE: usize = 256;
const PART: usize = 16;
/// How many empty places, or outdated numbers, are not worth being cleared away.
const SLACK: usize = 1024;

/// Where an event is, whoever takes it: its number counts from the first event ever parked.
#[derive(Default)]
pub struct Parked {
    /// `None` where a handler took it.
    places: VecDeque<Option<Event>>,
    /// The number of the first place.
    first: u64,
    /// How many places are taken.
    len: usize,
    by_id: Numbers<u64>,
    by_watch: Numbers<(u64, usize)>,
    /// Events before this number are listed.
    listed: u64,
    /// How many numbers the lists have, outdated ones included.
    numbers: usize,
}

impl Parked {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn push_back(&mut self, event: Event) {
        self.len += 1;
        self.places.push_back(Some(event));
    }

    /// The oldest events, one after the other.
    pub fn drain(&mut self) -> impl Iterator<Item = Event> {
        std::iter::from_fn(|| self.pop_front())
    }

    fn pop_front(&mut self) -> Option<Event> {
        while let Some(place) = self.places.pop_front() {
            self.first += 1;
            if place.is_some() {
                self.len -= 1;
                return place;
            }
        }
        None
    }

    /// Takes the events of a callback id, for which these directions are watched.
    pub fn take_of(&mut self, id: u64, watched: &[(Arc<Watch>, Direction)]) -> Vec<Event> {
        if self.is_empty() {
            return Vec::new();
        }
        self.list_some();
        let mut numbers = self.by_id.remove(&id).unwrap_or_default();
        for (watch, direction) in watched {
            numbers.extend_from_slice(self.numbers_of(watch, *direction));
        }
        self.take(numbers, |event| payload::current_callback_id(event) == id)
    }

    /// Takes the event of a direction.
    pub fn take_of_watch(&mut self, watch: &Watch, direction: Direction) -> Vec<Event> {
        if self.is_empty() {
            return Vec::new();
        }
        self.list_some();
        let numbers = self.numbers_of(watch, direction).to_vec();
        self.take(numbers, |event| {
            direction_of(event).is_some_and(|of| std::ptr::eq(of.0, watch) && of.1 == direction)
        })
    }

    fn numbers_of(&self, watch: &Watch, direction: Direction) -> &[u64] {
        let of_watch = self.by_watch.get(&(watch.token, direction.index()));
        of_watch.map_or(&[], Vec::as_slice)
    }

    /// Takes what is meant of these and of those that are not listed.
    fn take(&mut self, mut numbers: Vec<u64>, is_meant: impl Fn(&Event) -> bool) -> Vec<Event> {
        numbers.sort_unstable();
        let mut taken = Vec::new();
        for number in numbers {
            let place = self
                .index_of(number)
                .and_then(|index| self.places.get_mut(index));
            taken.extend(place.and_then(|place| place.take_if(|event| is_meant(event))));
        }
        let listed = self.listed_places();
        for place in self.places.range_mut(listed..) {
            taken.extend(place.take_if(|event| is_meant(event)));
        }
        self.len -= taken.len();
        taken
    }

    /// Where the event of this number is, or was; `None` once it has been polled.
    fn index_of(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.first)?).ok()
    }

    /// How many places, from the first one, are listed.
    fn listed_places(&self) -> usize {
        self.index_of(self.listed).unwrap_or(0)
    }

    /// Lists some of the events that are not yet.
    fn list_some(&mut self) {
        if self.numbers > 4 * self.len + SLACK || self.places.len() > 2 * self.len + SLACK {
            self.start_anew();
        }
        let known = self.listed_places();
        let count = AT_ONCE.max((self.places.len() - known) / PART);
        let mut number = self.listed.max(self.first);
        for place in self.places.range(known..).take(count) {
            if let Some(event) = place {
                let id = payload::current_callback_id(event);
                self.by_id.entry(id).or_default().push(number);
                self.numbers += 1;
                if let Some((watch, direction)) = direction_of(event) {
                    let key = (watch.token, direction.index());
                    self.by_watch.entry(key).or_default().push(number);
                    self.numbers += 1;
                }
            }
            number += 1;
        }
        self.listed = number;
    }

    /// Without empty places and outdated numbers.
    fn start_anew(&mut self) {
        self.places.retain(Option::is_some);
        self.by_id.clear();
        self.by_watch.clear();
        self.numbers = 0;
        self.listed = self.first;
    }
}

fn direction_of(event: &Event) -> Option<(&Watch, Direction)> {
    match &event.payload {
        Payload::Readiness {
            watch, direction, ..
        } => Some((watch, *direction)),
        _ => None,
    }
}

impl Extend<Event> for Parked {
    fn extend<I: IntoIterator<Item = Event>>(&mut self, events: I) {
        for event in events {
            self.push_back(event);
        }
    }
}
