// SPDX-License-Identifier: Apache-2.0
//! Streams: items on credit from an operation to the process that opened it, and back.
//!
//! A stream's buffer holds up to `window` items; a producer that fills it waits. Its consumer takes items
//! out by `next`, encoded straight into its own environment, and is sent one message only when it waits
//! for an item. A duplex operation has a bounded inbox, too, whose pusher waits in the same way.

use crate::atoms;
use crate::environment::{SavedTerm, send_anywhere};
use crate::list;
use crate::operation::BadArgument;
use crate::reply::{Encode, Reason, Reply};
use crate::runtime;
use parking_lot::Mutex;
use rustler::{Decoder, Encoder, LocalPid, Term};
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};

/// A process that waits for one message.
pub struct Waiter {
    /// The process.
    pub pid: LocalPid,
    /// The reference it waits for.
    pub reference: SavedTerm,
}

impl Waiter {
    /// Sends `{tokamak, Ref, ready}`.
    fn wake(self) {
        send_anywhere(self.pid, move |env| {
            (atoms::tokamak(), self.reference.load(env), atoms::ready()).encode(env)
        });
    }
}

/// What a consumer finds.
pub enum Next {
    /// An item.
    Item(Box<dyn Encode>),
    /// The end.
    Done,
    /// The end, by an error.
    Failed(Reason),
    /// The end was taken before.
    Closed,
    /// Nothing yet.
    Waiting,
}

enum End {
    Open,
    Done,
    Failed(Reason),
    Taken,
}

struct State {
    items: VecDeque<Box<dyn Encode>>,
    end: End,
    waiter: Option<Waiter>,
}

/// The buffer between a producer and its consumer.
pub struct Buffer {
    window: usize,
    /// Items are dropped within the runtime that made them.
    runtime: Handle,
    state: Mutex<State>,
    /// Tells a producer that there is room, and all of them that nobody takes any more.
    room: Notify,
}

impl Buffer {
    /// A buffer of up to `window` items.
    pub fn new(window: usize, runtime: Handle) -> Arc<Self> {
        Arc::new(Self {
            window,
            runtime,
            state: Mutex::new(State {
                items: VecDeque::new(),
                end: End::Open,
                waiter: None,
            }),
            room: Notify::new(),
        })
    }

    /// Puts an item in, waiting for room. `false`: the stream has ended.
    pub async fn put(&self, item: Box<dyn Encode>) -> bool {
        let mut item = Some(item);
        loop {
            let room = self.room.notified();
            match self.try_put(&mut item) {
                Some(put) => return put,
                None => room.await,
            }
        }
    }

    /// Waits for room: a producer that has no item in its hands is never ahead by more than the window.
    /// `false`: the stream has ended.
    pub async fn has_room(&self) -> bool {
        loop {
            let room = self.room.notified();
            {
                let state = self.state.lock();
                if !matches!(state.end, End::Open) {
                    return false;
                }
                if state.items.len() < self.window {
                    return true;
                }
            }
            room.await;
        }
    }

    fn try_put(&self, item: &mut Option<Box<dyn Encode>>) -> Option<bool> {
        let mut state = self.state.lock();
        if !matches!(state.end, End::Open) {
            return Some(false);
        }
        if state.items.len() >= self.window {
            return None;
        }
        state.items.extend(item.take());
        let waiter = state.waiter.take();
        drop(state);
        if let Some(waiter) = waiter {
            waiter.wake();
        }
        Some(true)
    }

    /// Takes the next item, or the end; with a waiter, that is woken when there is something.
    pub fn next(&self, waiter: Option<Waiter>) -> Next {
        let mut state = self.state.lock();
        state.waiter = None;
        if let Some(item) = state.items.pop_front() {
            // The producer is let in when half of its window is free: fewer switches between the two.
            let refill = state.items.len() <= self.window / 2;
            drop(state);
            if refill {
                self.room.notify_one();
            }
            return Next::Item(item);
        }
        match std::mem::replace(&mut state.end, End::Taken) {
            End::Open => {
                state.end = End::Open;
                state.waiter = waiter;
                Next::Waiting
            }
            End::Done => Next::Done,
            End::Failed(reason) => Next::Failed(reason),
            End::Taken => Next::Closed,
        }
    }

    /// The consumer waits no more. `false`: its wake is on its way.
    pub fn stop_waiting(&self) -> bool {
        self.state.lock().waiter.take().is_some()
    }

    /// The producer has ended. What is in the buffer can still be taken.
    pub fn end(&self, reply: Reply) {
        let mut state = self.state.lock();
        if matches!(state.end, End::Open) {
            state.end = match reply {
                Ok(_) => End::Done,
                Err(reason) => End::Failed(reason),
            };
        }
        let waiter = state.waiter.take();
        drop(state);
        self.room.notify_waiters();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    /// Whether the consumer closed it or took its end. A producer that was cancelled may not have noticed yet.
    pub fn is_over(&self) -> bool {
        matches!(self.state.lock().end, End::Taken)
    }

    /// The consumer takes no more.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.end = End::Taken;
        let items = std::mem::take(&mut state.items);
        let waiter = state.waiter.take();
        drop(state);
        drop(waiter);
        self.room.notify_waiters();
        runtime::discard(&self.runtime, items);
    }

    /// Drops an item that was taken out.
    pub fn discard(&self, item: Box<dyn Encode>) {
        runtime::discard(&self.runtime, [item]);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let items = std::mem::take(&mut self.state.get_mut().items);
        if !items.is_empty() {
            runtime::discard(&self.runtime, items);
        }
    }
}

/// The consumer of a stream or duplex operation is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed by its consumer")
    }
}

impl std::error::Error for Closed {}

/// Where a duplex operation's items go, before their type is known.
#[derive(Clone)]
pub struct OutputPort(Arc<Buffer>);

impl OutputPort {
    pub(crate) fn new(buffer: Arc<Buffer>) -> Self {
        Self(buffer)
    }

    /// The outbox of items of one type.
    pub fn outbox<T: Encoder + Send + 'static>(&self) -> Outbox<T> {
        Outbox {
            buffer: Arc::clone(&self.0),
            of: PhantomData,
        }
    }
}

/// The output of a duplex operation: what `tokamak:next/1,2` takes.
///
/// ```no_run
/// use tokamak::{Inbox, Outbox};
///
/// /// Gives the sum so far for each number that it takes.
/// #[tokamak::op(duplex)]
/// async fn sums(mut input: Inbox<i64>, output: Outbox<i64>, start: i64) {
///     let mut sum = start;
///     while let Some(number) = input.recv().await {
///         sum += number;
///         if output.send(sum).await.is_err() {
///             break;
///         }
///     }
/// }
/// ```
pub struct Outbox<T> {
    buffer: Arc<Buffer>,
    of: PhantomData<fn(T)>,
}

impl<T: Encoder + Send + 'static> Outbox<T> {
    /// Sends an item, waiting while the consumer's window is full.
    ///
    /// # Errors
    /// [`Closed`], when the consumer takes no more.
    pub async fn send(&self, item: T) -> Result<(), Closed> {
        match self.buffer.put(Box::new(item)).await {
            true => Ok(()),
            false => Err(Closed),
        }
    }
}

/// What a push did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// The item is in the inbox.
    Done,
    /// The item is in the inbox, and the waiter's wake is on its way.
    Woken,
    /// The inbox is full.
    Full,
    /// The operation has ended.
    Closed,
}

/// The input of a duplex operation, before its type is known.
pub trait InputPort: Send + Sync {
    /// Decodes an item and puts it into the inbox; with a waiter, that is woken when there is room.
    ///
    /// # Errors
    /// [`BadArgument`], when the term is of another type.
    fn push(&self, item: Term, waiter: Option<Waiter>) -> Result<Pushed, BadArgument>;

    /// The pusher waits no more. `false`: its wake is on its way.
    fn stop_waiting(&self) -> bool;
}

struct Input<T> {
    sender: mpsc::Sender<T>,
    waiter: Arc<Mutex<Option<Waiter>>>,
    expected: &'static str,
}

impl<T> InputPort for Input<T>
where
    T: for<'a> Decoder<'a> + Send + 'static,
{
    fn push(&self, item: Term, waiter: Option<Waiter>) -> Result<Pushed, BadArgument> {
        *self.waiter.lock() = None;
        let wrong = |_| BadArgument {
            index: 1,
            expected: self.expected,
        };
        let item: T = list::decode_within(item).map_err(wrong)?;
        let item = match self.sender.try_send(item) {
            Ok(()) => return Ok(Pushed::Done),
            Err(mpsc::error::TrySendError::Closed(_)) => return Ok(Pushed::Closed),
            Err(mpsc::error::TrySendError::Full(item)) => item,
        };
        if waiter.is_none() {
            return Ok(Pushed::Full);
        }
        *self.waiter.lock() = waiter;
        // Room may have come before the waiter was there to be told.
        let pushed = match self.sender.try_send(item) {
            Ok(()) => Pushed::Done,
            Err(mpsc::error::TrySendError::Closed(_)) => Pushed::Closed,
            Err(mpsc::error::TrySendError::Full(_)) => return Ok(Pushed::Full),
        };
        match self.stop_waiting() {
            true => Ok(pushed),
            // It was told meanwhile: it comes back.
            false if pushed == Pushed::Closed => Ok(Pushed::Full),
            false => Ok(Pushed::Woken),
        }
    }

    fn stop_waiting(&self) -> bool {
        self.waiter.lock().take().is_some()
    }
}

/// The input of a duplex operation: what `tokamak:push/2,3` gives. [`Outbox`] has an example.
pub struct Inbox<T> {
    receiver: mpsc::Receiver<T>,
    waiter: Arc<Mutex<Option<Waiter>>>,
}

impl<T> Inbox<T>
where
    T: for<'a> Decoder<'a> + Send + 'static,
{
    /// An inbox of up to `size` items and its port. Used by the macros.
    #[doc(hidden)]
    pub fn new(size: usize, expected: &'static str) -> (Self, Arc<dyn InputPort>) {
        let (sender, receiver) = mpsc::channel(size);
        let waiter = Arc::new(Mutex::new(None));
        let input = Input {
            sender,
            waiter: Arc::clone(&waiter),
            expected,
        };
        (Self { receiver, waiter }, Arc::new(input))
    }
}

impl<T> Inbox<T> {
    /// Takes the next item; `None` when nobody can push any more.
    pub async fn recv(&mut self) -> Option<T> {
        let item = self.receiver.recv().await;
        self.wake();
        item
    }

    fn wake(&self) {
        let waiter = self.waiter.lock().take();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        self.receiver.close();
        self.wake();
    }
}
