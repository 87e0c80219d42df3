// SPDX-License-Identifier: Apache-2.0
//! The watches of an event loop: by token, for the source that tells of them, and by callback id, for handlers
//! that come and go.
//!
//! Directions are watched and unwatched in here only, while the loop's lock on this is held: so whoever holds it
//! finds each direction under the id that it is watched for, and nothing else. A loop that has ended gives up all
//! of it before it ends its watches.

use crate::watch::{Direction, Watch};
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use tokamak_core::word_hasher::WordHasher;

/// Callback id, token of the watch, direction: all of an id are neighbours.
type Key = (u64, u64, Direction);

#[derive(Default)]
pub struct Watches {
    by_token: HashMap<u64, Arc<Watch>, BuildHasherDefault<WordHasher>>,
    by_id: BTreeSet<Key>,
    /// How many of these there are for each direction.
    counts: [usize; 2],
}

/// What a direction was before it was watched.
pub struct Before {
    /// Nobody watched it.
    pub fresh: bool,
    /// It was watched, or left an event, under another callback id.
    pub renamed: bool,
    /// An event of it waits.
    pub has_event: bool,
}

impl Watches {
    pub fn get(&self, token: u64) -> Option<&Arc<Watch>> {
        self.by_token.get(&token)
    }

    /// How many directions are watched, of each kind.
    pub fn counts(&self) -> [usize; 2] {
        self.counts
    }

    /// Watches a direction for a callback id.
    pub fn watch(&mut self, watch: &Arc<Watch>, direction: Direction, callback_id: u64) -> Before {
        let (former, before) = watch.with(direction, |state| {
            let former = state.callback_id();
            let has_event = state.has_event();
            let renamed = (state.is_watched() || has_event) && former != callback_id;
            let fresh = state.watch(callback_id);
            (
                former,
                Before {
                    fresh,
                    renamed,
                    has_event,
                },
            )
        });
        if before.fresh {
            self.by_token.insert(watch.token, Arc::clone(watch));
        }
        if !before.fresh && before.renamed {
            self.remove((former, watch.token, direction));
        }
        if before.fresh || before.renamed {
            self.insert((callback_id, watch.token, direction));
        }
        before
    }

    /// Ends the watch of a direction; `false` where there was none.
    pub fn unwatch(&mut self, watch: &Watch, direction: Direction) -> bool {
        let (was_watched, callback_id) =
            watch.with(direction, |state| (state.unwatch(), state.callback_id()));
        self.remove((callback_id, watch.token, direction));
        if watch.interest() == [false; 2] {
            self.by_token.remove(&watch.token);
        }
        was_watched
    }

    /// Ends the watch of both directions.
    pub fn end(&mut self, watch: &Watch) {
        for (direction, callback_id) in Direction::BOTH.into_iter().zip(watch.end()) {
            self.remove((callback_id, watch.token, direction));
        }
        self.by_token.remove(&watch.token);
    }

    /// The directions that are watched for a callback id.
    pub fn watched_for(&self, callback_id: u64) -> Vec<(Arc<Watch>, Direction)> {
        let first = (callback_id, 0, Direction::Read);
        let last = (callback_id, u64::MAX, Direction::Write);
        let keys = self.by_id.range(first..=last);
        keys.filter_map(|(_, token, direction)| {
            let watch = self.by_token.get(token)?;
            Some((Arc::clone(watch), *direction))
        })
        .collect()
    }

    pub fn into_watches(self) -> impl Iterator<Item = Arc<Watch>> {
        self.by_token.into_values()
    }

    fn insert(&mut self, key: Key) {
        if self.by_id.insert(key) {
            self.counts[key.2.index()] += 1;
        }
    }

    /// Also where it may not be there: what the end of its loop took with it, or id 0 of what was never watched.
    fn remove(&mut self, key: Key) {
        if key.0 != 0 && self.by_id.remove(&key) {
            self.counts[key.2.index()] -= 1;
        }
    }
}
