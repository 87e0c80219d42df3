// SPDX-License-Identifier: Apache-2.0
//! From a request to a running child.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;

use rustix::io::{Errno, Result};
use rustix::process::Pid;

use tokamak_spawner::lineage::Lineage;
use tokamak_spawner::protocol::{EnvironmentChange, StartRequest};

use super::exec::{self, Program, Stack};
use super::stdio::{OwnerEnds, Stdio};
use super::time_slice::TimeSlice;

/// What `execvp` searches when there is no PATH.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// Starts children.
pub(super) struct Launcher {
    /// The spawner's own environment, which does not change.
    environment: Vec<CString>,
    /// That of the children, where ours is another.
    time_slice: Option<TimeSlice>,
    stack: Stack,
}

impl Launcher {
    pub(super) fn new() -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| variable(&name.into_vec(), &value.into_vec()).ok())
            .collect();
        Self {
            environment,
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
        let environment = environment(&self.environment, start)?;
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

/// The child's environment: `base` or nothing, and then the changes in order.
fn environment<'a>(base: &'a [CString], start: &StartRequest) -> Result<Cow<'a, [CString]>> {
    if start.environment.is_empty() && !start.clear_environment {
        return Ok(Cow::Borrowed(base));
    }
    let base = if start.clear_environment { &[] } else { base };
    let mut variables: BTreeMap<&[u8], Cow<'_, [u8]>> =
        base.iter().map(|entry| split(entry.to_bytes())).collect();
    for EnvironmentChange { name, value } in &start.environment {
        if name.is_empty() || name.contains(&b'=') {
            return Err(Errno::INVAL);
        }
        match value {
            Some(value) => variables.insert(name, Cow::Borrowed(value)),
            None => variables.remove(name.as_slice()),
        };
    }
    variables
        .into_iter()
        .map(|(name, value)| variable(name, &value))
        .collect()
}

fn split(entry: &[u8]) -> (&[u8], Cow<'_, [u8]>) {
    let end = entry
        .iter()
        .position(|&byte| byte == b'=')
        .unwrap_or(entry.len());
    (
        &entry[..end],
        Cow::Borrowed(entry.get(end + 1..).unwrap_or_default()),
    )
}

fn variable(name: &[u8], value: &[u8]) -> Result<CString> {
    c_string(&[name, b"=", value].concat())
}

fn path_of(environment: &[CString]) -> &[u8] {
    environment
        .iter()
        .find_map(|entry| entry.to_bytes().strip_prefix(b"PATH="))
        .unwrap_or(DEFAULT_PATH)
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
fn c_string(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(
        base: &[&str],
        clear: bool,
        changes: &[(&str, Option<&str>)],
    ) -> Result<Vec<String>> {
        let base: Vec<_> = base
            .iter()
            .map(|entry| CString::new(*entry).unwrap())
            .collect();
        let mut start = StartRequest::new(1, vec![b"true".to_vec()]);
        start.clear_environment = clear;
        start.environment = changes
            .iter()
            .map(|(name, value)| EnvironmentChange {
                name: name.as_bytes().to_vec(),
                value: value.map(|value| value.as_bytes().to_vec()),
            })
            .collect();
        let result = environment(&base, &start)?;
        Ok(result
            .iter()
            .map(|entry| entry.to_str().unwrap().to_owned())
            .collect())
    }

    #[test]
    fn the_environment_is_passed_on_unchanged() {
        assert_eq!(
            changed(&["B=2", "A=1=1"], false, &[]).unwrap(),
            ["B=2", "A=1=1"]
        );
    }

    #[test]
    fn a_later_change_of_a_variable_wins() {
        let changes = [
            ("A", Some("2")),
            ("A", Some("3")),
            ("C", Some("")),
            ("B", None),
        ];
        assert_eq!(
            changed(&["A=1", "B=1"], false, &changes).unwrap(),
            ["A=3", "C="]
        );
    }

    #[test]
    fn a_cleared_environment_holds_the_changes_alone() {
        assert_eq!(
            changed(&["A=1"], true, &[("B", Some("="))]).unwrap(),
            ["B=="]
        );
    }

    #[test]
    fn a_name_that_no_environment_can_hold_is_refused() {
        for name in ["", "A=B", "A\0"] {
            assert_eq!(changed(&[], false, &[(name, Some("1"))]), Err(Errno::INVAL));
        }
    }

    #[test]
    fn a_program_is_looked_for_in_every_part_of_the_path() {
        let places = places(b"ls", b"/bin::bin/").unwrap();
        assert_eq!(
            places,
            [c"/bin/ls".into(), c"ls".into(), CString::from(c"bin//ls")]
        );
    }

    #[test]
    fn without_a_path_the_default_is_searched() {
        assert_eq!(path_of(&[c"XPATH=/x".into()]), DEFAULT_PATH);
        assert_eq!(path_of(&[c"PATH=/x".into()]), b"/x");
    }
}
