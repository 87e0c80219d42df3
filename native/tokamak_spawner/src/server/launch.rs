// SPDX-License-Identifier: Apache-2.0
//! From a request to a running child.

use std::ffi::CString;

use rustix::io::{Errno, Result};
use rustix::process::Pid;

use tokamak_spawner::lineage::Lineage;
use tokamak_spawner::protocol::StartRequest;

use super::environment::{Environments, path_of};
use super::exec::{self, Program, Stack};
use super::stdio::{OwnerEnds, Stdio};
use super::time_slice::TimeSlice;

/// Starts children.
pub(super) struct Launcher {
    pub environments: Environments,
    /// That of the children, where ours is another.
    time_slice: Option<TimeSlice>,
    stack: Stack,
}

impl Launcher {
    pub(super) fn new() -> Self {
        Self {
            environments: Environments::new(),
            time_slice: TimeSlice::shorten(),
            stack: Stack::new(),
        }
    }

    /// Starts a child.
    ///
    /// # Errors
    /// That of the step that failed. Then nothing is left of it.
    pub(super) fn launch(
        &mut self,
        start: &StartRequest,
        lineage: Option<Lineage>,
    ) -> Result<(Pid, OwnerEnds)> {
        let environment = self.environments.of(start)?;
        let name = start.argv.first().ok_or(Errno::INVAL)?;
        let search = !name.contains(&b'/');
        let candidates = if search {
            places(name, path_of(&environment))?
        } else {
            vec![c_string(name)?]
        };
        let arguments = start
            .argv
            .iter()
            .map(|argument| c_string(argument))
            .collect::<Result<_>>()?;
        let directory = start.directory.as_deref().map(c_string).transpose()?;
        let stdio = Stdio::new(start)?;
        let program = Program {
            candidates,
            search,
            arguments,
            environment,
            directory,
            stdio: stdio.child(),
            lineage,
            time_slice: self.time_slice,
        };
        let pid = exec::run(&program, &mut self.stack)?;
        Ok((pid, stdio.into_owner()))
    }
}

/// The paths a program of this name may have. An empty part of PATH is the working directory.
fn places(name: &[u8], path: &[u8]) -> Result<Vec<CString>> {
    if name.is_empty() {
        return Err(Errno::NOENT);
    }
    path.split(|&byte| byte == b':')
        .map(|part| match part {
            b"" => c_string(name),
            part => c_string(&[part, b"/", name].concat()),
        })
        .collect()
}

/// A string without its end marker inside; no system call takes one with it.
pub(super) fn c_string(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_looked_for_in_every_part_of_the_path() {
        let places = places(b"ls", b"/bin::bin/").unwrap();
        assert_eq!(
            places,
            [c"/bin/ls".into(), c"ls".into(), CString::from(c"bin//ls")]
        );
    }
}
