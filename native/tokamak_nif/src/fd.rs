// SPDX-License-Identifier: Apache-2.0
//! Descriptors and the NIFs of `tokamak_fd`.

use crate::atoms;
use crate::entry;
use crate::select::{self, Selection};
use crate::transfer::{self, MAX_TRANSFER, Mode, Read};
use crate::watch::{Direction, Watch};
use parking_lot::Mutex;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use rustler::{Atom, Binary, Encoder, Env, LocalPid, NewBinary, OwnedBinary, Term};
use std::cell::RefCell;
use std::ffi::CString;
use std::io::IoSlice;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use tokamak::environment::Sender;
use tokamak::list;
use tokamak::owners::{self, Possession, PossessionKey};

entry::nifs! { fd_read: 2, fd_read_and_reselect: 2, fd_reselect: 2, fd_write: 2 }

/// Descriptors that are open.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// The number of descriptors that are open.
pub fn count() -> usize {
    OPEN.load(Ordering::Relaxed)
}

/// A descriptor that belongs to a process.
pub struct Fd {
    this: Weak<Fd>,
    key: PossessionKey,
    file: Mutex<Option<Arc<OwnedFd>>>,
    owner: Mutex<LocalPid>,
    mode: Mode,
    /// It has bytes, not messages or lines: a read that gets less than it asked for emptied it.
    is_stream: bool,
    pub selection: Selection,
    /// The watch of the one loop that watches it.
    pub watch: Mutex<Option<Arc<Watch>>>,
}

impl Fd {
    /// A descriptor of the calling process.
    fn adopt(env: Env, file: OwnedFd, mode: Mode) -> Arc<Self> {
        OPEN.fetch_add(1, Ordering::Relaxed);
        let owner = env.pid();
        let is_stream = is_stream(&file);
        let this = Arc::new_cyclic(|this| Self {
            this: this.clone(),
            key: owners::next_key(),
            file: Mutex::new(Some(Arc::new(file))),
            owner: Mutex::new(owner),
            mode,
            is_stream,
            selection: Selection::new(),
            watch: Mutex::new(None),
        });
        let possession: Weak<Self> = Arc::downgrade(&this);
        // The caller lives, as this is its call.
        owners::own(env, &owner, this.key, possession);
        this
    }

    /// The open file; `None` once closed.
    pub fn file(&self) -> Option<Arc<OwnedFd>> {
        self.file.lock().clone()
    }

    /// Whether events can be had for it: a regular file is always ready.
    pub fn is_pollable(&self) -> bool {
        self.mode != Mode::Regular
    }

    /// Whether a read of at most `max` bytes left nothing.
    fn is_emptied_by(&self, read: &Result<Read, Errno>, max: usize) -> bool {
        match read {
            Ok(Read::Bytes(count)) => self.is_stream && *count < max,
            Ok(Read::Again) => true,
            Ok(Read::EndOfFile) | Err(_) => false,
        }
    }

    /// Whether a write of `total` bytes left no room. On a descriptor whose flags are not ours it may have
    /// been cut short by us.
    fn is_filled_by(&self, written: &Result<Option<usize>, Errno>, total: usize) -> bool {
        match written {
            Ok(Some(written)) => {
                self.is_stream && self.mode == Mode::Nonblocking && *written < total
            }
            Ok(None) => true,
            Err(_) => false,
        }
    }

    fn is_owned_by(&self, env: Env) -> bool {
        *self.owner.lock() == env.pid()
    }

    /// Takes the file out, so that nobody starts a transfer any more, and ends its watch.
    fn take(&self) -> Option<Arc<OwnedFd>> {
        let file = self.file.lock().take()?;
        OPEN.fetch_sub(1, Ordering::Relaxed);
        let watch = self.watch.lock().take();
        if let Some(watch) = watch {
            match watch.event_loop.upgrade() {
                Some(event_loop) => event_loop.end_watch(&watch, &file),
                None => drop(watch.end()),
            }
        }
        Some(file)
    }

    /// Closes it; `false` when it was closed before.
    pub fn close(&self, env: Env) -> bool {
        let Some(file) = self.take() else {
            return false;
        };
        owners::disown(&self.owner.lock(), self.key);
        self.selection.stop(env, file);
        true
    }

    /// The last reference is gone. The VM holds one while the descriptor is selected, so it is not.
    pub fn forgotten(&self) {
        if self.take().is_some() {
            owners::disown(&self.owner.lock(), self.key);
        }
    }
}

impl Possession for Fd {
    fn owner_died(&self) {
        if self.selection.stop_unless_selected() {
            drop(self.take());
        } else if let Some(fd) = self.this.upgrade() {
            // Deselecting is for scheduler threads.
            crate::library::reap(fd);
        }
    }
}

/// What a process may do with a descriptor and what goes wrong, as the NIFs return it.
fn with_file<'a>(
    term: Term<'a>,
    use_file: impl FnOnce(&Arc<Fd>, &OwnedFd) -> Term<'a>,
) -> Term<'a> {
    let env = term.get_env();
    let Some(fd) = select::decode_handle(term) else {
        return atoms::badarg().encode(env);
    };
    match fd.file() {
        Some(file) => use_file(fd, &file),
        None => closed(env),
    }
}

fn error<'a>(env: Env<'a>, reason: Atom) -> Term<'a> {
    (atoms::error(), reason).encode(env)
}

fn closed(env: Env) -> Term {
    error(env, atoms::closed())
}

fn opened<'a>(env: Env<'a>, result: Result<(OwnedFd, Mode), Errno>) -> Term<'a> {
    match result {
        Ok((file, mode)) => {
            let handle = select::HANDLES.make(env, Fd::adopt(env, file, mode));
            (atoms::ok(), handle).encode(env)
        }
        Err(errno) => error(env, atoms::errno(errno)),
    }
}

/// The flags that `tokamak_fd:open/2` made of its modes.
#[rustler::nif(schedule = "DirtyIo")]
fn fd_open<'a>(env: Env<'a>, path: Binary<'a>, flags: Term<'a>) -> Term<'a> {
    let Ok(path) = CString::new(path.as_slice()) else {
        return atoms::badarg().encode(env);
    };
    let Some(flags) = list::first::<Atom>(flags, MAX_FLAGS).and_then(|flags| open_flags(&flags))
    else {
        return atoms::badarg().encode(env);
    };
    let permissions = rustix::fs::Mode::from_raw_mode(0o666);
    let file = rustix::fs::open(path, flags, permissions);
    opened(
        env,
        file.and_then(|file| with_mode(file, Mode::Nonblocking)),
    )
}

/// More than there are.
const MAX_FLAGS: usize = 16;

rustler::atoms! { read, write, append, create, truncate, exclusive }

fn open_flags(names: &[Atom]) -> Option<OFlags> {
    let has = |name: Atom| names.contains(&name);
    let mut flags = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    flags |= match (has(read()), has(write())) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        (true, false) => OFlags::RDONLY,
        (false, false) => return None,
    };
    for (name, flag) in [
        (append(), OFlags::APPEND),
        (create(), OFlags::CREATE),
        (truncate(), OFlags::TRUNC),
        (exclusive(), OFlags::EXCL),
    ] {
        if has(name) {
            flags |= flag;
        }
    }
    Some(flags)
}

/// How transfers on a file are kept from blocking, by what it is.
fn with_mode(file: OwnedFd, otherwise: Mode) -> Result<(OwnedFd, Mode), Errno> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
    let mode = match kind {
        FileType::RegularFile | FileType::Directory | FileType::BlockDevice => Mode::Regular,
        FileType::CharacterDevice if !can_be_polled(file.as_fd())? => Mode::Regular,
        _ => otherwise,
    };
    Ok((file, mode))
}

/// Whether a file is a stream of bytes. Datagrams, terminals, inotify and the like give less than was
/// asked for and have more.
fn is_stream(file: &OwnedFd) -> bool {
    let kind = rustix::fs::fstat(file).map(|stat| FileType::from_raw_mode(stat.st_mode));
    match kind {
        Ok(FileType::Fifo) => !has_packets(file),
        Ok(FileType::Socket) => {
            rustix::net::sockopt::socket_type(file) == Ok(rustix::net::SocketType::STREAM)
        }
        _ => false,
    }
}

/// Whether a pipe keeps writes apart, see O_DIRECT in pipe(2).
#[cfg(target_os = "linux")]
fn has_packets(pipe: &OwnedFd) -> bool {
    rustix::fs::fcntl_getfl(pipe).map_or(true, |flags| flags.contains(OFlags::DIRECT))
}

#[cfg(not(target_os = "linux"))]
fn has_packets(_pipe: &OwnedFd) -> bool {
    false
}

/// Whether the kernel has events for a device: /dev/null has none, a terminal has. To ask takes a descriptor for a
/// moment.
#[cfg(target_os = "linux")]
fn can_be_polled(file: BorrowedFd) -> Result<bool, Errno> {
    use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
    let set = epoll::create(CreateFlags::CLOEXEC)?;
    match epoll::add(&set, file, EventData::new_u64(0), EventFlags::IN) {
        Ok(()) => Ok(true),
        Err(Errno::PERM) => Ok(false),
        Err(errno) => Err(errno),
    }
}

#[cfg(not(target_os = "linux"))]
fn can_be_polled(_file: BorrowedFd) -> Result<bool, Errno> {
    Ok(true)
}

#[rustler::nif]
fn fd_pipe<'a>(env: Env<'a>) -> Term<'a> {
    match pipe() {
        Ok((read_end, write_end)) => {
            let read_end = Fd::adopt(env, read_end, Mode::Nonblocking);
            let write_end = Fd::adopt(env, write_end, Mode::Nonblocking);
            let handles = (
                atoms::ok(),
                select::HANDLES.make(env, read_end),
                select::HANDLES.make(env, write_end),
            );
            handles.encode(env)
        }
        Err(errno) => error(env, atoms::errno(errno)),
    }
}

#[cfg(target_os = "linux")]
fn pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    use rustix::pipe::{PipeFlags, pipe_with};
    pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
}

#[cfg(not(target_os = "linux"))]
fn pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (read_end, write_end) = rustix::pipe::pipe()?;
    for end in [&read_end, &write_end] {
        rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC)?;
        rustix::fs::fcntl_setfl(end, OFlags::NONBLOCK)?;
    }
    Ok((read_end, write_end))
}

#[rustler::nif]
fn fd_from_integer<'a>(env: Env<'a>, number: i32) -> Term<'a> {
    let duplicate = select::duplicate(number).and_then(|file| with_mode(file, Mode::PerCall));
    opened(env, duplicate)
}

thread_local! {
    /// What a scheduler reads into, so that a short read does not allocate for a long one.
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 64 * 1024]);
}

/// Reads at most `max` bytes into a binary of `env`; says also whether that emptied the descriptor.
fn read_binary<'a>(env: Env<'a>, fd: &Fd, file: &OwnedFd, max: usize) -> (Outcome<'a>, bool) {
    let max = max.min(MAX_TRANSFER);
    let small = READ_BUFFER.with_borrow_mut(|buffer| {
        let buffer = buffer.get_mut(..max)?;
        let result = transfer::read(file, fd.mode, buffer);
        let emptied = fd.is_emptied_by(&result, max);
        let bytes = |count| NewBinary::from_slice(env, &buffer[..count]).into();
        Some((outcome(result, bytes), emptied))
    });
    small.unwrap_or_else(|| {
        let mut binary = OwnedBinary::new(max);
        let result = transfer::read(file, fd.mode, binary.as_mut_slice());
        let emptied = fd.is_emptied_by(&result, max);
        let bytes = |count| {
            binary.realloc_or_copy(count);
            binary.release(env).encode(env)
        };
        (outcome(result, bytes), emptied)
    })
}

enum Outcome<'a> {
    Bytes(Term<'a>),
    Again,
    EndOfFile,
    Error(Errno),
}

fn outcome<'a>(result: Result<Read, Errno>, bytes: impl FnOnce(usize) -> Term<'a>) -> Outcome<'a> {
    match result {
        Ok(Read::Bytes(count)) => Outcome::Bytes(bytes(count)),
        Ok(Read::Again) => Outcome::Again,
        Ok(Read::EndOfFile) => Outcome::EndOfFile,
        Err(errno) => Outcome::Error(errno),
    }
}

fn encode_outcome<'a>(env: Env<'a>, outcome: Outcome<'a>, id: Option<u64>) -> Term<'a> {
    match (outcome, id) {
        (Outcome::Bytes(bytes), None) => (atoms::ok(), bytes).encode(env),
        (Outcome::Bytes(bytes), Some(id)) => (atoms::ok(), id, bytes).encode(env),
        (Outcome::Again, _) => atoms::again().encode(env),
        (Outcome::EndOfFile, _) => atoms::eof().encode(env),
        (Outcome::Error(errno), _) => error(env, atoms::errno(errno)),
    }
}

fn read_file<'a>(env: Env<'a>, fd: &Fd, file: &OwnedFd, max: usize) -> Term<'a> {
    let watch = fd.watch.lock().clone();
    let transfer = watch
        .as_ref()
        .map(|watch| watch.with(Direction::Read, |state| state.before_transfer()));
    let (outcome, emptied) = read_binary(env, fd, file, max);
    if let Some((watch, transfer)) = watch.zip(transfer) {
        watch.after_transfer(Sender::Process(env), Direction::Read, transfer, emptied);
    }
    encode_outcome(env, outcome, None)
}

fn fd_read<'a>(env: Env<'a>, [handle, max]: [Term<'a>; 2]) -> Term<'a> {
    let Ok(max) = max.decode::<usize>() else {
        return atoms::badarg().encode(env);
    };
    with_file(handle, |fd, file| match fd.mode {
        // The disk may take its time: tokamak_fd calls fd_read_file.
        Mode::Regular => atoms::regular().encode(env),
        _ => read_file(env, fd, file, max),
    })
}

#[rustler::nif(schedule = "DirtyIo")]
fn fd_read_file<'a>(env: Env<'a>, handle: Term<'a>, max: usize) -> Term<'a> {
    with_file(handle, |fd, file| read_file(env, fd, file, max))
}

fn fd_read_and_reselect<'a>(env: Env<'a>, [handle, max]: [Term<'a>; 2]) -> Term<'a> {
    let Ok(max) = max.decode::<usize>() else {
        return atoms::badarg().encode(env);
    };
    with_file(handle, |fd, file| {
        let watch = fd.watch.lock().clone();
        let watched = watch.and_then(|watch| {
            let (id, transfer) = watch.with(Direction::Read, |state| {
                let transfer = state.before_transfer();
                state.is_watched().then(|| (state.callback_id(), transfer))
            })?;
            Some((watch, id, transfer))
        });
        let Some((watch, id, transfer)) = watched else {
            return error(env, atoms::not_watched());
        };
        let (outcome, emptied) = read_binary(env, fd, file, max);
        watch.with(Direction::Read, |state| {
            state.after_transfer(transfer, emptied)
        });
        watch.come_back(Sender::Process(env), Direction::Read);
        encode_outcome(env, outcome, Some(id))
    })
}

fn fd_reselect<'a>(env: Env<'a>, [handle, direction]: [Term<'a>; 2]) -> Term<'a> {
    with_file(handle, |fd, _file| {
        let watch = fd.watch.lock().clone();
        let id = term_to_direction(direction)
            .zip(watch)
            .and_then(|(direction, watch)| watch.reselect(Sender::Process(env), direction));
        match id {
            Some(id) => (atoms::ok(), id).encode(env),
            None => error(env, atoms::not_watched()),
        }
    })
}

/// The direction a term names.
pub fn term_to_direction(term: Term) -> Option<Direction> {
    term.decode().ok().and_then(to_direction)
}

/// The direction an atom names.
pub fn to_direction(atom: Atom) -> Option<Direction> {
    if atom == atoms::read() {
        Some(Direction::Read)
    } else if atom == atoms::write() {
        Some(Direction::Write)
    } else {
        None
    }
}

fn write_file<'a>(env: Env<'a>, fd: &Fd, file: &OwnedFd, data: Term<'a>) -> Term<'a> {
    let Some(binaries) = binaries(data) else {
        return atoms::badarg().encode(env);
    };
    let (slices, total) = slices(&binaries);
    let watch = fd.watch.lock().clone();
    let transfer = watch
        .as_ref()
        .map(|watch| watch.with(Direction::Write, |state| state.before_transfer()));
    let result = transfer::write(file, fd.mode, &slices);
    if let Some((watch, transfer)) = watch.zip(transfer) {
        let filled = fd.is_filled_by(&result, total);
        watch.after_transfer(Sender::Process(env), Direction::Write, transfer, filled);
    }
    match result {
        Ok(Some(written)) => (atoms::ok(), written).encode(env),
        Ok(None) => atoms::again().encode(env),
        Err(errno) => error(env, atoms::errno(errno)),
    }
}

/// A binary, or the list of binaries that `tokamak_fd` made of iodata.
pub fn binaries(data: Term) -> Option<Vec<Binary>> {
    if let Ok(binary) = Binary::from_term(data) {
        return Some(vec![binary]);
    }
    list::first(data, MAX_BUFFERS)
}

/// What writev(2) takes at once.
const MAX_BUFFERS: usize = 1024;

/// What one call writes of them, and how much that is.
pub fn slices<'a>(binaries: &[Binary<'a>]) -> (Vec<IoSlice<'a>>, usize) {
    let mut left = MAX_TRANSFER;
    let mut slices = Vec::with_capacity(binaries.len());
    for binary in binaries {
        let part = &binary.as_slice()[..binary.len().min(left)];
        left -= part.len();
        slices.push(IoSlice::new(part));
        if left == 0 {
            break;
        }
    }
    (slices, MAX_TRANSFER - left)
}

fn fd_write<'a>(env: Env<'a>, [handle, data]: [Term<'a>; 2]) -> Term<'a> {
    with_file(handle, |fd, file| match fd.mode {
        Mode::Regular => atoms::regular().encode(env),
        _ => write_file(env, fd, file, data),
    })
}

#[rustler::nif(schedule = "DirtyIo")]
fn fd_write_file<'a>(env: Env<'a>, handle: Term<'a>, data: Term<'a>) -> Term<'a> {
    with_file(handle, |fd, file| write_file(env, fd, file, data))
}

#[rustler::nif]
fn fd_close<'a>(env: Env<'a>, handle: Term<'a>) -> Term<'a> {
    with_file(handle, |fd, _file| match fd.mode {
        Mode::Regular => atoms::regular().encode(env),
        _ => close_own(env, fd),
    })
}

/// To close a file may take as long as to write or remove what it holds.
#[rustler::nif(schedule = "DirtyIo")]
fn fd_close_file<'a>(env: Env<'a>, handle: Term<'a>) -> Term<'a> {
    with_file(handle, |fd, _file| close_own(env, fd))
}

fn close_own<'a>(env: Env<'a>, fd: &Fd) -> Term<'a> {
    if !fd.is_owned_by(env) {
        return atoms::not_owner().encode(env);
    }
    match fd.close(env) {
        true => atoms::ok().encode(env),
        false => closed(env),
    }
}

#[rustler::nif]
fn fd_controlling_process<'a>(env: Env<'a>, handle: Term<'a>, pid: LocalPid) -> Term<'a> {
    with_file(handle, |fd, _file| {
        if !fd.is_owned_by(env) {
            return atoms::not_owner().encode(env);
        }
        let possession: Weak<Fd> = Arc::downgrade(fd);
        if !owners::own(env, &pid, fd.key, possession) {
            return error(env, atoms::no_process());
        }
        let previous = std::mem::replace(&mut *fd.owner.lock(), pid);
        if previous != pid {
            owners::disown(&previous, fd.key);
        }
        atoms::ok().encode(env)
    })
}
