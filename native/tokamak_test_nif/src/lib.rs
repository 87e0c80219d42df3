// SPDX-License-Identifier: Apache-2.0
//! What the tests need from outside of the VM: threads that push events through the C table,
//! and descriptors that belong to nobody in Erlang.

mod descriptors;
mod operations;
mod producers;
mod storm;

rustler::init!("tokamak_test_nif");
