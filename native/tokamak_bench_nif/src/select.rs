// SPDX-License-Identifier: Apache-2.0
//! Baseline: descriptors watched with enif_select by hand. The consumer gets a message for each
//! event, asks for the callback id, reads and selects again: in separate calls, or in one.

use crate::atoms::{again, badarg, closed, error, ok, undefined};
use crate::pipes::Pipes;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::io::Errno;
use rustler::sys::{
    ERL_NIF_SELECT_READ, ERL_NIF_SELECT_STOP, ErlNifEnv, ErlNifEvent, ErlNifResourceDtor,
    ErlNifResourceFlags, ErlNifResourceStop, ErlNifResourceType, ErlNifResourceTypeInit,
    ErlNifSelectFlags, c_int, c_void, enif_alloc_resource, enif_get_resource,
    enif_init_resource_type, enif_make_resource, enif_release_resource, enif_select,
};
use rustler::{Encoder, Env, NewBinary, ResourceArc, Term};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, Ordering};

/// What one read takes at most.
const BUFFER: usize = 64;

static RESOURCE_TYPE: AtomicPtr<ErlNifResourceType> = AtomicPtr::new(ptr::null_mut());

struct Reader {
    callback_id: u64,
    /// `None` once stopped.
    file: Mutex<Option<OwnedFd>>,
}

/// Opens the resource type; to be called from `load`.
pub fn open_resource_type(env: Env) -> bool {
    let init = ErlNifResourceTypeInit {
        dtor: destructor as *const ErlNifResourceDtor,
        stop: stopped as *const ErlNifResourceStop,
        down: ptr::null(),
        members: 2,
        dyncall: ptr::null(),
    };
    let mut tried = MaybeUninit::uninit();
    // SAFETY: `env` is load's; the name ends with NUL; the callbacks have the types they stand for.
    let resource_type = unsafe {
        enif_init_resource_type(
            env.as_c_arg(),
            c"tokamak_bench_reader".as_ptr(),
            &init,
            ErlNifResourceFlags::ERL_NIF_RT_CREATE,
            tried.as_mut_ptr(),
        )
    };
    RESOURCE_TYPE.store(resource_type.cast_mut(), Ordering::Release);
    !resource_type.is_null()
}

fn make_handle<'a>(env: Env<'a>, reader: Reader) -> Term<'a> {
    // SAFETY: the type was opened by load, and the object is written before anyone can see it.
    unsafe {
        let object =
            enif_alloc_resource(RESOURCE_TYPE.load(Ordering::Acquire), size_of::<Reader>());
        ptr::write(object.cast::<Reader>(), reader);
        let term = Term::new(env, enif_make_resource(env.as_c_arg(), object));
        enif_release_resource(object);
        term
    }
}

fn object(handle: Term) -> Option<*mut c_void> {
    let mut object = MaybeUninit::<*const c_void>::uninit();
    // SAFETY: on success the object is one of our type.
    unsafe {
        let found = enif_get_resource(
            handle.get_env().as_c_arg(),
            handle.as_c_arg(),
            RESOURCE_TYPE.load(Ordering::Acquire),
            object.as_mut_ptr(),
        );
        (found != 0).then(|| object.assume_init().cast_mut())
    }
}

fn with_reader<'a>(
    handle: Term<'a>,
    run: impl FnOnce(&Reader, *mut c_void) -> Term<'a>,
) -> Term<'a> {
    let env = handle.get_env();
    match object(handle) {
        // SAFETY: `make_handle` wrote a Reader there, and the handle keeps it.
        Some(object) => run(unsafe { &*object.cast::<Reader>() }, object),
        None => badarg().encode(env),
    }
}

fn select(env: Env, reader: &Reader, object: *mut c_void, mode: ErlNifSelectFlags) -> bool {
    let number = match reader.file.lock() {
        Ok(file) => match file.as_ref() {
            Some(file) => file.as_raw_fd(),
            None => return false,
        },
        Err(_) => return false,
    };
    let reference = undefined().encode(env).as_c_arg();
    // SAFETY: the object lives, as a handle of it is an argument of the running call; the descriptor
    // is closed in the stop callback only. A null pid is the calling process.
    let result =
        unsafe { enif_select(env.as_c_arg(), number, mode, object, ptr::null(), reference) };
    result >= 0
}

/// Takes the ends to be read; their callback ids are 1, 2 and so on.
#[rustler::nif(schedule = "DirtyIo")]
fn select_open<'a>(env: Env<'a>, pipes: ResourceArc<Pipes>) -> Vec<Term<'a>> {
    let readers = pipes.take_readers().into_iter().zip(1..);
    readers
        .map(|(file, callback_id)| {
            let file = Mutex::new(Some(file));
            make_handle(env, Reader { callback_id, file })
        })
        .collect()
}

/// Separate call 1: whom is it for?
#[rustler::nif]
fn select_callback_id<'a>(env: Env<'a>, handle: Term<'a>) -> Term<'a> {
    with_reader(handle, |reader, _| reader.callback_id.encode(env))
}

/// Separate call 2: the data.
#[rustler::nif]
fn select_read<'a>(env: Env<'a>, handle: Term<'a>, max: usize) -> Term<'a> {
    with_reader(handle, |reader, _| match read(env, reader, max) {
        Ok(bytes) => (ok(), bytes).encode(env),
        Err(Errno::AGAIN) => again().encode(env),
        Err(_) => (error(), closed()).encode(env),
    })
}

/// Separate call 3: the next event, please.
#[rustler::nif]
fn select_again<'a>(env: Env<'a>, handle: Term<'a>) -> Term<'a> {
    with_reader(handle, |reader, object| {
        select(env, reader, object, ERL_NIF_SELECT_READ);
        ok().encode(env)
    })
}

/// The same three in one call.
#[rustler::nif]
fn select_read_and_again<'a>(env: Env<'a>, handle: Term<'a>, max: usize) -> Term<'a> {
    with_reader(handle, |reader, object| {
        let result = read(env, reader, max);
        select(env, reader, object, ERL_NIF_SELECT_READ);
        match result {
            Ok(bytes) => (ok(), reader.callback_id, bytes).encode(env),
            Err(Errno::AGAIN) => again().encode(env),
            Err(_) => (error(), closed()).encode(env),
        }
    })
}

/// Ends the watch and closes the descriptor.
#[rustler::nif]
fn select_stop<'a>(env: Env<'a>, handle: Term<'a>) -> Term<'a> {
    with_reader(handle, |reader, object| {
        select(env, reader, object, ERL_NIF_SELECT_STOP);
        ok().encode(env)
    })
}

fn read<'a>(env: Env<'a>, reader: &Reader, max: usize) -> Result<Term<'a>, Errno> {
    let mut buffer = [0; BUFFER];
    let file = reader.file.lock().map_err(|_| Errno::BADF)?;
    let file = file.as_ref().ok_or(Errno::BADF)?;
    let count = rustix::io::read(file, &mut buffer[..max.min(BUFFER)])?;
    Ok(NewBinary::from_slice(env, &buffer[..count]).into())
}

unsafe extern "C" fn destructor(_env: *mut ErlNifEnv, object: *mut c_void) {
    // SAFETY: the VM calls this once, last, with an object that `make_handle` wrote.
    drop(unsafe { ptr::read(object.cast::<Reader>()) });
}

unsafe extern "C" fn stopped(
    _env: *mut ErlNifEnv,
    object: *mut c_void,
    _event: ErlNifEvent,
    _is_direct_call: c_int,
) {
    // SAFETY: the VM holds the object until this returns.
    let reader = unsafe { &*object.cast::<Reader>() };
    if let Ok(mut file) = reader.file.lock() {
        *file = None;
    }
}
