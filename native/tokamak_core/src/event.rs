// SPDX-License-Identifier: Apache-2.0
//! Events and their types.

/// What an event tells, with the code that foreign runtimes see. Codes never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EventType {
    /// A descriptor can be read.
    Read = 1,
    /// A descriptor can be written.
    Write = 2,
    /// A timer fired.
    Timer = 3,
    /// A foreign runtime's synchronous call returned.
    CallResult = 10,
    /// A foreign runtime's synchronous call failed.
    CallError = 11,
    /// A submitted operation returned.
    AsyncResult = 12,
    /// A submitted operation failed.
    AsyncError = 13,
    /// A subprocess ended.
    SubprocessExit = 20,
    /// A subprocess wrote to its standard output.
    SubprocessStdout = 21,
    /// A subprocess wrote to its standard error.
    SubprocessStderr = 22,
    /// An adopted socket received data.
    SocketData = 30,
    /// An adopted socket was closed.
    SocketClosed = 31,
    /// An adopted socket failed.
    SocketError = 32,
    /// Whatever a program wants to tell itself.
    User = 40,
}

impl EventType {
    /// Every event type, by increasing code.
    pub const ALL: [Self; 14] = [
        Self::Read,
        Self::Write,
        Self::Timer,
        Self::CallResult,
        Self::CallError,
        Self::AsyncResult,
        Self::AsyncError,
        Self::SubprocessExit,
        Self::SubprocessStdout,
        Self::SubprocessStderr,
        Self::SocketData,
        Self::SocketClosed,
        Self::SocketError,
        Self::User,
    ];

    /// The stable code.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The type with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// One event: for whom, of which type, with what. The payload stays a Rust value until a consumer
/// takes the event.
#[derive(Debug)]
pub struct Event<P> {
    /// The callback id the event belongs to.
    pub callback_id: u64,
    /// What happened.
    pub kind: EventType,
    /// The data that comes with it.
    pub payload: P,
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::EventType;

    #[test]
    fn every_type_is_found_by_its_code_and_no_other_code_is_known() {
        for code in 0..=u8::MAX {
            match EventType::from_code(code) {
                Some(kind) => assert_eq!(kind.code(), code),
                None => assert!(EventType::ALL.iter().all(|kind| kind.code() != code)),
            }
        }
    }
}
