// SPDX-License-Identifier: Apache-2.0
//! Ends children with all that descends from them: TERM, and after the kill timeout KILL.
//!
//! A process group is signalled at once, as a whole. What left the group (a daemon, a job of an
//! interactive shell) is found by its mark in a look at all processes. Such a look also tells when an
//! exited child has no descendant left. While nothing ends and no child has just exited there is none.
//!
//! When the connection has closed, strays are ended too: adopted processes whose child was released
//! or that lost their mark.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rustix::io::Result;
use rustix::process::{Pid, Signal, getpgid, getpid, kill_process, kill_process_group};

use tokamak_spawner::lineage::Lineage;
use tokamak_spawner::processes::{ProcessList, ProcessState};

use super::children::{Child, Children, Sequence};
use super::schedule::Schedule;

/// From TERM to KILL for strays.
const STRAY_KILL_TIMEOUT: Duration = Duration::from_secs(2);
/// After the last KILL: what then remains cannot be killed (another user's, stuck in the kernel).
const GIVE_UP: Duration = Duration::from_secs(5);
/// How soon after an exit the descendants are looked for. Many exits share one look.
const LOOK_AFTER_EXIT: Duration = Duration::from_millis(100);

pub(super) struct Ending {
    processes: ProcessList,
    own_pid: Pid,
    family: u32,
    schedule: Schedule,
    strays: Option<Strays>,
}

/// Adopted processes that belong to no child, once the connection has closed.
struct Strays {
    terminate: bool,
    kill_at: Instant,
    give_up_at: Instant,
}

impl Ending {
    /// # Errors
    /// When `/proc` cannot be read.
    pub(super) fn new(family: u32) -> Result<Self> {
        Ok(Self {
            processes: ProcessList::open()?,
            own_pid: getpid(),
            family,
            schedule: Schedule::new(Instant::now()),
            strays: None,
        })
    }

    /// When there is something to do next.
    pub(super) fn next_time(&self, children: &Children) -> Option<Instant> {
        let give_up_at = self.strays.as_ref().map(|strays| strays.give_up_at);
        [self.schedule.due(), children.next_kill(), give_up_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Ends a child and its descendants.
    pub(super) fn stop(
        &mut self,
        children: &mut Children,
        child: Sequence,
        kill_timeout: Duration,
    ) {
        let now = Instant::now();
        if let Some(child) = children.end(child, now + kill_timeout)
            && !kill_timeout.is_zero()
        {
            if !child.exited {
                terminate(|signal| kill_process_group(child.pid, signal));
            }
            self.schedule.at(now);
        }
    }

    /// Ends everything.
    pub(super) fn stop_all(&mut self, children: &mut Children) {
        for (child, kill_timeout) in children.kill_timeouts() {
            self.stop(children, child, kill_timeout);
        }
        let now = Instant::now();
        let kill_at = now + STRAY_KILL_TIMEOUT;
        let last_kill = children
            .last_kill()
            .map_or(kill_at, |last| last.max(kill_at));
        self.strays = Some(Strays {
            terminate: true,
            kill_at,
            give_up_at: last_kill + GIVE_UP,
        });
        self.schedule.at(now);
    }

    /// Whether what is left has withstood its KILL for long.
    pub(super) fn gives_up(&self) -> bool {
        self.strays
            .as_ref()
            .is_some_and(|strays| strays.give_up_at <= Instant::now())
    }

    /// Asks for a look whether exited children have descendants left.
    pub(super) fn look_after_exit(&mut self) {
        self.schedule.at(Instant::now() + LOOK_AFTER_EXIT);
    }

    /// Does what is due. Gives the exited children that have no descendants left.
    pub(super) fn run(&mut self, children: &mut Children) -> Vec<Sequence> {
        let now = Instant::now();
        while let Some(child) = children.take_due(now) {
            if !child.exited {
                // It fails only where all of the group is another user's.
                let _ = kill_process_group(child.pid, Signal::KILL);
            }
            self.schedule.at_first_kill(now);
        }
        if !self.schedule.take_due(now) {
            return Vec::new();
        }
        let present = self.look(children, now);
        self.schedule.looked(now, Instant::now());
        match present {
            Ok(present) => children.exited().difference(&present).copied().collect(),
            Err(_) => {
                self.schedule.at_retry(now);
                Vec::new()
            }
        }
    }

    /// Looks at all processes and sends what signals are due. Gives the children that have any.
    fn look(&mut self, children: &mut Children, now: Instant) -> Result<HashSet<Sequence>> {
        let mut present = HashSet::new();
        let mut killed = false;
        for pid in self.processes.pids()? {
            let lineage = Lineage::of(pid).filter(|lineage| lineage.family == self.family);
            let child = lineage.and_then(|lineage| children.get(lineage.sequence));
            if let (Some(lineage), Some(child)) = (lineage, child) {
                present.insert(lineage.sequence);
                killed |= signal_member(pid, lineage, child);
            } else if let Some(strays) = &self.strays
                && (lineage.is_some() || self.is_adopted(pid, children))
            {
                killed |= strays.signal(pid, lineage, now);
            }
        }
        children.rest_terminated();
        if let Some(strays) = &mut self.strays {
            strays.terminate = false;
            if strays.kill_at > now {
                self.schedule.at(strays.kill_at);
            }
            // Until nothing is left: some may only now come to be adopted.
            killed |= strays.kill_at <= now;
        }
        if killed {
            self.schedule.at_retry(now);
        }
        Ok(present)
    }

    /// Whether this is our child without being one that we started.
    fn is_adopted(&self, pid: Pid, children: &Children) -> bool {
        let own = self.own_pid.as_raw_nonzero().get();
        !children.runs(pid) && ProcessState::of(pid).is_some_and(|state| state.parent == own)
    }
}

impl Strays {
    /// Whether it was KILL.
    fn signal(&self, pid: Pid, lineage: Option<Lineage>, now: Instant) -> bool {
        // Without a mark it is our child, not collected yet, so the number is still its own.
        let send = |signal| match lineage {
            Some(lineage) => lineage.signal(pid, signal),
            None => kill_process(pid, signal),
        };
        let kill = self.kill_at <= now;
        if kill {
            let _ = send(Signal::KILL);
        } else if self.terminate {
            terminate(send);
        }
        kill
    }
}

/// Sends what a child's descendant is due. Whether it was KILL.
fn signal_member(pid: Pid, lineage: Lineage, child: &Child) -> bool {
    let Some(end) = child.end else { return false };
    if end.killing {
        // Gone already, or another user's.
        let _ = lineage.signal(pid, Signal::KILL);
    } else if end.terminate_rest && (child.exited || getpgid(Some(pid)) != Ok(child.pid)) {
        terminate(|signal| lineage.signal(pid, signal));
    }
    end.killing
}

/// TERM, and CONT so that a stopped process can act on it. There is nobody to tell of a failure:
/// the process is gone, or another user's.
fn terminate(send: impl Fn(Signal) -> Result<()>) {
    let _ = send(Signal::TERM);
    let _ = send(Signal::CONT);
}
