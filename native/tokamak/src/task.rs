// SPDX-License-Identifier: Apache-2.0
//! A call in flight: who waits for it, and its one end.

use crate::atoms;
use crate::calls::batch_entry;
use crate::environment::{Envelope, Sender, on_scheduler, with_scratch};
use crate::latency::{Label, Measured};
use crate::operation::{Entry, ReplyFuture};
use crate::owners::{self, Owner, Possession};
use crate::reply::{OperationError, Reason, Reply, encode_error, encode_reply};
use crate::runtime::{Admission, Runtime};
use crate::stream::Buffer;
use crate::submit::LoopSink;
use futures_util::FutureExt;
use parking_lot::Mutex;
use rustler::{Encoder, Env, LocalPid, Term};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock, Weak};
use tokamak_core::task_state::{State, TaskState};
use tokamak_core::threads;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Who gets the end of a call.
pub enum ReplyTo {
    /// Its caller, under a reference that the caller made, or the handle of the call.
    Caller(Envelope),
    /// The loop it was submitted to; its results are pushed there one by one.
    Loop(LoopSink),
    /// The buffer of a stream.
    Stream(Arc<Buffer>),
    /// Whoever tells how a pool's run ended.
    Run(Arc<dyn RunEnd>),
    /// Nobody.
    Nobody,
}

/// What has to know how a pool's run ended.
pub trait RunEnd: Send + Sync {
    /// It ended: its caller is told. Called on a thread of ours.
    fn end(&self, caller: &LocalPid, reply: Reply);

    /// It was cancelled: nothing of it comes any more.
    fn cancelled(&self);
}

/// A call in flight.
pub struct Task {
    key: u64,
    state: TaskState,
    caller: LocalPid,
    /// Whose death cancels it; set once, before anybody else sees the task.
    owner: OnceLock<Arc<Owner>>,
    runtime: Arc<Runtime>,
    /// Taken at the end.
    live: Mutex<Live>,
    over: Notify,
    measured: Measured,
}

struct Live {
    reply_to: Option<ReplyTo>,
    /// The handle of a call whose end comes under another reference: progress is reported under it.
    handle: Option<Envelope>,
    admission: Option<Admission>,
    abort: Option<AbortHandle>,
    ended: bool,
}

impl Task {
    /// A call of `caller`, whose death cancels it if it is `owned`.
    pub fn new(
        env: Env,
        caller: LocalPid,
        owned: bool,
        admission: Admission,
        reply_to: ReplyTo,
    ) -> Arc<Self> {
        let runtime = Arc::clone(admission.runtime());
        let task = Arc::new(Self {
            key: owners::next_key(),
            state: TaskState::new(),
            caller,
            owner: OnceLock::new(),
            runtime,
            live: Mutex::new(Live {
                reply_to: Some(reply_to),
                handle: None,
                admission: Some(admission),
                abort: None,
                ended: false,
            }),
            over: Notify::new(),
            measured: Measured::new(),
        });
        if owned {
            let possession: Weak<Self> = Arc::downgrade(&task);
            match owners::hold(env, &caller, task.key, possession) {
                Some(owner) => {
                    let _ = task.owner.set(owner);
                }
                // Its caller was killed in a call that runs on a dirty scheduler.
                None => {
                    task.cancel();
                }
            }
        } else {
            task.runtime.tasks().insert(task.key, Arc::downgrade(&task));
        }
        task
    }

    /// The number of the call.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// The runtime it runs in.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state.get()
    }

    /// Whether the process that calls now made this call.
    pub fn is_called_by(&self, env: Env) -> bool {
        self.caller == env.pid()
    }

    /// Names the reference, or the handle, that the end is sent under. In a NIF call of the caller's.
    pub fn set_reference(&self, env: Env, reference: Term) {
        let reply_to = ReplyTo::Caller(Envelope::new(reference));
        if self.set_reply_to(reply_to).is_some() {
            Sender::Process(env).send(&self.caller, |env| {
                let end = encode_error(env, &Reason::Shutdown);
                (atoms::tokamak(), reference.in_env(env), end).encode(env)
            });
        }
    }

    /// Has the end of a call that runs come under another reference than its handle. Where it stands: `Running`
    /// means that it will.
    pub fn redirect(&self, reference: Term) -> State {
        let mut live = self.live.lock();
        let Some(ReplyTo::Caller(envelope)) = &mut live.reply_to else {
            drop(live);
            return self.state();
        };
        let handle = std::mem::replace(envelope, Envelope::new(reference));
        live.handle.get_or_insert(handle);
        State::Running
    }

    /// Names what has to know how a pool's run ends.
    pub fn set_run(&self, run: Arc<dyn RunEnd>) {
        if let Some(ReplyTo::Run(run)) = self.set_reply_to(ReplyTo::Run(run)) {
            let caller = self.caller;
            owners::on_janitor(move || run.end(&caller, Err(Reason::Shutdown)));
        }
    }

    /// Names the loop that the end is an event of.
    pub fn set_sink(&self, sink: LoopSink) {
        if let Some(ReplyTo::Loop(sink)) = self.set_reply_to(ReplyTo::Loop(sink)) {
            sink.untie();
        }
    }

    /// Gives it back where a stop has ended the call before, and told nobody. Kept then, it would keep the call and
    /// the runtime for ever.
    fn set_reply_to(&self, reply_to: ReplyTo) -> Option<ReplyTo> {
        let mut live = self.live.lock();
        if live.ended {
            return Some(reply_to);
        }
        live.reply_to = Some(reply_to);
        None
    }

    /// Runs a future as this call, within the operation's bound.
    pub fn spawn(self: &Arc<Self>, entry: &'static Entry, future: ReplyFuture) {
        self.spawn_as(Label::of(entry), entry, future);
    }

    /// Goes on with a future that was polled before, and has its place within the operation's bound since then.
    pub fn spawn_polled(self: &Arc<Self>, entry: &Entry, future: ReplyFuture) {
        self.spawn_as(Label::of(entry), batch_entry(), future);
    }

    /// Runs a future as this call, which is counted under a label.
    pub fn spawn_as(self: &Arc<Self>, label: Label, entry: &'static Entry, future: ReplyFuture) {
        self.measured.start(label, self.key);
        // Made here, not in the future: a runtime that stops may drop that before it ever ran.
        let end = EndGuard(Arc::clone(self));
        let run = async move {
            let end = end;
            let reply = run_limited(entry, future).await;
            end.0.end(reply);
        };
        let abort = self.runtime.handle().spawn(run).abort_handle();
        self.set_abort(abort);
    }

    /// Runs a closure as this call, on a thread that may block.
    pub fn spawn_blocking(
        self: &Arc<Self>,
        entry: &'static Entry,
        run: Box<dyn FnOnce() -> Reply + Send>,
    ) {
        self.measured.start(Label::of(entry), self.key);
        let end = EndGuard(Arc::clone(self));
        let blocking = async move {
            let end = end;
            let reply = run_blocking(&end.0.runtime, entry, run).await;
            end.0.end(reply);
        };
        let abort = self.runtime.handle().spawn(blocking).abort_handle();
        self.set_abort(abort);
    }

    fn set_abort(&self, abort: AbortHandle) {
        let mut live = self.live.lock();
        if live.ended {
            drop(live);
            // It ended before its handle was there: cancelled, or done.
            abort.abort();
        } else {
            live.abort = Some(abort);
        }
    }

    /// Ends the call with its reply, from any thread, once.
    pub fn end(&self, reply: Reply) {
        if self.state.begin_send() {
            let _sent = SentGuard(self);
            let reply_to = self.take_live();
            self.deliver(reply_to, reply);
        }
    }

    /// Ends the call with its reply in the NIF call that started it, without a message.
    pub fn end_here(&self) {
        if self.state.begin_send() {
            let _sent = SentGuard(self);
            drop(self.take_live());
        }
    }

    fn deliver(&self, reply_to: Option<ReplyTo>, reply: Reply) {
        match reply_to {
            Some(ReplyTo::Caller(envelope)) => {
                envelope.send(&self.caller, |env, reference| {
                    (atoms::tokamak(), reference, encode_reply(env, &reply)).encode(env)
                });
            }
            Some(ReplyTo::Loop(sink)) => sink.untie(),
            Some(ReplyTo::Stream(buffer)) => buffer.end(reply),
            Some(ReplyTo::Run(run)) => run.end(&self.caller, reply),
            Some(ReplyTo::Nobody) | None => {}
        }
    }

    /// Gives back what a running call holds: its place, its owner's hold, its abort handle.
    fn take_live(&self) -> Option<ReplyTo> {
        self.measured.end();
        let mut live = self.live.lock();
        live.ended = true;
        let abort = live.abort.take();
        let admission = live.admission.take();
        let reply_to = live.reply_to.take();
        let handle = live.handle.take();
        drop(live);
        match self.owner.get() {
            Some(owner) => owner.release(self.key),
            None => self.runtime.tasks().remove(self.key),
        }
        drop((abort, admission, handle));
        reply_to
    }

    /// Cancels the call; see [`TaskState::cancel`].
    pub fn cancel(&self) -> State {
        let found = self.state();
        if found != State::Running {
            return found;
        }
        let state = self.state.cancel();
        if state == State::Cancelled {
            let abort = self.live.lock().abort.take();
            let reply_to = self.take_live();
            self.over.notify_waiters();
            if let Some(abort) = abort {
                abort.abort();
            }
            match reply_to {
                Some(ReplyTo::Loop(sink)) => sink.untie(),
                Some(ReplyTo::Stream(buffer)) => buffer.close(),
                Some(ReplyTo::Run(run)) => run.cancelled(),
                _ => {}
            }
        }
        state
    }

    /// The runtime stops: the call ends with `{error, shutdown}`. Called on a thread of ours.
    pub fn shut_down(&self) {
        self.end(Err(Reason::Shutdown));
    }

    /// Waits until the call is cancelled or has ended.
    pub async fn over(&self) {
        loop {
            let notified = self.over.notified();
            if self.state() != State::Running {
                return;
            }
            notified.await;
        }
    }

    /// Reports progress under the call's reference, or its callback id. `false`: it has none.
    pub fn report_progress(&self, done: u64, total: u64) -> bool {
        if on_scheduler() {
            return false;
        }
        with_scratch(|env| {
            let live = self.live.lock();
            let key = match &live.reply_to {
                Some(ReplyTo::Caller(envelope)) => {
                    live.handle.as_ref().unwrap_or(envelope).reference(env)
                }
                Some(ReplyTo::Loop(sink)) => match sink.callback_id() {
                    Some(id) => id.encode(env),
                    None => return false,
                },
                _ => return false,
            };
            drop(live);
            crate::progress::report_term(key, done, total);
            true
        })
    }

    /// Pushes an event to the loop that the call was submitted to.
    pub fn event(&self, data: crate::table::Data) -> bool {
        let sink = match &self.live.lock().reply_to {
            Some(ReplyTo::Loop(sink)) => sink.clone(),
            _ => return false,
        };
        sink.event(data)
    }
}

impl Possession for Task {
    fn owner_died(&self) {
        self.cancel();
    }

    fn library_stops(&self) {
        self.shut_down();
    }

    fn cancel_call(&self) -> Option<State> {
        Some(self.cancel())
    }
}

/// Publishes that an end was sent, even when the drop of what was sent panics.
struct SentGuard<'t>(&'t Task);

impl Drop for SentGuard<'_> {
    fn drop(&mut self) {
        self.0.state.sent();
        self.0.over.notify_waiters();
    }
}

/// Ends a call whose future is dropped before it ended: by a shutdown, as a cancel left `running`.
struct EndGuard(Arc<Task>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        if self.0.state() != State::Running {
            return;
        }
        let task = Arc::clone(&self.0);
        if on_scheduler() {
            // A send from here would need the environment of a call that is not ours.
            owners::on_janitor(move || task.shut_down());
        } else {
            task.shut_down();
        }
    }
}

/// Runs a future within its operation's bound; a panic is its reply.
pub async fn run_limited(entry: &'static Entry, future: ReplyFuture) -> Reply {
    let _permit = match &entry.limit {
        Some(limit) => limit.acquire().await.ok(),
        None => None,
    };
    AssertUnwindSafe(future)
        .catch_unwind()
        .await
        .unwrap_or_else(|panic| Err(Reason::of_panic(panic.as_ref())))
}

/// Runs a closure on a thread that may block, within its operation's bound and the runtime's.
pub async fn run_blocking(
    runtime: &Runtime,
    entry: &'static Entry,
    run: Box<dyn FnOnce() -> Reply + Send>,
) -> Reply {
    let limit = match &entry.limit {
        Some(limit) => Arc::clone(limit).acquire_owned().await.ok(),
        None => None,
    };
    let place = Arc::clone(&runtime.blocking).acquire_owned().await.ok();
    let running = threads::spawn_blocking(move || {
        // A call that runs keeps its places until it returns, whoever still waits for it.
        let _places = (limit, place);
        run()
    });
    let running = match running {
        Ok(running) => running,
        Err(error) => return Err(error.reason()),
    };
    match running.await {
        Ok(Some(reply)) => reply,
        Ok(None) => Err(Reason::Shutdown),
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => Err(Reason::of_panic(panic.as_ref())),
            Err(_) => Err(Reason::Shutdown),
        },
    }
}
