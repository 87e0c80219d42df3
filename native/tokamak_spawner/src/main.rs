// SPDX-License-Identifier: Apache-2.0
//! The helper program that forks, owns and reaps the subprocesses of a VM.
//!
//! It has one thread and one loop, which waits for requests on its socket, for SIGCHLD, and for the
//! next kill timeout. It takes no arguments and leaves nothing on disk.

#[cfg(target_os = "linux")]
mod server;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    server::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("tokamak_spawner: subprocesses need Linux");
    std::process::ExitCode::FAILURE
}
