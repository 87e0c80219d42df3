// SPDX-License-Identifier: Apache-2.0
//! What the process has used so far.

use rustler::{Encoder, Env, Term};
use std::mem::MaybeUninit;

/// `{UserMicroseconds, SystemMicroseconds, VoluntarySwitches, InvoluntarySwitches, MinorFaults,
/// MajorFaults}` of all threads, those that have ended included.
#[rustler::nif]
fn resource_usage<'a>(env: Env<'a>) -> Term<'a> {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: getrusage(2) fills the structure; zeroes are valid values where it does not.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    (
        microseconds(usage.ru_utime),
        microseconds(usage.ru_stime),
        usage.ru_nvcsw,
        usage.ru_nivcsw,
        usage.ru_minflt,
        usage.ru_majflt,
    )
        .encode(env)
}

fn microseconds(time: libc::timeval) -> i64 {
    time.tv_sec * 1_000_000 + time.tv_usec
}
