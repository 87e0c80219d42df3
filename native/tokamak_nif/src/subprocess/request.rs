// SPDX-License-Identifier: Apache-2.0
//! What `tokamak_subprocess` asks the spawner for, out of terms.

use crate::atoms;
use rustler::types::tuple::get_tuple;
use rustler::{Atom, Binary, Term};
use std::os::unix::ffi::OsStrExt;
use tokamak::list::List;
use tokamak_spawner::protocol::{Base, EnvironmentChange, Input, Output, StartRequest};

/// `{Argv, Base, Changes, Directory, Stdin, Stdout, Stderr, KillTimeout}`, and the base environment: each variable as
/// `NAME=value` and a zero byte, or nothing for an empty one. `None`: these are other terms.
pub fn decode(term: Term<'_>, id: u64) -> Option<(StartRequest, Option<Binary<'_>>)> {
    let parts = get_tuple(term).ok()?;
    let [
        argv,
        base,
        changes,
        directory,
        stdin,
        stdout,
        stderr,
        kill_timeout,
    ] = parts[..]
    else {
        return None;
    };
    let request = StartRequest {
        id,
        argv: list(argv, bytes)?,
        base: Base::Empty,
        environment: list(changes, variable)?,
        directory: directory_from(directory),
        stdin: match stdin.decode::<Atom>().ok()? == atoms::pipe() {
            true => Input::Pipe,
            false => Input::Null,
        },
        stdout: output(stdout)?,
        stderr: output(stderr)?,
        kill_timeout: kill_timeout.decode().ok()?,
    };
    let base = match base.is_atom() {
        true => None,
        false => Some(Binary::from_term(base).ok()?),
    };
    Some((request, base))
}

fn list<T>(term: Term, item: fn(Term) -> Option<T>) -> Option<Vec<T>> {
    let List(items): List<Term> = term.decode().ok()?;
    items.into_iter().map(item).collect()
}

fn bytes(term: Term) -> Option<Vec<u8>> {
    Some(Binary::from_term(term).ok()?.as_slice().to_vec())
}

/// `{Name, Value | false}`.
fn variable(term: Term) -> Option<EnvironmentChange> {
    let (name, value): (Term, Term) = term.decode().ok()?;
    Some(EnvironmentChange {
        name: bytes(name)?,
        value: bytes(value),
    })
}

/// Where the VM is now, which the spawner does not know; a relative directory starts there. Where the VM's
/// own directory is gone, the child starts in the spawner's.
fn directory_from(term: Term) -> Option<Vec<u8>> {
    let current = std::env::current_dir();
    let directory = match Binary::from_term(term) {
        Ok(path) => {
            let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path.as_slice()));
            current.map_or_else(|_| path.to_owned(), |current| current.join(path))
        }
        Err(_) => current.ok()?,
    };
    Some(directory.into_os_string().into_encoded_bytes())
}

fn output(term: Term) -> Option<Output> {
    if let Ok(atom) = term.decode::<Atom>() {
        return match atom {
            _ if atom == atoms::stream() => Some(Output::Stream),
            _ if atom == atoms::merge() => Some(Output::Merge),
            _ if atom == atoms::null() => Some(Output::Null),
            _ => None,
        };
    }
    let (_file, path): (Atom, Term) = term.decode().ok()?;
    Some(Output::File(bytes(path)?))
}
