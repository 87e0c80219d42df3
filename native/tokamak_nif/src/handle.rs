// SPDX-License-Identifier: Apache-2.0
//! Handles: resource objects that hold an `Arc`, of types that this library opens itself.
//!
//! rustler looks the type of a resource up in a hash map at each decoding, and has no `stop` callback.

use rustler::sys::{
    ErlNifEnv, ErlNifEvent, ErlNifResourceDtor, ErlNifResourceFlags, ErlNifResourceStop,
    ErlNifResourceType, ErlNifResourceTypeInit, c_int, c_void, enif_alloc_resource,
    enif_get_resource, enif_init_resource_type, enif_make_resource, enif_release_resource,
};
use rustler::{Env, Term};
use std::ffi::CStr;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

/// What a handle stands for. The callbacks run on any thread of the VM's.
pub trait Handled: Send + Sync + 'static {
    /// Whether objects of this type are selected, see `enif_select`.
    const IS_SELECTED: bool = false;

    /// The object was made: the VM knows what it stands for by this address.
    fn has_object(&self, _object: *mut c_void) {}

    /// The last reference to the object is gone.
    fn is_forgotten(&self) {}

    /// The VM has stopped to select.
    fn is_stopped(&self) {}
}

/// A resource type.
pub struct HandleType<T> {
    raw: AtomicPtr<ErlNifResourceType>,
    holds: PhantomData<fn() -> T>,
}

impl<T: Handled> HandleType<T> {
    pub const fn new() -> Self {
        Self {
            raw: AtomicPtr::new(ptr::null_mut()),
            holds: PhantomData,
        }
    }

    /// Opens the type; to be called from `load`.
    pub fn open(&self, env: Env, name: &CStr) -> bool {
        let stop = stopped::<T> as *const ErlNifResourceStop;
        let init = ErlNifResourceTypeInit {
            dtor: forgotten::<T> as *const ErlNifResourceDtor,
            stop: if T::IS_SELECTED { stop } else { ptr::null() },
            down: ptr::null(),
            members: 2,
            dyncall: ptr::null(),
        };
        let mut tried = MaybeUninit::uninit();
        // SAFETY: `env` is load's; the callbacks have the types they stand for.
        let resource_type = unsafe {
            enif_init_resource_type(
                env.as_c_arg(),
                name.as_ptr(),
                &init,
                ErlNifResourceFlags::ERL_NIF_RT_CREATE,
                tried.as_mut_ptr(),
            )
        };
        self.raw.store(resource_type.cast_mut(), Ordering::Release);
        !resource_type.is_null()
    }

    /// Makes an object, and a handle that refers to it.
    pub fn make<'a>(&self, env: Env<'a>, value: Arc<T>) -> Term<'a> {
        // SAFETY: the type was opened by load. The object is written before anyone can see it; the
        // VM aligns it for any C type, so for a pointer. Releasing leaves the handle's reference.
        unsafe {
            let object = enif_alloc_resource(self.raw.load(Ordering::Acquire), size_of::<Arc<T>>());
            value.has_object(object);
            ptr::write(object.cast::<Arc<T>>(), value);
            let term = Term::new(env, enif_make_resource(env.as_c_arg(), object));
            enif_release_resource(object);
            term
        }
    }

    /// What a term stands for, if it is a handle of this type.
    pub fn get<'a>(&self, term: Term<'a>) -> Option<&'a Arc<T>> {
        let mut object = MaybeUninit::<*const c_void>::uninit();
        // SAFETY: on success the object is one that `make` wrote, and the term keeps it alive for as
        // long as the NIF call it is an argument of.
        unsafe {
            let found = enif_get_resource(
                term.get_env().as_c_arg(),
                term.as_c_arg(),
                self.raw.load(Ordering::Acquire),
                object.as_mut_ptr(),
            );
            (found != 0).then(|| &*object.assume_init().cast::<Arc<T>>())
        }
    }
}

unsafe extern "C" fn forgotten<T: Handled>(_env: *mut ErlNifEnv, object: *mut c_void) {
    // SAFETY: the VM calls this once, last, with an object that `make` wrote.
    let value = unsafe { ptr::read(object.cast::<Arc<T>>()) };
    let _ = catch_unwind(AssertUnwindSafe(move || {
        value.is_forgotten();
        drop(value);
    }));
}

unsafe extern "C" fn stopped<T: Handled>(
    _env: *mut ErlNifEnv,
    object: *mut c_void,
    _event: ErlNifEvent,
    _is_direct_call: c_int,
) {
    // SAFETY: the VM holds the object until this returns.
    let value = unsafe { &*object.cast::<Arc<T>>() };
    let _ = catch_unwind(AssertUnwindSafe(|| value.is_stopped()));
}
