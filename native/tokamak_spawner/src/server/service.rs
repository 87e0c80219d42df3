// SPDX-License-Identifier: Apache-2.0
//! What the spawner does for its VM: serves requests, and reports what becomes of the children.

use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{WaitOptions, WaitStatus, wait};

use tokamak_spawner::lineage::{self, Lineage};
use tokamak_spawner::packet::{self, Packet};
use tokamak_spawner::protocol::{ExitStatus, Reply, Request, StartRequest, Subject, VERSION};

use super::children::{Child, Children, Sequence};
use super::ending::Ending;
use super::launch::Launcher;
use super::outbox::Outbox;

pub(super) struct Service {
    pub outbox: Outbox,
    pub children: Children,
    pub ending: Ending,
    launcher: Launcher,
    /// No process is our child, so none descends from us.
    childless: bool,
    family: u32,
    /// Whether children can be marked.
    marks: bool,
}

/// The VM is gone, or sends what no client of ours sends.
pub(super) struct Disconnected;

impl Service {
    /// # Errors
    /// When there is no `/proc` or no random number.
    pub(super) fn new() -> rustix::io::Result<Self> {
        let family = lineage::new_family()?;
        let mut outbox = Outbox::default();
        let version = VERSION;
        outbox.push(Reply::Hello { version, family }, Vec::new());
        Ok(Self {
            outbox,
            children: Children::default(),
            ending: Ending::new(family)?,
            launcher: Launcher::new(),
            childless: true,
            family,
            marks: lineage::available(),
        })
    }

    pub(super) fn childless(&self) -> bool {
        self.childless
    }

    /// Serves one request.
    pub(super) fn handle(&mut self, packet: Packet<'_>) -> Result<(), Disconnected> {
        let request = match packet::head_of_request_in_file(packet.bytes) {
            None => Request::decode(packet.bytes),
            Some(head) => {
                let file = packet.descriptors.into_iter().next().ok_or(Errno::MFILE);
                match file.and_then(packet::read_request_file) {
                    Ok(request) => Request::decode(&request),
                    Err(error) => return self.could_not_read(head, error),
                }
            }
        };
        match request.map_err(|_| Disconnected)? {
            Request::Start(start) => return self.start(&start),
            Request::Signal { id, signal, group } => self.signal(id, signal, group),
            Request::Stop { id, kill_timeout } => {
                if let Some(child) = self.children.find(id) {
                    let kill_timeout = milliseconds(kill_timeout);
                    self.ending.stop(&mut self.children, child, kill_timeout);
                }
            }
            Request::Release { id } => self.release(id),
            Request::Environment { id, variables } => {
                self.launcher.environments.keep(id, &variables);
            }
        }
        Ok(())
    }

    fn could_not_read(&mut self, head: &[u8], error: Errno) -> Result<(), Disconnected> {
        let id = match Request::subject(head).map_err(|_| Disconnected)? {
            Subject::Child(id) => id,
            Subject::Environment(id) => {
                self.launcher.environments.could_not_read(id, error);
                id
            }
        };
        self.fail_start(id, error);
        Ok(())
    }

    fn start(&mut self, start: &StartRequest) -> Result<(), Disconnected> {
        let id = start.id;
        if self.children.find(id).is_some() {
            return Err(Disconnected);
        }
        let sequence = self.children.next_sequence();
        let family = self.family;
        let lineage = self.marks.then_some(Lineage { family, sequence });
        match self.launcher.launch(start, lineage) {
            Ok((pid, pipes)) => {
                self.childless = false;
                let kill_timeout = milliseconds(start.kill_timeout);
                self.children.insert(sequence, id, pid, kill_timeout);
                let pid = pid.as_raw_nonzero().get().unsigned_abs();
                let streams = pipes.streams();
                let started = Reply::Started { id, pid, streams };
                self.outbox.push(started, pipes.into_descriptors());
            }
            Err(error) => self.fail_start(id, error),
        }
        Ok(())
    }

    fn fail_start(&mut self, id: u64, error: Errno) {
        let errno = error.raw_os_error();
        self.outbox
            .push(Reply::StartFailed { id, errno }, Vec::new());
    }

    /// A child that runs, but whose pipes cannot be handed over: it is ended, and was never there.
    pub(super) fn take_back(&mut self, id: u64, error: Errno) {
        self.outbox.fail_start(id, error);
        if let Some(child) = self.children.release(id) {
            self.ending.stop(&mut self.children, child, Duration::ZERO);
        }
    }

    fn signal(&self, id: u64, signal: i32, group: bool) {
        let child = self.children.find(id);
        let child = child.and_then(|sequence| self.children.get(sequence));
        let Some(child) = child.filter(|child| !child.exited) else {
            return;
        };
        let pid = child.pid.as_raw_nonzero().get();
        // SAFETY: no memory is involved. The child is not collected yet: the number is still its own.
        unsafe { libc::kill(if group { -pid } else { pid }, signal) };
    }

    /// What was being ended still is.
    fn release(&mut self, id: u64) {
        let Some(sequence) = self.children.release(id) else {
            return;
        };
        let over = |child: &Child| child.exited && child.end.is_none();
        if self.children.get(sequence).is_some_and(over) {
            self.children.remove(sequence);
        }
    }

    /// Does what is due by now.
    pub(super) fn on_time(&mut self) {
        for gone in self.ending.run(&mut self.children) {
            self.forget(gone);
        }
    }

    /// Collects every process that ended, and reports those that are children.
    pub(super) fn reap(&mut self) {
        let mut exits = Vec::new();
        self.childless = loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some(exit)) => exits.push(exit),
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        if exits.is_empty() {
            return;
        }
        for (pid, status) in exits {
            if let Some(child) = self.children.exit(pid) {
                self.report_exit(child, status);
            }
        }
        if self.childless {
            let all: Vec<_> = self.children.exited().iter().copied().collect();
            all.into_iter().for_each(|child| self.forget(child));
        } else if !self.children.exited().is_empty() {
            self.ending.look_after_exit();
        }
    }

    fn report_exit(&mut self, sequence: Sequence, status: WaitStatus) {
        let Some(child) = self.children.get(sequence) else {
            return;
        };
        // Unmarked descendants cannot be told from others, so nobody waits for them.
        let all_gone = self.childless || !self.marks;
        let forgotten = all_gone || (child.id.is_none() && child.end.is_none());
        if let Some(id) = child.id {
            let status = exit_status(status);
            let exited = Reply::Exited {
                id,
                status,
                all_gone,
            };
            self.outbox.push(exited, Vec::new());
        }
        if forgotten {
            self.children.remove(sequence);
        }
    }

    /// An exited child without descendants.
    fn forget(&mut self, sequence: Sequence) {
        if let Some(id) = self.children.remove(sequence).and_then(|child| child.id) {
            self.outbox.push(Reply::Gone { id }, Vec::new());
        }
    }

    /// Ends all children, as nobody is there any more to own them.
    pub(super) fn close(&mut self) {
        self.outbox.clear();
        self.ending.stop_all(&mut self.children);
        self.reap();
    }
}

fn exit_status(status: WaitStatus) -> ExitStatus {
    match status.terminating_signal() {
        Some(signal) => ExitStatus::Signal(signal as u8),
        None => ExitStatus::Code(status.exit_status().unwrap_or_default() as u8),
    }
}

fn milliseconds(number: u32) -> Duration {
    Duration::from_millis(number.into())
}
