// SPDX-License-Identifier: Apache-2.0
//! The asynchronous call that NIF authors write by hand: a tokio runtime in a static, a spawn, and a
//! message from an environment of its own.

use rustler::{Encoder, Env, LocalPid, OwnedEnv, Reference, Term};
use std::sync::OnceLock;
use tokio::runtime::Runtime;

rustler::atoms! { hand_written, ok }

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

fn runtime() -> &'static Runtime {
    RUNTIME.get_or_init(|| Runtime::new().expect("a runtime can be made"))
}

/// Sends `{hand_written, Reference, {ok, Number}}` from the runtime, after an await.
#[rustler::nif]
fn hand_written_call<'a>(env: Env<'a>, reference: Reference<'a>, number: i64) -> rustler::Atom {
    let pid: LocalPid = env.pid();
    let message_env = OwnedEnv::new();
    let reference = message_env.save(Term::from(reference));
    runtime().spawn(async move {
        let number = operation(number).await;
        let mut message_env = message_env;
        let _ = message_env.send_and_clear(&pid, |env| {
            (hand_written(), reference.load(env), (ok(), number)).encode(env)
        });
    });
    ok()
}

/// What both the hand-written call and tokamak's run.
async fn operation(number: i64) -> i64 {
    number
}
