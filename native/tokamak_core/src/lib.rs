// SPDX-License-Identifier: Apache-2.0
//! The parts of tokamak that know no BEAM.
//!
//! Data flows one way: a source ([`timers`], the [`reactor`], any thread) pushes an [`event`] into a
//! [`queue`], whose one wake brings the consumer that drains it.

pub mod busy_poll;
pub mod event;
pub mod event_id;
pub mod histogram;
pub mod limiter;
pub mod panic;
pub mod pool;
pub mod queue;
#[cfg(target_os = "linux")]
pub mod reactor;
pub mod readiness;
pub mod sharded;
pub mod stream_hub;
mod sync;
pub mod task_state;
pub mod threads;
pub mod timer_wheel;
pub mod timers;
pub mod word_hasher;
