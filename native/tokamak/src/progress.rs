// SPDX-License-Identifier: Apache-2.0
//! Progress of operations, on its way to the base library.

use crate::environment::{TermKey, with_scratch};
use crate::submit;
use rustler::Term;
use std::sync::OnceLock;

/// Takes a report of a key: units done, and in all. Called on a thread of ours.
pub type Report = fn(key: Term, done: u64, total: u64);

static REPORT: OnceLock<Report> = OnceLock::new();

/// Says where reports go; for the base library, which limits them.
pub fn set_report(report: Report) {
    // The load of a library comes once.
    let _ = REPORT.set(report);
}

/// Reports the progress of a key, from a thread of ours.
pub(crate) fn report(key: &TermKey, done: u64, total: u64) {
    with_scratch(|env| report_term(key.load(env), done, total));
}

/// Reports the progress of a key, from a thread of ours.
pub(crate) fn report_term(key: Term, done: u64, total: u64) {
    match (REPORT.get(), submit::table()) {
        (Some(report), _) => report(key, done, total),
        (None, Some(table)) => table.report_progress(key, done, total),
        // Without a runtime there is nothing to report of.
        (None, None) => {}
    }
}
