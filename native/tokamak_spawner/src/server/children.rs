// SPDX-License-Identifier: Apache-2.0
//! The children: from their start until nothing that descends from them is left.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use rustix::process::Pid;

/// The number of a child in this spawner; its id is the VM's name for it.
pub(super) type Sequence = u32;

pub(super) struct Child {
    /// `None` once released: nothing is reported.
    pub id: Option<u64>,
    /// Also its process group. Not to be signalled after the exit: the number may be another's then.
    pub pid: Pid,
    pub exited: bool,
    pub kill_timeout: Duration,
    pub end: Option<End>,
}

/// A child that is being ended.
#[derive(Clone, Copy)]
pub(super) struct End {
    pub kill_at: Instant,
    /// What TERM to the process group did not reach is still to be sent TERM.
    pub terminate_rest: bool,
    /// The time is up: KILL, until nothing is left.
    pub killing: bool,
}

#[derive(Default)]
pub(super) struct Children {
    table: HashMap<Sequence, Child>,
    by_id: HashMap<u64, Sequence>,
    /// Those that run.
    by_pid: HashMap<Pid, Sequence>,
    /// Those that exited and may have descendants.
    exited: HashSet<Sequence>,
    kill_times: BTreeSet<(Instant, Sequence)>,
    last: Sequence,
}

impl Children {
    /// A number that no child has.
    pub(super) fn next_sequence(&mut self) -> Sequence {
        loop {
            self.last = self.last.wrapping_add(1);
            if !self.table.contains_key(&self.last) {
                return self.last;
            }
        }
    }

    pub(super) fn insert(&mut self, sequence: Sequence, id: u64, pid: Pid, kill_timeout: Duration) {
        let child = Child {
            id: Some(id),
            pid,
            exited: false,
            kill_timeout,
            end: None,
        };
        self.table.insert(sequence, child);
        self.by_id.insert(id, sequence);
        self.by_pid.insert(pid, sequence);
    }

    pub(super) fn find(&self, id: u64) -> Option<Sequence> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn get(&self, sequence: Sequence) -> Option<&Child> {
        self.table.get(&sequence)
    }

    pub(super) fn kill_timeouts(&self) -> Vec<(Sequence, Duration)> {
        self.table
            .iter()
            .map(|(&sequence, child)| (sequence, child.kill_timeout))
            .collect()
    }

    /// Whether this process is a child that runs.
    pub(super) fn runs(&self, pid: Pid) -> bool {
        self.by_pid.contains_key(&pid)
    }

    /// Notes the exit of a child; `None` for an adopted process.
    pub(super) fn exit(&mut self, pid: Pid) -> Option<Sequence> {
        let sequence = self.by_pid.remove(&pid)?;
        self.table.get_mut(&sequence)?.exited = true;
        self.exited.insert(sequence);
        Some(sequence)
    }

    pub(super) fn exited(&self) -> &HashSet<Sequence> {
        &self.exited
    }

    /// Makes the id unknown and gives the child's number.
    pub(super) fn release(&mut self, id: u64) -> Option<Sequence> {
        let sequence = self.by_id.remove(&id)?;
        self.table.get_mut(&sequence)?.id = None;
        Some(sequence)
    }

    pub(super) fn remove(&mut self, sequence: Sequence) -> Option<Child> {
        let child = self.table.remove(&sequence)?;
        self.exited.remove(&sequence);
        if let Some(id) = child.id {
            self.by_id.remove(&id);
        }
        if let Some(end) = child.end {
            self.kill_times.remove(&(end.kill_at, sequence));
        }
        Some(child)
    }

    /// Begins to end a child, or brings its KILL forward. Gives it when it had not begun before.
    pub(super) fn end(&mut self, sequence: Sequence, kill_at: Instant) -> Option<&Child> {
        let child = self.table.get_mut(&sequence)?;
        let begun = child.end;
        if begun.is_some_and(|end| end.killing || end.kill_at <= kill_at) {
            return None;
        }
        let terminate_rest = begun.is_none_or(|end| end.terminate_rest);
        child.end = Some(End {
            kill_at,
            terminate_rest,
            killing: false,
        });
        self.kill_times.insert((kill_at, sequence));
        match begun {
            Some(end) => {
                self.kill_times.remove(&(end.kill_at, sequence));
                None
            }
            None => Some(child),
        }
    }

    /// Notes that all that was to be sent TERM was.
    pub(super) fn rest_terminated(&mut self) {
        for end in self
            .table
            .values_mut()
            .filter_map(|child| child.end.as_mut())
        {
            end.terminate_rest = false;
        }
    }

    pub(super) fn next_kill(&self) -> Option<Instant> {
        self.kill_times.first().map(|(kill_at, _)| *kill_at)
    }

    pub(super) fn last_kill(&self) -> Option<Instant> {
        self.kill_times.last().map(|(kill_at, _)| *kill_at)
    }

    /// A child whose time is up.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<&Child> {
        let &(kill_at, sequence) = self.kill_times.first()?;
        if kill_at > now {
            return None;
        }
        self.kill_times.remove(&(kill_at, sequence));
        let child = self.table.get_mut(&sequence)?;
        child.end.as_mut()?.killing = true;
        Some(child)
    }
}
