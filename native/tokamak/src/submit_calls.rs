// SPDX-License-Identifier: Apache-2.0
//! The NIF of submitted calls, as a function for `tokamak::nif!`.

use crate::atoms;
use crate::batch::{Batch, Part};
use crate::calls::{NotMade, batch_entry, callable, running, start};
use crate::context::LazyCtx;
use crate::latency::{self, Label};
use crate::list::List;
use crate::reply::Reply;
use crate::runtime::{Admission, Refusal, Runtime};
use crate::submit::{self, LoopPort, LoopSink, NoPlace, Place, Pusher};
use crate::task::{ReplyTo, Task};
use rustler::{Atom, Encoder, Env, Term};
use std::sync::Arc;

/// Starts calls whose results are events of a loop: all of them, or none.
pub fn submit<'a>(env: Env<'a>, event_loop: Term<'a>, calls: Term<'a>) -> Term<'a> {
    let (Some(port), Ok(List(calls))) = (
        submit::find_loop(event_loop),
        calls.decode::<List<(u64, Atom, Term<'a>)>>(),
    ) else {
        return atoms::badarg().encode(env);
    };
    match try_submit(env, &port, calls) {
        Ok(()) => atoms::ok().encode(env),
        Err(NotMade::BadArgument(wrong)) => (atoms::error(), wrong).encode(env),
        Err(not) => not.encode(env),
    }
}

fn try_submit<'a>(
    env: Env<'a>,
    port: &Arc<dyn LoopPort>,
    calls: Vec<(u64, Atom, Term<'a>)>,
) -> Result<(), NotMade> {
    let runtime = running()?;
    let count = calls.len();
    let admissions = runtime.admit(u32::try_from(count).unwrap_or(u32::MAX))?;
    let batch = runtime.admit_batch()?;
    let task = Task::new(env, env.pid(), false, batch, ReplyTo::Nobody);
    let parts = prepare(env, calls, &task).inspect_err(|_| task.end_here())?;
    if let Err(no_place) = port.reserve(count) {
        task.end_here();
        return Err(match no_place {
            NoPlace::Overloaded => NotMade::Refused(Refusal::Overloaded),
            NoPlace::Closed => NotMade::Closed,
        });
    }
    let alone = parts.first().map(|(id, _)| *id).filter(|_| count == 1);
    let pusher = Pusher::new(Arc::clone(port), count);
    let parts = parts
        .into_iter()
        .map(|(id, part)| (pusher.place(id), part))
        .collect();
    let sink = LoopSink::new(Arc::clone(port), Arc::downgrade(&task), alone);
    task.set_sink(sink);
    latency::count_parts(count);
    task.spawn_as(
        Label::Submit,
        batch_entry(),
        Box::pin(run(runtime, parts, pusher, admissions)),
    );
    Ok(())
}

/// Runs the calls and waits for their ends, so that the task that is tied to the loop is theirs.
async fn run(
    runtime: Arc<Runtime>,
    parts: Vec<(Place, Part)>,
    mut pusher: Pusher,
    mut admissions: Admission,
) -> Reply {
    let mut batch = Batch::new(runtime);
    for (place, part) in parts {
        batch.run(part, admissions.split_one(), move |reply| place.fill(reply));
        if batch.is_out_of_breath() {
            pusher.push();
            batch.breathe().await;
        }
    }
    // A part that was aborted has no end of its own, but then this future is dropped, too.
    pusher.push_all().await;
    Ok(Box::new(atoms::ok()))
}

fn prepare<'a>(
    env: Env<'a>,
    calls: Vec<(u64, Atom, Term<'a>)>,
    task: &Arc<Task>,
) -> Result<Vec<(u64, Part)>, NotMade> {
    calls
        .into_iter()
        .map(|(id, name, args)| {
            let entry = callable(name)?;
            Ok((
                id,
                (entry, start(env, entry, args, &LazyCtx::of_part(task))?),
            ))
        })
        .collect()
}
