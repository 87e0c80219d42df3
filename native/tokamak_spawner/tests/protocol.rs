// SPDX-License-Identifier: Apache-2.0
//! Messages survive the way through bytes, and bytes that are no message are refused.
#![cfg(target_os = "linux")]

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use tokamak_spawner::protocol::{
    Base, EnvironmentChange, ExitStatus, HEAD, Input, Output, Reply, Request, StartRequest,
    Streams, Subject,
};

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..40)
}

fn output() -> impl Strategy<Value = Output> {
    prop_oneof![
        Just(Output::Null),
        Just(Output::Stream),
        Just(Output::Merge),
        bytes().prop_map(Output::File),
    ]
}

fn change() -> impl Strategy<Value = EnvironmentChange> {
    (bytes(), option::of(bytes())).prop_map(|(name, value)| EnvironmentChange { name, value })
}

fn base() -> impl Strategy<Value = Base> {
    prop_oneof![
        Just(Base::Spawner),
        Just(Base::Empty),
        any::<u64>().prop_map(Base::Kept),
    ]
}

prop_compose! {
    fn start()(
        id: u64,
        argv in vec(bytes(), 0..8),
        environment in vec(change(), 0..8),
        base in base(),
        directory in option::of(bytes()),
        pipe: bool,
        stdout in output(),
        stderr in output(),
        kill_timeout: u32,
    ) -> StartRequest {
        let stdin = if pipe { Input::Pipe } else { Input::Null };
        StartRequest {
            id, argv, base, environment, directory, stdin, stdout, stderr, kill_timeout,
        }
    }
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        start().prop_map(Request::Start),
        any::<(u64, i32, bool)>().prop_map(|(id, signal, group)| Request::Signal {
            id,
            signal,
            group
        }),
        any::<(u64, u32)>().prop_map(|(id, kill_timeout)| Request::Stop { id, kill_timeout }),
        any::<u64>().prop_map(|id| Request::Release { id }),
        (any::<u64>(), vec(bytes(), 0..8))
            .prop_map(|(id, variables)| Request::Environment { id, variables }),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    let status = prop_oneof![
        any::<u8>().prop_map(ExitStatus::Code),
        any::<u8>().prop_map(ExitStatus::Signal),
    ];
    let streams = any::<(bool, bool, bool)>().prop_map(|(stdin, stdout, stderr)| Streams {
        stdin,
        stdout,
        stderr,
    });
    prop_oneof![
        any::<(u32, u32)>().prop_map(|(version, family)| Reply::Hello { version, family }),
        (any::<u64>(), any::<u32>(), streams).prop_map(|(id, pid, streams)| Reply::Started {
            id,
            pid,
            streams
        }),
        any::<(u64, i32)>().prop_map(|(id, errno)| Reply::StartFailed { id, errno }),
        (any::<u64>(), status, any::<bool>()).prop_map(|(id, status, all_gone)| Reply::Exited {
            id,
            status,
            all_gone
        }),
        any::<u64>().prop_map(|id| Reply::Gone { id }),
    ]
}

proptest! {
    #[test]
    fn a_request_is_read_as_it_was_written(request in request()) {
        prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
    }

    #[test]
    fn the_head_of_a_request_tells_what_it_is_about(request in request()) {
        let subject = match request {
            Request::Environment { id, .. } => Subject::Environment(id),
            _ => Subject::Child(request.id()),
        };
        prop_assert_eq!(Request::subject(&request.encode()[..HEAD]), Ok(subject));
    }

    #[test]
    fn a_reply_is_read_as_it_was_written(reply in reply()) {
        prop_assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
    }

    #[test]
    fn a_part_of_a_message_is_no_message(request in request(), reply in reply(), part: prop::sample::Index) {
        let (request, reply) = (request.encode(), reply.encode());
        prop_assert!(Request::decode(&request[..part.index(request.len())]).is_err());
        prop_assert!(Reply::decode(&reply[..part.index(reply.len())]).is_err());
    }

    #[test]
    fn a_message_with_more_behind_it_is_no_message(request in request(), reply in reply(), more: u8) {
        let (mut request, mut reply) = (request.encode(), reply.encode());
        request.push(more);
        reply.push(more);
        prop_assert!(Request::decode(&request).is_err());
        prop_assert!(Reply::decode(&reply).is_err());
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(request) = Request::decode(&bytes) {
            prop_assert_eq!(request.encode(), bytes.clone());
        }
        if let Ok(reply) = Reply::decode(&bytes) {
            prop_assert_eq!(reply.encode(), bytes);
        }
    }

    #[test]
    fn a_damaged_message_is_read_or_refused(request in request(), at: prop::sample::Index, byte: u8) {
        let mut bytes = request.encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(request) = Request::decode(&bytes) {
            prop_assert_eq!(request.encode(), bytes);
        }
    }
}

#[test]
fn a_count_beyond_the_message_reserves_no_memory() {
    let mut message = Request::Start(StartRequest::new(1, Vec::new())).encode();
    // The count of arguments follows the kind, the id and the kill timeout.
    message[13..17].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(Request::decode(&message).is_err());
}
