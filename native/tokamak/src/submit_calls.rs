// SPDX-License-Identifier: Apache-2.0
//! The NIF of submitted calls, as a function for `tokamak::nif!`.

use crate::atoms;
use crate::calls::{NotMade, callable, launch, running, start};
use crate::context::LazyCtx;
use crate::operation::{BadArgument, Entry, Started};
use crate::runtime::{Admission, Runtime};
use crate::submit::{self, LoopPort, LoopSink, NoPlace};
use crate::task::{ReplyTo, Task};
use rustler::{Atom, Encoder, Env, Term};
use std::sync::Arc;

/// Starts calls whose results are events of a loop: all of them, or none.
pub fn submit<'a>(env: Env<'a>, event_loop: Term<'a>, calls: Term<'a>) -> Term<'a> {
    let (Some(port), Ok(calls)) = (
        submit::find_loop(event_loop),
        calls.decode::<Vec<(u64, Atom, Term<'a>)>>(),
    ) else {
        return atoms::badarg().encode(env);
    };
    match try_submit(env, &port, calls) {
        Ok(()) => atoms::ok().encode(env),
        Err(NotMade::BadArgument(wrong)) => (atoms::error(), wrong).encode(env),
        Err(not) => not.encode(env),
    }
}

type Ready = (u64, Arc<Task>, &'static Entry, Started);

fn try_submit<'a>(
    env: Env<'a>,
    port: &Arc<dyn LoopPort>,
    calls: Vec<(u64, Atom, Term<'a>)>,
) -> Result<(), NotMade> {
    let runtime = running()?;
    let count = calls.len();
    port.reserve(count).map_err(|no_place| match no_place {
        NoPlace::Overloaded => NotMade::Refused(crate::runtime::Refusal::Overloaded),
        NoPlace::Closed => NotMade::Closed,
    })?;
    let mut ready: Vec<Ready> = Vec::with_capacity(count);
    for (id, name, args) in calls {
        match prepare(env, &runtime, name, args) {
            Ok((task, entry, started)) => ready.push((id, task, entry, started)),
            Err(not) => {
                port.unreserve(count);
                for (_, task, ..) in ready {
                    task.end_here();
                }
                return Err(not);
            }
        }
    }
    for (id, task, entry, started) in ready {
        task.set_sink(LoopSink::new(Arc::clone(port), id, Arc::downgrade(&task)));
        launch(&task, entry, started);
    }
    Ok(())
}

type Prepared = (Arc<Task>, &'static Entry, Started);

fn prepare<'a>(
    env: Env<'a>,
    runtime: &Arc<Runtime>,
    name: Atom,
    args: Term<'a>,
) -> Result<Prepared, NotMade> {
    let entry = callable(name)?;
    let admission: Admission = runtime.admit(1)?;
    let task = Task::new(env, env.pid(), false, admission, ReplyTo::Nobody);
    let started: Result<Started, BadArgument> = start(env, entry, args, &LazyCtx::of(&task));
    match started {
        Ok(started) => Ok((task, entry, started)),
        Err(wrong) => {
            task.end_here();
            Err(wrong.into())
        }
    }
}
