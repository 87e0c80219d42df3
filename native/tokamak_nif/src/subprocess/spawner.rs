// SPDX-License-Identifier: Apache-2.0
//! The spawner of this VM: started on first use, by a thread of its own that then receives what it tells.
//!
//! A spawner that dies ends its open subprocesses with an error; the next start makes a new one, while the
//! thread of the old one cleans up what that left behind.

use super::child::Subprocess;
use super::output::Failure;
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokamak_spawner::client::{Connection, Event, SendError, StartError};
use tokamak_spawner::protocol::{Base, Request, StartRequest};

/// How long a spawner may take to start.
const START_TIME: Duration = Duration::from_secs(10);
/// How long the end of everything may take beyond the longest kill timeout; the spawner gives up after 5 s.
const END_TIME: Duration = Duration::from_secs(7);

static CURRENT: Mutex<Current> = Mutex::new(Current {
    is_open: false,
    spawner: None,
});
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// An id that no subprocess and no environment had before.
pub fn next_id() -> u64 {
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

/// The running spawner, and whether one may be started: while the application runs.
struct Current {
    is_open: bool,
    spawner: Option<Arc<Spawner>>,
}

type Stopped = Box<dyn FnOnce() + Send>;

/// A spawner, from the first request on.
pub struct Spawner {
    connection: OnceLock<Connection>,
    /// Ends the wait of its thread.
    bell: OwnedFd,
    outgoing: Mutex<Outgoing>,
    children: Mutex<HashMap<u64, Arc<Subprocess>>>,
    longest_kill_timeout: AtomicU32,
    closed: AtomicBool,
    /// Who waits for its end; `None` after it.
    stopped: Mutex<Option<Vec<Stopped>>>,
}

/// What goes to the spawner, in order.
#[derive(Default)]
struct Outgoing {
    /// Requests that wait for the connection, or for room in it.
    waiting: VecDeque<Request>,
    /// The environment that was sent last, and its id.
    environment: Option<(u64, Vec<u8>)>,
}

impl Outgoing {
    /// Takes out the first request, which cannot be sent, and the starts that name it. Returns the children that are
    /// not started so.
    fn give_up(&mut self) -> Vec<u64> {
        match self.waiting.pop_front() {
            Some(Request::Start(start)) => vec![start.id],
            Some(Request::Environment { id, .. }) => {
                self.forget_environment(id);
                let waiting = std::mem::take(&mut self.waiting).into_iter();
                let (named, others): (VecDeque<_>, _) = waiting.partition(|request| {
                    matches!(request, Request::Start(start) if start.base == Base::Kept(id))
                });
                self.waiting = others;
                named.iter().map(Request::id).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The starts to come send it anew.
    fn forget_environment(&mut self, id: u64) {
        self.environment.take_if(|(kept, _)| *kept == id);
    }
}

/// The application starts: from now on a spawner may be started.
pub fn open() {
    CURRENT.lock().is_open = true;
}

/// The running spawner, or a new one.
///
/// # Errors
/// The application does not run, or the operating system cannot make the thread.
pub fn current(program: impl FnOnce() -> PathBuf) -> Result<Arc<Spawner>, Failure> {
    let mut current = CURRENT.lock();
    if !current.is_open {
        return Err(Failure::Shutdown);
    }
    if let Some(spawner) = &current.spawner
        && !spawner.closed.load(Ordering::Acquire)
    {
        return Ok(Arc::clone(spawner));
    }
    let spawner =
        Spawner::start(program()).map_err(|errno| Failure::Errno(errno.raw_os_error()))?;
    current.spawner = Some(Arc::clone(&spawner));
    Ok(spawner)
}

/// The application stops: ends the spawner with all its children, and then calls `stopped`. `false`: there is
/// none.
pub fn stop(stopped: impl FnOnce() + Send + 'static) -> bool {
    let mut current = CURRENT.lock();
    current.is_open = false;
    let Some(spawner) = current.spawner.take() else {
        return false;
    };
    drop(current);
    spawner.stop(Box::new(stopped));
    true
}

/// The spawner's process id.
pub fn pid() -> Option<u32> {
    let current = CURRENT.lock();
    let spawner = current.spawner.as_ref()?;
    if spawner.closed.load(Ordering::Acquire) {
        return None;
    }
    spawner.connection.get().map(Connection::spawner_pid)
}

/// How many subprocesses there are whose last descendant still runs.
pub fn count() -> usize {
    let current = CURRENT.lock();
    current
        .spawner
        .as_ref()
        .map_or(0, |spawner| spawner.children.lock().len())
}

/// Subprocesses whose last descendant still runs.
pub fn children() -> Vec<Arc<Subprocess>> {
    let current = CURRENT.lock().spawner.clone();
    let children = |spawner: Arc<Spawner>| spawner.children.lock().values().cloned().collect();
    current.map_or_else(Vec::new, children)
}

impl Spawner {
    fn start(program: PathBuf) -> Result<Arc<Self>, Errno> {
        let spawner = Arc::new(Self {
            connection: OnceLock::new(),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            outgoing: Mutex::default(),
            children: Mutex::new(HashMap::new()),
            longest_kill_timeout: AtomicU32::new(0),
            closed: AtomicBool::new(false),
            stopped: Mutex::new(Some(Vec::new())),
        });
        let run = Arc::clone(&spawner);
        std::thread::Builder::new()
            .name("tokamak-spawner".to_owned())
            .spawn(move || run.run(program))
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?;
        Ok(spawner)
    }

    /// Makes a child known, before its start is sent.
    pub fn add(&self, child: &Arc<Subprocess>) {
        self.longest_kill_timeout
            .fetch_max(child.kill_timeout, Ordering::Relaxed);
        self.children.lock().insert(child.id, Arc::clone(child));
    }

    /// Forgets a child whose start could not be sent.
    pub fn remove(&self, id: u64) {
        self.children.lock().remove(&id);
    }

    pub fn knows(&self, id: u64) -> bool {
        self.children.lock().contains_key(&id)
    }

    /// Sends the start of a child, and before it the environment that the child's changes are made to, where that is
    /// not the one that was sent last. Never waits.
    ///
    /// # Errors
    /// [`Failure`]; the child was not started then.
    pub fn start_child(
        &self,
        mut request: StartRequest,
        environment: Option<&[u8]>,
    ) -> Result<(), Failure> {
        let mut outgoing = self.outgoing.lock();
        if let Some(variables) = environment {
            request.base = Base::Kept(self.keep(&mut outgoing, variables)?);
        }
        self.send_locked(&mut outgoing, Request::Start(request))
    }

    /// The id under which the spawner keeps these variables.
    fn keep(&self, outgoing: &mut Outgoing, variables: &[u8]) -> Result<u64, Failure> {
        if let Some((id, kept)) = &outgoing.environment
            && kept == variables
        {
            return Ok(*id);
        }
        let id = next_id();
        let request = Request::Environment {
            id,
            variables: variables
                .split(|&byte| byte == 0)
                .filter(|variable| !variable.is_empty())
                .map(<[u8]>::to_vec)
                .collect(),
        };
        self.send_locked(outgoing, request)?;
        outgoing.environment = Some((id, variables.to_vec()));
        Ok(id)
    }

    /// Sends a request, or has the thread send it when there is room. Never waits.
    ///
    /// # Errors
    /// [`Failure`]; nothing was sent then.
    pub fn send(&self, request: Request) -> Result<(), Failure> {
        self.send_locked(&mut self.outgoing.lock(), request)
    }

    fn send_locked(&self, outgoing: &mut Outgoing, request: Request) -> Result<(), Failure> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Failure::SpawnerDied);
        }
        if let Some(connection) = self.connection.get()
            && outgoing.waiting.is_empty()
        {
            match connection.try_send(&request) {
                Ok(()) => return Ok(()),
                Err(SendError::Full) => {}
                Err(error) => return Err(failure(error)),
            }
        }
        outgoing.waiting.push_back(request);
        self.ring();
        Ok(())
    }

    fn ring(&self) {
        // A counter that is full rings as well.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    fn stop(&self, stopped: Stopped) {
        let mut waiting = self.stopped.lock();
        let Some(list) = waiting.as_mut() else {
            drop(waiting);
            return stopped();
        };
        list.push(stopped);
        drop(waiting);
        if let Some(connection) = self.connection.get() {
            connection.close();
        }
        self.ring();
    }

    fn run(self: Arc<Self>, program: PathBuf) {
        match Connection::start(&program, START_TIME) {
            Ok(connection) => {
                let connection = self.connection.get_or_init(|| connection);
                if self.is_stopping() {
                    connection.close();
                }
                self.receive(connection);
                self.end(Failure::SpawnerDied);
                let longest = u64::from(self.longest_kill_timeout.load(Ordering::Relaxed));
                // What did not end in time is the kernel's: nothing here can do more.
                let _ = connection.finish(END_TIME + Duration::from_millis(longest));
            }
            Err(error) => self.end(start_failure(&error)),
        }
        let stopped = self.stopped.lock().take();
        stopped.into_iter().flatten().for_each(|stopped| stopped());
    }

    fn is_stopping(&self) -> bool {
        let stopped = self.stopped.lock();
        stopped.as_ref().is_none_or(|waiting| !waiting.is_empty())
    }

    /// Until the connection is closed.
    fn receive(&self, connection: &Connection) {
        loop {
            let flags = match self.send_waiting(connection) {
                true => PollFlags::IN,
                false => PollFlags::IN | PollFlags::OUT,
            };
            loop {
                match connection.try_recv() {
                    Ok(Some(Event::Closed)) | Err(_) => return,
                    Ok(Some(event)) => self.handle(event),
                    Ok(None) => break,
                }
            }
            let mut descriptors = [
                PollFd::from_borrowed_fd(connection.as_fd(), flags),
                PollFd::new(&self.bell, PollFlags::IN),
            ];
            // What is wrong shows when the connection is used.
            let _ = poll(&mut descriptors, None);
            if !descriptors[1].revents().is_empty() {
                let _ = rustix::io::read(&self.bell, &mut [0; 8]);
            }
        }
    }

    /// Sends what had to wait; `false`: there is no room for all of it.
    fn send_waiting(&self, connection: &Connection) -> bool {
        loop {
            let mut outgoing = self.outgoing.lock();
            let Some(request) = outgoing.waiting.front() else {
                return true;
            };
            match connection.try_send(request) {
                Ok(()) => {
                    outgoing.waiting.pop_front();
                }
                Err(SendError::Full) => return false,
                Err(error) => {
                    let failed = outgoing.give_up();
                    drop(outgoing);
                    for id in failed {
                        self.start_failed(id, failure(error));
                    }
                }
            }
        }
    }

    fn handle(&self, event: Event) {
        match event {
            Event::Started { id, pid, pipes } => {
                if let Some(child) = self.child(id) {
                    child.started(pid, pipes);
                }
            }
            Event::StartFailed { id, errno } => self.start_failed(id, Failure::Errno(errno)),
            Event::Exited {
                id,
                status,
                all_gone,
            } => {
                let child = match all_gone {
                    true => self.children.lock().remove(&id),
                    false => self.child(id),
                };
                if let Some(child) = child {
                    child.exited(status);
                }
            }
            Event::Gone { id } => self.remove(id),
            Event::Closed => {}
        }
    }

    /// There is no such child, or the spawner could not read this environment.
    fn start_failed(&self, id: u64, failure: Failure) {
        let child = self.children.lock().remove(&id);
        match child {
            Some(child) => child.fail(failure),
            None => self.outgoing.lock().forget_environment(id),
        }
    }

    fn child(&self, id: u64) -> Option<Arc<Subprocess>> {
        self.children.lock().get(&id).cloned()
    }

    /// Nothing works any more: whatever is open ends.
    fn end(&self, failure: Failure) {
        let outgoing = self.outgoing.lock();
        self.closed.store(true, Ordering::Release);
        drop(outgoing);
        let failure = if self.is_stopping() {
            Failure::Shutdown
        } else {
            failure
        };
        let children = std::mem::take(&mut *self.children.lock());
        for child in children.into_values() {
            child.fail(failure);
        }
    }
}

fn failure(error: SendError) -> Failure {
    match error {
        SendError::TooLong => Failure::Errno(Errno::TOOBIG.raw_os_error()),
        SendError::Socket(errno) => Failure::Errno(errno.raw_os_error()),
        SendError::Closed | SendError::Full => Failure::SpawnerDied,
    }
}

fn start_failure(error: &StartError) -> Failure {
    match error {
        StartError::Run(errno) => Failure::Errno(errno.raw_os_error()),
        _ => Failure::SpawnerDied,
    }
}
