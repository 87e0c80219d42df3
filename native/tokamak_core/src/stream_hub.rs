// SPDX-License-Identifier: Apache-2.0
//! Streams that come and go at run time, merged into one.

use futures_core::Stream;
use futures_util::StreamExt;
use futures_util::stream::{AbortHandle, Abortable, SelectAll, abortable};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

type Member<T> = Abortable<Pin<Box<dyn Stream<Item = T> + Send>>>;

/// Adds streams to a merged one, from any thread. Clones are handles of the same hub.
///
/// ```
/// use futures_util::{StreamExt, stream};
/// use tokamak_core::stream_hub::StreamHub;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let (hub, merged) = StreamHub::new();
/// hub.add(stream::iter([1, 2])).expect("the merged stream is there");
/// hub.add(stream::iter([3])).expect("the merged stream is there");
/// drop(hub);
/// let mut items: Vec<u32> = merged.collect().await;
/// items.sort();
/// assert_eq!(items, [1, 2, 3]);
/// # }
/// ```
pub struct StreamHub<T> {
    members: UnboundedSender<Member<T>>,
}

impl<T> Clone for StreamHub<T> {
    fn clone(&self) -> Self {
        Self {
            members: self.members.clone(),
        }
    }
}

impl<T> StreamHub<T> {
    /// A hub and what its streams are merged into.
    pub fn new() -> (Self, Merged<T>) {
        let (members, added) = unbounded_channel();
        let merged = Merged {
            added,
            members: SelectAll::new(),
        };
        (Self { members }, merged)
    }

    /// Adds a stream. It leaves when it ends, or when its [`Membership`] is ended.
    ///
    /// # Errors
    /// [`Closed`], when nobody has the merged stream any more.
    pub fn add<S>(&self, stream: S) -> Result<Membership, Closed>
    where
        S: Stream<Item = T> + Send + 'static,
    {
        let (member, handle) = abortable(stream.boxed());
        self.members.send(member).map_err(|_| Closed)?;
        Ok(Membership(handle))
    }
}

/// A stream's place in a hub. Dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct Membership(AbortHandle);

impl Membership {
    /// Takes the stream out: it gives no item any more, and is dropped when the merged stream is polled next.
    pub fn end(&self) {
        self.0.abort();
    }
}

/// The merged stream is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the merged stream is gone")
    }
}

impl std::error::Error for Closed {}

/// The items of all streams of a [`StreamHub`]: those of one stream in their order, and no stream keeps another
/// from its turn.
///
/// It sleeps while there is no stream, and ends when the last handle of its hub was dropped and the streams that it
/// has have ended.
#[must_use = "streams do nothing unless polled"]
pub struct Merged<T> {
    added: UnboundedReceiver<Member<T>>,
    members: SelectAll<Member<T>>,
}

impl<T> Stream for Merged<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let no_handle_is_left = loop {
            match self.added.poll_recv(context) {
                Poll::Ready(Some(member)) => self.members.push(member),
                Poll::Ready(None) => break true,
                Poll::Pending => break false,
            }
        };
        match self.members.poll_next_unpin(context) {
            // There is no stream now: the next one that is added wakes.
            Poll::Ready(None) if !no_handle_is_left => Poll::Pending,
            polled => polled,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use futures_util::{FutureExt, stream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn now<T>(merged: &mut Merged<T>) -> Option<Option<T>> {
        merged.next().now_or_never()
    }

    #[test]
    fn it_sleeps_while_it_is_empty_and_a_stream_that_is_added_wakes_it() {
        let (hub, mut merged) = StreamHub::new();
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut context = Context::from_waker(&waker);
        for _ in 0..10 {
            assert!(merged.poll_next_unpin(&mut context).is_pending());
        }
        assert_eq!(wakes.0.load(Ordering::SeqCst), 0);
        hub.add(stream::iter([7])).unwrap();
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
        assert_eq!(merged.poll_next_unpin(&mut context), Poll::Ready(Some(7)));
        assert!(merged.poll_next_unpin(&mut context).is_pending());
    }

    #[test]
    fn it_ends_with_its_last_handle_and_not_before_its_streams() {
        let (hub, mut merged) = StreamHub::new();
        let other = hub.clone();
        drop(hub);
        assert_eq!(now(&mut merged), None);
        other.add(stream::iter([1, 2])).unwrap();
        drop(other);
        assert_eq!(now(&mut merged), Some(Some(1)));
        assert_eq!(now(&mut merged), Some(Some(2)));
        assert_eq!(now(&mut merged), Some(None));
        assert_eq!(now(&mut merged), Some(None));
    }

    #[test]
    fn a_stream_that_is_taken_out_gives_nothing_more_and_is_dropped() {
        let (hub, mut merged) = StreamHub::new();
        let held = Arc::new(());
        let in_stream = Arc::clone(&held);
        let membership = hub
            .add(stream::repeat_with(move || Arc::strong_count(&in_stream)))
            .unwrap();
        assert_eq!(now(&mut merged), Some(Some(2)));
        membership.end();
        assert_eq!(now(&mut merged), None);
        assert_eq!(Arc::strong_count(&held), 1);
        hub.add(stream::iter([0])).unwrap();
        assert_eq!(now(&mut merged), Some(Some(0)));
    }

    #[test]
    fn a_stream_without_end_does_not_hide_another() {
        let (hub, mut merged) = StreamHub::new();
        hub.add(stream::repeat(1)).unwrap();
        hub.add(stream::iter([2])).unwrap();
        let taken: Vec<_> = (0..100)
            .filter_map(|_| now(&mut merged).flatten())
            .collect();
        assert_eq!(taken.len(), 100);
        assert!(taken.contains(&2));
    }

    #[test]
    fn nothing_is_added_to_a_merged_stream_that_is_gone() {
        let (hub, merged) = StreamHub::new();
        drop(merged);
        assert_eq!(hub.add(stream::iter([1])).err(), Some(Closed));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn streams_that_come_from_many_tasks_lose_no_item_and_keep_their_order() {
        let (hub, merged) = StreamHub::new();
        for task in 0..100_usize {
            let hub = hub.clone();
            tokio::spawn(async move {
                hub.add(stream::iter((0..100).map(move |item| (task, item))))
                    .unwrap();
            });
        }
        drop(hub);
        let items: Vec<(usize, usize)> = merged.collect().await;
        for task in 0..100 {
            let of_task: Vec<_> = items.iter().filter(|(of, _)| *of == task).collect();
            assert!(of_task.iter().map(|(_, item)| *item).eq(0..100));
        }
    }
}
