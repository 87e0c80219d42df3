// SPDX-License-Identifier: Apache-2.0
//! Panics of user code, turned into values.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// What a panic said.
#[must_use]
pub fn text(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without text".to_owned()
    }
}

/// Calls a function.
///
/// # Errors
/// The text of the panic, when it panicked.
#[inline]
pub fn catch<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    // Callers use nothing of it afterwards, so no broken state is observed.
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| text(&*payload))
}

/// Runs a future to its end.
///
/// # Errors
/// The text of the panic, when polling it panicked.
pub async fn catch_future<F: Future>(future: F) -> Result<F::Output, String> {
    // A future that panicked is not polled again, only dropped, so no broken state is observed.
    let mut future = pin!(future);
    poll_fn(|context| match catch(|| future.as_mut().poll(context)) {
        Ok(polled) => polled.map(Ok),
        Err(text) => Poll::Ready(Err(text)),
    })
    .await
}
