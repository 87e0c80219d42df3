// SPDX-License-Identifier: Apache-2.0
//! What the tests count: by a key that each test makes for itself.

use parking_lot::Mutex;
use std::collections::HashMap;

/// How many guards of a key live now, the most that ever did at once, and how many there were.
#[derive(Clone, Copy, Default)]
struct Count {
    live: i64,
    most: i64,
    all: i64,
}

static COUNTS: Mutex<Option<HashMap<u64, Count>>> = Mutex::new(None);

fn with<R>(key: u64, change: impl FnOnce(&mut Count) -> R) -> R {
    change(
        COUNTS
            .lock()
            .get_or_insert_default()
            .entry(key)
            .or_default(),
    )
}

/// Counts itself from when it is made until it is dropped.
pub struct Guard(u64);

impl Guard {
    pub fn new(key: u64) -> Self {
        with(key, |count| {
            count.live += 1;
            count.all += 1;
            count.most = count.most.max(count.live);
        });
        Self(key)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        with(self.0, |count| count.live -= 1);
    }
}

/// Counts something that has no end.
pub fn increment(key: u64) {
    with(key, |count| count.all += 1);
}

/// `{Live, Most, All}` of a key.
#[tokamak::op(eager)]
async fn counted(key: u64) -> (i64, i64, i64) {
    with(key, |count| (count.live, count.most, count.all))
}
