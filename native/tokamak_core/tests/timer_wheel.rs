// SPDX-License-Identifier: Apache-2.0
//! The timer wheel against its documentation and against a sorted map.
use std::collections::BTreeMap;

use proptest::prelude::*;
use tokamak_core::timer_wheel::{TICK_SHIFT, TimerKey, TimerWheel};

const TICK: u64 = 1 << TICK_SHIFT;

fn advanced<T>(wheel: &mut TimerWheel<T>, now_ns: u64) -> Vec<T> {
    let mut expired = Vec::new();
    wheel.advance(now_ns, &mut expired);
    expired
}

#[test]
fn a_timer_never_expires_before_its_deadline() {
    let mut wheel = TimerWheel::new(0);
    wheel.insert(5 * TICK + 1, ());
    assert!(advanced(&mut wheel, 5 * TICK + 1).is_empty());
    assert!(advanced(&mut wheel, 6 * TICK - 1).is_empty());
    assert_eq!(advanced(&mut wheel, 6 * TICK).len(), 1);
}

#[test]
fn a_deadline_on_a_tick_expires_at_that_tick() {
    let mut wheel = TimerWheel::new(0);
    wheel.insert(5 * TICK, ());
    assert_eq!(wheel.next_deadline(), Some(5 * TICK));
    assert_eq!(advanced(&mut wheel, 5 * TICK).len(), 1);
    assert_eq!(wheel.next_deadline(), None);
}

#[test]
fn a_deadline_in_the_past_expires_at_the_next_advance() {
    let mut wheel = TimerWheel::new(100 * TICK);
    wheel.insert(3, "past");
    assert!(wheel.next_deadline() <= Some(100 * TICK));
    assert_eq!(advanced(&mut wheel, 100 * TICK), ["past"]);
}

#[test]
fn time_that_goes_backwards_still_expires_what_is_past() {
    let mut wheel = TimerWheel::new(100 * TICK);
    wheel.insert(101 * TICK, "future");
    wheel.insert(0, "past");
    assert_eq!(advanced(&mut wheel, 0), ["past"]);
    assert_eq!(advanced(&mut wheel, 101 * TICK), ["future"]);
}

#[test]
fn timers_of_one_tick_expire_in_insertion_order_across_levels() {
    let mut wheel = TimerWheel::new(0);
    let deadline = 64 * 64 * TICK + 70 * TICK;
    wheel.insert(deadline, 1);
    advanced(&mut wheel, 64 * 64 * TICK);
    wheel.insert(deadline, 2);
    advanced(&mut wheel, 64 * 64 * TICK + 64 * TICK);
    wheel.insert(deadline, 3);
    assert_eq!(advanced(&mut wheel, deadline), [1, 2, 3]);
}

#[test]
fn the_next_deadline_is_the_timer_and_not_a_step_of_the_wheel() {
    let mut wheel = TimerWheel::new(0);
    let far = 3_600_000_000_000;
    wheel.insert(far, ());
    let next = wheel.next_deadline().expect("a timer is set");
    assert!((far..far + TICK).contains(&next));
    assert!(advanced(&mut wheel, next - 1).is_empty());
    assert_eq!(wheel.next_deadline(), Some(next));
    assert_eq!(advanced(&mut wheel, next).len(), 1);
}

#[test]
fn the_next_deadline_stays_exact_when_the_earliest_of_few_timers_goes() {
    let mut wheel = TimerWheel::new(0);
    let keys: Vec<TimerKey> = (0..60)
        .map(|n| wheel.insert((5_000 + n) * TICK, n))
        .collect();
    for (n, key) in keys[..59].iter().enumerate() {
        wheel.remove(*key);
        assert_eq!(wheel.next_deadline(), Some((5_001 + n as u64) * TICK));
    }
}

#[test]
fn removing_the_earliest_of_many_costs_one_wake_in_vain_at_most() {
    let mut wheel = TimerWheel::new(0);
    let keys: Vec<TimerKey> = (0..2_000)
        .map(|n| wheel.insert((5_000 + n) * TICK, n))
        .collect();
    for key in &keys[..1_000] {
        wheel.remove(*key);
    }
    let mut wakes_in_vain = 0;
    loop {
        let next = wheel.next_deadline().expect("timers are set");
        assert!(next <= 6_000 * TICK);
        if !advanced(&mut wheel, next).is_empty() {
            break;
        }
        wakes_in_vain += 1;
    }
    assert!(wakes_in_vain <= 1, "{wakes_in_vain}");
}

#[test]
fn the_farthest_deadlines_neither_overflow_nor_expire_early() {
    let mut wheel = TimerWheel::new(0);
    for deadline in [u64::MAX, u64::MAX - TICK, 1 << 63, 1 << 60] {
        wheel.insert(deadline, deadline);
    }
    assert_eq!(wheel.next_deadline(), Some(1 << 60));
    assert_eq!(advanced(&mut wheel, (1 << 63) - 1), [1 << 60]);
    assert_eq!(advanced(&mut wheel, u64::MAX), [1 << 63, u64::MAX - TICK]);
    assert_eq!(wheel.next_deadline(), Some(u64::MAX));
    assert_eq!(wheel.len(), 1);
}

#[test]
fn a_removed_timer_gives_back_its_value_once_and_never_expires() {
    let mut wheel = TimerWheel::new(0);
    let key = wheel.insert(7, "value");
    assert_eq!(wheel.get(key), Some((&"value", 7)));
    assert_eq!(wheel.remove(key), Some(("value", 7)));
    assert_eq!(wheel.get(key), None);
    assert_eq!(wheel.remove(key), None);
    assert_eq!(wheel.remove(TimerKey::from_index(u32::MAX)), None);
    assert!(advanced(&mut wheel, TICK).is_empty());
}

#[test]
fn a_limited_advance_keeps_the_rest_in_order_for_the_next_call() {
    let mut wheel = TimerWheel::new(0);
    for n in 0..10 {
        wheel.insert(TICK + n / 5 * TICK, n);
    }
    let mut expired = Vec::new();
    assert!(wheel.advance_limited(9 * TICK, 3, &mut expired));
    assert_eq!(wheel.len(), 7);
    assert!(wheel.advance_limited(9 * TICK, 3, &mut expired));
    assert!(!wheel.advance_limited(9 * TICK, 4, &mut expired));
    assert_eq!(expired, (0..10).collect::<Vec<u64>>());
}

#[test]
fn a_timer_set_between_limited_advances_expires_with_the_rest() {
    let mut wheel = TimerWheel::new(0);
    wheel.insert(TICK, 0);
    wheel.insert(200 * TICK, 1);
    let mut expired = Vec::new();
    assert!(wheel.advance_limited(300 * TICK, 1, &mut expired));
    wheel.insert(0, 2);
    wheel.insert(250 * TICK, 3);
    assert!(!wheel.advance_limited(300 * TICK, 3, &mut expired));
    assert_eq!(expired, [0, 2, 1, 3]);
}

#[test]
fn places_of_old_timers_are_used_again() {
    let mut wheel = TimerWheel::new(0);
    wheel.insert(u64::MAX, 0);
    for round in 1..1_000 {
        let key = wheel.insert(round * TICK, round);
        assert!(key.index() < 2);
        assert_eq!(advanced(&mut wheel, round * TICK), [round]);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert { after_ns: u64 },
    InsertPast { before_ns: u64 },
    Remove { which: prop::sample::Index },
    Advance { by_ns: u64 },
    AdvanceLimited { by_ns: u64, limit: usize },
    AdvanceToNext,
}

/// Lengths of time of every magnitude, near and far alike.
fn span() -> impl Strategy<Value = u64> {
    (0_u32..64, any::<u64>()).prop_map(|(bits, random)| random >> bits)
}

fn step() -> impl Strategy<Value = Step> {
    let near = 0..200 * TICK;
    prop_oneof![
        4 => near.clone().prop_map(|after_ns| Step::Insert { after_ns }),
        4 => span().prop_map(|after_ns| Step::Insert { after_ns }),
        1 => span().prop_map(|before_ns| Step::InsertPast { before_ns }),
        3 => any::<prop::sample::Index>().prop_map(|which| Step::Remove { which }),
        2 => near.prop_map(|by_ns| Step::Advance { by_ns }),
        1 => span().prop_map(|by_ns| Step::Advance { by_ns }),
        1 => (span(), 1_usize..4).prop_map(|(by_ns, limit)| Step::AdvanceLimited { by_ns, limit }),
        2 => Just(Step::AdvanceToNext),
    ]
}

/// What the wheel should do, told by a map sorted by tick and insertion.
struct Model {
    now_ns: u64,
    next_id: u64,
    timers: BTreeMap<(u64, u64), (TimerKey, u64)>,
}

impl Model {
    fn add(&mut self, key: TimerKey, deadline_ns: u64) {
        let tick = deadline_ns.div_ceil(TICK).max(self.now_ns / TICK);
        self.timers.insert((tick, self.next_id), (key, deadline_ns));
        self.next_id += 1;
    }

    fn due(&self, limit: usize) -> Vec<u64> {
        let end = (self.now_ns / TICK, u64::MAX);
        self.timers
            .range(..=end)
            .take(limit)
            .map(|((_, id), _)| *id)
            .collect()
    }

    fn forget(&mut self, ids: &[u64]) {
        self.timers.retain(|(_, id), _| !ids.contains(id));
    }
}

fn check_advance(
    wheel: &mut TimerWheel<u64>,
    model: &mut Model,
    by_ns: u64,
    limit: usize,
) -> Result<(), TestCaseError> {
    model.now_ns = model.now_ns.saturating_add(by_ns);
    let mut expired = Vec::new();
    let more = wheel.advance_limited(model.now_ns, limit, &mut expired);
    prop_assert_eq!(&expired, &model.due(limit));
    model.forget(&expired);
    prop_assert_eq!(more, !model.due(1).is_empty());
    Ok(())
}

fn check_step(
    wheel: &mut TimerWheel<u64>,
    model: &mut Model,
    step: Step,
) -> Result<(), TestCaseError> {
    match step {
        Step::Insert { after_ns } => {
            let deadline_ns = model.now_ns.saturating_add(after_ns);
            let key = wheel.insert(deadline_ns, model.next_id);
            model.add(key, deadline_ns);
        }
        Step::InsertPast { before_ns } => {
            let deadline_ns = model.now_ns.saturating_sub(before_ns);
            let key = wheel.insert(deadline_ns, model.next_id);
            model.add(key, deadline_ns);
        }
        Step::Remove { which } if !model.timers.is_empty() => {
            let (&place, &(key, deadline_ns)) = model
                .timers
                .iter()
                .nth(which.index(model.timers.len()))
                .expect("not empty");
            model.timers.remove(&place);
            prop_assert_eq!(wheel.get(key), Some((&place.1, deadline_ns)));
            prop_assert_eq!(wheel.remove(key), Some((place.1, deadline_ns)));
            prop_assert_eq!(wheel.get(key), None);
        }
        Step::Remove { .. } => {}
        Step::Advance { by_ns } => check_advance(wheel, model, by_ns, usize::MAX)?,
        Step::AdvanceLimited { by_ns, limit } => {
            check_advance(wheel, model, by_ns, limit)?;
            while !model.due(1).is_empty() {
                check_advance(wheel, model, 0, limit)?;
            }
        }
        Step::AdvanceToNext => {
            let next = wheel.next_deadline().unwrap_or(model.now_ns);
            check_advance(wheel, model, next.saturating_sub(model.now_ns), usize::MAX)?;
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_wheel_behaves_like_a_sorted_map(
        origin_ns in span(),
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut wheel = TimerWheel::new(origin_ns);
        let mut model = Model { now_ns: origin_ns, next_id: 0, timers: BTreeMap::new() };
        for step in steps {
            check_step(&mut wheel, &mut model, step)?;
            prop_assert_eq!(wheel.len(), model.timers.len());
            prop_assert_eq!(wheel.is_empty(), model.timers.is_empty());
            let earliest = model.timers.keys().next().map(|(tick, _)| {
                tick.checked_mul(TICK).unwrap_or(u64::MAX)
            });
            prop_assert_eq!(wheel.next_deadline(), earliest);
        }
    }
}
