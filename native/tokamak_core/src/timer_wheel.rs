// SPDX-License-Identifier: Apache-2.0
//! A hierarchical timing wheel: starts, cancels and expires timers in constant time.
//!
//! After G. Varghese and A. Lauck, "Hashed and Hierarchical Timing Wheels: Data Structures for the
//! Efficient Implementation of a Timer Facility" (SOSP 1987), scheme 7.
//!
//! Time is cut into ticks of 2^[`TICK_SHIFT`] ns. A level has 64 slots and a bitmap of the occupied
//! ones; a slot of level `n` spans 64^n ticks, and the levels together span all of `u64`
//! nanoseconds. A timer lives on the level of the highest 6-bit digit in which its tick differs from
//! the wheel's current tick, in the slot of that digit. From this follows:
//!
//! * every timer of a lower level is due before every timer of a higher level, so the earliest slot
//!   is the first one of the lowest occupied level: two bit scans;
//! * timers of one tick always share one slot, so lists kept in insertion order stay in it;
//! * when the current tick enters a slot of level 1 or more, the slot is emptied into the levels
//!   below ("cascaded"): a timer moves once per level at most.
//!
//! Timers live in a slab and are linked by index: no allocation per timer, no `unsafe`.

/// Binary logarithm of the length of a tick in nanoseconds: 2^18 ns, about 262 µs.
pub const TICK_SHIFT: u32 = 18;

/// The most timers that a wheel holds at once; the index of a [`TimerKey`] is below it.
pub const MAX_TIMERS: usize = 1 << 24;

const DIGIT_BITS: u32 = 6;
const SLOTS_PER_LEVEL: usize = 1 << DIGIT_BITS;
const DIGIT_MASK: u64 = SLOTS_PER_LEVEL as u64 - 1;
/// Enough digits for every tick, the rounded-up one of `u64::MAX` ns included.
const LEVELS: usize = (u64::BITS + 1 - TICK_SHIFT).div_ceil(DIGIT_BITS) as usize;
const SLOTS: usize = LEVELS * SLOTS_PER_LEVEL;
/// How many timers a removal looks at to keep a slot's earliest tick exact.
const RESCAN_LIMIT: usize = 64;
/// The index that ends a list.
const NIL: u32 = u32::MAX;

/// Names a timer in its wheel until it is removed or expires; then the key may be given out again.
///
/// A holder of keys that outlive their timers has to compare what [`TimerWheel::get`] shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerKey(u32);

impl TimerKey {
    /// The key with this index, as once given by [`TimerKey::index`].
    #[must_use]
    pub const fn from_index(index: u32) -> Self {
        Self(index)
    }

    /// The timer's place in the slab, below [`MAX_TIMERS`].
    #[must_use]
    pub const fn index(self) -> u32 {
        self.0
    }
}

/// A timer while `value` is there, otherwise free.
struct Entry<T> {
    deadline_ns: u64,
    value: Option<T>,
}

/// The neighbours of an entry in its slot's list; of a free one, `next` in the free list. Kept
/// apart from the entries: walking a list waits for memory at each step, and this table is small
/// enough to stay in the cache while the processor fetches many entries at once.
#[derive(Clone, Copy)]
struct Link {
    previous: u32,
    next: u32,
}

#[derive(Clone, Copy)]
struct Slot {
    head: u32,
    tail: u32,
    /// No timer of the slot is earlier. Exact but for removals from a long list (`RESCAN_LIMIT`).
    earliest_tick: u64,
}

const EMPTY_SLOT: Slot = Slot {
    head: NIL,
    tail: NIL,
    earliest_tick: u64::MAX,
};

/// A hierarchical timing wheel of values of type `T`; see the [module](self).
pub struct TimerWheel<T> {
    /// Every timer of an earlier tick has expired.
    current_tick: u64,
    len: usize,
    entries: Vec<Entry<T>>,
    links: Vec<Link>,
    free: u32,
    /// Bit `n`: some slot of level `n` is occupied.
    occupied_levels: u64,
    occupied_slots: [u64; LEVELS],
    slots: Box<[Slot; SLOTS]>,
}

impl<T> TimerWheel<T> {
    /// An empty wheel whose time starts at `origin_ns` nanoseconds of a monotonic clock.
    #[must_use]
    pub fn new(origin_ns: u64) -> Self {
        Self {
            current_tick: origin_ns >> TICK_SHIFT,
            len: 0,
            entries: Vec::new(),
            links: Vec::new(),
            free: NIL,
            occupied_levels: 0,
            occupied_slots: [0; LEVELS],
            slots: Box::new([EMPTY_SLOT; SLOTS]),
        }
    }

    /// The number of timers that have neither expired nor been removed.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no timer is set.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sets a timer that expires at the first [`advance`](Self::advance) to `deadline_ns` rounded up
    /// to a tick, or later. One that is already past expires at the next `advance`.
    ///
    /// # Panics
    /// When the wheel already holds [`MAX_TIMERS`]; bounding them is the caller's part.
    pub fn insert(&mut self, deadline_ns: u64, value: T) -> TimerKey {
        let index = self.allocate(deadline_ns, value);
        self.link(index, tick_at_or_after(deadline_ns));
        self.len += 1;
        TimerKey(index)
    }

    /// Like [`insert`](Self::insert), for a value that holds its own key.
    ///
    /// # Panics
    /// When the wheel already holds [`MAX_TIMERS`].
    pub fn insert_with(&mut self, deadline_ns: u64, value: impl FnOnce(TimerKey) -> T) -> TimerKey {
        let index = match self.free {
            NIL => self.entries.len() as u32,
            free => free,
        };
        self.insert(deadline_ns, value(TimerKey(index)))
    }

    /// The value and the deadline (ns, as given to [`insert`](Self::insert)) of a timer that is set.
    #[must_use]
    pub fn get(&self, key: TimerKey) -> Option<(&T, u64)> {
        let entry = self.entries.get(key.0 as usize)?;
        Some((entry.value.as_ref()?, entry.deadline_ns))
    }

    /// Cancels a timer; gives back its value and its deadline in nanoseconds, or `None` when no timer
    /// has this key.
    pub fn remove(&mut self, key: TimerKey) -> Option<(T, u64)> {
        let entry = self.entries.get_mut(key.0 as usize)?;
        let value = entry.value.take()?;
        let deadline_ns = entry.deadline_ns;
        self.unlink(key.0);
        self.links[key.0 as usize].next = self.free;
        self.free = key.0;
        self.len -= 1;
        self.forget_entries_when_empty();
        Some((value, deadline_ns))
    }

    /// The time in nanoseconds to call [`advance`](Self::advance) at so that the earliest timer
    /// expires on time: its deadline rounded up to a tick, never an internal step of the wheel.
    ///
    /// It may be too early, once, after the earliest of more than 64 timers far away was removed.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let (_, slot_index) = self.first_occupied()?;
        Some(time_of_tick(self.slots[slot_index].earliest_tick))
    }

    /// Moves the wheel to `now_ns` and appends the value of every timer that is due by then to
    /// `expired`, ordered by tick and, within a tick, by insertion. Never early: the deadline is
    /// rounded up to a tick, `now_ns` down. A time before the last one changes nothing but still
    /// expires what was set in the past.
    pub fn advance(&mut self, now_ns: u64, expired: &mut Vec<T>) {
        self.advance_limited(now_ns, usize::MAX, expired);
    }

    /// Like [`advance`](Self::advance), but stops after `limit` timers. Returns whether timers that
    /// are due by `now_ns` are left; they come first at the next call.
    pub fn advance_limited(&mut self, now_ns: u64, limit: usize, expired: &mut Vec<T>) -> bool {
        let now_tick = (now_ns >> TICK_SHIFT).max(self.current_tick);
        let mut budget = limit;
        while let Some((level, slot_index)) = self.first_occupied() {
            let start = self.start_of_slot(level, slot_index);
            if start > now_tick {
                break;
            }
            if level == 0 {
                if budget == 0 {
                    return true;
                }
                self.current_tick = start;
                budget -= self.expire(slot_index, budget, expired);
            } else {
                self.cascade(level, slot_index, start);
            }
        }
        self.current_tick = now_tick;
        self.forget_entries_when_empty();
        false
    }

    /// The slot of the earliest timers and its level.
    fn first_occupied(&self) -> Option<(usize, usize)> {
        if self.occupied_levels == 0 {
            return None;
        }
        let level = self.occupied_levels.trailing_zeros() as usize;
        let digit = self.occupied_slots[level].trailing_zeros() as usize;
        Some((level, level * SLOTS_PER_LEVEL + digit))
    }

    /// The first tick that an occupied slot spans: the higher digits are those of the current tick.
    fn start_of_slot(&self, level: usize, slot_index: usize) -> u64 {
        let shift = level as u32 * DIGIT_BITS;
        let digit = slot_index as u64 & DIGIT_MASK;
        ((self.current_tick >> shift) & !DIGIT_MASK | digit) << shift
    }

    /// The level and the slot for a tick. One that is past counts as the current one.
    fn place_of(&self, tick: u64) -> (usize, usize) {
        let tick = tick.max(self.current_tick);
        let highest_bit = ((tick ^ self.current_tick) | 1).ilog2();
        let level = highest_bit / DIGIT_BITS;
        let digit = (tick >> (level * DIGIT_BITS)) & DIGIT_MASK;
        let level = level as usize;
        (level, level * SLOTS_PER_LEVEL + digit as usize)
    }

    fn allocate(&mut self, deadline_ns: u64, value: T) -> u32 {
        let index = self.free;
        if let Some(entry) = self.entries.get_mut(index as usize) {
            self.free = self.links[index as usize].next;
            entry.deadline_ns = deadline_ns;
            entry.value = Some(value);
            return index;
        }
        assert!(self.entries.len() < MAX_TIMERS, "too many timers");
        self.entries.push(Entry {
            deadline_ns,
            value: Some(value),
        });
        self.links.push(Link {
            previous: NIL,
            next: NIL,
        });
        (self.entries.len() - 1) as u32
    }

    /// Appends an entry to the slot of its tick.
    fn link(&mut self, index: u32, tick: u64) {
        let (level, slot_index) = self.place_of(tick);
        let slot = &mut self.slots[slot_index];
        let previous = slot.tail;
        slot.tail = index;
        slot.earliest_tick = slot.earliest_tick.min(tick.max(self.current_tick));
        if previous == NIL {
            slot.head = index;
            self.occupied_slots[level] |= 1 << (slot_index & (SLOTS_PER_LEVEL - 1));
            self.occupied_levels |= 1 << level;
        } else {
            self.links[previous as usize].next = index;
        }
        self.links[index as usize] = Link {
            previous,
            next: NIL,
        };
    }

    fn unlink(&mut self, index: u32) {
        let Link { previous, next } = self.links[index as usize];
        let tick = tick_at_or_after(self.entries[index as usize].deadline_ns);
        let (level, slot_index) = self.place_of(tick);
        match self.links.get_mut(previous as usize) {
            Some(link) => link.next = next,
            None => self.slots[slot_index].head = next,
        }
        match self.links.get_mut(next as usize) {
            Some(link) => link.previous = previous,
            None => self.slots[slot_index].tail = previous,
        }
        if self.slots[slot_index].head == NIL {
            self.clear_slot(level, slot_index);
        } else if level > 0 && self.slots[slot_index].earliest_tick == tick {
            self.rescan_earliest(slot_index);
        }
    }

    /// Makes the earliest tick exact again after its timer went. Long lists keep the old one, at the
    /// price of one wake-up in vain, so that removals stay constant in time.
    fn rescan_earliest(&mut self, slot_index: usize) {
        let gone = self.slots[slot_index].earliest_tick;
        let mut earliest = u64::MAX;
        let mut index = self.slots[slot_index].head;
        for _ in 0..RESCAN_LIMIT {
            earliest = earliest.min(tick_at_or_after(self.entries[index as usize].deadline_ns));
            index = self.links[index as usize].next;
            if index == NIL || earliest == gone {
                self.slots[slot_index].earliest_tick = earliest;
                return;
            }
        }
    }

    fn clear_slot(&mut self, level: usize, slot_index: usize) {
        self.slots[slot_index] = EMPTY_SLOT;
        self.occupied_slots[level] &= !(1 << (slot_index & (SLOTS_PER_LEVEL - 1)));
        if self.occupied_slots[level] == 0 {
            self.occupied_levels &= !(1 << level);
        }
    }

    /// Enters a slot of level 1 or more: spreads its timers, in order, over the levels below.
    fn cascade(&mut self, level: usize, slot_index: usize, start: u64) {
        let mut index = self.slots[slot_index].head;
        self.clear_slot(level, slot_index);
        self.current_tick = start;
        while index != NIL {
            let next = self.links[index as usize].next;
            let tick = tick_at_or_after(self.entries[index as usize].deadline_ns);
            self.link(index, tick);
            index = next;
        }
    }

    /// Moves at most `budget` values of a level-0 slot to `expired`; returns how many.
    fn expire(&mut self, slot_index: usize, budget: usize, expired: &mut Vec<T>) -> usize {
        let head = self.slots[slot_index].head;
        let mut index = head;
        let mut last = NIL;
        let mut count = 0;
        while index != NIL && count < budget {
            expired.extend(self.entries[index as usize].value.take());
            last = index;
            index = self.links[index as usize].next;
            count += 1;
        }
        // The expired entries are already linked: they join the free list in one piece.
        self.links[last as usize].next = self.free;
        self.free = head;
        self.len -= count;
        match self.links.get_mut(index as usize) {
            Some(link) => {
                link.previous = NIL;
                self.slots[slot_index].head = index;
            }
            None => self.clear_slot(0, slot_index),
        }
        count
    }

    /// An empty wheel starts its slab from the beginning, in memory order: timers set one after the
    /// other are neighbours again, whatever order the last ones expired in.
    fn forget_entries_when_empty(&mut self) {
        if self.len == 0 {
            self.entries.clear();
            self.links.clear();
            self.free = NIL;
        }
    }
}

/// The first tick that does not start before a time.
const fn tick_at_or_after(time_ns: u64) -> u64 {
    time_ns.div_ceil(1 << TICK_SHIFT)
}

/// When a tick starts, in nanoseconds; the last one starts after the end of `u64` time.
const fn time_of_tick(tick: u64) -> u64 {
    if tick > u64::MAX >> TICK_SHIFT {
        u64::MAX
    } else {
        tick << TICK_SHIFT
    }
}
