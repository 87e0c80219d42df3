// SPDX-License-Identifier: Apache-2.0
//! The glue between the BEAM and tokamak's core.

pub mod environment;
pub mod owners;
pub mod table;
