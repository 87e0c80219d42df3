// SPDX-License-Identifier: Apache-2.0
//! The spawner.

mod children;
mod ending;
mod environment;
mod event_loop;
mod exec;
mod launch;
mod outbox;
mod schedule;
mod service;
mod setup;
mod stdio;
mod time_slice;

use std::process::ExitCode;

use event_loop::EventLoop;

/// Serves the connection on stdin until it closes and all children are gone.
pub fn main() -> ExitCode {
    let socket = match setup::take_socket() {
        Ok(socket) => socket,
        Err(error) => {
            eprintln!("tokamak_spawner: started by tokamak only, with a socket as stdin: {error}");
            return ExitCode::FAILURE;
        }
    };
    match setup::isolate(&socket).and_then(|()| EventLoop::new(socket)?.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
