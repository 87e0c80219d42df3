// SPDX-License-Identifier: Apache-2.0
//! A short time slice for the spawner, and the usual one for its children.
//!
//! A new child suspends the spawner until it has called exec (see `exec.rs`). Where other children keep all
//! processors busy, it would wait for the end of a slice of theirs, some milliseconds, and every start with it.
//! Who asks for a short slice is served sooner, and for a shorter time: Linux 6.12 and later take the
//! `sched_runtime` of an ordinary process for that, see its documentation of the EEVDF scheduler. An older
//! kernel ignores it.

/// In nanoseconds, and the least that Linux grants.
const SHORT: u64 = 100_000;

/// How a process is scheduled.
#[derive(Clone, Copy)]
pub(super) struct TimeSlice(libc::sched_attr);

impl TimeSlice {
    /// Shortens that of the calling process. `None` where that cannot be had; otherwise what it was before.
    pub(super) fn shorten() -> Option<Self> {
        let before = Self::own()?;
        let mut short = before;
        short.0.sched_runtime = SHORT;
        let is_ordinary = before.0.sched_policy == libc::SCHED_OTHER as u32;
        if !is_ordinary || !short.apply() {
            return None;
        }
        let taken = Self::own().is_some_and(|own| own.0.sched_runtime == SHORT);
        taken.then_some(before)
    }

    /// Gives it to the calling process; says whether that worked. Async-signal-safe.
    pub(super) fn apply(&self) -> bool {
        // SAFETY: the kernel reads one `sched_attr` of the size that it names, and writes nothing.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const self.0, 0) == 0 }
    }

    fn own() -> Option<Self> {
        let size = size_of::<libc::sched_attr>() as u32;
        let mut own = libc::sched_attr {
            size,
            sched_policy: 0,
            sched_flags: 0,
            sched_nice: 0,
            sched_priority: 0,
            sched_runtime: 0,
            sched_deadline: 0,
            sched_period: 0,
        };
        // SAFETY: the kernel writes at most `size` bytes, as many as there are.
        let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut own, size, 0) };
        (result == 0).then_some(Self(own))
    }
}
