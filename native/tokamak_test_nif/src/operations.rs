// SPDX-License-Identifier: Apache-2.0
//! Operations of one name, as no engine may have them: this library is none.

/// One of two.
#[tokamak::op]
async fn found_twice() {}

/// The other one.
#[tokamak::op(eager, name = "found_twice")]
async fn found_again() {}

/// The name that two operations have.
#[rustler::nif]
fn name_of_two() -> Option<&'static str> {
    tokamak::operation::name_of_two()
}
