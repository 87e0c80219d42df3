// SPDX-License-Identifier: Apache-2.0
//! The state machine of a call: exactly one end, and nothing after it.
//!
//! ```text
//!            begin_send            sent
//!   running ------------> sending ------> sent
//!      |
//!      | cancel
//!      +----------> cancelled
//! ```
//!
//! The race it handles: a result comes while its caller cancels. Both leave `running` by one
//! compare-and-swap, so one of them wins. A cancel that wins means that nothing is ever sent. A cancel
//! that finds `sending` has to receive the message, which is certain to come. `sent` is published only
//! after the send returned, so a cancel that finds it knows that the message is in the mailbox, unless
//! its caller took it out already.

use crate::sync::{AtomicU8, Ordering};

const RUNNING: u8 = 0;
const SENDING: u8 = 1;
const SENT: u8 = 2;
const CANCELLED: u8 = 3;

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No end yet.
    Running,
    /// Its end is being sent.
    Sending,
    /// Its end was sent.
    Sent,
    /// It was cancelled: nothing is sent.
    Cancelled,
}

/// The state of one call.
#[derive(Debug)]
pub struct TaskState {
    state: AtomicU8,
}

impl TaskState {
    /// A call that runs.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: AtomicU8::new(RUNNING),
        }
    }

    /// Claims the right to send the end: `false` when it was claimed before, or the call cancelled.
    #[must_use]
    pub fn begin_send(&self) -> bool {
        self.leave_running(SENDING).is_ok()
    }

    /// The end was sent; for whoever claimed it, after the send returned.
    pub fn sent(&self) {
        self.state.store(SENT, Ordering::Release);
    }

    /// Cancels a call that runs. Returns where it stands now: `Cancelled` means that nothing comes.
    pub fn cancel(&self) -> State {
        match self.leave_running(CANCELLED) {
            Ok(()) => State::Cancelled,
            Err(found) => found,
        }
    }

    /// Where the call stands.
    pub fn get(&self) -> State {
        to_state(self.state.load(Ordering::Acquire))
    }

    fn leave_running(&self, next: u8) -> Result<(), State> {
        self.state
            .compare_exchange(RUNNING, next, Ordering::AcqRel, Ordering::Acquire)
            .map(drop)
            .map_err(to_state)
    }
}

impl Default for TaskState {
    fn default() -> Self {
        Self::new()
    }
}

fn to_state(state: u8) -> State {
    match state {
        RUNNING => State::Running,
        SENDING => State::Sending,
        SENT => State::Sent,
        _ => State::Cancelled,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{State, TaskState};

    #[test]
    fn a_call_ends_once() {
        let state = TaskState::new();
        assert!(state.begin_send());
        assert!(!state.begin_send());
        assert_eq!(state.cancel(), State::Sending);
        state.sent();
        assert_eq!(state.cancel(), State::Sent);
    }

    #[test]
    fn nothing_is_sent_after_a_cancel() {
        let state = TaskState::new();
        assert_eq!(state.cancel(), State::Cancelled);
        assert!(!state.begin_send());
        assert_eq!(state.cancel(), State::Cancelled);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::{State, TaskState};
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicUsize, Ordering};
    use loom::thread;

    /// A worker, a shutdown and a caller that cancels race for the end of a call.
    #[test]
    fn loom_a_call_has_exactly_one_end_and_a_cancel_knows_which() {
        loom::model(|| {
            let state = Arc::new(TaskState::new());
            let mailbox = Arc::new(AtomicUsize::new(0));
            let senders: Vec<_> = (0..2)
                .map(|_| {
                    let (state, mailbox) = (Arc::clone(&state), Arc::clone(&mailbox));
                    thread::spawn(move || {
                        if state.begin_send() {
                            mailbox.fetch_add(1, Ordering::Relaxed);
                            state.sent();
                        }
                    })
                })
                .collect();
            let found = state.cancel();
            if found == State::Sent {
                assert_eq!(mailbox.load(Ordering::Relaxed), 1, "sent means sent");
            }
            for sender in senders {
                sender.join().unwrap();
            }
            let messages = mailbox.load(Ordering::Relaxed);
            match found {
                State::Cancelled => assert_eq!(messages, 0),
                State::Sending | State::Sent => assert_eq!(messages, 1),
                State::Running => unreachable!("a cancel leaves nothing running"),
            }
        });
    }
}
