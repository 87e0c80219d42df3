// SPDX-License-Identifier: Apache-2.0
//! Readiness of one direction of one watched descriptor: level-triggered for its consumer, over an
//! edge-triggered or one-shot source.
//!
//! ```text
//!   off --watch--> armed --edge--> queued --take--> reported --come_back: drained--> armed
//!                    ^                                  |  ^
//!                    |                      come_back: check the descriptor
//!                    +------------- not ready ----------+  +------ ready: report it again
//! ```
//!
//! While an event is queued or reported, further edges only set `latent`: at most one event is
//! pending for each direction, and an unread byte is one event until its consumer comes back.

/// How the consumer of an event shows that it wants the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consumer {
    /// It polls again: what it was told is looked at then.
    Poller,
    /// It reads, writes or re-arms: a handler, or the owner of a raw loop.
    Reader,
    /// Either, told of it under another callback id: the new id's consumer has to be told anew.
    Former,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Off,
    Armed,
    Queued,
    Reported(Consumer),
}

/// What an edge means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Report it: an event has to be queued (or delivered) for it.
    Report,
    /// An event for it is pending already.
    Coalesced,
    /// Nobody watches this direction.
    Ignored,
}

/// What a consumer's return means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComeBack {
    /// Nothing: no event was reported since.
    Nothing,
    /// The direction was drained: the source has to be armed.
    Arm,
    /// It may still be ready: ask the descriptor and tell [`Readiness::checked`].
    Check,
}

/// A read or write that is under way, see [`Readiness::before_transfer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer(u32);

/// The state of one direction.
#[derive(Clone, Copy, Debug)]
pub struct Readiness {
    phase: Phase,
    callback_id: u64,
    generation: u32,
    /// An event waits to be taken, also where a reselect or the end of its watch made it void. It tells of the next
    /// edge, so that there is one however often the direction is watched anew.
    has_event: bool,
    drained: bool,
    latent: bool,
    hung_up: bool,
    /// It is in the list of what its loop's consumer was told of.
    listed: bool,
    /// The latest transfer.
    transfer: u32,
}

impl Readiness {
    /// A direction that nobody watches.
    pub const fn new() -> Self {
        Self {
            phase: Phase::Off,
            callback_id: 0,
            generation: 0,
            has_event: false,
            drained: false,
            latent: false,
            hung_up: false,
            listed: false,
            transfer: 0,
        }
    }

    /// Watches the direction for a callback id. `true`: it was not watched, the source has to be
    /// armed; `false`: only the id changed. What was reported under another id is then
    /// [`Consumer::Former`]'s.
    pub fn watch(&mut self, callback_id: u64) -> bool {
        let renamed = self.callback_id != callback_id;
        self.callback_id = callback_id;
        if renamed && self.is_reported() {
            self.phase = Phase::Reported(Consumer::Former);
        }
        let fresh = self.phase == Phase::Off;
        if fresh {
            self.phase = Phase::Armed;
            if !self.has_event {
                self.generation = self.generation.wrapping_add(1);
            }
            self.drained = false;
            self.latent = false;
            self.hung_up = false;
        }
        fresh
    }

    /// Ends the watch; `false` where there was none. An event that is queued counts no more.
    pub fn unwatch(&mut self) -> bool {
        let watched = self.is_watched();
        self.phase = Phase::Off;
        watched
    }

    /// Whether somebody watches the direction.
    pub fn is_watched(&self) -> bool {
        self.phase != Phase::Off
    }

    /// Whether an event waits to be taken.
    pub fn has_event(&self) -> bool {
        self.has_event
    }

    /// Whether the source is to tell.
    pub fn is_armed(&self) -> bool {
        self.phase == Phase::Armed
    }

    /// Whether a consumer was told and has not come back.
    pub fn is_reported(&self) -> bool {
        matches!(self.phase, Phase::Reported(_))
    }

    /// The callback id of the watch.
    pub fn callback_id(&self) -> u64 {
        self.callback_id
    }

    /// Tells this watch from earlier ones of the same direction.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The source says that the other side hung up, or that there is an error. From here on a short
    /// read does not mean that nothing is left: the end is, and no edge tells of it again.
    pub fn hang_up(&mut self) {
        self.hung_up = true;
    }

    /// The source says: ready.
    pub fn edge(&mut self) -> Edge {
        match self.phase {
            Phase::Off => Edge::Ignored,
            Phase::Armed => {
                self.phase = Phase::Queued;
                // The one that waits tells of this, too: however often it is reselected, there is one.
                match std::mem::replace(&mut self.has_event, true) {
                    true => Edge::Coalesced,
                    false => Edge::Report,
                }
            }
            Phase::Queued | Phase::Reported(_) => {
                self.latent = true;
                Edge::Coalesced
            }
        }
    }

    /// A consumer takes the queued event: its callback id, or `None` when the watch that it
    /// belonged to has ended.
    pub fn take(&mut self, generation: u32, consumer: Consumer) -> Option<u64> {
        if self.generation != generation {
            return None;
        }
        self.has_event = false;
        if self.phase != Phase::Queued {
            return None;
        }
        self.phase = Phase::Reported(consumer);
        self.drained = false;
        self.latent = false;
        Some(self.callback_id)
    }

    /// A reader took the event under a callback id that is no reader's any more: it counts as queued
    /// again. `false`: it is not this reader's either, or its watch has ended.
    pub fn put_back(&mut self, generation: u32) -> bool {
        let taken =
            self.phase == Phase::Reported(Consumer::Reader) && self.generation == generation;
        if taken {
            self.phase = Phase::Queued;
            self.has_event = true;
        }
        taken
    }

    /// Whether it has to be put into the list of what the consumer was told of: once, however often it is
    /// told until it is [`unlist`](Self::unlist)ed. A watch that ends leaves its place there.
    pub fn list(&mut self) -> bool {
        !std::mem::replace(&mut self.listed, true)
    }

    /// It was taken out of that list.
    pub fn unlist(&mut self) {
        self.listed = false;
    }

    /// To be called before the descriptor is read or written: edges from here on are news.
    pub fn before_transfer(&mut self) -> Transfer {
        self.latent = false;
        self.transfer = self.transfer.wrapping_add(1);
        Transfer(self.transfer)
    }

    /// To be called after a read or write. `drained`: it was short, or would have blocked; this says
    /// nothing when another transfer began meanwhile, which took the news for its own. `true`: the
    /// consumer comes back by this very call, see [`Readiness::come_back`].
    pub fn after_transfer(&mut self, transfer: Transfer, drained: bool) -> bool {
        self.drained = drained && transfer.0 == self.transfer;
        self.phase == Phase::Reported(Consumer::Reader)
    }

    /// [`come_back`](Self::come_back) of one kind of consumer: what another one was told is not its.
    pub fn come_back_of(&mut self, consumer: Consumer) -> ComeBack {
        match self.phase {
            Phase::Reported(told) if told == consumer => self.come_back(),
            _ => ComeBack::Nothing,
        }
    }

    /// What was reported is another kind of consumer's from now on. `false` when nothing was.
    pub fn hand_over(&mut self, consumer: Consumer) -> bool {
        let reported = self.is_reported();
        if reported {
            self.phase = Phase::Reported(consumer);
        }
        reported
    }

    /// The consumer comes back. After [`ComeBack::Arm`] the direction counts as armed.
    pub fn come_back(&mut self) -> ComeBack {
        match self.phase {
            Phase::Reported(_) if self.drained && !self.latent && !self.hung_up => {
                self.phase = Phase::Armed;
                ComeBack::Arm
            }
            Phase::Reported(_) => {
                self.latent = false;
                ComeBack::Check
            }
            _ => ComeBack::Nothing,
        }
    }

    /// What the descriptor said after [`ComeBack::Check`]. `true`: report it again, its event counts
    /// as queued; `false`: the source has to be armed (or the watch ended meanwhile).
    pub fn checked(&mut self, ready: bool) -> bool {
        match self.phase {
            Phase::Reported(_) if ready || self.latent => {
                self.phase = Phase::Queued;
                self.has_event = true;
                true
            }
            Phase::Reported(_) => {
                self.phase = Phase::Armed;
                false
            }
            _ => false,
        }
    }

    /// The consumer asks to be told again without having read: the event is taken and the source
    /// has to be armed. `false` where nobody watches.
    pub fn reselect(&mut self) -> bool {
        let watched = self.is_watched();
        if watched {
            self.phase = Phase::Armed;
            self.latent = false;
        }
        watched
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn reported(consumer: Consumer) -> Readiness {
        let mut direction = Readiness::new();
        assert!(direction.watch(7));
        assert_eq!(direction.edge(), Edge::Report);
        assert_eq!(direction.take(direction.generation(), consumer), Some(7));
        direction
    }

    #[test]
    fn edges_coalesce_until_the_event_is_taken_and_the_consumer_comes_back() {
        let mut direction = Readiness::new();
        direction.watch(7);
        assert_eq!(direction.edge(), Edge::Report);
        assert_eq!(direction.edge(), Edge::Coalesced);
        assert_eq!(
            direction.take(direction.generation(), Consumer::Poller),
            Some(7)
        );
        assert_eq!(direction.edge(), Edge::Coalesced);
        assert_eq!(direction.come_back(), ComeBack::Check);
    }

    #[test]
    fn a_short_read_arms_again_without_a_check() {
        let mut direction = reported(Consumer::Poller);
        let read = direction.before_transfer();
        assert!(
            !direction.after_transfer(read, true),
            "a poller comes back by polling"
        );
        assert_eq!(direction.come_back(), ComeBack::Arm);
        assert_eq!(direction.edge(), Edge::Report);
    }

    #[test]
    fn an_edge_between_a_short_read_and_the_return_is_not_lost() {
        let mut direction = reported(Consumer::Poller);
        let read = direction.before_transfer();
        direction.after_transfer(read, true);
        assert_eq!(direction.edge(), Edge::Coalesced);
        assert_eq!(direction.come_back(), ComeBack::Check);
    }

    #[test]
    fn an_edge_during_the_check_is_not_lost() {
        let mut direction = reported(Consumer::Poller);
        assert_eq!(direction.come_back(), ComeBack::Check);
        assert_eq!(direction.edge(), Edge::Coalesced);
        assert!(direction.checked(false));
    }

    #[test]
    fn data_between_the_reads_of_two_processes_is_not_lost() {
        let mut direction = reported(Consumer::Poller);
        let first = direction.before_transfer();
        assert_eq!(direction.edge(), Edge::Coalesced);
        let second = direction.before_transfer();
        direction.after_transfer(second, false);
        direction.after_transfer(first, true);
        assert_eq!(direction.come_back(), ComeBack::Check);
    }

    #[test]
    fn the_end_behind_the_last_bytes_is_not_lost() {
        let mut direction = Readiness::new();
        direction.watch(7);
        direction.hang_up();
        assert_eq!(direction.edge(), Edge::Report);
        direction.take(direction.generation(), Consumer::Poller);
        let read = direction.before_transfer();
        direction.after_transfer(read, true);
        assert_eq!(direction.come_back(), ComeBack::Check);
        assert!(direction.checked(true));
    }

    #[test]
    fn what_is_still_ready_is_reported_again() {
        let mut direction = reported(Consumer::Reader);
        let read = direction.before_transfer();
        assert!(
            direction.after_transfer(read, false),
            "a reader comes back by reading"
        );
        assert_eq!(direction.come_back(), ComeBack::Check);
        assert!(direction.checked(true));
        assert_eq!(
            direction.take(direction.generation(), Consumer::Reader),
            Some(7)
        );
    }

    #[test]
    fn a_queued_event_of_an_ended_watch_is_not_taken() {
        let mut direction = Readiness::new();
        direction.watch(7);
        let generation = direction.generation();
        assert_eq!(direction.edge(), Edge::Report);
        assert!(direction.unwatch());
        assert_eq!(direction.take(generation, Consumer::Poller), None);
        assert!(direction.watch(8), "a new watch has to be armed");
        assert_eq!(direction.take(generation, Consumer::Poller), None);
        assert_eq!(direction.edge(), Edge::Report);
    }

    #[test]
    fn however_often_a_direction_is_watched_anew_one_event_of_it_waits() {
        let mut direction = Readiness::new();
        direction.watch(7);
        let generation = direction.generation();
        assert_eq!(direction.edge(), Edge::Report);
        for _ in 0..3 {
            assert!(direction.unwatch());
            assert!(direction.watch(8), "it has to be armed");
            assert_eq!(direction.edge(), Edge::Coalesced);
        }
        assert_eq!(direction.take(generation, Consumer::Poller), Some(8));
        direction.unwatch();
        direction.watch(9);
        assert_eq!(direction.edge(), Edge::Report);
        assert_eq!(direction.take(generation, Consumer::Poller), None);
    }

    #[test]
    fn an_event_of_an_ended_watch_that_is_taken_before_the_next_edge_tells_nothing() {
        let mut direction = Readiness::new();
        direction.watch(7);
        let generation = direction.generation();
        assert_eq!(direction.edge(), Edge::Report);
        direction.unwatch();
        direction.watch(8);
        assert_eq!(direction.take(generation, Consumer::Poller), None);
        assert_eq!(direction.edge(), Edge::Report);
        assert_eq!(direction.take(generation, Consumer::Poller), Some(8));
    }

    #[test]
    fn however_often_a_direction_is_reselected_one_event_of_it_waits() {
        let mut direction = Readiness::new();
        direction.watch(7);
        let generation = direction.generation();
        assert_eq!(direction.edge(), Edge::Report);
        for _ in 0..3 {
            assert!(direction.reselect());
            assert_eq!(direction.edge(), Edge::Coalesced);
        }
        assert_eq!(direction.take(generation, Consumer::Reader), Some(7));
        assert!(direction.reselect());
        assert_eq!(direction.edge(), Edge::Report);
        // What is void when it is taken was the last one.
        assert!(direction.reselect());
        assert_eq!(direction.take(generation, Consumer::Reader), None);
        assert_eq!(direction.edge(), Edge::Report);
    }

    #[test]
    fn what_a_reader_was_told_is_not_a_pollers_until_it_is_handed_over() {
        let mut direction = reported(Consumer::Reader);
        assert_eq!(direction.come_back_of(Consumer::Poller), ComeBack::Nothing);
        assert!(direction.hand_over(Consumer::Poller));
        assert_eq!(direction.come_back_of(Consumer::Poller), ComeBack::Check);
    }

    #[test]
    fn a_second_watch_of_a_direction_only_changes_the_callback_id() {
        let mut direction = Readiness::new();
        assert!(direction.watch(7));
        assert_eq!(direction.edge(), Edge::Report);
        assert!(!direction.watch(8));
        assert_eq!(
            direction.take(direction.generation(), Consumer::Poller),
            Some(8)
        );
    }

    #[test]
    fn what_was_reported_under_another_id_is_reported_again_once() {
        let mut direction = reported(Consumer::Reader);
        assert!(!direction.watch(8));
        assert_eq!(direction.come_back_of(Consumer::Former), ComeBack::Check);
        assert!(direction.checked(true));
        let generation = direction.generation();
        assert_eq!(direction.take(generation, Consumer::Reader), Some(8));
        assert_eq!(direction.come_back_of(Consumer::Former), ComeBack::Nothing);
    }

    #[test]
    fn what_is_queued_while_its_id_changes_is_reported_once() {
        let mut direction = Readiness::new();
        direction.watch(7);
        assert_eq!(direction.edge(), Edge::Report);
        assert!(!direction.watch(8));
        let generation = direction.generation();
        assert_eq!(direction.take(generation, Consumer::Reader), Some(8));
        assert_eq!(direction.come_back_of(Consumer::Former), ComeBack::Nothing);
    }

    #[test]
    fn a_direction_is_listed_once_until_it_is_taken_out_of_the_list() {
        let mut direction = reported(Consumer::Reader);
        assert!(direction.list());
        assert!(!direction.list());
        assert!(direction.unwatch());
        assert!(direction.watch(8), "another watch has the same place");
        assert!(!direction.list());
        direction.unlist();
        assert!(direction.list());
    }

    #[test]
    fn what_is_put_back_can_be_taken_again() {
        let mut direction = reported(Consumer::Reader);
        let generation = direction.generation();
        assert!(direction.put_back(generation));
        assert!(!direction.put_back(generation));
        assert_eq!(direction.take(generation, Consumer::Poller), Some(7));
        assert!(!direction.put_back(generation), "a poller was told");
    }
}
