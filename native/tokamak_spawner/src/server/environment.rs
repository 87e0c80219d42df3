// SPDX-License-Identifier: Apache-2.0
//! The environments that children get: one that is here already, and the changes of a start.
//!
//! An environment seldom changes and has many variables. So the VM sends it once, and a start that changes
//! nothing takes the strings as they are.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;

use rustix::io::{Errno, Result};

use tokamak_spawner::protocol::{Base, EnvironmentChange, StartRequest};

use super::launch::c_string;

/// What `execvp` searches when there is no PATH.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// `NAME=value`, each.
type Variables = Vec<CString>;

/// What children's environments start from.
pub(super) struct Environments {
    /// The spawner's own, which does not change.
    own: Variables,
    /// What the VM sent last, or why that could not be read, and its id.
    kept: Option<(u64, Result<Variables>)>,
}

impl Environments {
    pub(super) fn new() -> Self {
        let own = std::env::vars_os()
            .filter_map(|(name, value)| variable(&name.into_vec(), &value.into_vec()).ok())
            .collect();
        Self { own, kept: None }
    }

    /// Keeps an environment in place of the one before.
    pub(super) fn keep(&mut self, id: u64, variables: &[Vec<u8>]) {
        let variables = variables.iter().map(|variable| c_string(variable));
        self.kept = Some((id, variables.collect()));
    }

    /// Notes that an environment, which was to replace the one before, could not be read.
    pub(super) fn could_not_read(&mut self, id: u64, error: Errno) {
        self.kept = Some((id, Err(error)));
    }

    /// The child's environment: its base, and then the changes in order.
    ///
    /// # Errors
    /// `INVAL` for what no environment can hold; when the base could not be read, that error, and `NOMEM` when it is not
    /// the latest.
    pub(super) fn of(&self, start: &StartRequest) -> Result<Cow<'_, [CString]>> {
        let base = self.base(start.base)?;
        if start.environment.is_empty() {
            return Ok(Cow::Borrowed(base));
        }
        changed(base, &start.environment).map(Cow::Owned)
    }

    fn base(&self, base: Base) -> Result<&[CString]> {
        let id = match base {
            Base::Spawner => return Ok(&self.own),
            Base::Empty => return Ok(&[]),
            Base::Kept(id) => id,
        };
        match &self.kept {
            Some((kept, variables)) if *kept == id => variables.as_deref().map_err(|error| *error),
            _ => Err(Errno::NOMEM),
        }
    }
}

/// PATH of an environment.
pub(super) fn path_of(environment: &[CString]) -> &[u8] {
    environment
        .iter()
        .find_map(|entry| entry.to_bytes().strip_prefix(b"PATH="))
        .unwrap_or(DEFAULT_PATH)
}

fn changed(base: &[CString], changes: &[EnvironmentChange]) -> Result<Variables> {
    let mut variables: BTreeMap<&[u8], Cow<'_, [u8]>> =
        base.iter().map(|entry| split(entry.to_bytes())).collect();
    for EnvironmentChange { name, value } in changes {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(strings: &[&str]) -> Vec<Vec<u8>> {
        strings
            .iter()
            .map(|string| string.as_bytes().to_vec())
            .collect()
    }

    fn start(base: Base, changes: &[(&str, Option<&str>)]) -> StartRequest {
        let mut start = StartRequest::new(1, bytes(&["true"]));
        start.base = base;
        start.environment = changes
            .iter()
            .map(|(name, value)| EnvironmentChange {
                name: name.as_bytes().to_vec(),
                value: value.map(|value| value.as_bytes().to_vec()),
            })
            .collect();
        start
    }

    /// The environment of a child where `kept` was kept as number 7.
    fn environment(
        kept: &[&str],
        base: Base,
        changes: &[(&str, Option<&str>)],
    ) -> Result<Vec<String>> {
        let mut environments = Environments::new();
        environments.keep(7, &bytes(kept));
        let start = start(base, changes);
        let result = environments.of(&start)?;
        Ok(result
            .iter()
            .map(|entry| entry.to_str().unwrap().to_owned())
            .collect())
    }

    #[test]
    fn an_environment_is_passed_on_unchanged() {
        let environment = environment(&["B=2", "A=1=1"], Base::Kept(7), &[]);
        assert_eq!(environment.unwrap(), ["B=2", "A=1=1"]);
    }

    #[test]
    fn a_later_change_of_a_variable_wins() {
        let changes = [
            ("A", Some("2")),
            ("A", Some("3")),
            ("C", Some("")),
            ("B", None),
        ];
        let environment = environment(&["A=1", "B=1"], Base::Kept(7), &changes);
        assert_eq!(environment.unwrap(), ["A=3", "C="]);
    }

    #[test]
    fn an_empty_environment_holds_the_changes_alone() {
        let environment = environment(&["A=1"], Base::Empty, &[("B", Some("="))]);
        assert_eq!(environment.unwrap(), ["B=="]);
    }

    #[test]
    fn a_name_that_no_environment_can_hold_is_refused() {
        for name in ["", "A=B", "A\0"] {
            let environment = environment(&[], Base::Empty, &[(name, Some("1"))]);
            assert_eq!(environment, Err(Errno::INVAL));
        }
        assert_eq!(
            environment(&["A=\0"], Base::Kept(7), &[]),
            Err(Errno::INVAL)
        );
    }

    #[test]
    fn the_latest_environment_is_kept_and_no_other() {
        let mut environments = Environments::new();
        environments.keep(1, &bytes(&["A=1"]));
        environments.keep(2, &bytes(&["A=2"]));
        let latest = start(Base::Kept(2), &[]);
        assert_eq!(*environments.of(&latest).unwrap(), [CString::from(c"A=2")]);
        for id in [1, 3] {
            let other = start(Base::Kept(id), &[]);
            assert_eq!(environments.of(&other), Err(Errno::NOMEM));
        }
    }

    #[test]
    fn an_environment_that_could_not_be_read_is_the_latest_and_gives_its_error() {
        let mut environments = Environments::new();
        environments.keep(1, &bytes(&["A=1"]));
        environments.could_not_read(2, Errno::MFILE);
        environments.could_not_read(3, Errno::IO);
        for (id, error) in [(3, Errno::IO), (2, Errno::NOMEM), (1, Errno::NOMEM)] {
            let start = start(Base::Kept(id), &[]);
            assert_eq!(environments.of(&start), Err(error));
        }
    }

    #[test]
    fn without_a_path_the_default_is_searched() {
        assert_eq!(path_of(&[c"XPATH=/x".into()]), DEFAULT_PATH);
        assert_eq!(path_of(&[c"PATH=/x".into()]), b"/x");
    }
}
