// SPDX-License-Identifier: Apache-2.0
//! What the tests of the spawner share.
#![allow(dead_code, reason = "no test file uses all of it")]

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use tokamak_spawner::client::{Connection, Event, Pipes};
use tokamak_spawner::processes::ProcessState;
use tokamak_spawner::protocol::{ExitStatus, Input, Request, StartRequest};

/// How long anything may take before a test fails.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_tokamak_spawner"))
}

/// A spawner, what is known of its children, and threads that read their output.
pub struct Spawner {
    pub connection: Connection,
    children: HashMap<u64, Child>,
}

#[derive(Default)]
struct Child {
    pid: Option<u32>,
    stdin: Option<OwnedFd>,
    stdout: Option<Reader>,
    stderr: Option<Reader>,
    end: Option<Result<ExitStatus, &'static str>>,
    gone: bool,
}

/// Reads a pipe to its end in a thread of its own.
struct Reader {
    read: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

/// A child that ended, with all it wrote.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Spawner {
    pub fn start() -> Self {
        Self::start_program(program())
    }

    pub fn start_program(program: &Path) -> Self {
        let connection = Connection::start(program, DEADLINE).unwrap();
        Self {
            connection,
            children: HashMap::new(),
        }
    }

    pub fn send(&self, request: Request) {
        self.connection.send(&request, DEADLINE).unwrap();
    }

    pub fn pid(&self) -> Pid {
        pid(self.connection.spawner_pid())
    }

    /// Starts a child and waits until it runs.
    pub fn started(&mut self, start: StartRequest) -> Pid {
        let id = start.id;
        self.send(Request::Start(start));
        self.wait_for(id, |child| child.pid.is_some() || child.end.is_some());
        let child = &self.children[&id];
        assert_eq!(child.end, None, "the child did not start, or ended at once");
        pid(child.pid.unwrap())
    }

    /// The name of the error that the start fails with.
    pub fn start_error(&mut self, start: StartRequest) -> &'static str {
        let id = start.id;
        self.send(Request::Start(start));
        self.failure(id)
    }

    /// The name of the error that the start or the environment with this id fails with.
    pub fn failure(&mut self, id: u64) -> &'static str {
        self.wait_for(id, |child| child.pid.is_some() || child.end.is_some());
        self.children[&id]
            .end
            .expect("the child started")
            .unwrap_err()
    }

    /// Leaves the spawner no room for further descriptors. Returns how many it might have.
    pub fn without_descriptors(&self) -> Option<u64> {
        self.limit_descriptors(Some(self.descriptors() as u64))
    }

    /// How many descriptors the spawner has.
    pub fn descriptors(&self) -> usize {
        let directory = format!("/proc/{}/fd", self.connection.spawner_pid());
        fs::read_dir(directory).unwrap().count()
    }

    /// How many descriptors the spawner may have. Returns how many it might have before.
    pub fn limit_descriptors(&self, current: Option<u64>) -> Option<u64> {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let new = Rlimit { current, maximum };
        prlimit(Some(self.pid()), Resource::Nofile, new)
            .unwrap()
            .current
    }

    /// The write end of a child's stdin.
    pub fn take_stdin(&mut self, id: u64) -> File {
        File::from(self.children.get_mut(&id).unwrap().stdin.take().unwrap())
    }

    /// Runs a child to the end of all that descends from it.
    pub fn run(&mut self, start: StartRequest) -> Ended {
        let id = start.id;
        self.send(Request::Start(start));
        self.ended(id)
    }

    /// Runs a shell command to its end.
    pub fn shell(&mut self, id: u64, command: &str) -> Ended {
        self.run(shell(id, command))
    }

    /// Waits for the exit and the end of the output.
    pub fn ended(&mut self, id: u64) -> Ended {
        self.wait_for(id, |child| child.end.is_some());
        let child = self.children.get_mut(&id).unwrap();
        let text = |reader: Option<Reader>| reader.map(Reader::finish).unwrap_or_default();
        Ended {
            status: child.end.unwrap().expect("the child did not start"),
            stdout: text(child.stdout.take()),
            stderr: text(child.stderr.take()),
        }
    }

    /// Waits for the exit alone.
    pub fn status(&mut self, id: u64) -> ExitStatus {
        self.wait_for(id, |child| child.end.is_some());
        self.children[&id].end.unwrap().unwrap()
    }

    /// Waits until nothing that descends from the child is left.
    pub fn gone(&mut self, id: u64) {
        self.wait_for(id, |child| child.gone);
    }

    pub fn has_ended(&self, id: u64) -> bool {
        self.children[&id].end.is_some()
    }

    pub fn is_gone(&self, id: u64) -> bool {
        self.children[&id].gone
    }

    /// Waits until the child has written this many lines, and gives them.
    pub fn lines(&mut self, id: u64, count: usize) -> Vec<String> {
        self.wait_for(id, |child| child.pid.is_some());
        let read = &self.children[&id].stdout.as_ref().unwrap().read;
        let mut lines = Vec::new();
        wait_until("lines of output", DEADLINE, || {
            let text = String::from_utf8(read.lock().unwrap().clone()).unwrap();
            lines = text
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'))
                .map(str::trim_end)
                .map(str::to_owned)
                .collect();
            lines.len() >= count
        });
        lines
    }

    /// Starts a shell command and gives the process ids it writes, one a line.
    pub fn shell_pids(&mut self, start: StartRequest, count: usize) -> Vec<Pid> {
        let id = start.id;
        self.send(Request::Start(start));
        self.lines(id, count)
            .iter()
            .map(|line| pid(line.parse().unwrap()))
            .collect()
    }

    fn wait_for(&mut self, id: u64, done: impl Fn(&Child) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !self.children.get(&id).is_some_and(&done) {
            let rest = deadline.saturating_duration_since(Instant::now());
            let event = self
                .connection
                .recv(rest)
                .unwrap()
                .expect("no event in time");
            self.note(event);
        }
    }

    /// Takes one event, and checks that it is in order.
    fn note(&mut self, event: Event) {
        match event {
            Event::Started { id, pid, pipes } => {
                let Pipes {
                    stdin,
                    stdout,
                    stderr,
                } = pipes;
                let (stdout, stderr) = (stdout.map(Reader::new), stderr.map(Reader::new));
                let child = Child {
                    pid: Some(pid),
                    stdin,
                    stdout,
                    stderr,
                    ..Child::default()
                };
                assert!(
                    self.children.insert(id, child).is_none(),
                    "{id} started twice"
                );
            }
            Event::StartFailed { id, errno } => {
                let end = Some(Err(tokamak_spawner::errno::name(errno)));
                let child = Child {
                    end,
                    gone: true,
                    ..Child::default()
                };
                assert!(
                    self.children.insert(id, child).is_none(),
                    "{id} started and failed"
                );
            }
            Event::Exited {
                id,
                status,
                all_gone,
            } => {
                let child = self.children.get_mut(&id).expect("an exit without a start");
                assert_eq!(child.end, None, "{id} exited twice");
                child.end = Some(Ok(status));
                child.gone = all_gone;
            }
            Event::Gone { id } => {
                let child = self.children.get_mut(&id).expect("gone without a start");
                assert!(child.end.is_some() && !child.gone, "{id} was gone before");
                child.gone = true;
            }
            Event::Closed => panic!("the spawner is gone"),
        }
    }

    /// Closes the connection and waits for the spawner. Returns what it left behind.
    pub fn finish(self) -> usize {
        self.connection.finish(DEADLINE).unwrap()
    }
}

/// A child that reads from `/dev/null`.
pub fn without_stdin(id: u64, argv: &[&str]) -> StartRequest {
    let argv = argv
        .iter()
        .map(|argument| argument.as_bytes().to_vec())
        .collect();
    StartRequest {
        stdin: Input::Null,
        ..StartRequest::new(id, argv)
    }
}

/// A shell command that reads from `/dev/null`.
pub fn shell(id: u64, command: &str) -> StartRequest {
    without_stdin(id, &["sh", "-c", command])
}

impl Reader {
    fn new(pipe: OwnedFd) -> Self {
        let mut pipe = blocking(pipe);
        let read = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&read);
        let thread = thread::spawn(move || {
            let mut part = [0; 65536];
            loop {
                match pipe.read(&mut part).unwrap() {
                    0 => return,
                    length => shared.lock().unwrap().extend_from_slice(&part[..length]),
                }
            }
        });
        Self { read, thread }
    }

    fn finish(self) -> String {
        self.thread.join().unwrap();
        String::from_utf8(self.read.lock().unwrap().clone()).unwrap()
    }
}

pub fn blocking(pipe: OwnedFd) -> File {
    fcntl_setfl(&pipe, OFlags::empty()).unwrap();
    File::from(pipe)
}

pub fn pid(number: u32) -> Pid {
    Pid::from_raw(number as i32).unwrap()
}

/// Whether the process runs; a zombie does not.
pub fn is_alive(pid: Pid) -> bool {
    ProcessState::of(pid).is_some_and(|state| !state.zombie)
}

/// Waits for a condition.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A field of `/proc/PID/status`.
pub fn status_field(pid: Pid, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    field_of(&status, field)
}

/// A field of what `/proc/PID/status` held.
pub fn field_of(status: &str, field: &str) -> String {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {field} in {status}"))
        .trim()
        .to_owned()
}
